# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' own instruments tell what happened."""

from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks import waiter, waiting


@pytest.fixture
def taken(monkeypatch):
    """The seconds that the host has taken of the core, as this test says."""
    seconds = [0.0]
    monkeypatch.setattr(waiter, "stolen", lambda core: seconds[0])
    return seconds


def longest_block_of(work) -> float:
    watch = waiter.Watch()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch)) as runner:
        runner.run(work())
    return watch.longest


@pytest.mark.parametrize(
    ("before", "meanwhile", "is_a_block"),
    [(0.0, 0.0, True), (0.0, 0.5, False), (0.5, 0.0, True)],
    ids=["nothing taken", "taken meanwhile, as a core that is away", "taken before, which hides no block"],
)
def test_a_blocking_call_is_a_block_but_for_what_the_host_took_of_it(taken, before, meanwhile, is_a_block):
    async def work():
        taken[0] += before
        await asyncio.sleep(0.05)
        time.sleep(0.5)
        taken[0] += meanwhile
        await asyncio.sleep(0.05)

    assert (longest_block_of(work) > 0.4) is is_a_block


def test_a_loop_that_computes_is_never_excused(taken):
    async def work():
        await asyncio.sleep(0.05)
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass
        taken[0] += 5.0
        await asyncio.sleep(0.05)

    assert longest_block_of(work) > 0.15


def test_memory_is_that_of_the_waits_above_the_fewest():
    rows = [{"way": "kie", "count": 100, "memory_kb": 50.0}, {"way": "kie", "count": 1000, "memory_kb": 14.0}]
    assert waiting.memory_each(rows, rows[0]) is None
    assert waiting.memory_each(rows, rows[1]) == 10.0


def test_a_lateness_that_was_not_seen_to_end_is_a_lower_bound():
    assert waiting.late({"late_p99": 9.94, "late_seen_to": 40.0}, "late_p99") == "9.9 s"
    assert waiting.late({"late_p99": 38.8, "late_seen_to": 30.0}, "late_p99") == "> 38.8 s"
