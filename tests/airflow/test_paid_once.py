# SPDX-License-Identifier: Apache-2.0
"""What makes users pay twice, or lose what they paid for, as somebody with fresh eyes found it."""

from __future__ import annotations

import json
import signal

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.emulator.server import KieEmulator
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.operators.music import MusicTracksOperator
from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from tests.task_instance import Store, Task, TaskInstance

QUICK = {"poll_interval": 0.03, "timeout": 20}
IMAGE = {"model": "google/nano-banana", "input": {"prompt": "a lighthouse"}}
TRACK = {"music_task_id": "music-1", "audio_id": "track-1"}


@pytest.fixture
def slow(kie):
    kie.configure(conversion_seconds=60)
    return kie


def image(store, **arguments):
    return Task(KieJobOperator, store, **QUICK | IMAGE | arguments)


def break_off_in(seconds):
    def broken(*_):
        raise AirflowTaskTimeout("Timeout")

    signal.signal(signal.SIGALRM, broken)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def test_a_task_that_is_broken_off_while_it_waits_is_not_retried_where_nothing_is_remembered(slow):
    break_off_in(0.5)
    with pytest.raises(e.KieWaitTimeoutError, match="AirflowTaskTimeout") as end:
        image(None).run_once()
    assert isinstance(end.value, AirflowFailException)
    assert end.value.kie_task_id


def test_where_the_job_is_remembered_a_retry_follows(slow):
    task = image(Store())
    break_off_in(0.5)
    with pytest.raises(AirflowTaskTimeout):
        task.run_once()
    slow.configure(conversion_seconds=0)
    with pytest.raises(e.KieWaitTimeoutError):
        task.run_once(timeout=0.1)
    assert slow.accepted_submits == 1


def test_what_becomes_of_a_terminated_task_is_left_to_airflow(slow, monkeypatch):
    """On Airflow 2.11 somebody may have set its state meanwhile."""

    class Terminated(BaseException):
        pass

    def terminated(*_):
        raise Terminated

    signal.signal(signal.SIGALRM, terminated)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    with pytest.raises(Terminated):
        image(None).run_once()


def test_an_xcom_that_cannot_be_pushed_is_no_reason_to_pay_again(kie, monkeypatch):
    def xcom_push(self, key, value):
        raise RuntimeError("no database today")

    monkeypatch.setattr(TaskInstance, "xcom_push", xcom_push)
    with pytest.raises(e.KieWaitTimeoutError, match="no database today") as end:
        image(None).run_once()
    assert isinstance(end.value, AirflowFailException)


def test_a_retry_after_a_clear_is_a_retry(slow):
    task = image(Store(), timeout=0.1)
    for _ in range(2):
        with pytest.raises(e.KieWaitTimeoutError):
            task.run_once()
        task.clear()
    with pytest.raises(e.KieWaitTimeoutError):
        task.run_once()  # the try after the second clear
    with pytest.raises(e.KieMaybeSubmittedError, match="another digest"):
        task.run_once(input={"prompt": "a harbour"})
    assert slow.accepted_submits == 1


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [(ConvertToWavOperator, TRACK), (KieJobOperator, {"family": "wav", "input": {"taskId": "m", "audioId": "a"}})],
)
def test_the_guard_does_not_reach_to_another_account(kie, monkeypatch, operator, arguments):
    kie.play("accepted-then-reset", endpoint="submit", repeat=True)
    task = Task(operator, Store(), **QUICK | arguments)
    with pytest.raises(e.KieError):
        task.run_once()
    kie.reset()
    monkeypatch.setenv("AIRFLOW_CONN_KIE_OTHER", kie.connection_json())
    with pytest.raises(e.KieMaybeSubmittedError, match="another account"):
        task.run_once(kie_conn_id="kie_other")
    assert kie.accepted_submits == 0


def test_a_job_that_another_account_does_not_know_is_no_failed_one(slow, monkeypatch):
    task = Task(ConvertToWavOperator, Store(), **QUICK | TRACK | {"timeout": 0.1})
    with pytest.raises(e.KieWaitTimeoutError):
        task.run_once()
    with KieEmulator(submits_per_window=None) as other:
        monkeypatch.setenv("AIRFLOW_CONN_KIE_OTHER", other.connection_json())
        with pytest.raises(e.KieMaybeSubmittedError, match="another account"):
            task.run_once(kie_conn_id="kie_other")
        task.clear()
        with pytest.raises(e.KieMaybeSubmittedError, match="another account"):  # a clear is no consent to pay there
            task.run_once(kie_conn_id="kie_other")
        assert other.accepted_submits == 0


def test_the_command_that_settles_names_the_connection(kie, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_KIE_OTHER", kie.connection_json())
    kie.play("accepted-then-reset", endpoint="submit")
    with pytest.raises(e.KieMaybeSubmittedError, match=r"jobs adopt dag run \w+ --conn-id kie_other KIE_TASK_ID"):
        image(Store(), kie_conn_id="kie_other").run_once()


def test_the_hook_says_of_a_lost_answer_that_it_may_be_paid_for(kie):
    kie.play("accepted-then-reset", endpoint="submit")
    with pytest.raises(e.KieMaybeSubmittedError):
        KieHook().submit_job(**IMAGE)


def test_with_resubmit_a_lost_answer_is_retried(kie):
    task = image(Store(), on_unknown_submit="resubmit")
    kie.play("accepted-then-reset", endpoint="submit")
    with pytest.raises(e.KieConnectionError) as end:
        task.run_once()
    assert not isinstance(end.value, AirflowFailException)
    assert task.run_once()["files"]


def test_with_fail_a_conversion_is_not_sent_again_within_its_try_either(kie):
    kie.play("accepted-then-reset", endpoint="submit")
    with pytest.raises(e.KieMaybeSubmittedError):
        Task(ConvertToWavOperator, Store(), on_unknown_submit="fail", **QUICK | TRACK).run_once()
    assert len(kie.requests("submit")) == 1


def test_a_job_without_tracks_is_no_empty_list(kie):
    tracks = MusicTracksOperator(task_id="tracks", kie_task_id=kie.create_job("veo", finished=True), family="veo")
    with pytest.raises(e.KieValidationError, match="no tracks"):
        tracks.execute({"ti": TaskInstance()})


def test_a_job_of_another_model_is_named_instead_of_not_found(kie):
    other = kie.create_job("jobs", finished=True, model="google/nano-banana")
    with pytest.raises(e.KieWrongTaskError, match="google/nano-banana"):
        WavUrlOperator(task_id="url", kie_task_id=other).execute({"ti": TaskInstance()})


def test_links_of_mapped_tasks_are_an_input(kie):
    class Links(tuple):
        """A sequence that is neither list nor tuple for ``json``, as Airflow's results of mapped tasks."""

        __slots__ = ()

    links = Links(["https://t.example/1.png", "https://t.example/2.png"])
    image(Store(), input={"prompt": "both", "image_urls": links}).run_once()
    (sent,) = kie.requests("submit")
    assert json.loads(json.dumps(sent["json"]))["input"]["image_urls"] == list(links)
