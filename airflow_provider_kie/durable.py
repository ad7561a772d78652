# SPDX-License-Identifier: Apache-2.0
"""
Remembers the paid job of a task from one try to the next.

Airflow 3.3 and later have a store for this (AIP-103) that outlives the worker; XCom does not, because it is cleared
when a retry starts. The store is used directly rather than through ``ResumableJobMixin``, which covers only the
synchronous path and loses the result when it reconnects. :mod:`airflow_provider_kie.money` decides what an entry
allows.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.compat import task_state_store
from airflow_provider_kie.exceptions import named
from airflow_provider_kie.money import Entry, State, TaskKey

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.compat import TaskStateStore

__all__ = ["RETENTION", "StoredEntry", "adopt", "key_of"]

log = logging.getLogger(__name__)

#: Longer than the 14 days for which KIE keeps a file. Set explicitly, so that a late retry comes before the store's
#: clean-up.
RETENTION = timedelta(days=30)


class StoredEntry:
    """
    The entry of a task instance in Airflow's task state store, which exists from Airflow 3.3 on.

    An entry holds the identity, ``kie_task_id``, ``state``, ``max_tries``, and ``guarded`` if it is False. Entries of
    earlier versions have no state.

    :param context: Airflow's context; None to store nothing.
    :param key: the key of the entry; if it is renamed, retries no longer find what an earlier version stored.
    """

    def __init__(self, context: Context | None, row: Family, key: str, identity: Mapping[str, str]) -> None:
        self._store: Any = task_state_store(context) if context else None
        self.max_tries: int | None = getattr(context.get("ti"), "max_tries", None) if context else None
        self._row = row
        self._key = key
        self.identity = dict(identity)

    @property
    def persistent(self) -> bool:
        """Whether there is a store, so that a retry finds the entry."""
        return self._store is not None

    def load(self) -> Entry | None:
        """
        Return the entry of an earlier try.

        An entry that cannot be read still proves a submit, so it never counts as missing: its outcome is unknown.
        """
        kept = self._store.get(self._key) if self._store is not None else None
        if kept is None:
            return None
        if not isinstance(kept, dict):
            return Entry(State.CLAIMED, self.identity)
        given, max_tries = kept.get("kie_task_id"), kept.get("max_tries")
        kie_task_id = given if given and isinstance(given, str) else None
        state = State.SUBMITTED if kie_task_id else State.CLAIMED
        with suppress(ValueError):  # a word of a later version, for example
            state = State(kept.get("state", state))
        identity = {name: kept[name] for name in self.identity if name in kept}
        max_tries = max_tries if isinstance(max_tries, int) else None
        return Entry(state, identity, kie_task_id, max_tries, guarded=kept.get("guarded", True) is True)

    def begin(self) -> None:
        """
        Write the intent to submit, so that a store that does not work is noticed before anything is paid.

        This also stops a try that is still running although Airflow has abandoned it: for it the store is empty and
        read-only.
        """
        self._write(State.CLAIMED)

    def commit(self, kie_task_id: str) -> None:
        """Write the id; a store that fails does not fail the task, because the job is paid for."""
        try:
            self._write(State.SUBMITTED, kie_task_id)
        except Exception:
            log.exception("%s is submitted, but could not be kept for a retry.", named(self._row.tag, kie_task_id))

    def mark_resumed(self, entry: Entry) -> None:
        """Write that this try resumes a job, so that only a later clear counts as a clear."""
        if entry.max_tries == self.max_tries:
            return
        try:
            self._write(State.SUBMITTED, entry.kie_task_id, guarded=entry.guarded)
        except Exception:
            log.exception(
                "%s is resumed, but that could not be kept for a retry.", named(self._row.tag, entry.kie_task_id)
            )

    def mark_refused(self) -> None:
        """Write that the submit was refused; if that fails, the outcome stays unknown."""
        try:
            self._write(State.REFUSED)
        except Exception:
            log.exception("The submit was refused, but that could not be kept for a retry.")

    def _write(self, state: State, kie_task_id: str | None = None, *, guarded: bool | None = None) -> None:
        if self._store is not None:
            entry = {**self.identity, "kie_task_id": kie_task_id, "state": state.value, "max_tries": self.max_tries}
            if not (self._row.guarded if guarded is None else guarded):
                entry["guarded"] = False
            self._store.set(self._key, entry, retention=RETENTION)


def adopt(store: TaskStateStore, key: str, kept: Mapping[str, Any], kie_task_id: str) -> dict[str, Any]:
    """
    Write a job into an entry from outside its task, so that the next try resumes it; return the entry.

    That try follows a clear, which must not count as consent to pay again. So ``max_tries`` is removed: without it a
    clear counts as a retry.
    """
    entry = {**kept, "kie_task_id": kie_task_id, "state": State.SUBMITTED.value, "max_tries": None}
    store.set(key, entry, retention=RETENTION)
    return entry


def key_of(context: Context) -> TaskKey | None:
    """Return what identifies the task instance of a context."""
    ti: Any = context.get("ti")
    return TaskKey(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index) if ti else None
