# SPDX-License-Identifier: Apache-2.0
"""Jobs of any family: made, waited for and used further, and paid for once, whatever happens between two tries."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.compat import COMMAND
from airflow_provider_kie.durable import adopt
from airflow_provider_kie.emulator.traffic import AnswerQueue
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.operators.music import MusicTracksOperator
from airflow_provider_kie.sensors.job import KieJobSensor
from tests.jobs import job_of
from tests.task_instance import Store, Task, TaskInstance, WorkerCrash, die

QUICK = {"poll_interval": 0.03, "timeout": 20}
IMAGE = {"model": "google/nano-banana", "input": {"prompt": "a lighthouse"}}


def task_of(store, **arguments):
    return Task(KieJobOperator, store, **QUICK | arguments)


@pytest.fixture(params=[False, True], ids=["sync", "deferrable"])
def task(request, kie):
    return task_of(Store(), deferrable=request.param, **IMAGE)


def test_a_job_is_made_once_and_its_first_link_pushed(kie, task):
    job = task.run_once()
    assert (job["family"], job["model"]) == ("jobs", IMAGE["model"])
    assert task.xcom["url"] == job["files"][0]["url"]
    assert task.xcom["kie_task_id"] == job["kie_task_id"]
    assert task.xcom["kie_family"] == "jobs"
    assert task.run_once() == job
    assert kie.accepted_submits == 1


def test_the_page_of_a_task_links_to_its_file(kie):
    wait = KieJobSensor(task_id="wait", kie_task_id=kie.create_job("veo", finished=True), family="veo")
    (link,) = (each for each in wait.operator_extra_links if each.name == "KIE file")
    assert link.get_link(wait, ti_key=None) == ""
    job = wait.execute({"ti": TaskInstance()})
    assert link.get_link(wait, ti_key=None) == job["files"][0]["url"]


def test_a_worker_that_dies_in_the_wait_keeps_the_job(kie, task, monkeypatch):
    die(monkeypatch, KieJobOperator, "_announce_submit")
    with pytest.raises(WorkerCrash):
        task.run_once()
    assert task.run_once()["kie_task_id"] == task.xcom["kie_task_id"]
    assert kie.accepted_submits == 1


def test_a_worker_that_dies_in_the_submit_ends_the_task(kie, task, monkeypatch):
    die(monkeypatch, KieHook, "submit_job", after=True)
    with pytest.raises(e.KieMaybeSubmittedError):  # the task ends; a process that is killed leaves the same entry
        task.run_once()
    for _ in range(2):
        with pytest.raises(e.KieMaybeSubmittedError, match=f"{COMMAND} jobs adopt dag run archive KIE_TASK_ID") as end:
            task.run_once()
        assert isinstance(end.value, AirflowFailException)
    assert kie.accepted_submits == 1


def test_what_is_adopted_outlives_a_clear(kie, task, monkeypatch):
    die(monkeypatch, KieHook, "submit_job", after=True)
    with pytest.raises(e.KieMaybeSubmittedError):
        task.run_once(reuse="never")
    kie_task_id = kie.create_job("jobs", finished=True)
    adopt(task.store, "kie_job", task.store.values["kie_job"], kie_task_id)
    task.clear()
    assert task.run_once(reuse="never")["kie_task_id"] == kie_task_id
    assert len(kie.requests("submit")) == 1


def test_on_unknown_submit_resubmit_submits_again(kie, task, monkeypatch):
    die(monkeypatch, KieHook, "submit_job", after=True)
    with pytest.raises(WorkerCrash):
        task.run_once(on_unknown_submit="resubmit")
    task.run_once(on_unknown_submit="resubmit")
    assert kie.accepted_submits == 2


charged_again = pytest.mark.parametrize("family", ["jobs", "veo"])  # words and numbers
WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


@charged_again
@WAYS
@pytest.mark.parametrize(
    ("answer", "error"),
    [("insufficient-credits", e.KieInsufficientCreditsError), ("rate-limited", e.KieRateLimitError)],
)
def test_a_refused_submit_is_sent_again_by_the_next_try(kie, monkeypatch, family, deferrable, answer, error):
    monkeypatch.setattr("airflow_provider_kie.hooks.pacing.MOST_REPEATS", {e.KieRateLimitError: 0})
    kie.play(answer, endpoint="submit")
    task = task_of(Store(), deferrable=deferrable, **job_of(family))
    with pytest.raises(error) as refused:
        task.run_once()
    assert task.xcom == {}
    if isinstance(refused.value, AirflowFailException):  # which nothing but a clear follows
        task.clear()
    assert task.run_once()["files"]
    assert (len(kie.requests("submit")), kie.accepted_submits) == (2, 1)


@charged_again
@WAYS
def test_an_unreadable_success_is_never_submitted_again(kie, family, deferrable):
    kie.play({"jobs": "jobs-not-json", "veo": "veo-no-result"}[family], repeat=True)
    task = task_of(Store(), deferrable=deferrable, **job_of(family))
    for clear in (False, False, True):
        if clear:
            task.clear()
        with pytest.raises(e.KieUnreadableAnswerError) as end:
            task.run_once()
        assert end.value.kie_task_id == task.xcom["kie_task_id"]
    assert family != "jobs" or "not json" in str(end.value)
    kie.state.answers = AnswerQueue()  # what KIE says can be read again
    assert task.run_once()["files"]
    assert len(kie.requests("submit")) == kie.accepted_submits == 1


@charged_again
@WAYS
def test_without_a_memory_such_a_success_is_final(kie, family, deferrable):
    kie.play({"jobs": "jobs-not-json", "veo": "veo-no-result"}[family], repeat=True)
    with pytest.raises(e.KieUnreadableAnswerError) as end:
        task_of(None, deferrable=deferrable, **job_of(family)).run_once()
    assert isinstance(end.value, AirflowFailException)


def test_without_a_memory_an_unknown_outcome_is_final(kie, monkeypatch):
    die(monkeypatch, KieHook, "submit_job", after=True)
    with pytest.raises(e.KieMaybeSubmittedError, match=r"kie\.ai/logs lists the job") as end:
        task_of(None, **IMAGE).run_once()
    assert isinstance(end.value, AirflowFailException)
    assert COMMAND not in str(end.value)


def an_answer_with_an_id(monkeypatch, kie_task_id):
    """Let KIE answer with a number that nobody knows, and an id."""

    def submit_job(self, **_):
        raise e.KieUnexpectedCodeError("KIE answered 0", code=0, existing_kie_task_id=kie_task_id)

    monkeypatch.setattr(KieHook, "submit_job", submit_job)


def test_an_id_in_an_odd_answer_is_used(kie, task, monkeypatch):
    kie_task_id = kie.create_job("jobs", finished=True, prompt="a lighthouse")
    an_answer_with_an_id(monkeypatch, kie_task_id)
    with pytest.raises(e.KieUnexpectedCodeError):
        task.run_once()
    assert task.run_once()["kie_task_id"] == kie_task_id


def test_without_a_memory_an_odd_answer_names_the_id(kie, monkeypatch):
    an_answer_with_an_id(monkeypatch, "paid-1")
    with pytest.raises(e.KieUnexpectedCodeError) as end:
        task_of(None, **IMAGE).run_once()
    assert isinstance(end.value, AirflowFailException)
    assert end.value.existing_kie_task_id == "paid-1"


def test_a_retry_with_another_input_stops(kie, task):
    task.run_once()
    with pytest.raises(e.KieMaybeSubmittedError, match="another digest"):
        task.run_once(input={"prompt": "a harbour"})
    assert kie.accepted_submits == 1


def test_after_a_clear_another_input_is_another_job(kie, task):
    first = task.run_once()
    task.clear()
    assert task.run_once() == first
    task.clear()
    assert task.run_once(input={"prompt": "a harbour"})["kie_task_id"] != first["kie_task_id"]
    assert kie.accepted_submits == 2


def test_with_reuse_never_a_clear_pays_again(kie, task):
    first = task.run_once(reuse="never")
    assert task.run_once(reuse="never") == first
    task.clear()
    assert task.run_once(reuse="never") != first
    assert kie.accepted_submits == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"input": {}}, "Either model or family is needed"),
        ({"input": {}, "family": "poems"}, "family is 'poems', but must be one of"),
        ({"input": {}, "family": "veo", "on_unknown_submit": "pray"}, "on_unknown_submit is 'pray'"),
        ({"input": {}, "family": "veo", "reuse": "always"}, "reuse is 'always'"),
        ({"input": {"seed": float("nan")}, "family": "veo"}, "input"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_sent(kie, arguments, says):
    store = Store()
    with pytest.raises(e.KieValidationError, match=says):
        task_of(store, **arguments).run_once()
    assert kie.requests() == []
    assert store.values == {}


def test_a_song_leads_to_tracks_and_sensors_take_it(kie):
    task = task_of(Store(), family="music", input={"prompt": "a sea shanty", "model": "V5"} | MUSIC)
    song = task.run_once()
    assert len(song["files"]) >= 2
    context = {"ti": TaskInstance()}
    tracks = MusicTracksOperator(task_id="tracks", kie_task_id=song).execute(context)
    assert {track["music_task_id"] for track in tracks} == {song["kie_task_id"]}
    assert len({track["audio_id"] for track in tracks}) == len(tracks) == 2
    assert tracks == MusicTracksOperator(task_id="tracks", kie_task_id=song["kie_task_id"]).execute(context)
    poked = KieJobSensor(task_id="wait", kie_task_id=song).execute(context)
    assert poked["kie_task_id"] == song["kie_task_id"]


MUSIC = {"customMode": False, "instrumental": True}
