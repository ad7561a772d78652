# SPDX-License-Identifier: Apache-2.0
"""
One measurement of one way of waiting, in this process: prints its figures as one line of JSON.

The waits start evenly over half of the first interval, as a triggerer starts its triggers in portions; that is kind
to ways that do not spread their reads themselves. The figures of CPU are taken after each wait has read once, so the
one-time cost of a wait is not among them. The measurement neither wakes the event loop up
while waits are measured nor blocks it: it starts some waits at a time, and asks the server in a thread.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import random
import selectors
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from benchmarks.host import cores, keep_on, stolen
from benchmarks.server import Server
from benchmarks.variants import WAYS, Way

#: The last core is for what waits alone, which also tells exactly what the host took from it.
CORE: Final = cores()[-1]
#: Seconds between two looks at what the host took, which are too expensive for each turn of the loop, and those of a
#: sleep before which there is time for one.
SELDOM: Final = 0.5
A_REST: Final = 0.02
#: The fewest seconds between two portions of waits that start: a loop that is behind gets them no later for it.
PORTION: Final = 0.05
#: In intervals: over how long the waits start, from when on CPU is measured at the earliest (a first sleep may take an
#: interval), and when the first conversion finishes.
RAMP: Final = 0.5
STEADY: Final = 1.6
FIRST_FINISH: Final = 1.8


class Clocks(NamedTuple):
    """The time, and how long this thread had waited for its core and had used it."""

    now: float
    queued: float
    used: float


class Watch(selectors.DefaultSelector):
    """
    Takes the time of each turn of the event loop, without waking it up; the longest turn is the longest block.

    A turn begins when the loop is due to go on, and ends when it asks for news again. Where the system says how long
    this thread was ready and waited for its core, or how long the host of a virtual machine took that core away, the
    longer of the two is taken off: it is the machine that was busy then, not the loop. Not both, because they may be
    the same time. What the thread itself used of a core always counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0.0
        self._queue: int | None = None
        with suppress(OSError):
            self._queue = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        self._before = self.clocks()
        self._due = self._looked = self._before.now
        self._stolen = stolen(CORE)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """End a turn, sleep as the loop asks for, and begin the next one."""
        clocks = self.clocks()
        if clocks.now - self._due > self.longest:
            self.longest = max(self.longest, self.own_share(clocks))
        if timeout is None or timeout > A_REST or clocks.now - self._looked > SELDOM:
            self._looked, self._stolen = clocks.now, stolen(CORE)
        self._before = clocks
        events = super().select(timeout)
        self._due = min(time.perf_counter(), clocks.now + (math.inf if timeout is None else max(timeout, 0.0)))
        return events

    def own_share(self, clocks: Clocks) -> float:
        """Return how long the loop itself made the turn last that is over."""
        turn, used = clocks.now - self._due, clocks.used - self._before.used
        machine = max(clocks.queued - self._before.queued, stolen(CORE) - self._stolen)
        return max(min(turn, used), turn - machine)

    def clocks(self) -> Clocks:
        """Read all clocks."""
        queued = int(os.pread(self._queue, 64, 0).split()[1]) / 1e9 if self._queue is not None else 0.0
        return Clocks(time.perf_counter(), queued, time.thread_time())


@dataclass(frozen=True)
class Moment:
    """What the clocks and counters say, of this process and of the server; the difference of two is a span."""

    seconds: float
    cpu: float
    reads: int
    server_cpu: float

    def __sub__(self, before: Moment) -> Moment:
        return Moment(
            self.seconds - before.seconds,
            self.cpu - before.cpu,
            self.reads - before.reads,
            self.server_cpu - before.server_cpu,
        )


