# SPDX-License-Identifier: Apache-2.0
"""The trigger that waits for a job, and how a task defers to it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_kie.api.families import find_family, tag_of
from airflow_provider_kie.api.job import no_cancel
from airflow_provider_kie.compat import deferral_limit
from airflow_provider_kie.exceptions import KieError, KieWaitTimeoutError, named
from airflow_provider_kie.times import times
from airflow_provider_kie.triggers.event import write_event
from airflow_provider_kie.waiting.course import Pause
from airflow_provider_kie.waiting.pace import Pace, on_tick
from airflow_provider_kie.waiting.verdict import Done, Failed, Wait, connection_is_lost, timed_out

if TYPE_CHECKING:
    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.hooks.kie_async import KieAsyncHook

__all__ = ["KieJobTrigger"]

#: Not the trigger's own ``log``, which would add several objects to each wait.
log = logging.getLogger(__name__)

#: Longest pause between two attempts to find the connection, in seconds.
LONGEST_RECOVERY = 60.0
#: Seconds by which the trigger's event comes before a limit of Airflow's own, such as the task's ``execution_timeout``.
AIRFLOW_MARGIN = 5.0
#: What the message of the time-out then adds.
SHORTER_LIMIT = "; the task's execution_timeout, or a queue before the triggerer, cut its timeout of {:g} seconds short"
#: Seconds that a poll, or the look-up of the connection, may continue after the deadline.
FINAL_POLL_SECONDS = 60.0
#: Seconds before Airflow's own limit at which the wait is cut off, so that the event is sent in time.
EXIT_MARGIN = 2.0


class KieJobTrigger(BaseTrigger):
    """
    Wait for a job on the triggerer's event loop, and fire exactly one event, whatever happens.

    All arguments are JSON scalars, because they are stored in the metadata database; the key is not among them.

    :param kie_task_id: the job.
    :param kie_conn_id: the Airflow connection of type ``kie``.
    :param poll_interval: seconds between two polls; each is jittered by a tenth.
    :param deadline: when the wait ends, in epoch seconds. Wall clock, because the trigger may move to another
        triggerer, whose monotonic clock differs. None for ``timeout`` seconds from the start of the trigger, if no
        worker started it (``start_from_trigger``).
    :param timeout: seconds for the whole wait.
    :param exponential_backoff: double the interval from poll to poll.
    :param max_wait: upper limit of the doubled interval, in seconds.
    :param family: the family of the job.
    """

    _hook_class: ClassVar[type[KieAsyncHook] | None] = None
    _write_event = staticmethod(write_event)

    def __init__(
        self,
        kie_task_id: str,
        kie_conn_id: str,
        poll_interval: float,
        deadline: float | None,
        timeout: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        *,
        family: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own
        self.kie_task_id = kie_task_id
        self.kie_conn_id = kie_conn_id
        self.poll_interval = poll_interval
        self.deadline = time.time() + timeout if deadline is None else deadline
        self._connection_was_found = deadline is not None
        self._began = self.deadline - timeout
        self._last_reason = ""
        self._cut_short = ""
        self.timeout = timeout
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.family = family
        self._tag = tag_of(family)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments with which the trigger is built again."""
        arguments = {
            "kie_task_id": self.kie_task_id,
            "kie_conn_id": self.kie_conn_id,
            "poll_interval": self.poll_interval,
            "deadline": self.deadline,
            "timeout": self.timeout,
            "exponential_backoff": self.exponential_backoff,
            "max_wait": self.max_wait,
            "family": self.family,
        }
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the one event."""
        try:
            verdict = await self._verdict()
        except Exception as error:
            # If a trigger raises, Airflow fails its task without naming the job.
            log.exception("%s: the wait broke off", named(self._tag, self.kie_task_id))
            problem = f"The wait in the triggerer broke off: unexpected {type(error).__name__}, see the triggerer's log"
            verdict = Failed(
                KieWaitTimeoutError(problem, kie_task_id=self.kie_task_id, conn_id=self.kie_conn_id, family=self._tag)
            )
        yield TriggerEvent(self._write_event(verdict))  # type: ignore[no-untyped-call]  # Airflow's own

    async def on_kill(self) -> None:
        """Log that the job continues after a user killed the task (called by Airflow 3.3 and later)."""
        log.warning("%s", no_cancel(find_family(self.family), self.kie_task_id))

    async def _verdict(self) -> Done | Failed:
        row = find_family(self.family)
        airflow_limit = deferral_limit(self)
        if airflow_limit - AIRFLOW_MARGIN < self.deadline:
            self._cut_short = SHORTER_LIMIT.format(self.timeout)
            self.deadline = airflow_limit - AIRFLOW_MARGIN
            self.timeout = max(0.0, round(self.deadline - self._began, 1))
        # A deadline that passed while no triggerer ran still leaves time for one poll.
        at_most = min(max(self._left(), 0.0) + FINAL_POLL_SECONDS, airflow_limit - EXIT_MARGIN - time.time())
        try:
            async with asyncio.timeout(at_most):
                return await self._connect_and_wait(row)
        except TimeoutError:
            return self._timed_out(row)

    async def _connect_and_wait(self, row: Family) -> Done | Failed:
        pause, failures = self._first_pause(), 0
        while True:
            await self._sleep(pause)
            try:
                hook_class = self._hook_class or await self._load_hook_class()
                async with hook_class.connect(self.kie_conn_id) as hook:
                    self._connection_was_found = True
                    return self._conclude(row, await self._wait(self._row_to_read(row, hook), hook))
            except Exception as error:
                # Reading is free and the job is paid for, so only the deadline ends the wait.
                waited = time.time() - self._began
                if isinstance(error, KieError) and connection_is_lost(
                    error, waited, was_found=self._connection_was_found
                ):
                    error.kie_task_id, error.family = self.kie_task_id, row.tag
                    return Failed(error)
                self._log_trouble(error)
            if self._left() <= 0:
                return self._timed_out(row)
            failures += 1
            interval = min(self.poll_interval, LONGEST_RECOVERY)
            pause = Pace(interval, exponential_backoff=True, max_wait=LONGEST_RECOVERY).pause(failures)

    def _first_pause(self) -> float:
        """Return a random pause, to spread a thousand triggers; the worker that deferred has just polled."""
        pause = random.uniform(0.0, 1.0) * self.poll_interval
        if not self._connection_was_found:  # no worker deferred
            return pause
        waited = max(time.time() - self._began, 0.0)  # the worker's clock may be ahead
        return pause + max(times().after_deferral - waited, 0.0)

    def _row_to_read(self, row: Family, hook: KieAsyncHook) -> Family:
        """Return the row to read by, which may depend on the connection."""
        return row

    def _wait(self, row: Family, hook: KieAsyncHook) -> Coroutine[Any, Any, Done | Failed | Wait]:
        pace = Pace(self.poll_interval, self.exponential_backoff, self.max_wait)
        polls = pace.polls_within(time.time() - self._began)
        return hook.wait(row, self.kie_task_id, pace=pace, left=self._left, polls=polls, report=self._report)

    def _conclude(self, row: Family, end: Done | Failed | Wait) -> Done | Failed:
        if not isinstance(end, Wait):
            return end
        self._log_once(end.reason, logging.WARNING if end.warning else logging.INFO)
        return self._timed_out(row)

    def _report(self, pause: Pause) -> None:
        self._log_once(pause.reason, logging.WARNING if pause.warning else logging.INFO)

    def _log_trouble(self, error: Exception) -> None:
        if isinstance(error, KieError):
            self._log_once(error.problem, logging.WARNING)
        else:
            self._log_once(f"unexpected {type(error).__name__}", logging.ERROR, error)

    def _log_once(self, reason: str, level: int, error: Exception | None = None) -> None:
        """Log a reason that has changed; thousands of waits may run into the same error repeatedly."""
        if reason != self._last_reason:
            log.log(level, "%s: %s", named(self._tag, self.kie_task_id), reason, exc_info=error)
        self._last_reason = reason

    @classmethod
    async def _load_hook_class(cls) -> type[KieAsyncHook]:
        # The hook imports aiohttp, which a DAG file does not need, and which takes a quarter of a second: too long for
        # the event loop.
        module = await asyncio.to_thread(import_module, "airflow_provider_kie.hooks.kie_async")
        cls._hook_class = module.KieAsyncHook
        return cls._hook_class

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, min(on_tick(seconds, time.monotonic()), self._left())))

    def _timed_out(self, row: Family) -> Failed:
        last = (self._last_reason or "no answer to the first poll") + self._cut_short
        return timed_out(row, self.kie_task_id, self.kie_conn_id, self.timeout, last)

    def _left(self) -> float:
        return self.deadline - time.time()
