# SPDX-License-Identifier: Apache-2.0
"""
What a callback leads to: the record is read, Airflow is told what it says, and the ledger is settled.

The work for a job goes on when the answer to its callback is due, and further callbacks about it wait for the same
work. So KIE's repetition finds it done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from airflow_provider_kie.api.callback import Callback
from airflow_provider_kie.api.families import FAMILIES
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.job import KieJob, read_job
from airflow_provider_kie.callbacks.airflow_api import AirflowApi
from airflow_provider_kie.callbacks.refusal import NotYetError, UnsureError
from airflow_provider_kie.callbacks.settling import Settling
from airflow_provider_kie.callbacks.telling import Telling
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieError, KieJobFailedError, KieWrongTaskError, named
from airflow_provider_kie.hooks.kie_async import KieAsyncHook
from airflow_provider_kie.ledger.storage import open_ledger
from airflow_provider_kie.redaction import redact
from airflow_provider_kie.times import times
from airflow_provider_kie.waiting.verdict import Done, Failed, Judge

__all__ = ["Receiver", "uri_of"]

log = logging.getLogger(__name__)

#: Jobs whose records are read at a time.
READERS: Final = 32
#: Jobs that are worked on at a time; all have to fit into the memory.
MOST_JOBS: Final = 5_000
#: How often an unclear event is looked after without a callback.
MOST_LOOKS: Final = 10


def uri_of(conn_id: str, family: str) -> str:
    """Return the asset of a connection's finished jobs of a family."""
    return f"kie://{conn_id}/{family}"


class Receiver:
    """
    Acts on callbacks whose signature or path was right.

    :param airflow: who is told.
    """

    def __init__(self, airflow: AirflowApi) -> None:
        self._telling = Telling(airflow)
        self._settling = Settling()
        self._readers = asyncio.Semaphore(READERS)
        self._jobs: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()
        #: How often this process has looked by itself after an unclear event.
        self._looks: dict[tuple[str, str], int] = {}

    async def settings(self, conn_id: str) -> KieSettings:
        """
        Look up a connection, at most every few seconds.

        :raises KieError: it is not there, or a field is wrong.
        """
        async with KieAsyncHook.connect(conn_id) as hook:
            return hook.settings

    async def act(self, conn_id: str, kie_task_id: str, callback: Callback) -> None:
        """
        Return once the news of a job is where it belongs; who is cancelled before that does not stop the work.

        :param kie_task_id: the one of the callback's ids that counts.
        :raises NotYetError: not yet.
        """
        if not callback.is_end or not callback.families:
            log.info("%s, %s: no end of a job", conn_id, kie_task_id)
            return
        key = conn_id, kie_task_id
        if key not in self._jobs:
            if len(self._jobs) >= MOST_JOBS:
                raise NotYetError("too many jobs are being dealt with")
            task = self._jobs[key] = asyncio.create_task(self._work(conn_id, kie_task_id, callback))
            task.add_done_callback(lambda done: self._end(key, done, callback))
        await asyncio.shield(self._jobs[key])

    def take_over(self, conn_ids: tuple[str, ...]) -> None:
        """Look in the background after events that a receiver claimed and did not finish, before this one started."""
        for conn_id in conn_ids:
            self._go_on(self._take_over(conn_id))

    async def close(self) -> None:
        """Give up what is not done; what a ledger has claimed is taken over after the next start."""
        for task in (*self._jobs.values(), *self._others):
            task.cancel()
        await asyncio.gather(*self._jobs.values(), *self._others, return_exceptions=True)

    def _end(self, key: tuple[str, str], task: asyncio.Task[None], callback: Callback) -> None:
        del self._jobs[key]
        looks = self._looks.pop(key, None)
        error = None if task.cancelled() else task.exception()  # retrieved, because nobody may be waiting any longer
        # What is in doubt stays so until Airflow and KIE say more.
        in_doubt = isinstance(error, UnsureError) or (looks is not None and isinstance(error, (NotYetError, KieError)))
        if in_doubt and (looks or 0) < MOST_LOOKS:
            self._looks[key] = (looks or 0) + 1
            self._go_on(self._later(*key, callback))

    async def _later(self, conn_id: str, kie_task_id: str, callback: Callback) -> None:
        """Look after an unknown outcome, even if KIE has given up until then; the pauses double, up to three hours."""
        await asyncio.sleep((times().take_over + 1.0) * 2 ** (self._looks.get((conn_id, kie_task_id), 1) - 1))
        await self._try(conn_id, kie_task_id, callback)

    async def _try(self, conn_id: str, kie_task_id: str, callback: Callback) -> None:
        try:
            await self.act(conn_id, kie_task_id, callback)
        except (NotYetError, KieError) as error:
            log.warning("%s, %s: not told: %s", conn_id, kie_task_id, error)

    async def _take_over(self, conn_id: str) -> None:
        try:
            ledger = (await self.settings(conn_id)).ledger
            untold = await asyncio.to_thread(lambda: open_ledger(ledger).untold()) if ledger else []
        except KieError as error:
            log.warning("%s: events that were claimed are not looked after: %s", conn_id, error)
            return
        for claim in untold:
            about = claim.get("identity") or {}
            family, kie_task_id = str(about.get("event")).removeprefix(uri_of(conn_id, "")), about.get("kie_task_id")
            if family in FAMILIES and kie_task_id:
                self._looks.setdefault((conn_id, kie_task_id), 0)
                self._go_on(self._try(conn_id, kie_task_id, Callback((kie_task_id,), (family,))))

    async def _work(self, conn_id: str, kie_task_id: str, callback: Callback) -> None:
        async with KieAsyncHook.connect(conn_id) as hook:
            async with self._readers:
                row, job, succeeded = await _confirm(hook, kie_task_id, callback.families)
            uri = uri_of(conn_id, row.name)
            there = await self._telling.tell(hook.settings.ledger, uri, _news(job, succeeded))
            what = "is finished" if succeeded else "has failed"
            log.info("%s: %s %s; %s", uri, named(row.tag, kie_task_id), what, "told" if there else "no DAG listens")
        if hook.settings.ledger:
            self._go_on(self._settling.settle(hook.settings, row, job))

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)


