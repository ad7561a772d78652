# SPDX-License-Identifier: Apache-2.0
"""WAV conversion by either route: the same conversion, read wherever KIE has it, and paid for once."""

from __future__ import annotations

import json

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.families import FAMILIES, WAV_ROUTES
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator
from airflow_provider_kie.triggers.wav import WavConversionTrigger
from tests.modes import MODES, run_sensor
from tests.task_instance import Store, Task, TaskInstance, WorkerCrash, die

TRACK = {"music_task_id": "music-1", "audio_id": "track-1"}
QUICK = {"poll_interval": 0.03, "timeout": 20}
MODEL = "ai-music-api/convert-to-wav-format"
PATHS = {"wav": FAMILIES["wav"].submit, "jobs": FAMILIES["jobs"].submit}
ROUTES = list(WAV_ROUTES)


def converted(kie, route):
    if route == "wav":
        return kie.create_conversion("music-1", "track-1", finished=True)
    return kie.create_job("jobs", finished=True, model=MODEL, task_id="music-1", audio_id="track-1")


def let_the_connection_say(kie, monkeypatch, route):
    connection = json.loads(kie.connection_json())
    connection["extra"] = {**connection.get("extra", {}), "wav_route": route}
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))


def submits(kie):
    return [each["path"] for each in kie.requests("submit")]


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
@pytest.mark.parametrize("said_by", ["task", "connection"])
@pytest.mark.parametrize("route", ROUTES)
def test_either_route_gives_the_same_conversion(kie, monkeypatch, route, said_by, deferrable):
    if said_by == "connection":
        let_the_connection_say(kie, monkeypatch, route)
    task = Task(ConvertToWavOperator, Store(), deferrable=deferrable, **TRACK, **QUICK)
    url = task.run_once(**({"route": route} if said_by == "task" else {}))
    conversion = task.xcom["wav_conversion"]
    assert (conversion["wav_url"], conversion["status"]) == (url, "SUCCESS")
    assert (conversion["music_id"], conversion["kie_task_id"]) == ("track-1", task.xcom["kie_task_id"])
    assert (conversion["error_code"], conversion["error_message"]) == (None, None)
    assert submits(kie) == [PATHS[route]]


@pytest.mark.parametrize("asked", [None, *ROUTES])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("mode", MODES)
def test_a_conversion_is_found_by_whichever_route(kie, monkeypatch, mode, route, asked):
    kie_task_id = converted(kie, route)
    end = run_sensor(mode, monkeypatch, kie_task_id=kie_task_id, route=asked, poke_interval=0.03, timeout=20)
    assert (end.state, end.xcom["kie_task_id"], end.xcom["status"]) == ("success", kie_task_id, "SUCCESS")
    assert WavUrlOperator(task_id="url", kie_task_id=kie_task_id, route=asked).execute({"ti": TaskInstance()})
    assert KieHook().get_wav_conversion(kie_task_id) == end.xcom


@pytest.mark.parametrize("mode", MODES)
def test_what_neither_route_knows_is_not_found(kie, monkeypatch, mode):
    end = run_sensor(mode, monkeypatch, kie_task_id="988e00aa", route="jobs", poke_interval=0.03, timeout=20)
    assert end.error == "KieNotFoundError"
    assert {each["path"] for each in kie.requests("record-info")} == {row.query for row in WAV_ROUTES.values()}


@pytest.mark.parametrize("mode", MODES)
def test_a_conversion_that_failed_by_the_market_failed(kie, monkeypatch, mode):
    track = TRACK | {"music_task_id": "fail-1"}
    task = Task(ConvertToWavOperator, Store(), route="jobs", **track, **QUICK)
    with pytest.raises(e.KieConversionFailedError, match="GENERATE_WAV_FAILED"):
        task.run_once()
    end = run_sensor(mode, monkeypatch, kie_task_id=task.xcom["kie_task_id"], poke_interval=0.03, timeout=20)
    assert end.error == "KieConversionFailedError"


