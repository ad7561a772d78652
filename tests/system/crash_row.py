# SPDX-License-Identifier: Apache-2.0
"""A row of the crash test's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.system.processes import print_table


@dataclass
class Row:
    """One crash: what was done to which DAG run, and what came of it."""

    point: str
    mode: str
    calls: int  # how many submits reach KIE: 1 shows that the store was enough, more that the 409 guard was needed
    track: str
    ends: str = "success"
    market: bool = False  # a job without the guard of KIE's 409
    dag_id: str = ""
    at: float | None = None
    found: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dag_id = self.dag_id or f"crash_{'market_' if self.market else ''}{self.mode}"

    @property
    def run_id(self) -> str:
        return f"run-{self.track}"

    @property
    def right(self) -> bool:
        return not self.found["wrong"]


def print_rows(rows: Sequence[Row]) -> None:
    head = ["point", "mode", "accepted submits", "submits sent", "tries", "outcome", "seconds to recover", ""]
    names = ("accepted", "sent", "tries", "outcome", "recovered", "mark")
    rows = sorted(rows, key=lambda row: row.point[0])
    print_table(head, [[row.point, row.mode, *(str(row.found[name]) for name in names)] for row in rows])
