# SPDX-License-Identifier: Apache-2.0
"""One family of each of KIE's dialects ends the same in every mode of the sensor, and in both of the operator."""

from __future__ import annotations

import pytest

from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.sensors.job import KieJobSensor
from tests.jobs import job_of
from tests.modes import run_sensor
from tests.task_instance import Store, Task

#: One family of each dialect, what KIE says in it of a job that goes on, and how that is shown.
DIALECTS = {
    "jobs": ("jobs-generating", "generating"),
    "music": ("music-text-ready", "TEXT_SUCCESS"),
    "stems": ("pending", "PENDING"),
    "veo": ("flag-zero", "0"),
    "runway": ("runway-queueing", "queueing"),
}
#: How a wait ends, what is submitted for that, and the operator's error.
ENDS = {
    "done": ({}, ""),
    "failed": ({"prompt": "fail please"}, "KieJobFailedError"),
    "time-out": ({}, "KieWaitTimeoutError"),
}
dialects = pytest.mark.parametrize("family", DIALECTS)
ends = pytest.mark.parametrize("end", ENDS)


def keep_running(kie, family, end):
    """Let the job go on for two readings, or for ever; return how long to wait for it."""
    running = DIALECTS[family][0]
    kie.play(running, running, endpoint="record-info", repeat=end == "time-out")
    return 0.12 if end == "time-out" else 20


def sensed(mode, kie, monkeypatch, family, end, kie_task_id):
    timeout = keep_running(kie, family, end)
    arguments = {"kie_task_id": kie_task_id, "family": family, "poke_interval": 0.03, "timeout": timeout}
    return run_sensor(mode, monkeypatch, KieJobSensor, **arguments)


@dialects
@ends
@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_an_operator_ends_as_a_sensor_does(kie, monkeypatch, family, end, deferrable):
    fields, error = ENDS[end]
    kie.configure(conversion_seconds=0)
    timeout = keep_running(kie, family, end)
    wait = {"deferrable": deferrable, "poll_interval": 0.03, "timeout": timeout}
    task = Task(KieJobOperator, Store(), **wait, **job_of(family, **fields))
    try:
        job, raised = task.run_once(), ("", "")
    except KieError as caught:
        job, raised = None, (type(caught).__name__, str(caught))
    sensor = sensed("poke", kie, monkeypatch, family, end, task.xcom["kie_task_id"])
    assert job == sensor.xcom
    assert task.xcom == {"kie_task_id": task.xcom["kie_task_id"], "kie_family": family} | sensor.pushed
    assert raised == (error, sensor.message)
    assert kie.accepted_submits == 1
