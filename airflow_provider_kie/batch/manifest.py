# SPDX-License-Identifier: Apache-2.0
"""The manifest of a batch: what has become of each item, as JSON Lines in the order of the items."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kie.exceptions import KieDestinationExistsError
from airflow_provider_kie.redaction import quoted, values_without_queries

if TYPE_CHECKING:
    from airflow_provider_kie.batch.items import Item
    from airflow_provider_kie.files.storage import Destination

__all__ = ["read", "write"]

#: Characters up to which an item is repeated in the manifest, besides its digest, and up to which a result is.
SMALL, LONGEST_RESULT = 4_096, 65_536
#: Bytes that a line has at most, and what the values of one that is read again are.
LONGEST_LINE = 1_048_576
_VALUES: Final[dict[str, Any]] = {
    "digest": str,
    "ordinal": int,
    "entry": str,
    "kie_task_id": (str, NoneType),
    "destinations": list,
}


def read(destination: Destination, batch: str, *, overwrite: bool) -> dict[tuple[str, int], dict[str, Any]]:
    """
    Return the lines that an earlier try has left, by the digest and the ordinal of their items.

    :param batch: what identifies the batch.
    :param overwrite: any other file may be replaced.
    :raises KieDestinationExistsError: another file is there.
    """
    if not destination.size():
        return {}
    with destination.open(destination.path, "rb") as file:
        first = file.read(LONGEST_LINE)
        is_ours = _parsed(first.partition(b"\n")[0], batch) is not None
        lines = (first + file.read()).splitlines() if is_ours else []
    if not is_ours and not overwrite:
        error = KieDestinationExistsError(f"Another file is at {quoted(destination.url)} already, where manifest leads")
        error.next_step = "Let manifest contain {{ run_id }}, or set overwrite=True to replace what is there."
        raise error
    rows = (row for line in lines if (row := _parsed(line, batch)))
    return {(row["digest"], row["ordinal"]): row for row in rows}


def write(destination: Destination, batch: str, items: Iterable[Item]) -> None:
    """
    Store the manifest, whole, in place of an earlier one.

    :param batch: what identifies the batch; each line says it.
    """
    destination.clear()
    destination.replace("".join(_row(batch, item) for item in items).encode("utf-8", "backslashreplace"))


def _row(batch: str, item: Item) -> str:
    given = values_without_queries(item.given)
    row: dict[str, Any] = {
        "batch": batch,
        "line": item.line,
        "item": given if len(json.dumps(given)) <= SMALL else None,
        "digest": item.digest,
        "ordinal": item.ordinal,
        "entry": item.entry,
        "kie_task_id": item.kie_task_id,
        "end": item.end,
        "error": None,
        "destinations": item.destinations,
        "credits": item.credits,
    }
    if item.result is not None:
        result = values_without_queries(item.result)
        row["result"] = result if len(json.dumps(result)) <= LONGEST_RESULT else None
    if item.error is not None:
        error = item.error
        names = {"type": type(error).__name__, "problem": error.problem, "code": error.code}
        row["error"] = names | ({"next_step": error.next_step} if item.end == "unknown" else {})
    return json.dumps(row, ensure_ascii=False) + "\n"


def _parsed(line: bytes, batch: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or row.get("batch") != batch:
        return None
    return row if all(isinstance(row.get(name, ...), kind) for name, kind in _VALUES.items()) else None
