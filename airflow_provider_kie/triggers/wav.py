# SPDX-License-Identifier: Apache-2.0
"""The trigger that waits for a WAV conversion, and the event with which it ends."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_kie import waiting
from airflow_provider_kie.exceptions import KieError, KieWaitTimeoutError
from airflow_provider_kie.redaction import harmless
from airflow_provider_kie.waiting import (
    Done,
    Failed,
    Wait,
    coalesced,
    ends_the_search,
    looks_within,
    next_delay,
    timed_out,
)

if TYPE_CHECKING:
    from airflow_provider_kie.api.wav import WavConversion
    from airflow_provider_kie.hooks.kie_async import KieAsyncHook

__all__ = ["ENDED_BY_AIRFLOW", "NO_CANCEL", "WavConversionTrigger", "deferral", "ended_by_airflow", "verdict_of"]

#: Not the trigger's own ``log``, which is several more objects for each wait.
log = logging.getLogger(__name__)

#: What a user who kills a task should know.
NO_CANCEL = "KIE has no call that cancels a conversion: WAV task %s goes on, and can be waited for again."

#: What Airflow resumes with, in place of the method that :func:`deferral` names, where it ended the deferral itself.
ENDED_BY_AIRFLOW = "__fail__"

#: Seconds between two attempts to find the connection again, at the most.
LONGEST_RECOVERY = 60.0

#: Seconds by which Airflow's own limit of a deferral exceeds the trigger's, so that the trigger's event comes first.
DEFER_BACKSTOP = 120.0
#: The same where Airflow's limit was there first, such as the task's ``execution_timeout``.
AHEAD_OF_AIRFLOW = 5.0
#: What the time-out then adds.
SHORTER_LIMIT = "; the task's execution_timeout, or a queue before the triggerer, left no more of its {:g} seconds"
#: Seconds that a look, or the search for the connection, may go on after the deadline.
LAST_LOOK = 60.0
#: Seconds before Airflow's own limit at which whatever still goes on is cut off, so that the event gets out.
LEAVING = 2.0


class WavConversionTrigger(BaseTrigger):
    """
    Wait for a WAV conversion on the triggerer's event loop, and fire exactly one event, whatever happens.

    All arguments are JSON scalars, because they are stored in the metadata database; the key is not among them.

    :param kie_task_id: the WAV task.
    :param kie_conn_id: the Airflow connection of type ``kie``.
    :param poll_interval: seconds between two looks; each is jittered by a tenth.
    :param deadline: when the wait ends, in epoch seconds. Wall clock on purpose: the trigger may go on in another
        triggerer, where a monotonic clock starts anew. None for ``timeout`` seconds from when the trigger starts,
        where no worker could say it before (``start_from_trigger``).
    :param timeout: the seconds that the whole wait was given.
    :param exponential_backoff: double the interval from look to look.
    :param max_wait: seconds that the doubled interval does not exceed.
    """

    _hook_class: ClassVar[type[KieAsyncHook] | None] = None

    def __init__(
        self,
        kie_task_id: str,
        kie_conn_id: str,
        poll_interval: float,
        deadline: float | None,
        timeout: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own
        self.kie_task_id = kie_task_id
        self.kie_conn_id = kie_conn_id
        self.poll_interval = poll_interval
        self.deadline = time.time() + timeout if deadline is None else deadline
        self._was_found = deadline is not None
        self._began = self.deadline - timeout
        self._last = ""
        self._cut_short = ""
        self.timeout = timeout
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, of a subclass its own, and the arguments with which the trigger is built again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "kie_task_id": self.kie_task_id,
                "kie_conn_id": self.kie_conn_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "timeout": self.timeout,
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the one event."""
        try:
            verdict = await self._verdict()
        except Exception as error:
            # Airflow fails the task of a trigger that raises without a word of the conversion.
            log.exception("WAV task %s: the wait broke off", harmless(self.kie_task_id))
            verdict = self._broke_off(error)
        yield TriggerEvent(_event_of(verdict))  # type: ignore[no-untyped-call]  # Airflow's own

    async def on_kill(self) -> None:
        """Say what goes on after a user killed the task (called by Airflow 3.3 and later)."""
        log.warning(NO_CANCEL, harmless(self.kie_task_id))

    async def _verdict(self) -> Done | Failed:
        airflows_limit = self._airflows_limit()
        if airflows_limit - AHEAD_OF_AIRFLOW < self.deadline:
            self._cut_short = SHORTER_LIMIT.format(self.timeout)
            self.deadline = airflows_limit - AHEAD_OF_AIRFLOW
            self.timeout = max(0.0, round(self.deadline - self._began, 1))
        # A deadline that passed while no triggerer ran still leaves time for one look.
        at_most = min(max(self._rest(), 0.0) + LAST_LOOK, airflows_limit - LEAVING - time.time())
        try:
            async with asyncio.timeout(at_most):
                return await self._attempts()
        except TimeoutError:
            return self._timed_out()

    def _airflows_limit(self) -> float:
        # Airflow 2.11 keeps it in the task instance, without a time zone.
        limit = getattr(self, "timeout_after", None) or getattr(self.task_instance, "trigger_timeout", None)
        if limit is None:
            return math.inf
        return float((limit if limit.tzinfo else limit.replace(tzinfo=UTC)).timestamp())

    async def _attempts(self) -> Done | Failed:
        # Whoever deferred has just looked; spreading the first looks keeps a thousand triggers apart.
        pause, failures = random.uniform(0.0, 1.0) * self.poll_interval, 0
        if self._was_found:  # by a worker, which deferred; its clock may be ahead
            pause = max(pause, waiting.DEFERRAL_SECONDS - max(time.time() - self._began, 0.0))
        while True:
            await self._sleep(pause)
            try:
                hook_class = self._hook_class or await self._load_hook_class()
                async with hook_class.connect(self.kie_conn_id) as hook:
                    self._was_found = True
                    return await self._wait(hook)
            except Exception as error:
                # Reading again is free and the conversion is paid for, so only the deadline ends the wait.
                waited = time.time() - self._began
                if isinstance(error, KieError) and ends_the_search(error, waited, was_found=self._was_found):
                    error.kie_task_id = self.kie_task_id
                    return Failed(error)
                self._note(error)
            if self._rest() <= 0:
                return self._timed_out()
            failures += 1
            pause = next_delay(
                min(self.poll_interval, LONGEST_RECOVERY), failures, exponential_backoff=True, max_wait=LONGEST_RECOVERY
            )

    def _note(self, error: Exception) -> None:
        if isinstance(error, KieError):
            self._tell(error.problem, logging.WARNING)
        else:
            self._tell(f"unexpected {type(error).__name__}", logging.ERROR, error)

    def _tell(self, reason: str, level: int, error: Exception | None = None) -> None:
        """Log what is new; thousands of waits may meet the same trouble again and again."""
        if reason != self._last:
            log.log(level, "WAV task %s: %s", harmless(self.kie_task_id), reason, exc_info=error)
        self._last = reason

    @classmethod
    async def _load_hook_class(cls) -> type[KieAsyncHook]:
        # The hook brings in aiohttp: a DAG file that imports this module does not need it, and a quarter of a second
        # is too long for the event loop.
        module = await asyncio.to_thread(import_module, "airflow_provider_kie.hooks.kie_async")
        cls._hook_class = module.KieAsyncHook
        return cls._hook_class

    async def _wait(self, hook: KieAsyncHook) -> Done | Failed:
        looks = looks_within(time.time() - self._began, self.poll_interval)
        while (end := await self._look(hook)) is None:
            looks += 1
            pause = next_delay(
                self.poll_interval, looks, exponential_backoff=self.exponential_backoff, max_wait=self.max_wait
            )
            await self._sleep(pause)
        return end

    async def _look(self, hook: KieAsyncHook) -> Done | Failed | None:
        # What a look met ends with it. In an outage each of thousands of waits would sleep on an error, and all that it
        # has been through would block the loop in every full garbage collection.
        until = time.monotonic() + self._rest()
        verdict = await hook.look(self.kie_task_id, until=until, poll_interval=self.poll_interval)
        if not isinstance(verdict, Wait):
            return verdict
        self._tell(verdict.reason, logging.WARNING if verdict.warning else logging.INFO)
        return self._timed_out() if self._rest() <= 0 else None

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, min(coalesced(seconds, time.monotonic()), self._rest())))

    def _broke_off(self, error: Exception) -> Failed:
        problem = f"The wait in the triggerer broke off: unexpected {type(error).__name__}, see the triggerer's log"
        return Failed(KieWaitTimeoutError(problem, kie_task_id=self.kie_task_id, conn_id=self.kie_conn_id))

    def _timed_out(self) -> Failed:
        last = (self._last or "no answer to the first look") + self._cut_short
        return Failed(timed_out(self.kie_task_id, self.kie_conn_id, self.timeout, last))

    def _rest(self) -> float:
        return self.deadline - time.time()


