# SPDX-License-Identifier: Apache-2.0
"""What differs between the supported versions of Airflow, one name for each difference."""

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
    "StoreFromOutside",
    "airflow_version",
    "deferral_limit",
    "find_task_state_store",
    "look_into_the_database",
    "task_state_store",
]

_RELEASE = Version(airflow_version).release

#: Airflow 3.0 to 3.2 have the words for it, but the scheduler does not act on them.
CAN_START_FROM_TRIGGER = _RELEASE >= (3, 3)
_HAS_TASK_STATE_STORE = _RELEASE >= (3, 3)
_UNDER_WAY = ("running", "deferred", "restarting", "up_for_reschedule")


def task_state_store(context: Context) -> Any:
    """Return the store that outlives the tries of a task instance (3.3 and later), or None."""
    return context.get("task_state_store")


class StoreFromOutside:
    """
    The same store from outside of the task, in the metadata database, for those who have access to that.

    :param runs: the task instance is under way, in a worker or deferred.
    """

    def __init__(self, scope: Any, runs: bool) -> None:
        from airflow.state import get_state_backend

        self._backend: Any = get_state_backend()
        self._scope = scope
        self.runs = runs

    def get(self, key: str) -> Any:
        """Return what is kept, or None."""
        kept = self._backend.get(self._scope, key)
        return None if kept is None else json.loads(kept)

    def set(self, key: str, value: Any, *, retention: timedelta) -> None:
        """Keep a value."""
        self._backend.set(self._scope, key, json.dumps(value), expires_at=datetime.now(UTC) + retention)

    def delete(self, key: str) -> None:
        """Forget what is kept."""
        self._backend.delete(self._scope, key)


def find_task_state_store(dag_id: str, run_id: str, task_id: str, map_index: int) -> StoreFromOutside | None:
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
    return StoreFromOutside(TaskScope(**of), runs=found.state in _UNDER_WAY)


def look_into_the_database() -> None:
    """Let a process that is no task of Airflow's find connections in the metadata database, without noise."""
    # Airflow 3 looks there only where this is set, as its own "connections" commands do.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    # Where there is no database, Airflow 2.11 says with a traceback that the connection is not in there.
    logging.getLogger("airflow.models.connection").addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = None
    return True


def deferral_limit(trigger: BaseTrigger) -> float:
    """Return when Airflow itself ends a deferral, in epoch seconds, or infinity."""
    limit = getattr(trigger, "timeout_after", None) or getattr(trigger.task_instance, "trigger_timeout", None)
    if limit is None:
        return math.inf
    return float((limit if limit.tzinfo else limit.replace(tzinfo=UTC)).timestamp())