@pytest.mark.parametrize("route", ROUTES)
def test_a_whole_job_is_taken_for_its_id(kie, tmp_path, route):
    kie_task_id = converted(kie, route)
    job = KieHook().get_job(kie_task_id, "wav")
    conversion = KieHook().get_wav_conversion(kie_task_id)
    for given in (job, conversion):
        url = WavUrlOperator(task_id="url", kie_task_id=given).execute({"ti": TaskInstance()})
        assert url == conversion["wav_url"]
        destination = str(tmp_path / "one.wav")
        store = WavToObjectStorageOperator(task_id="store", kie_task_id=given, destination=destination)
        assert store.execute({"ti": TaskInstance()}) == destination
    assert WavConversionSensor(task_id="wait", kie_task_id=job).execute({"ti": TaskInstance()}) == conversion


def test_a_job_of_another_family_is_refused_at_once(kie, tmp_path):
    song = KieHook().get_job(kie.create_job("music", finished=True), "music")
    sent = len(kie.requests())
    for task in (
        WavUrlOperator(task_id="url", kie_task_id=song),
        WavConversionSensor(task_id="wait", kie_task_id=song),
        WavToObjectStorageOperator(task_id="store", kie_task_id=song, destination=str(tmp_path / "one.wav")),
    ):
        with pytest.raises(e.KieValidationError, match="kie_task_id is a job of family 'music'"):
            task.execute({"ti": TaskInstance()})
    assert len(kie.requests()) == sent


@pytest.mark.parametrize(
    "build",
    [
        lambda **how: ConvertToWavOperator(task_id="t", **TRACK, **how),
        lambda **how: WavConversionSensor(task_id="t", kie_task_id="wav-1", **how),
        lambda **how: WavUrlOperator(task_id="t", kie_task_id="wav-1", **how),
        lambda **how: WavToObjectStorageOperator(task_id="t", kie_task_id="wav-1", destination="/x.wav", **how),
    ],
)
def test_a_route_that_does_not_exist_is_refused_early(build):
    with pytest.raises(e.KieValidationError, match="route is 'market', but must be 'wav' or 'jobs'"):
        build(route="market")


def test_an_earlier_triggerer_gets_no_new_argument():
    arguments = ("wav-1", "kie_default", 3.0, 17.0, 60.0)
    assert "route" not in WavConversionTrigger(*arguments).serialize()[1]
    path, asked = WavConversionTrigger(*arguments, route="jobs").serialize()
    assert WavConversionTrigger(**asked).serialize() == (path, asked)
    assert asked["route"] == "jobs"


class TestMoney:
    @pytest.fixture
    def task(self, kie):
        return Task(ConvertToWavOperator, Store(), **TRACK, **QUICK)

    @pytest.mark.parametrize(("route", "then"), [("jobs", "jobs"), ("jobs", "wav"), ("wav", "jobs")])
    def test_what_may_have_been_accepted_is_not_repeated(self, kie, task, monkeypatch, route, then):
        die(monkeypatch, KieHook, "submit_wav_by_route", after=True)
        # By wav the task may go on: the 409 would name what was accepted.
        with pytest.raises(e.KieMaybeSubmittedError if route == "jobs" else WorkerCrash):
            task.run_once(route=route)
        with pytest.raises(e.KieMaybeSubmittedError):
            task.run_once(route=then)
        assert kie.accepted_submits == 1

    @pytest.mark.parametrize(("before", "after"), [("wav", "jobs"), ("jobs", "wav")])
    def test_a_try_by_the_other_route_resumes_what_is_paid(self, kie, task, monkeypatch, before, after):
        die(monkeypatch, ConvertToWavOperator, "_announce_submit")
        with pytest.raises(WorkerCrash):
            task.run_once(route=before)
        assert task.run_once(route=after)
        assert submits(kie) == [PATHS[before]]

    def test_a_job_that_is_not_found_is_not_submitted_again(self, kie, task):
        entry = {**TRACK, "account": "kie_default", "base_url": kie.url, "kie_task_id": "gone", "state": "submitted"}
        task.store.set("kie_wav_conversion", entry | {"guarded": False})
        for route in ROUTES:
            with pytest.raises(e.KieNotFoundError):
                task.run_once(route=route)
        assert submits(kie) == []
