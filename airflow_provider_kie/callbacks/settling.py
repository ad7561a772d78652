# SPDX-License-Identifier: Apache-2.0
"""
A submit of unknown outcome, settled by the end of its job.

The claim in the ledger has no id, because the answer was lost; the job's record repeats its input. If exactly one such
claim has the same identity, was made when the job was, and no other entry has the id, the id is written to it. The task
then goes on with the job, where it would have stopped with ``KieMaybeSubmittedError``.

A claim that has no id yet may still get one. So nothing is compared before every submit that may be meant has ended.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from airflow_provider_kie.api.echo import read_input
from airflow_provider_kie.api.families import FAMILIES
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.job import KieJob
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieError, named
from airflow_provider_kie.hooks.kie_async import KieAsyncHook
from airflow_provider_kie.ledger.chain import longest_submit
from airflow_provider_kie.ledger.settle import adopt
from airflow_provider_kie.ledger.storage import open_ledger
from airflow_provider_kie.money import identity_of
from airflow_provider_kie.redaction import redact
from airflow_provider_kie.times import times

__all__ = ["Settling"]

log = logging.getLogger(__name__)

#: How long after a claim its job may be made, with the difference of KIE's clock and a worker's.
MADE_WITHIN: Final = timedelta(minutes=5)
#: How far a worker's clock may be ahead of KIE's.
AHEAD: Final = timedelta(minutes=1)


class Settling:
    """Settles claims, with one list of a ledger's for many jobs."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._claims: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    async def settle(self, settings: KieSettings, row: Family, job: KieJob) -> None:
        """
        Write the id of an ended job to the claim that it belongs to, if there is exactly one; never raises.

        Takes minutes, see :func:`_longest_submit`.

        :param settings: a connection with a ledger.
        """
        await asyncio.sleep(_longest_submit(settings))
        try:
            claims = [each for each in await self._unsettled(settings) if _may_be(each, settings, row, job)]
            if claims:
                await self._match(settings, row, job, claims)
            log.debug("%s: the ledger is looked through", named(row.tag, job["kie_task_id"]))
        except KieError as error:
            log.warning("%s: the ledger is not settled: %s", named(row.tag, job["kie_task_id"]), redact(str(error)))

    async def _unsettled(self, settings: KieSettings) -> list[dict[str, Any]]:
        url = str(settings.ledger)
        async with self._lock:
            listed, claims = self._claims.get(url, (-math.inf, []))
            if time.monotonic() - listed >= times().claims_reuse:
                claims = await asyncio.to_thread(lambda: open_ledger(url).unsettled())
                self._claims[url] = time.monotonic(), claims
            return claims

    async def _match(self, settings: KieSettings, row: Family, job: KieJob, claims: list[dict[str, Any]]) -> None:
        async with KieAsyncHook.connect(settings.conn_id) as hook:
            given = await hook.attempt(read_input(row, job["kie_task_id"]))
        if given is None:
            return
        same = [each for each in claims if each["identity"] in _identities(settings, row, job, given)]
        if len(same) == 1:
            await asyncio.to_thread(_write, str(settings.ledger), same[0], row, job["kie_task_id"])


def _longest_submit(settings: KieSettings) -> float:
    """Return the seconds after the end of a job in which all submits have ended that may have made it."""
    return max(AHEAD.total_seconds() + longest_submit(settings.timeout), times().claims_reuse)


def _identities(settings: KieSettings, row: Family, job: KieJob, given: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the identities that the job's submit may have had: families with one path are not told apart by it."""
    model = job["model"] if row.wrapped else None
    rows = [each for each in FAMILIES.values() if each.query == row.query]
    return [identity_of(settings.payer, settings.base_url, each, model, given) for each in rows]


def _may_be(claim: Mapping[str, Any], settings: KieSettings, row: Family, job: KieJob) -> bool:
    """Return whether all but the input fits, which has to be read first."""
    identity = claim.get("identity") or {}
    family = FAMILIES.get(str(identity.get("family")))
    if claim.get("pruned") or family is None or family.query != row.query:
        return False
    if (identity.get("account"), identity.get("base_url")) != (settings.payer, settings.base_url):
        return False
    if row.wrapped and identity.get("model") != job["model"]:
        return False
    try:
        claimed, made = datetime.fromisoformat(claim["at"]), datetime.fromisoformat(job["create_time"] or "")
        return -AHEAD < made - claimed < MADE_WITHIN
    except (KeyError, TypeError, ValueError):  # a time without a zone is none that can be compared
        return False


def _write(url: str, claim: Mapping[str, Any], row: Family, kie_task_id: str) -> None:
    ledger = open_ledger(url)
    known = any(body.get("kie_task_id") == kie_task_id for chunk in ledger.chains() for body in chunk)
    found = ledger.entry(claim["entry"]).look()
    if not known and found.kind == "unknown" and found.generation == claim["generation"]:
        adopt(ledger, dict(claim), kie_task_id)
        log.info("%s: the ledger did not know the outcome of its submit; now it does", named(row.tag, kie_task_id))
