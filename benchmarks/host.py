# SPDX-License-Identifier: Apache-2.0
"""What a machine or its host takes away from a program, which looks like a program that is slow or that blocks."""

from __future__ import annotations

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
STAT = Path("/proc/stat")


def cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def keep_on(pid: int, *on: int) -> None:
    """
    Keep a process on some cores, and with it what it starts later; where the system cannot, it stays free.

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
