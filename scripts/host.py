# SPDX-License-Identifier: Apache-2.0
"""What a machine or its host takes away from a program, which looks like a program that is slow or that blocks."""

from __future__ import annotations

import bisect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
STAT = Path("/proc/stat")


def cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def keep_on(pid: int, *on: int) -> None:
    """
    Keep a process on some cores, and with it what it starts later; where the system can not, it stays free.

    :param pid: the process; 0 for this one.
    :param on: the cores; none to change nothing.
    """
    if on and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, on)


def stolen(core: int) -> float:
    """
    Return the seconds that the host has taken of a core so far; 0 where the system does not say it.

    :param core: the core.
    """
    try:
        lines = STAT.read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[8]) / TICKS for line in lines if line.startswith(f"cpu{core} ")), 0.0)


class Note(NamedTuple):
    """
    What a process had had at some time.

    :param at: when.
    :param used: seconds on a core.
    :param queued: seconds for which it was ready and had none.
    :param stolen: seconds that the host had taken of its core.
    """

    at: float
    used: float
    queued: float
    stolen: float


def noted(notes: Sequence[Note], at: float) -> Note | None:
    """Return what a process had had at a time between two notes, None at any other time."""
    place = bisect.bisect(notes, at, key=lambda note: note.at)
    if not 0 < place < len(notes):
        return None
    before, after = notes[place - 1 : place + 1]
    share = (at - before.at) / (after.at - before.at)

    def between(early: float, late: float) -> float:
        return early + share * (late - early)

    return Note(at, *(between(*pair) for pair in zip(before[1:], after[1:], strict=True)))


def spent_on(known: float, objects: float, seconds: float) -> float:
    """
    Return what of a garbage collection was spent on objects that were there before what is measured.

    :param known: how many these are; a collection of them alone would take as long.
    :param objects: how many the collection looked at.
    :param seconds: what it took.
    """
    return seconds * min(1.0, known / max(objects, 1.0))
