# SPDX-License-Identifier: Apache-2.0
"""What the host of a virtual machine takes away, which looks like a program that is slow or that blocks."""

from __future__ import annotations

import os
from pathlib import Path

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
