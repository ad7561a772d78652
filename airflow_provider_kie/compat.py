# SPDX-License-Identifier: Apache-2.0
"""Differences between the supported versions of Airflow, one name for each."""

from __future__ import annotations

import json
import logging
import math
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow import __version__ as airflow_version
from packaging.version import Version

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger

__all__ = [
    "CAN_START_FROM_TRIGGER",
    "COMMAND",
    "TaskStateStore",
    "airflow_version",
    "deferral_limit",
    "find_task_state_store",
    "task_state_store",
    "use_metadata_database",
]

_RELEASE = Version(airflow_version).release

#: Airflow 3.0 to 3.2 have the attributes, but their scheduler ignores them.
CAN_START_FROM_TRIGGER = _RELEASE >= (3, 3)
#: How this provider's commands are called; Airflow 3.2 and later find them in its metadata.
COMMAND = "airflow kie" if _RELEASE >= (3, 2) else "python -m airflow_provider_kie"
_HAS_TASK_STATE_STORE = _RELEASE >= (3, 3)
_ACTIVE = ("running", "deferred", "restarting", "up_for_reschedule")


def task_state_store(context: Context) -> Any:
    """Return the store that outlives the tries of a task instance (3.3 and later), or None."""
    return context.get("task_state_store")


class TaskStateStore:
    """
    The store of :func:`task_state_store`, used from outside the task; needs access to the metadata database.

    :param is_active: whether the task instance is running, deferred or about to be rescheduled.
    """

    def __init__(self, scope: Any, is_active: bool) -> None:
        from airflow.state import get_state_backend

        self._backend: Any = get_state_backend()
        self._scope = scope
        self.is_active = is_active

    def get(self, key: str) -> Any:
        """Return the stored value, or None."""
        kept = self._backend.get(self._scope, key)
        return None if kept is None else json.loads(kept)

    def set(self, key: str, value: Any, *, retention: timedelta) -> None:
        """Store a value: any JSON except null."""
        self._backend.set(self._scope, key, json.dumps(value), expires_at=datetime.now(UTC) + retention)

    def delete(self, key: str) -> None:
        """Delete the stored value."""
        self._backend.delete(self._scope, key)


def find_task_state_store(dag_id: str, run_id: str, task_id: str, map_index: int) -> TaskStateStore | None:
    """
    Return the store of any task instance (3.3 and later), or None.

    :param map_index: -1 for a task that is not mapped.
    :raises LookupError: there is no such task instance.
    """
    if not _HAS_TASK_STATE_STORE:
        return None
    from airflow.models.taskinstance import TaskInstance
    from airflow.state import TaskScope
    from airflow.utils.session import create_session

    of: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    with create_session() as session:
        found = session.query(TaskInstance.state).filter_by(**of).first()
    if found is None:
        raise LookupError(task_id)
    return TaskStateStore(TaskScope(**of), is_active=found.state in _ACTIVE)


def use_metadata_database() -> None:
    """Let a process that is not an Airflow task read connections from the metadata database."""
    # Airflow 3 reads them there only if this is set, as its own "connections" commands do.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    # Without a database, Airflow 2.11 logs a traceback for each connection that it does not find.
    logging.getLogger("airflow.models.connection").addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = None
    return True


def deferral_limit(trigger: BaseTrigger) -> float:
    """Return when Airflow itself ends a deferral, in epoch seconds, or infinity."""
    # Airflow 2.11 keeps the limit in the task instance, without a time zone.
    limit = getattr(trigger, "timeout_after", None) or getattr(trigger.task_instance, "trigger_timeout", None)
    if limit is None:
        return math.inf
    return float((limit if limit.tzinfo else limit.replace(tzinfo=UTC)).timestamp())
