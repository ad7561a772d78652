# SPDX-License-Identifier: Apache-2.0
"""
The course of a wait, written once: a generator that asks for readings and pauses, and returns how the wait ended.

The two hooks drive it, each with its own way to read and to sleep. A *poll* is one or more reads: an answer that may
still settle is read again within the same poll, because a sensor in reschedule mode remembers nothing from one poll to
the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import NamedTuple, TypeAlias, TypeVar

from airflow_provider_kie.api.family import Family
from airflow_provider_kie.exceptions import KieError, KieWrongTaskError
from airflow_provider_kie.waiting.pace import Pace
from airflow_provider_kie.waiting.verdict import Done, Failed, Judge, Reading, Verdict, Wait

__all__ = ["Course", "Pause", "poll", "wait"]


class Pause(NamedTuple):
    """
    A pause before the next reading.

    It holds no verdict, because errors kept by thousands of sleeping waits slow every full garbage collection.

    :param seconds: how long.
    :param reason: why the wait goes on.
    :param warning: True when the reason is something that a user should see.
    :param left: seconds that the wait may still take.
    :param settling: True when it is a pause within one poll.
    """

    seconds: float
    reason: str
    warning: bool
    left: float
    settling: bool = False

    @property
    def text(self) -> str:
        """The log line."""
        return f"{self.reason}; " + ("reading again." if self.settling else f"up to {self.left:.0f} seconds left.")


T = TypeVar("T")
#: Yields a row, and is sent what a read by it gave; or yields a pause, and is sent None. Returns how it ended.
Course: TypeAlias = Generator[Family | Pause, Reading, T]


def poll(judge: Judge, pace: Pace, left: Callable[[], float]) -> Course[Verdict]:
    """
    Read a job once, or until an answer that may still settle has settled.

    :param pace: how often the wait polls; pauses within a poll are not longer.
    """
    row = judge.row
    while True:
        reading = yield row
        if reading is None and row.also:
            elsewhere = yield row.also
            # An error of this second read says nothing about the job, unless it shows that the id is of another kind.
            counts = not isinstance(elsewhere, KieError) or elsewhere.transient
            reading = elsewhere if counts or isinstance(elsewhere, KieWrongTaskError) else None
            if isinstance(reading, dict):
                judge.row = row = row.also
        verdict = judge.judge(reading, time.monotonic())
        if not (isinstance(verdict, Wait) and verdict.settling):
            return verdict
        pause = Pause(pace.settling_pause(), verdict.reason, verdict.warning, left(), settling=True)
        if pause.seconds > pause.left:
            return verdict
        del reading, verdict
        yield pause


def wait(
    row: Family, kie_task_id: str, conn_id: str, pace: Pace, left: Callable[[], float], polls: int = 0
) -> Course[Done | Failed | Wait]:
    """
    Poll a job until it has ended; if time runs out first, return the last :class:`Wait`.

    :param polls: polls made before, for the back-off.
    """
    while True:
        judge = Judge(row, kie_task_id, conn_id)
        verdict = yield from poll(judge, pace, left)
        if not isinstance(verdict, Wait):
            return verdict
        row = judge.row  # row.also, if that found the job
        polls += 1
        rest = left()
        if rest <= 0:
            return verdict
        reason, warning = verdict.reason, verdict.warning
        del judge, verdict
        yield Pause(min(pace.pause(polls), rest), reason, warning, rest)
