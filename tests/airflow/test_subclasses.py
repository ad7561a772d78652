# SPDX-License-Identifier: Apache-2.0
"""A user's subclass of each public class does what it says, and what it raises is treated as in any other class."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    TaskDeferred,
)

from airflow_provider_kie.api import common
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.sensors.wav import WavConversionSensor
from tests.modes import MODES, only_event, run_sensor
from tests.task_instance import TaskInstance
from tests.typed import subclasses

QUICK = {"poke_interval": 0.03, "timeout": 20}

# --- The sensor


class AnySensor(BaseSensorOperator):
    """A sensor of nobody in particular, by which ours is measured."""

    def __init__(self, *, kie_task_id, deferrable, **kwargs):
        super().__init__(**kwargs)


def raising(base, error):
    """Return a sensor whose first poke raises, and whose next one is content."""
    left = [error]

    class Raising(base):
        def poke(self, context):
            if left:
                raise left.pop()
            return PokeReturnValue(is_done=True, xcom_value="content")

    return Raising


OWN_WORDS = "in its own words"
ERRORS = (AirflowSkipException, AirflowException, AirflowFailException, AirflowSensorTimeout, ValueError)


@pytest.mark.parametrize("flag", ["", "soft_fail", "never_fail", "silent_fail"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("error", ERRORS)
def test_what_poke_raises_ends_as_in_any_sensor(kie, monkeypatch, error, mode, flag):
    arguments = QUICK | {"kie_task_id": "988e00aa"} | ({flag: True} if flag else {})
    poking = mode if mode != "deferrable" else "poke"
    expected = run_sensor(poking, monkeypatch, of=raising(AnySensor, error(OWN_WORDS)), **arguments)
    ended = run_sensor(mode, monkeypatch, of=raising(WavConversionSensor, error(OWN_WORDS)), **arguments)
    assert ended == expected
    if error is AirflowSkipException:
        assert (ended.state, ended.message) == ("skipped", OWN_WORDS)


@pytest.mark.parametrize("flag", ["", "soft_fail", "never_fail"])
@pytest.mark.parametrize("mode", MODES)
def test_a_poke_that_is_never_true_times_out(kie, monkeypatch, mode, flag):
    class NeverContent(WavConversionSensor):
        def poke(self, context):
            return False

    arguments = {"poke_interval": 0.03, "timeout": 0.1, "kie_task_id": "988e00aa"} | ({flag: True} if flag else {})
    ended = run_sensor(mode, monkeypatch, of=NeverContent, **arguments)
    assert (ended.state, ended.error) == (("skipped", "") if flag else ("failed", "KieSensorTimeoutError"))
    assert flag or "'988e00aa'" in ended.message


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("day", ["Sunday", "Monday"])
def test_code_before_the_poll_runs_in_every_mode(kie, monkeypatch, mode, day):
    kie_task_id = kie.create_conversion(finished=True)
    kie.play("pending")
    ended = run_sensor(mode, monkeypatch, of=subclasses.WeekdaySensor, kie_task_id=kie_task_id, day=day, **QUICK)
    if day == "Sunday":
        assert (ended.state, ended.message) == ("skipped", "no mastering on Sundays")
        assert kie.requests() == []
    else:
        assert ended.xcom["kie_task_id"] == kie_task_id


@pytest.mark.parametrize("mode", MODES)
def test_what_poke_waits_for_is_waited_for(kie, monkeypatch, mode):
    answers = [True, True, False, False]  # the second look is one of the modes that poke

    class Budgeted(WavConversionSensor):
        def poke(self, context):
            return bool(answers.pop()) and super().poke(context)

    kie_task_id = kie.create_conversion(finished=True)
    kie.play("pending")
    assert run_sensor(mode, monkeypatch, of=Budgeted, kie_task_id=kie_task_id, **QUICK).state == "success"
    assert False not in answers


@pytest.mark.parametrize("answers", [("pending", "success"), ("success",)], ids=["deferred", "finished at once"])
@pytest.mark.parametrize("mode", MODES)
def test_execute_and_execute_complete_may_be_overridden(kie, monkeypatch, mode, answers):
    kie.play(*answers, endpoint="record-info", repeat=True)
    arguments = {"kie_task_id": kie.create_conversion(finished=True), "day": "Monday", "timeout": 20}
    ended = run_sensor(mode, monkeypatch, of=subclasses.MarkedSensor, **arguments)
    assert ended.xcom["music_id"].startswith("Monday: ")


# --- The operators


@pytest.fixture
def context(kie, monkeypatch):
    """The studio has a connection of its own, and nobody else has one."""
    monkeypatch.setenv("AIRFLOW_CONN_STUDIO_DEFAULT", kie.connection_json().replace('"kie"', '"studio"'))
    monkeypatch.delenv("AIRFLOW_CONN_KIE_DEFAULT")
    return {"ti": TaskInstance()}


def convert_for_client(**arguments):
    return subclasses.ConvertForClient(
        task_id="convert",
        music_task_id="music",
        audio_id="track",
        client="{{ params.client }}",
        poll_interval=0.03,
        timeout=20,
        **arguments,
    )


def test_a_converting_subclass_has_everything_of_its_own(kie, context):
    operator = convert_for_client()
    operator.render_template_fields({"params": {"client": "acme"}})
    assert operator.execute(context).startswith(kie.url)
    assert context["ti"].pushed["client"] == "acme"
    assert operator.hook.tracks == ["track"]
    assert kie.accepted_submits == 1


def test_a_converting_subclass_resumes(kie, context):
    operator = convert_for_client(deferrable=True)
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(context)
    event = run_stored(deferral.value.trigger)
    resumed = convert_for_client()
    resumed.client = "acme"
    url = resumed.resume_execution(deferral.value.method_name, {"event": event}, context)
    assert url.startswith(kie.url)
    assert url.endswith("#acme")


def test_subclasses_of_the_other_operators(kie, tmp_path):
    context, kie_task_id = {"ti": TaskInstance()}, kie.create_conversion(finished=True)
    fetch = subclasses.UrlWithoutQuery(task_id="url", kie_task_id=kie_task_id)
    assert fetch.execute(context) == context["ti"].pushed["wav_conversion"]["wav_url"].partition("?")[0]
    arguments = {"client": "{{ params.client }}", "folder": f"file://{tmp_path}", "kie_task_id": kie_task_id}
    store = subclasses.ArchiveForClient(task_id="archive", **arguments)
    store.destination = store.destination.replace(store.client, "acme")
    assert store.execute(context) == f"file://{tmp_path}/acme.wav"
    assert (tmp_path / "acme.wav").read_bytes().startswith(b"RIFF")


# --- The trigger and the hooks


def run_stored(trigger):
    """Run a trigger in another process's way: from its class path and its arguments as JSON."""
    path, arguments = json.loads(json.dumps(trigger.serialize()))
    module, _, name = path.rpartition(".")
    return asyncio.run(only_event(getattr(import_module(module), name)(**arguments)))


def test_a_subclass_of_the_trigger_is_built(kie):
    kie_task_id = kie.create_conversion(finished=True)
    trigger = subclasses.TaggedTrigger(
        tag="acme", kie_task_id=kie_task_id, kie_conn_id="kie_default", poll_interval=0.03, deadline=None, timeout=20
    )
    event = run_stored(trigger)
    assert (event["status"], event["tag"]) == ("success", "acme")


async def test_a_subclass_of_the_async_hook_is_used(kie):
    hook = subclasses.CountingAsyncHook(KieHook().settings, False)
    balance = await hook.attempt(common.credit())
    await hook.transport.close()
    assert balance > 0
    assert hook.calls == 1


def test_a_subclass_of_the_hook_has_its_connection(kie, context):
    hook = subclasses.StudioHook()
    assert hook.kie_conn_id == "studio_default"
    assert hook.get_credits() >= 0
    assert hook.test_connection()[0]
