# SPDX-License-Identifier: Apache-2.0
"""Runs a DAG with ``dag.test()`` and reads back what it left in the metadata database, on every Airflow alike."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def database() -> Path:
    return Path(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///"))


@dataclass(frozen=True)
class Run:
    dag_id: str
    run_id: str
    state: str

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        query = "select value from xcom where dag_id=? and run_id=? and task_id=? and key=? and map_index=?"
        rows = self._rows(query, (self.dag_id, self.run_id, task_id, key, map_index))
        value = rows[0][0] if rows else None
        return json.loads(value) if isinstance(value, (str, bytes)) else value

    def states(self) -> dict[str, str]:
        """Return the state of each task; mapped ones as ``task[index]``."""
        query = "select task_id, map_index, state from task_instance where dag_id=? and run_id=?"
        rows = self._rows(query, (self.dag_id, self.run_id))
        return {task if index < 0 else f"{task}[{index}]": state for task, index, state in rows}

    @staticmethod
    def _rows(query: str, values: tuple[object, ...]) -> list[Any]:
        with closing(sqlite3.connect(database())) as connection:
            return connection.execute(query, values).fetchall()


def load_dag(dag_id: str) -> Any:
    """
    Load a DAG of the tests' Airflow home, which holds the examples and ``tests/dags``.

    :param dag_id: the DAG, named as its file.
    """
    path = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]) / f"{dag_id}.py"
    spec = importlib.util.spec_from_file_location(dag_id, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dag


def as_stored(dag: Any) -> Any:
    """
    Return a DAG as the scheduler has it, from what is stored in the metadata database.

    :param dag: the DAG, as its file makes it.
    """
    from airflow.serialization import serialized_objects

    # Before Airflow 3.1 one class does both.
    coder = getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG
    return coder.from_dict(json.loads(json.dumps(coder.to_dict(dag))))


def run_dag(dag: Any, **arguments: Any) -> Run:
    """
    Run a DAG in this process to its end.

    :param dag: the DAG.
    :param arguments: those of ``dag.test()``.
    """
    finished = dag.test(**arguments)
    return Run(dag.dag_id, finished.run_id, str(getattr(finished.state, "value", finished.state)))


def clear_and_run(dag: Any, run: Run, task_id: str, map_index: int = -1) -> None:
    """
    Clear one task of a run that :func:`run_dag` gave, as all of Airflow's ways to clear do, and let it run again.

    :param dag: the DAG.
    :param run: its run.
    :param task_id: the task.
    :param map_index: -1 for a task that is not mapped.
    """
    from airflow.models.taskinstance import TaskInstance, clear_task_instances
    from airflow.sdk.definitions.dag import _run_task
    from airflow.utils.session import create_session

    of = {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": task_id, "map_index": map_index}
    with create_session() as session:
        clear_task_instances(session.query(TaskInstance).filter_by(**of).all(), session)
    with create_session() as session:
        ti = session.query(TaskInstance).filter_by(**of).one()
        session.expunge(ti)
    _run_task(ti=ti, task=dag.get_task(task_id))
