# SPDX-License-Identifier: Apache-2.0
"""A conversion is paid for once, whatever happens to the task between two tries."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.durable import StoredEntry
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.operators.wav import ConvertToWavOperator
from tests.task_instance import Store, Task, TaskInstance, WorkerCrash, die

TRACK = {"music_task_id": "music", "audio_id": "track"}
QUICK = {"poll_interval": 0.03, "timeout": 20}


def task_of(**arguments):
    return Task(ConvertToWavOperator, Store(), **TRACK | QUICK | arguments)


@pytest.fixture(params=[False, True], ids=["sync", "deferrable"])
def task(request, kie):
    return task_of(deferrable=request.param)


def crash_while_waiting(task, monkeypatch):
    if task.arguments["deferrable"]:
        die(monkeypatch, ConvertToWavOperator, "resume_execution")
    else:
        die(monkeypatch, KieHook, "wait")
    with pytest.raises(WorkerCrash):
        task.run_once()


@pytest.fixture
def own_patches():
    """Patches that can be undone without undoing those of other fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_the_id_is_kept_first_and_longer_than_the_file(task, own_patches):
    die(own_patches, TaskInstance, "xcom_push")
    with pytest.raises(WorkerCrash):
        task.run_once()
    (kept,) = task.store.values.values()
    assert kept["kie_task_id"]
    assert set(task.store.retention.values()) == {timedelta(days=30)}


@pytest.mark.parametrize("seconds", [0.2, 0.0], ids=["still-running", "finished-meanwhile"])
def test_a_retry_resumes_what_was_paid_for(kie, task, own_patches, seconds):
    kie.configure(conversion_seconds=seconds)
    crash_while_waiting(task, own_patches)
    first_id = task.xcom["kie_task_id"]

    url = task.run_once()

    assert task.xcom["kie_task_id"] == first_id
    assert task.xcom["wav_conversion"]["kie_task_id"] == first_id
    assert task.xcom["wav_conversion"]["wav_url"] == url
    assert len(kie.requests("submit")) == kie.accepted_submits == 1


def test_an_id_that_was_not_kept_is_found_by_the_409(kie, task, own_patches):
    die(own_patches, StoredEntry, "commit")
    with pytest.raises(WorkerCrash):
        task.run_once()
    assert task.run_once().startswith(kie.url)
    assert kie.accepted_submits == 1


@pytest.mark.parametrize("answer", ["success-link-no-url", "callback-exception-link-no-url"])
def test_a_link_that_is_no_url_is_never_submitted_again(kie, task, answer):
    kie.play(answer, endpoint="record-info", repeat=True)
    for _ in range(2):
        task.arguments["timeout"] = 0.3
        with pytest.raises(e.KieWaitTimeoutError, match=r"its link is not an http\(s\) URL: it begins with 's3://kie-"):
            task.run_once()
    kie.play("success", endpoint="record-info", repeat=True)  # KIE has fixed its link
    task.arguments["timeout"] = 20
    assert task.run_once().startswith(kie.url)
    assert len(kie.requests("submit")) == kie.accepted_submits == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("music_task_id", ""), ("music_task_id", 1e30), ("audio_id", "a b"), ("callback_url", "x"), ("kie_conn_id", None)],
)
def test_what_cannot_be_sent_leaves_no_note(kie, task, field, value):
    task.arguments[field] = value
    with pytest.raises(e.KieValidationError, match=f"^{field}"):
        task.run_once()
    assert task.store.values == {}
    assert kie.requests() == []


@pytest.mark.parametrize("what", ["connection", "proxy"])
def test_a_connection_that_cannot_work_leaves_no_note(kie, task, monkeypatch, what):
    if what == "connection":
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", '{"conn_type": "kie"}')
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "" if name.lower() == "no_proxy" else "socks5://127.0.0.1:1")
    with pytest.raises(e.KieConfigurationError):
        task.run_once(callback_url="https://api.example.com/callback")
    assert task.store.values == {}
    assert kie.requests() == []


def test_ids_that_became_numbers_are_the_same_track(kie, task):
    task.arguments |= {"music_task_id": 5790, "audio_id": 231}
    task.run_once()
    (submit,) = kie.requests("submit")
    task.arguments |= {"music_task_id": "5790", "audio_id": "231"}
    task.run_once()
    assert (submit["json"]["taskId"], submit["json"]["audioId"]) == ("5790", "231")
    assert len(kie.requests("submit")) == 1


@pytest.mark.parametrize("named_again", [False, True])
def test_a_failed_conversion_is_submitted_again(kie, task, named_again):
    kie.configure(conflict_after_failure=named_again)
    task.arguments["music_task_id"] = "fail-music"
    ids = []
    for _ in range(2):
        with pytest.raises(e.KieConversionFailedError, match="GENERATE_WAV_FAILED"):
            task.run_once()
        ids.append(task.xcom["kie_task_id"])
    assert len(kie.requests("submit")) == 2
    assert len(set(ids)) == kie.accepted_submits == (1 if named_again else 2)


def test_what_kie_has_forgotten_is_submitted_again(kie, task, own_patches):
    crash_while_waiting(task, own_patches)
    first_id = task.xcom["kie_task_id"]
    kie.reset()
    assert task.run_once().startswith(kie.url)
    assert task.xcom["kie_task_id"] != first_id
    assert kie.accepted_submits == 1


def test_trouble_at_a_retrys_first_poll_submits_nothing(kie, task, own_patches):
    crash_while_waiting(task, own_patches)
    kie.play("wrong-key")
    with pytest.raises(e.KieAuthenticationError):
        task.run_once()
    kie.play(*["bad-gateway"] * 5, endpoint="record-info")
    assert task.run_once().startswith(kie.url)
    assert len(kie.requests("submit")) == 1


def test_a_retry_without_waiting_returns_the_same_id(kie):
    task = task_of(wait_for_completion=False)
    first_id = task.run_once()
    assert task.run_once() == task.xcom["kie_task_id"] == first_id
    assert len(kie.requests("submit")) == 1


def test_a_store_that_fails_after_a_submit_loses_nothing(kie, task, own_patches, caplog):
    original = Store.set

    def broken_for_ids(self, key, value, **kwargs):
        if value["kie_task_id"]:
            raise RuntimeError("no store today")
        original(self, key, value, **kwargs)

    own_patches.setattr(Store, "set", broken_for_ids)
    assert task.run_once().startswith(kie.url)
    assert f"WAV task {task.xcom['kie_task_id']} is submitted" in caplog.text


@pytest.mark.parametrize("method", ["get", "set"])
def test_a_store_that_refuses_lets_nothing_be_submitted(kie, task, own_patches, method):
    """Airflow has given the try up: it reads an empty store, and is refused when it writes."""

    def refused(*_, **__):
        raise RuntimeError("the task instance is not running")

    own_patches.setattr(Store, method, refused)
    with pytest.raises(RuntimeError):
        task.run_once()
    assert kie.requests() == []


def test_not_durable_touches_nothing(kie, task):
    task.arguments["durable"] = False
    task.run_once()
    task.run_once()
    assert task.store.calls == 0
    assert kie.accepted_submits == 1
