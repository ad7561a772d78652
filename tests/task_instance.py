# SPDX-License-Identifier: Apache-2.0
"""What an operator's ``execute`` meets in tests that need no scheduler: a task instance, its store, its death."""

from __future__ import annotations

import asyncio
import json
from pkgutil import resolve_name
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from tests.modes import only_event


class TaskInstance:
    """Takes what a task pushes, as JSON, and is the same in each try."""

    dag_id, run_id, task_id, map_index, max_tries = "dag", "run", "archive", -1, 1

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = json.loads(json.dumps(value))


class Store:
    """A task state store that outlives the tries of one task instance."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.retention: dict[str, Any] = {}
        self.calls = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.calls += 1
        return self.values.get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self.calls += 1
        self.values[key], self.retention[key] = json.loads(json.dumps(value)), retention


class Task:
    """
    One task instance: each try is a new operator and an empty XCom; the store stays, where there is one.

    ``deferred`` is what a deferral left for the triggerer, and the event that it brought.

    :param operator: the operator's class.
    :param store: None for an Airflow without a store.
    :param arguments: the operator's.
    """

    def __init__(self, operator: type[Any], store: Store | None, **arguments: Any) -> None:
        self.operator = operator
        self.store = store
        self.arguments = arguments
        self.max_tries = 1
        self.xcom: dict[str, Any] = {}
        self.deferred: tuple[Any, Any] = (None, None)

    def run_once(self, **changes: Any) -> Any:
        """Carry out a try, with its deferral if it defers."""
        ti = TaskInstance()
        ti.max_tries = self.max_tries
        self.xcom = ti.pushed
        context: dict[str, Any] = {"ti": ti} | ({"task_state_store": self.store} if self.store else {})
        try:
            return self._build(**changes).execute(context)
        except TaskDeferred as deferral:
            path, arguments = json.loads(json.dumps(deferral.trigger.serialize()))
            event = asyncio.run(only_event(resolve_name(path)(**arguments)))
            self.deferred = arguments, event
            return self._build(**changes).resume_execution(deferral.method_name, {"event": event}, context)

    def clear(self) -> None:
        """Let the next try be one after a clear, with which Airflow raises the number of tries."""
        self.max_tries += 2

    def _build(self, **changes: Any) -> Any:
        return self.operator(task_id="task", **self.arguments | changes)


class WorkerCrash(BaseException):
    """A worker that dies: nothing of the task's own code catches it."""


def die(monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str, *, after: bool = False) -> None:
    """Let the worker die when it comes to a method, or when it has come through, once."""
    method = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(owner, name, method)
        if after:
            method(*args, **kwargs)
        raise WorkerCrash

    monkeypatch.setattr(owner, name, dying)
