# SPDX-License-Identifier: Apache-2.0
"""start_from_trigger: the sensor tells the scheduler to start it as a trigger, where Airflow can do that."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import DAG, task_group

from airflow_provider_kie.exceptions import KieValidationError
from airflow_provider_kie.operators.wav import ConvertToWavOperator
from airflow_provider_kie.sensors import start_in_triggerer
from airflow_provider_kie.sensors.job import KieJobSensor
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.triggers.wav import WavConversionTrigger
from tests.modes import only_event


class PokesItself(WavConversionSensor):
    """Has a question of its own, which no trigger asks."""

    def poke(self, context):
        return super().poke(context)


def build(of=WavConversionSensor, **arguments):
    return of(
        **({"task_id": "wait", "kie_task_id": "988e00aa", "deferrable": True, "start_from_trigger": True} | arguments)
    )


needs_3_3 = pytest.mark.skipif(
    not start_in_triggerer.CAN_START_FROM_TRIGGER, reason="the scheduler acts on it from Airflow 3.3"
)


@pytest.fixture
def said(caplog, capfd):
    """What the logs say, wherever this Airflow writes them."""
    caplog.set_level("INFO")
    return lambda: caplog.text + "".join(capfd.readouterr())


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
def test_a_sensor_of_any_family_starts_as_a_trigger():
    start = build(KieJobSensor, family="wav").start_trigger_args
    assert start.trigger_kwargs["family"] == "wav"
    assert start.trigger_kwargs["kie_task_id"] == "988e00aa"


@needs_3_3
@pytest.mark.parametrize("template", ["{{ params.family }}", None])
def test_a_family_that_is_no_literal_is_left_to_a_worker(template):
    with DAG("start_from_trigger_family", schedule=None, start_date=datetime(2026, 1, 1)):
        upstream = ConvertToWavOperator(task_id="submit", music_task_id="m", audio_id="a")
        sensor = build(KieJobSensor, family=template or upstream.output)
    assert not sensor.start_from_trigger


def test_a_family_that_nobody_pushed_is_named():
    with pytest.raises(KieValidationError, match="family is empty"):
        KieJobSensor(task_id="wait", kie_task_id="x", family=None).execute({})


@needs_3_3
def test_an_id_of_another_task_is_rendered_there():
    with DAG("start_from_trigger", schedule=None, start_date=datetime(2026, 1, 1)):
        submit = ConvertToWavOperator(task_id="submit", music_task_id="m", audio_id="a", wait_for_completion=False)
        sensor = build(kie_task_id=submit.output)
    template = sensor.start_trigger_args.trigger_kwargs["kie_task_id"]
    # Without map_indexes it asks for what the triggerer cannot answer, and the wait never begins.
    assert "ti.xcom_pull(task_ids='submit', key='return_value', map_indexes=-1)" in template
    for pushed in ("wav-1", {"kie_task_id": "wav-1", "family": "wav"}):
        ti = SimpleNamespace(xcom_pull=lambda pushed=pushed, **asked: pushed)
        assert sensor.render_template(template, {"ti": ti}) == "wav-1"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param({"deferrable": False}, "it needs deferrable=True", marks=needs_3_3),
        pytest.param({"kie_task_id": "{{ params.id }}"}, "not a template", marks=needs_3_3),
        pytest.param({"kie_conn_id": "{{ params.conn }}"}, "not a template", marks=needs_3_3),
        pytest.param({"of": PokesItself}, "PokesItself has an execute.. or poke.. of its own", marks=needs_3_3),
        pytest.param({}, "a mapped task, or dags test, starts on a worker", marks=needs_3_3),
    ],
)
def test_elsewhere_it_has_no_effect_and_the_log_says_so(kie, said, arguments, why):
    kie_task_id = kie.create_conversion(finished=True)
    sensor = build(**({"kie_task_id": kie_task_id} | arguments))
    assert bool(sensor.start_from_trigger) == (not arguments)
    sensor.render_template_fields({"params": {"id": kie_task_id, "conn": "kie_default"}})
    sensor.execute({})
    assert re.search(f"start_from_trigger had no effect: .*{why}", said())


def test_without_start_from_trigger_nothing_is_logged_about_it(kie, said):
    sensor = build(kie_task_id=kie.create_conversion(finished=True), start_from_trigger=False)
    assert not getattr(sensor, "start_from_trigger", False)
    sensor.execute({})
    text = said()
    assert "is finished" in text
    assert "had no effect" not in text


@needs_3_3
def test_within_a_mapped_task_group_it_has_no_effect():
    with DAG("start_from_trigger_group", schedule=None, start_date=datetime(2026, 1, 1)) as dag:

        @task_group
        def one_track(kie_task_id):
            return build().output

        one_track.expand(kie_task_id=["988e00aa", "988e00ab"])
    assert not dag.get_task("one_track.wait").start_from_trigger


def test_an_older_airflow_runs_it_on_a_worker_first(kie, said, monkeypatch):
    monkeypatch.setattr(start_in_triggerer, "CAN_START_FROM_TRIGGER", False)
    sensor = build(kie_task_id=kie.create_conversion(finished=True))
    assert not getattr(sensor, "start_from_trigger", False)
    sensor.execute({})
    assert "start_from_trigger had no effect: it needs Airflow 3.3 or later" in said()
