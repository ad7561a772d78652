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


def stolen() -> list[float]:
    """Return for each core the seconds that the host has taken so far; nothing where the system does not say it."""
    try:
        lines = STAT.read_text().splitlines()
    except OSError:
        return []
    return [int(line.split()[8]) / TICKS for line in lines if line.startswith("cpu") and line[3].isdecimal()]


def most_stolen(before: list[float], after: list[float]) -> float:
    """
    Return the seconds that the host took from one core at the most.

    :param before: of :func:`stolen`.
    :param after: of a later call.
    """
    return max((late - early for early, late in zip(before, after, strict=True)), default=0.0)


class Note(NamedTuple):
    """
    What a process had had at some time.

    :param at: when.
    :param used: seconds on a core.
    :param queued: seconds for which it was ready and had none.
    :param stolen: seconds that the host had taken of each core.
    """

    at: float
    used: float
    queued: float
    stolen: list[float]


def noted(notes: Sequence[Note], at: float) -> Note | None:
    """Return what a process had had at a time between two notes, None at any other time."""
    place = bisect.bisect(notes, at, key=lambda note: note.at)
    if not 0 < place < len(notes):
        return None
    before, after = notes[place - 1 : place + 1]
    share = (at - before.at) / (after.at - before.at)

    def between(early: float, late: float) -> float:
        return early + share * (late - early)

    stolen_by_then = [between(*pair) for pair in zip(before.stolen, after.stolen, strict=True)]
    return Note(at, between(before.used, after.used), between(before.queued, after.queued), stolen_by_then)
