# SPDX-License-Identifier: Apache-2.0
"""Notes of the files that a task has stored, so that its next try fetches only what is missing."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.compat import task_state_store
from airflow_provider_kie.durable import RETENTION
from airflow_provider_kie.files.storage import Destination
from airflow_provider_kie.transfers.manifest import OF_A_FILE
from airflow_provider_kie.transfers.storing import owner_and_try

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.files.template import DestinationTemplate

__all__ = ["Notes"]

log = logging.getLogger(__name__)

#: The key in Airflow's task state store; if it is renamed, retries fetch all files again.
KEY = "kie_files"


class Notes:
    """
    What is noted about the stored files of a job, by name and index.

    The notes are in Airflow's task state store, which exists from 3.3 on, else in a hidden file beside the files, which
    is removed at the end. A note that is lost or unreadable costs a download and nothing else.

    :param template: of the files' destinations, beside which the hidden file goes.
    :param conn_id: the storage's Airflow connection, unless the URL names one.
    """

    def __init__(self, context: Context, template: DestinationTemplate, conn_id: str | None, kie_task_id: str) -> None:
        #: What the notes are about; others do not count.
        self._about = {"kie_task_id": kie_task_id, "destination": template.text}
        self._store: Any = task_state_store(context)
        owner, _ = owner_and_try(context)
        mark = hashlib.sha256(f"{owner}\n{kie_task_id}".encode()).hexdigest()[:16]
        hidden = template.beside(f".kie-{mark}.json")
        self._file = None if self._store is not None else Destination(hidden, conn_id, owner)
        self._files: dict[str, Mapping[str, Any]] = self._load()

    def find(self, name: str, index: int) -> Mapping[str, Any] | None:
        """Return the facts of a file that an earlier try has stored."""
        return self._files.get(f"{name}/{index}")

    def add(self, facts: Mapping[str, Any]) -> None:
        """Note a file; a failure is only a warning, because the file is stored."""
        self._files[f"{facts['name']}/{facts['index']}"] = facts
        kept = {**self._about, "files": self._files}
        try:
            if self._file is None:
                self._store.set(KEY, kept, retention=RETENTION)
            else:
                self._file.replace(json.dumps(kept).encode())
        except Exception:
            log.warning("What is stored could not be noted for a retry.", exc_info=True)

    def close(self) -> None:
        """Remove the hidden file, once all files are stored."""
        if self._file is not None:
            self._file.clear()
            self._file.remove(self._file.path)

    def _load(self) -> dict[str, Mapping[str, Any]]:
        try:
            if self._file is None:
                kept = self._store.get(KEY)
            else:
                with self._file.open(self._file.path, "rb") as file:
                    kept = json.loads(file.read())
            if not kept.items() >= self._about.items():
                return {}
            return {key: facts for key, facts in kept["files"].items() if facts.keys() >= set(OF_A_FILE)}
        except Exception as error:  # none yet, or half of one
            log.debug("No notes of an earlier try: %r", error)
            return {}