def deferral(
    *,
    kie_task_id: str,
    kie_conn_id: str,
    poll_interval: float,
    timeout: float,
    exponential_backoff: bool = False,
    max_wait: float | None = None,
) -> dict[str, Any]:
    """
    Return the arguments of ``BaseOperator.defer`` for a wait that starts now and goes on in ``execute_complete``.

    :param kie_task_id: the WAV task.
    :param kie_conn_id: the Airflow connection of type ``kie``.
    :param poll_interval: seconds between two looks.
    :param timeout: seconds to wait at the most.
    :param exponential_backoff: double the interval from look to look.
    :param max_wait: seconds that the doubled interval does not exceed.
    """
    return {
        "trigger": WavConversionTrigger(
            kie_task_id=kie_task_id,
            kie_conn_id=kie_conn_id,
            poll_interval=poll_interval,
            deadline=None,
            timeout=timeout,
            exponential_backoff=exponential_backoff,
            max_wait=max_wait,
        ),
        "method_name": "execute_complete",
        "timeout": timedelta(seconds=timeout + DEFER_BACKSTOP),
    }


def _event_of(verdict: Done | Failed) -> dict[str, Any]:
    if isinstance(verdict, Failed):
        return {"status": "failed", "error": verdict.error.to_dict()}
    return {"status": "success", "conversion": dict(verdict.conversion), "warning": verdict.warning}


