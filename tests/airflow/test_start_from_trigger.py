# SPDX-License-Identifier: Apache-2.0
"""start_from_trigger: the sensor tells the scheduler to start it as a trigger, where Airflow can do that."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_kie.operators.wav import ConvertToWavOperator
from airflow_provider_kie.sensors import wav
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.triggers.wav import WavConversionTrigger
from tests.modes import only_event


def build(**arguments):
    return WavConversionSensor(
        **({"task_id": "wait", "kie_task_id": "988e00aa", "deferrable": True, "start_from_trigger": True} | arguments)
    )


needs_3_3 = pytest.mark.skipif(not wav.CAN_START_FROM_TRIGGER, reason="the scheduler acts on it from Airflow 3.3")


@needs_3_3
def test_the_scheduler_gets_a_trigger_that_waits(kie):
    sensor = build(kie_task_id=kie.create_conversion(finished=True), poke_interval=0.05, timeout=30)
    assert sensor.start_from_trigger
    start = sensor.start_trigger_args
    assert start.next_method == "execute_complete"
    assert start.timeout > timedelta(seconds=30)
    assert start.trigger_cls == f"{WavConversionTrigger.__module__}.{WavConversionTrigger.__name__}"
    event = asyncio.run(only_event(WavConversionTrigger(**start.trigger_kwargs)))
    assert sensor.execute_complete({}, event)["status"] == "SUCCESS"


@needs_3_3
def test_an_id_from_another_task_travels_as_a_template():
    with DAG("start_from_trigger", schedule=None, start_date=datetime(2026, 1, 1)):
        submit = ConvertToWavOperator(task_id="submit", music_task_id="m", audio_id="a", wait_for_completion=False)
        sensor = build(kie_task_id=submit.output)
    assert "xcom_pull(task_ids='submit'" in sensor.start_trigger_args.trigger_kwargs["kie_task_id"]


@pytest.mark.parametrize("arguments", [{"deferrable": False}, {"start_from_trigger": False}])
def test_elsewhere_it_has_no_effect(arguments):
    assert not getattr(build(**arguments), "start_from_trigger", False)


def test_an_older_airflow_runs_it_as_any_deferrable_sensor(monkeypatch):
    monkeypatch.setattr(wav, "CAN_START_FROM_TRIGGER", False)
    assert not getattr(build(), "start_from_trigger", False)


def test_a_mapped_sensor_starts_on_a_worker():
    with DAG("start_from_trigger_mapped", schedule=None, start_date=datetime(2026, 1, 1)):
        mapped = WavConversionSensor.partial(task_id="wait", deferrable=True, start_from_trigger=True).expand(
            kie_task_id=["988e00aa", "988e00ab"]
        )
    assert not isinstance(mapped, BaseOperator)
    assert mapped.start_trigger_args is None  # without which the scheduler gives the task to a worker
