# SPDX-License-Identifier: Apache-2.0
"""The manifest of a batch: what has become of each item, as JSON Lines in the order of the items."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.exceptions import KieDestinationExistsError
from airflow_provider_kie.files.storage import PartFile
from airflow_provider_kie.redaction import quoted, values_without_queries

if TYPE_CHECKING:
    from airflow_provider_kie.batch.items import Item
    from airflow_provider_kie.files.storage import Destination

__all__ = ["check", "write"]

#: Characters of an item up to which it is repeated in the manifest, besides its digest.
SMALL = 4_096
#: Lines that are written at a time.
CHUNK = 500


def check(destination: Destination, batch: str, *, overwrite: bool) -> None:
    """
    Check that nothing but an earlier manifest of the same batch would be replaced.

    :param batch: what identifies the batch.
    :raises KieDestinationExistsError: another file is there.
    """
    if not destination.size() or overwrite:
        return
    with destination.open(destination.path, "rb") as file:
        first = file.readline(16 * SMALL)
    if not _is_of(first, batch):
        error = KieDestinationExistsError(f"Another file is at {quoted(destination.url)} already, where manifest leads")
        error.next_step = "Let manifest contain {{ run_id }}, or set overwrite=True to replace what is there."
        raise error


def write(destination: Destination, batch: str, items: Iterable[Item]) -> None:
    """
    Store the manifest, whole, in place of an earlier one.

    :param batch: what identifies the batch; each line says it.
    """
    destination.clear()
    part, size = PartFile(destination), 0
    rows = [_row(batch, item) for item in items]
    try:
        part.begin(None)
        for first in range(0, max(len(rows), 1), CHUNK):
            piece = "".join(rows[first : first + CHUNK]).encode("utf-8", "backslashreplace")
            part.write(piece)
            size += len(piece)
        part.finish(size, overwrite=True)
    finally:
        part.close()


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
    if item.error is not None:
        error = item.error
        names = {"type": type(error).__name__, "problem": error.problem, "code": error.code}
        row["error"] = names | ({"next_step": error.next_step} if item.end == "unknown" else {})
    return json.dumps(row, ensure_ascii=False) + "\n"


def _is_of(line: bytes, batch: str) -> bool:
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("batch") == batch
