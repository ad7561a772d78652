# SPDX-License-Identifier: Apache-2.0
"""What a cluster policy or a subclass sets after the constructor counts, and so does what ``.partial()`` was given."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from airflow import settings

from airflow_provider_kie.compat import CAN_START_FROM_TRIGGER
from airflow_provider_kie.sensors.wav import WavConversionSensor
from tests.dag_runs import as_stored, load_dag, run_dag

needs_3_3 = pytest.mark.skipif(not CAN_START_FROM_TRIGGER, reason="the scheduler acts on it from Airflow 3.3")

DAG_FILE = """
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kie.sensors.wav import WavConversionSensor

with DAG("governed", schedule=None, start_date=datetime(2026, 1, 1)):
    WavConversionSensor(task_id="wait", kie_task_id="988e00aa", {arguments})
"""


def bag(path):
    """Load a DAG file as the DAG processor and the worker do, which is where policies are applied."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag
    found = DagBag(dag_folder=path)
    assert found.import_errors == {}
    (dag,) = found.dags.values()
    return dag


@pytest.fixture
def as_the_scheduler_sees_it(monkeypatch, tmp_path):
    def load(policy, arguments="deferrable=True, start_from_trigger=True"):
        monkeypatch.setattr(settings, "task_policy", policy)
        (tmp_path / "governed.py").write_text(DAG_FILE.format(arguments=arguments))
        return as_stored(bag(tmp_path / "governed.py")).get_task("wait")

    return load


def setting(**values):
    def policy(task):
        for name, value in values.items():
            setattr(task, name, value)

    return policy


@needs_3_3
@pytest.mark.parametrize(
    ("changed", "name", "value"),
    [
        ({"kie_conn_id": "kie_audit"}, "kie_conn_id", "kie_audit"),
        ({"kie_task_id": "988e00ab"}, "kie_task_id", "988e00ab"),
        ({"timeout": 60.0}, "timeout", 60.0),
        ({"poke_interval": 7.0}, "poll_interval", 7.0),
        ({"exponential_backoff": True}, "exponential_backoff", True),
        ({"max_wait": timedelta(seconds=9)}, "max_wait", 9.0),
    ],
)
def test_a_start_in_the_triggerer_goes_by_a_policy(as_the_scheduler_sees_it, changed, name, value):
    task = as_the_scheduler_sees_it(setting(**changed))
    assert task.start_from_trigger
    assert task.start_trigger_args.trigger_kwargs["__var"][name] == value  # stored as Airflow stores any dict
    assert (task.start_trigger_args.timeout < timedelta(days=1)) == ("timeout" in changed)


@needs_3_3
@pytest.mark.parametrize(
    "changed",
    [{"deferrable": False}, {"start_from_trigger": False}, {"kie_conn_id": "{{ params.conn }}"}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_policy_may_bring_the_start_back_to_a_worker(as_the_scheduler_sees_it, changed):
    task = as_the_scheduler_sees_it(setting(**changed))
    assert not task.start_from_trigger
    assert task.start_trigger_args is None


@needs_3_3
@pytest.mark.parametrize("changed", [{"start_from_trigger": True}, {"start_from_trigger": True, "deferrable": True}])
def test_a_policy_may_start_sensors_in_the_triggerer(as_the_scheduler_sees_it, changed):
    task = as_the_scheduler_sees_it(setting(**changed), arguments="deferrable=False")
    assert task.start_from_trigger == ("deferrable" in changed)
    assert bool(task.start_trigger_args) == task.start_from_trigger


@needs_3_3
def test_a_subclass_may_bring_a_start_of_its_own():
    ours = WavConversionSensor(task_id="ours", kie_task_id="988e00aa", deferrable=True, start_from_trigger=True)
    own = ours.start_trigger_args
    own.next_method = "execute_otherwise"
    ours.start_trigger_args = own
    assert ours.start_trigger_args.next_method == "execute_otherwise"


def test_every_task_goes_by_what_a_policy_has_set(kie, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_KIE_AUDIT", os.environ["AIRFLOW_CONN_KIE_DEFAULT"])
    monkeypatch.delenv("AIRFLOW_CONN_KIE_DEFAULT")
    policy = setting(kie_conn_id="kie_audit", timeout=30.0, poke_interval=0.05, poll_interval=timedelta(seconds=0.05))
    monkeypatch.setattr(settings, "task_policy", policy)
    run = run_dag(bag(Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]) / "every_way.py"))
    assert set(run.states().values()) == {"success"}


# --- Mapped


def test_every_class_can_be_mapped(kie):
    run = run_dag(load_dag("mapped_ways"))
    assert set(run.states().values()) == {"success"}
    for index in range(2):
        kie_task_id = run.xcom("submit", map_index=index)
        assert run.xcom("poke", map_index=index) == run.xcom("defer", map_index=index)
        assert run.xcom("poke", map_index=index)["kie_task_id"] == kie_task_id
        assert run.xcom("marked", map_index=index)["music_id"].startswith("Monday: ")
        assert run.xcom("url", map_index=index).partition("?")[0] == run.xcom("short_url", map_index=index)
        assert run.xcom("store", map_index=index).endswith(f"/mapped_ways/{index}.wav")
        assert run.xcom("client", map_index=index).endswith(f"/mapped_ways/clients/{index}.wav")
        assert run.xcom("convert", map_index=index).endswith(("#acme", "#other"))


def test_mapped_tasks_are_stored_and_start_on_a_worker():
    dag = as_stored(load_dag("mapped_ways"))
    assert {task.task_id for task in dag.tasks if task.start_trigger_args is not None} == set()
