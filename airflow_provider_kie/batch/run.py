# SPDX-License-Identifier: Apache-2.0
"""
One try of a batch: looks its items up, submits them, waits for all of them, and has their files stored.

One event loop waits for all jobs, in a thread of its own: what ends the task is raised in the task's own thread, which
only waits for this one. Submits, notes and files are carried out in a few threads.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from airflow_provider_kie.batch.report import Report
from airflow_provider_kie.batch.submits import STOPS
from airflow_provider_kie.exceptions import KieError, KieLinkExpiredError
from airflow_provider_kie.money import Submit, worth_a_new_submit
from airflow_provider_kie.waiting.course import Pause
from airflow_provider_kie.waiting.pace import Pace
from airflow_provider_kie.waiting.verdict import Done, Failed, Wait, timed_out

if TYPE_CHECKING:
    from airflow_provider_kie.api.job import KieJob
    from airflow_provider_kie.batch.items import Item
    from airflow_provider_kie.batch.submits import Submits

__all__ = ["BatchRun", "Limits"]

log = logging.getLogger(__name__)

#: Threads that look up entries, that submit, and that store files. At two submits a second, eight of them allow for
#: answers that take four seconds.
LOOKERS, SUBMITTERS, STORERS = 16, 8, 4
#: Seconds between two lines about the progress.
REPORT_SECONDS = 30.0
#: Seconds in which a batch that is ended may come to its end, besides the time-out of a request.
LAST_SECONDS = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """
    The limits of a batch.

    :param max_in_flight: how many jobs run at a time.
    :param poll_interval: seconds between two polls of a job.
    :param timeout: seconds to wait for each job.
    :param max_credits: from which on nothing more is submitted; None for no limit.
    """

    max_in_flight: int
    poll_interval: float
    timeout: float
    max_credits: float | None


#: Stores the files of a job, and adds their destinations to the item. For an error that the files of every other job
#: would meet too it calls the function that it is given, so that nothing more is submitted.
Store: TypeAlias = "Callable[[Item, KieJob, Callable[[KieError], None]], None]"


class BatchRun:
    """
    One try of a batch.

    :param submits: looks up and submits.
    :param store: stores the files of jobs; None to store none.
    """

    def __init__(
        self,
        items: Sequence[Item],
        submits: Submits,
        limits: Limits,
        store: Store | None = None,
    ) -> None:
        self._items = items
        self._submits = submits
        self._limits = limits
        self._settings = submits.payer.settings
        self._row = submits.payer.kind.row
        self._store = store
        self._report = Report(items)
        self._looked_at = math.inf
        self._over = threading.Event()
        self._crash: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._storing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: The credits of each job, as far as KIE has reported them, and their sum.
        self._credits: dict[str, float] = {}
        self._spent = 0.0
        self._is_stopped = False
        #: Whether it is known of all items what was submitted for them.
        self.is_looked_up = False
        #: The error that keeps the rest from being submitted.
        self.halt: KieError | None = None

    def look_up(self) -> None:
        """
        Find what is known of all items, many at a time, before anything is sent; stop if the batch is ended meanwhile.

        :raises KieLedgerError: the ledger cannot be read.
        """
        pool = ThreadPoolExecutor(LOOKERS, thread_name_prefix="kie-batch-look")
        try:
            for item, known in zip(self._items, pool.map(self._submits.look_up, self._items), strict=True):
                if self._is_stopped:
                    return
                if known is not None and known.kie_task_id is None:
                    item.end = "unknown"  # for now: the one that has claimed it may be submitting it
                elif known is None or self._submits.decide(item, known):
                    item.end = "running" if item.kie_task_id else "not submitted"
                self._count_credits(item, item.credits)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        self.is_looked_up = True
        self._looked_at = time.monotonic()
        self._report = Report(self._items)

    def run(self) -> None:
        """
        Carry out the batch; return when each item has come to its end, or nothing more may be submitted.

        Whatever is raised in this thread meanwhile ends the batch first.
        """
        threading.Thread(target=self._run, name="kie-batch", daemon=True).start()
        try:
            self._over.wait()
        except BaseException:
            self.stop()
            self._over.wait(LAST_SECONDS)
            raise
        finally:
            self._await_answers()
        if self._crash:
            raise self._crash

    def stop(self) -> None:
        """End the batch: submit nothing more, and wait for nothing."""
        self._submits.closed.set()
        self._is_stopped = True
        if self._loop and self._main:
            with suppress(RuntimeError):  # the loop has just ended
                self._loop.call_soon_threadsafe(self._main.cancel)

    def _await_answers(self) -> None:
        """Wait for the answers to submits that are on their way, because only these name what is paid for."""
        until = time.monotonic() + self._settings.timeout + LAST_SECONDS
        while self._submits.under_way and time.monotonic() < until:
            time.sleep(0.05)

    def _run(self) -> None:
        try:
            asyncio.run(self._carry_out())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._crash = error
        finally:
            self._over.set()

    async def _carry_out(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        if self._is_stopped:
            return
        from airflow_provider_kie.hooks.environment import ssl_context
        from airflow_provider_kie.hooks.kie_async import KieAsyncHook

        self._async_hook = KieAsyncHook(self._settings, ssl_context(self._settings, self._settings.base_url))
        self._in_flight = asyncio.Semaphore(self._limits.max_in_flight)
        self._submitting = ThreadPoolExecutor(SUBMITTERS, thread_name_prefix="kie-batch-submit")
        self._fetching = ThreadPoolExecutor(STORERS, thread_name_prefix="kie-batch-file")
        # Each may hold a job; as many again may have files to be stored, whose jobs no longer count.
        workers = min(len(self._items), self._limits.max_in_flight * (2 if self._store else 1))
        queue = iter(self._in_order())
        try:
            async with asyncio.TaskGroup() as group:
                reporting = group.create_task(self._tell())
                async with asyncio.TaskGroup() as working:
                    for _ in range(workers):
                        working.create_task(self._work(queue))
                reporting.cancel()
        finally:
            for pool in (self._submitting, self._fetching):
                pool.shutdown(wait=False, cancel_futures=True)
            await self._async_hook.transport.close()
            log.info("%s", self._report.line())

    def _in_order(self) -> list[Item]:
        """Return the items: first those with a job, last those whose outcome may still become known."""
        open_ones = (item for item in self._items if item.error is None)
        return sorted(open_ones, key=lambda item: 0 if item.kie_task_id else 2 if item.end == "unknown" else 1)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            log.info("%s", self._report.line())

    async def _work(self, queue: Iterator[Item]) -> None:
        for item in queue:
            try:
                await self._carry(item)
            except KieError as error:
                self._halt_for(error)
                item.ends("failed", error)
            except Exception as error:
                log.exception("Item %s broke off.", item.line)
                item.ends("failed", KieError(f"{type(error).__name__}: {error}"))

    async def _carry(self, item: Item) -> None:
        """Bring an item to its end."""
        if item.end == "unknown":
            await self._settle(item)
            if item.error is not None:
                return
        async with self._in_flight:
            job = await self._obtain(item)
        if job is not None and self._store is not None and job["files"]:
            async with self._storing.setdefault(job["kie_task_id"], asyncio.Lock()):
                await self._in_thread(self._fetching, partial(self._store, item, job, self._halt))
        elif job is not None and item.is_deleted and job["files"]:
            raise KieLinkExpiredError(
                "The job is so old that KIE has deleted its files", kie_task_id=job["kie_task_id"]
            )
        if job is not None:
            item.result = None if job["files"] else job["result"]
            item.ends("succeeded")

    async def _settle(self, item: Item) -> None:
        """Wait for the id of a claim that has none; note in the item whether it may be submitted."""
        claim, known, since = 0, None, self._looked_at
        while item.claim not in (0, claim):  # another one may come meanwhile, with which to have patience again
            claim = item.claim
            await asyncio.sleep(max(0.0, since + self._submits.payer.patience - time.monotonic()))
            known, since = await self._in_thread(None, partial(self._submits.look_up, item)), time.monotonic()
        if known is None:
            item.end = "not submitted"
        elif (decision := self._submits.decide(item, known)) is not None:
            item.claim_is_over = isinstance(decision, Submit)

    async def _obtain(self, item: Item) -> KieJob | None:
        """Return the finished job of an item, submitted now or before; None if there is none, which the item says."""
        fresh = item.kie_task_id is None
        if fresh and not await self._submit(item):
            return None
        while True:
            item.end = "running"
            end = await self._wait(item, fresh=fresh)
            if isinstance(end, Done):
                self._count_credits(item, end.job["credits"])
                await self._in_thread(None, partial(self._submits.note_end, item, end.job))
                return end.job
            failed = item.kie_task_id
            if not await self._is_worth_another(item, end) or not await self._submit(item):
                return None
            if item.kie_task_id == failed:  # KIE names the failed job again instead of starting another
                item.ends("failed", end.error)
                return None
            fresh = True

    async def _is_worth_another(self, item: Item, end: Failed) -> bool:
        """Note that an item's job has ended without a result; return whether to submit another."""
        worth = worth_a_new_submit(end.error, guarded=False)
        if worth:
            await self._in_thread(None, partial(self._submits.note_end, item, None))
        self._halt_for(end.error)
        allowed = item.accepted < self._submits.payer.max_attempts
        item.ends("failed", end.error, retry_helps=allowed if worth else None)
        return worth and allowed

    async def _submit(self, item: Item) -> bool:
        """Submit an item's job; return whether there is one now. The item says why there is none."""
        if not self._submits.closed.is_set():
            await self._in_thread(self._submitting, partial(self._submits.submit, item))
        if item.end == "running":
            item.error = None
            return True
        if item.end == "unknown" and item.error is None:
            self._submits.unknown(item, "A submit of an earlier try has no known outcome, and no other was sent")
        if item.error is not None:
            self._halt_for(item.error)
        return False

    async def _wait(self, item: Item, *, fresh: bool) -> Done | Failed:
        limits, kie_task_id = self._limits, str(item.kie_task_id)
        until = time.monotonic() + limits.timeout
        pace = Pace(limits.poll_interval)
        if fresh:
            await asyncio.sleep(min(pace.pause(1), limits.timeout))
        end = await self._async_hook.wait(
            self._row, kie_task_id, pace=pace, left=lambda: until - time.monotonic(), polls=0, report=_silent
        )
        if isinstance(end, Wait):
            return timed_out(self._row, kie_task_id, self._settings.conn_id, limits.timeout, end.reason)
        return end

    def _count_credits(self, item: Item, reported: float | None) -> None:
        if reported is None:
            return
        job, limit = str(item.kie_task_id), self._limits.max_credits
        self._spent += reported - self._credits.get(job, 0.0)
        item.credits = self._credits[job] = reported
        if limit is not None and self._spent >= limit and not self._submits.closed.is_set():
            log.warning("max_credits=%g is reached: nothing more is submitted.", limit)
            self._submits.closed.set()

    def _halt_for(self, error: KieError) -> None:
        if isinstance(error, STOPS):
            self._halt(error)

    def _halt(self, error: KieError) -> None:
        if self.halt is None:
            log.error("Nothing more is submitted: %s", error)
            self.halt = error
            self._submits.closed.set()

    def _in_thread(self, pool: ThreadPoolExecutor | None, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(pool, work)


def _silent(pause: Pause) -> None:
    """Say nothing about a single job."""
