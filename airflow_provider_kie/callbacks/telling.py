# SPDX-License-Identifier: Apache-2.0
"""
The news of a job's end, told to Airflow: at least once, and with a ledger exactly once.

Airflow makes an event for each request, so what makes it one is a claim in the ledger, by the same rules as that of a
submit: who claims it tells it, and then writes ``finished``. A claim without that is of unknown outcome. Then Airflow
is asked whether it has the event; if not, and its owner cannot be sending any longer, another one claims it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

from airflow_provider_kie.callbacks.airflow_api import AirflowApi
from airflow_provider_kie.callbacks.refusal import NotYetError, UnsureError
from airflow_provider_kie.exceptions import KieConfigurationError, KieError
from airflow_provider_kie.ledger.chain import Chain
from airflow_provider_kie.ledger.rules import Found
from airflow_provider_kie.ledger.storage import open_ledger
from airflow_provider_kie.times import times

__all__ = ["Telling"]

#: Events that are made at a time. A claim is made only when it is its turn, so that it never gets old in a queue.
AT_A_TIME: Final = 8
#: Jobs that are remembered in this process.
REMEMBERED: Final = 10_000

T = TypeVar("T")


class _Recent(dict[str, T], Generic[T]):
    """A dict that forgets its oldest entries."""

    def __setitem__(self, key: str, value: T) -> None:
        super().__setitem__(key, value)
        if len(self) > REMEMBERED:
            del self[next(iter(self))]


class Telling:
    """
    Tells Airflow that jobs have ended.

    :param airflow: where.
    """

    def __init__(self, airflow: AirflowApi) -> None:
        self._airflow = airflow
        self._turns = asyncio.Semaphore(AT_A_TIME)
        #: Whether the event of a job is there, as far as this process knows; False where an answer was lost.
        self._told: _Recent[bool] = _Recent()
        #: When this process first saw a claim of unknown outcome.
        self._seen: _Recent[float] = _Recent()

    async def tell(self, ledger: str | None, uri: str, extra: Mapping[str, Any]) -> bool:
        """
        Make the event of a job, unless it is there.

        :param ledger: the ledger's folder, if there is one.
        :param extra: what the event says, ``kie_task_id`` among it.
        :return: False if no DAG listens, so that there is no event.
        :raises NotYetError: it could not be made, or is being made.
        """
        kie_task_id = str(extra["kie_task_id"])
        key = f"{uri} {kie_task_id}"
        async with self._turns:
            if self._told.get(key):
                return True
            try:
                if ledger:
                    there = await self._tell_once(ledger, uri, kie_task_id, extra)
                else:
                    unsure = key in self._told and await self._airflow.has_event(uri, kie_task_id)
                    there = unsure or await self._airflow.make_event(uri, extra)
            except UnsureError:
                self._told[key] = False
                raise
            if there:
                self._told[key] = True
            return there

    async def _tell_once(self, ledger: str, uri: str, kie_task_id: str, extra: Mapping[str, Any]) -> bool:
        try:
            chain = await asyncio.to_thread(lambda: open_ledger(ledger).event(uri, kie_task_id))
            found = await asyncio.to_thread(chain.claim, "fail", 0.0)
            if found.kind == "unknown":
                claim = f"{chain.entry} {found.generation}"
                seen = self._seen.setdefault(claim, time.monotonic())
                # Before Airflow is asked, so that it has all that was sent.
                gone = time.monotonic() - seen >= times().take_over
                if await self._airflow.has_event(uri, kie_task_id):
                    return await self._note(chain, found.generation, "finished", kie_task_id)
                if not gone:
                    raise UnsureError("another callback about the same job is being dealt with, or its answer was lost")
                found = await asyncio.to_thread(_take_over, chain, found)
        except KieError as error:
            raise NotYetError(str(error)) from None
        if found.kind == "job":
            return True
        if found.kind != "claimed":
            raise UnsureError("another receiver has claimed the event")
        if chain.is_late:
            await self._note(chain, found.generation, "refused")
            raise UnsureError("the ledger was too slow")
        try:
            async with asyncio.timeout(times().event_within):
                made = await self._airflow.make_event(uri, extra)
        except TimeoutError:
            raise UnsureError(f"the event was not made within {times().event_within:g} seconds") from None
        except UnsureError:
            raise
        except (NotYetError, KieConfigurationError):
            await self._note(chain, found.generation, "refused")
            raise
        await self._note(chain, found.generation, *(("finished", kie_task_id) if made else ("refused",)))
        return made

    @staticmethod
    async def _note(chain: Chain, generation: int, state: str, kie_task_id: str | None = None) -> bool:
        await asyncio.to_thread(chain.note, generation, state, kie_task_id)
        return True


def _take_over(chain: Chain, unknown: Found) -> Found:
    """Claim the generation after one of unknown outcome, unless its owner or another receiver was faster."""
    found = chain.look()
    if (found.kind, found.generation) != ("unknown", unknown.generation):
        return found
    return chain.claim("fail", 0.0, after=found.generation)