def verdict_of(event: dict[str, Any] | None) -> Done | Failed:
    """
    Read the trigger's event; whatever is not clearly a success is a failure.

    :param event: what Airflow handed to the resumed task; None when a task is resumed without one.
    """
    match event:
        case {"status": "success", "conversion": {"wav_url": str(url)} as conversion, "warning": str(warning)} if url:
            return Done(cast("WavConversion", conversion), warning)
        case {"status": "failed", "error": {"type": str(), "problem": str()} as error}:
            return Failed(KieError.from_dict(error))
    return Failed(KieError("The task was resumed without the trigger's event"))


def ended_by_airflow(kie_task_id: str, kie_conn_id: str, next_kwargs: dict[str, Any] | None) -> Failed:
    """
    Return the end of a wait that Airflow ended: its limit passed while no triggerer answered, or the trigger failed.

    :param kie_task_id: the WAV task.
    :param kie_conn_id: the connection.
    :param next_kwargs: what Airflow resumes the task with: its reason, and a failed trigger's traceback.
    """
    said = next_kwargs or {}
    if traceback := said.get("traceback"):
        log.error("Trigger failed:\n%s", "\n".join(traceback))
    return Failed(
        KieWaitTimeoutError(
            f"Airflow ended the wait in the triggerer ({said.get('error', 'Unknown')}), see the triggerer's log",
            kie_task_id=kie_task_id,
            conn_id=kie_conn_id,
        )
    )
