# SPDX-License-Identifier: Apache-2.0
"""Measure this provider beside its peers: parsing, download, waiting, batches. Each is run alone and prints tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

Figures = dict[str, Any]
ROOT: Final = Path(__file__).resolve().parent.parent


def table(*rows: list[str]) -> str:
    """
    Return a table as the documentation has it.

    :param rows: the cells, the header first.
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
