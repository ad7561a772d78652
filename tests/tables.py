# SPDX-License-Identifier: Apache-2.0
"""Tables of values, for ``pytest.mark.parametrize``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def each(*rows: tuple[Any, Iterable[Any]]) -> list[tuple[Any, Any]]:
    """Return each value with what is made of it, from rows of a result and the values that lead to it."""
    return [(value, result) for result, values in rows for value in values]