def _news(job: KieJob, succeeded: bool) -> dict[str, Any]:
    """Return what an event says: no link, and nothing that may be large."""
    return {name: value for name, value in job.items() if name not in ("files", "result")} | {"succeeded": succeeded}


async def _confirm(hook: KieAsyncHook, kie_task_id: str, families: tuple[str, ...]) -> tuple[Family, KieJob, bool]:
    """
    Return the row of a job, its record, and whether it has succeeded.

    :raises NotYetError: KIE does not know it, or does not say that it has ended.
    """
    until = time.monotonic() + times().record_settling
    while True:
        try:
            found = await _find(hook, kie_task_id, families)
        except KieError as error:
            found, reason, may_change = None, redact(str(error)), error.transient
        else:
            reason, may_change = "KIE knows no such job", True
        if found is not None:
            row, job = found
            families = (row.name,)
            end = Judge(row, kie_task_id, hook.settings.conn_id).judge(job, time.monotonic())
            if isinstance(end, Done):
                return row, end.job, True
            if isinstance(end, Failed) and isinstance(end.error, KieJobFailedError):
                return row, job, False
            said = end.error.problem if isinstance(end, Failed) else end.reason
            reason, may_change = (
                f"the record does not say that it has ended: {redact(said)}",
                not isinstance(end, Failed),
            )
        if not may_change or time.monotonic() + times().record_pause > until:
            raise NotYetError(reason)
        await asyncio.sleep(times().record_pause)


async def _find(hook: KieAsyncHook, kie_task_id: str, families: tuple[str, ...]) -> tuple[Family, KieJob] | None:
    """Return the first family that knows the job."""
    for row in (FAMILIES[name] for name in families):
        for each in filter(None, (row, row.also)):
            with suppress(KieWrongTaskError):  # by this path it is a job of another family
                if job := await hook.attempt(read_job(each, kie_task_id)):
                    return row, job
    return None