@dataclass
class Measurement:
    """
    One measurement.

    :param way: how one conversion is waited for.
    :param server: what is asked.
    :param count: conversions waiting at the same time.
    :param interval: seconds between two reads of one conversion.
    :param duration: seconds until the last conversion finishes.
    :param watch: the event loop's.
    """

    way: Way
    server: Server
    count: int
    interval: float
    duration: float
    watch: Watch
    late: list[float] = field(default_factory=list)
    waiting_for: set[float] = field(default_factory=set)
    waited_from: float = 0.0
    #: Of its own, because a way that keeps all threads busy would delay the measurement.
    aside: Executor = field(default_factory=lambda: ThreadPoolExecutor(1))

    async def carry_out(self) -> dict[str, Any]:
        """Measure, and return the figures."""
        memory = own_memory()
        waits = await self.start_all()
        await self.all_have_read()
        started = await self.look()
        await asyncio.sleep(max(0.0, self.waited_from + self.first_finish - time.time()))
        waiting = own_memory() - memory
        done, unfinished = await asyncio.wait(waits, timeout=max(0.0, self.waited_from + self.patience - time.time()))
        ended = await self.look()
        lateness = self.lateness(time.time())
        for wait in unfinished:
            wait.cancel()
        for wait in done:
            wait.result()
        steady = ended - started
        return lateness | {
            "cpu_ms_per_read": steady.cpu / steady.reads * 1e3,
            "reads": ended.reads,
            "server_load": steady.server_cpu / steady.seconds,
            "memory_kb": waiting / self.count / 1024,
            "block_ms": self.watch.longest * 1e3,
        }

    async def all_have_read(self) -> None:
        """Pause until the start of the waits is over, on a busy machine as well."""
        steady_from = self.waited_from + self.interval * STEADY
        await asyncio.sleep(max(0.0, steady_from - time.time()))
        while (await self.ask())["conversions"] < self.count and time.time() < steady_from + self.interval:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(self.interval / 20)

    @property
    def first_finish(self) -> float:
        """Seconds until the first conversion finishes."""
        return self.interval * FIRST_FINISH

    @property
    def patience(self) -> float:
        """Seconds until nothing is waited for any more."""
        return self.duration + 2.5 * self.interval

    async def start_all(self) -> list[asyncio.Task[None]]:
        """Start the waits in portions over the ramp; the order in which they finish is another one."""
        self.waited_from = time.time()
        step = (self.duration - self.first_finish) / self.count
        ends = [self.waited_from + self.first_finish + step * number for number in range(self.count)]
        random.Random(self.count).shuffle(ends)
        waits = []
        for number, at in enumerate(ends):
            due = self.waited_from + self.interval * RAMP * number / self.count
            if (early := due - time.time()) > 0:
                await asyncio.sleep(max(PORTION, early))
            waits.append(asyncio.create_task(self.one(at)))
        return waits

    async def one(self, at: float) -> None:
        """Wait for one conversion, and note how late its end was seen."""
        self.waiting_for.add(at)
        await self.way(f"at-{round(at * 1000)}-{random.getrandbits(48):012x}")
        self.waiting_for.remove(at)
        self.late.append(time.time() - at)

    async def look(self) -> Moment:
        """Return what all clocks and counters say now."""

        def moment() -> Moment:
            # All of it here: a loop that is behind would read its clocks long after the server was asked.
            found = self.server.statistics()
            return Moment(time.monotonic(), time.process_time(), found["reads"], found["cpu"])

        return await asyncio.get_running_loop().run_in_executor(self.aside, moment)

    async def ask(self) -> dict[str, Any]:
        """Return the server's statistics."""
        return await asyncio.get_running_loop().run_in_executor(self.aside, self.server.statistics)

    def lateness(self, now: float) -> dict[str, Any]:
        """
        Return how late finishes were seen.

        Those that were not seen count with the time since; what is not below ``late_seen_to`` may be more.
        """
        unseen = [now - at for at in self.waiting_for]
        late = sorted(self.late + unseen)
        return {
            "late_p50": statistics.median(late),
            "late_p99": late[min(len(late) - 1, round(0.99 * len(late)))],
            "late_seen_to": min(unseen, default=self.patience),
            "unfinished": len(unseen),
        }


def own_memory() -> int:
    """Return the bytes of memory that this process has filled; files in memory come and go and do not count."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("RssAnon:")[2].split()[0]) * 1024
    return int(psutil.Process().memory_info().rss)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description="Measure one way of waiting.")
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--interval", type=float, required=True)
    parser.add_argument("--duration", type=float, required=True)
    args = parser.parse_args(argv)
    keep_on(0, CORE)
    way = WAYS[args.way](args.interval)
    gc.freeze()  # Airflow is many objects, which a full garbage collection would look at whatever waits
    watch = Watch()
    measurement = Measurement(way, Server(args.port), args.count, args.interval, args.duration, watch)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch)) as runner:
        print(json.dumps(runner.run(measurement.carry_out())), flush=True)


if __name__ == "__main__":
    main()
