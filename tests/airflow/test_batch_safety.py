# SPDX-License-Identifier: Apache-2.0
"""Batches that are ended, slowed down or told wrong things: nothing is paid twice, and what is paid for is not lost."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.batch import run as batch_run
from airflow_provider_kie.batch import submits
from airflow_provider_kie.hooks import pacing
from airflow_provider_kie.ledger import entry
from airflow_provider_kie.ledger.folder import Folder
from airflow_provider_kie.ledger.storage import init_ledger
from airflow_provider_kie.operators.batch import ConvertCatalogToWavOperator, KieBatchOperator
from airflow_provider_kie.times import switched
from tests import buckets
from tests.batches import foxes, prompts
from tests.jobs import IMAGE_MODEL
from tests.task_instance import Task, TaskInstance, WorkerCrash

pytestmark = pytest.mark.usefixtures("no_patience")

TRACKS = [{"music_task_id": "m", "audio_id": f"a{number}"} for number in range(3)]


def slow_claims(monkeypatch, seconds):
    """Let each claim take so long; return the names of those that have begun."""
    create, begun = Folder.create, []

    def slow(self, name, body):
        is_created = create(self, name, body)
        if name.endswith("claimed"):
            begun.append(name)
            time.sleep(seconds)
        return is_created

    monkeypatch.setattr(Folder, "create", slow)
    return begun


def ended_after(operator, seconds, once=lambda: True):
    """Carry out a try that a user ends so long after something is so, and return what it has pushed and the error."""
    ti = TaskInstance()

    def end():
        until = time.monotonic() + 30
        while not once() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(seconds)
        operator.on_kill()

    threading.Thread(target=end, daemon=True).start()
    with pytest.raises(e.KieBatchFailedError) as error:
        operator.execute({"ti": ti})
    return ti.pushed["batch"], error.value


# --- It ends


def test_nothing_is_sent_once_a_batch_has_ended_however_slow_the_claims_are(kie, batch, rows, monkeypatch):
    begun = slow_claims(monkeypatch, 1.5)
    told, _ = ended_after(batch(foxes(10))._build(), 0.1, once=lambda: begun)
    assert told["failed"] == 10
    left = [thread for thread in threading.enumerate() if thread.name.startswith("kie-batch-submit")]
    for thread in left:
        thread.join(timeout=20)
    assert left
    assert kie.requests("submit") == []
    assert {row["end"] for row in rows()} == {"not submitted"}


@switched(longest_submit=2.0)
def test_nothing_is_sent_after_the_wait_for_somebody_elses_claim(kie, batch, ledger, monkeypatch):
    operator = batch(foxes(1), on_unknown_submit="resubmit")._build()
    look_up, claimed = batch_run.BatchRun.look_up, []

    def and_claim(self):
        look_up(self)
        claimed.append(self._submits._entry(self._items[0])._claim())  # another try claims it just now, and dies

    monkeypatch.setattr(batch_run.BatchRun, "look_up", and_claim)
    ended_after(operator, 0.5, once=lambda: claimed)
    for thread in threading.enumerate():
        if thread.name.startswith("kie-batch-submit"):
            thread.join(timeout=20)
    assert kie.requests("submit") == []


def test_a_look_up_ends_at_once_and_leaves_the_earlier_manifest(kie, batch, rows, monkeypatch):
    task = batch(foxes(300))
    task.run_once()
    earlier = rows()
    looked = []
    monkeypatch.setattr(submits.Submits, "look_up", lambda *_: (looked.append(time.monotonic()), time.sleep(0.3))[1])
    told, _ = ended_after(task._build(), 0.2, once=lambda: looked)
    assert len(looked) < 150
    assert told["total"] == 300
    assert rows() == earlier


def test_a_retry_that_is_ended_says_which_jobs_run(kie, batch, rows):
    kie.configure(conversion_seconds=30)
    task = batch(foxes(10))
    ended_after(task._build(), 0.5, once=lambda: kie.accepted_submits == 10)
    _, error = ended_after(task._build(max_in_flight=2), 1.0)
    assert Counter(row["end"] for row in rows()) == {"running": 10}
    assert "not submitted" not in str(error)
    kie.configure(conversion_seconds=0.1)


# --- Two tries at once


def test_two_tries_together_have_no_more_submits_than_are_allowed(kie, batch):
    """Another try submits, and fails, between the look-up of this one and its submit."""
    task = batch([{"prompt": "fail: a fox"}])
    look_up = batch_run.BatchRun.look_up

    def and_another(self):
        look_up(self)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch_run.BatchRun, "look_up", look_up)
            with pytest.raises(e.KieBatchFailedError):
                task.run_once()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_run.BatchRun, "look_up", and_another)
        with pytest.raises(e.KieBatchFailedError, match="max_attempts=1 allows no other"):
            task.run_once()
    assert kie.accepted_submits == 1


@switched(send_within=0.2)
def test_a_claim_that_took_too_long_is_not_sent(kie, batch, ledger, monkeypatch):
    slow_claims(monkeypatch, 0.4)
    with pytest.raises(e.KieBatchFailedError, match="KieLedgerError"):
        batch(foxes(1)).run_once()
    assert kie.requests("submit") == []
    names = Counter(path.name.partition(".")[2] for path in Path(ledger.removeprefix("file://")).glob("??/*/*"))
    assert names == {"claimed": entry.MOST_CLAIMS, "refused": entry.MOST_CLAIMS}


# --- What an earlier try has said


def test_ids_that_the_ledger_could_not_take_are_taken_from_the_manifest(kie, batch, rows, monkeypatch):
    create = Folder.create
    task = batch(foxes(3))
    with pytest.MonkeyPatch.context() as patch:
        refuse = lambda self, name, body: None if name.endswith("submitted") else create(self, name, body)  # noqa: E731
        patch.setattr(Folder, "create", refuse)
        task.run_once()
        ids = [row["kie_task_id"] for row in rows()]
        task.run_once()  # which cannot write them either
    assert task.run_once()["succeeded"] == 3
    assert [row["kie_task_id"] for row in rows()] == ids
    assert kie.accepted_submits == 3


def test_a_killed_retry_leaves_the_ids(kie, batch, rows, monkeypatch):
    task = batch(foxes(3))
    task.run_once()
    ids = [row["kie_task_id"] for row in rows()]

    monkeypatch.setattr(batch_run.BatchRun, "run", lambda self: (_ for _ in ()).throw(WorkerCrash))
    monkeypatch.setattr(KieBatchOperator, "_conclude", lambda *_: None)
    with pytest.raises(WorkerCrash):
        task.run_once()
    assert [(row["end"], row["kie_task_id"]) for row in rows()] == [("running", each) for each in ids]


def test_a_killed_worker_leaves_nothing_beside_the_manifest(kie, batch, tmp_path, monkeypatch):
    task = batch(foxes(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_kie.files.storage._own_move", lambda fs: die_before_the_move)
        with pytest.raises(WorkerCrash):
            task.run_once()
    assert list(tmp_path.glob(".kie-*"))
    monkeypatch.setattr(TaskInstance, "try_number", 2, raising=False)
    task.run_once()
    assert not list(tmp_path.glob(".kie-*"))


def die_before_the_move(*_):
    raise WorkerCrash


def test_a_retry_does_not_fetch_chosen_files_again(kie, batch, tmp_path):
    given = [{"audioId": "a", "taskId": "t", "type": "split_stem"}]
    place = f"{tmp_path}/out/{{kie_task_id}}-{{name}}-{{index}}.{{ext}}"
    task = batch(given, family="stems", names=["vocal"], destination=place)
    task.run_once()
    fetched = len(kie.requests("file"))
    for job in kie.state.jobs():
        kie.expire_links(job.kie_task_id)
    assert task.run_once()["succeeded"] == 1
    assert len(kie.requests("file")) == fetched


@pytest.mark.skipif(bool(buckets.MISSING), reason=f"needs {buckets.MISSING}: pip install '.[dev-s3]'")
def test_everything_may_be_in_s3(kie, monkeypatch):
    with buckets.bucket("catalogue") as (client, connection):
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection)
        where = "s3://aws_default@catalogue"
        ledger = init_ledger(f"{where}/ledger").url
        lines = [json.dumps({"prompt": f"Füchse \U0001f98a {number}"}) for number in range(4)]
        client.put_object(Bucket="catalogue", Key="items.jsonl", Body="\n".join(lines).encode())
        usual = {"manifest": f"{where}/manifest.jsonl", "model": IMAGE_MODEL, "ledger": ledger, "poll_interval": 0.05}
        place = where + "/out/{kie_task_id}.{ext}"
        task = Task(KieBatchOperator, None, items=f"{where}/items.jsonl", destination=place, **usual)
        assert [task.run_once()["succeeded"] for _ in range(3)] == [4, 4, 4]
        assert kie.accepted_submits == 4
        stored = client.list_objects_v2(Bucket="catalogue", Prefix="out/")["Contents"]
        assert len(stored) == 4
        assert (
            Task(KieBatchOperator, None, items=[], **usual | {"manifest": f"{where}/none.jsonl"}).run_once()["total"]
            == 0
        )


def test_an_unknown_item_does_not_name_its_failed_job(kie, batch, rows):
    task = batch([{"prompt": "fail: a fox"}], max_attempts=2)
    kie.play("accepted", "accepted-then-reset", endpoint="submit")
    with pytest.raises(e.KieBatchFailedError):
        task.run_once()
    assert [(row["end"], row["kie_task_id"]) for row in rows()] == [("unknown", None)]


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-30], lambda text: text.replace('"ordinal": 1', '"ordinal": []')]
)
def test_a_damaged_manifest_is_replaced(kie, batch, rows, tmp_path, damage):
    task = batch(foxes(3) + foxes(3))
    task.run_once()
    manifest = tmp_path / "manifest.jsonl"
    whole = manifest.read_text()
    manifest.write_text(damage(whole))
    assert task.run_once()["succeeded"] == 6
    assert len(rows()) == 6
    assert kie.accepted_submits == 6


# --- The account


@pytest.mark.parametrize("by", ["argument", "connection"])
def test_tracks_go_by_the_route_that_is_asked_for(kie, batch, monkeypatch, by):
    if by == "connection":
        connection = json.loads(os.environ["AIRFLOW_CONN_KIE_DEFAULT"])
        connection["extra"]["wav_route"] = "jobs"
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    more = {"route": "jobs"} if by == "argument" else {}
    assert batch(TRACKS, ConvertCatalogToWavOperator, **more).run_once()["succeeded"] == 3
    assert {each["path"] for each in kie.requests("submit")} == {"/api/v1/jobs/createTask"}


def test_a_key_that_was_replaced_lets_the_next_try_go_on(kie, batch, monkeypatch):
    kie.configure(conversion_seconds=0.6)
    task, old = batch(foxes(8), max_in_flight=2), kie.state.api_key

    def replace_it():
        connection = json.loads(os.environ["AIRFLOW_CONN_KIE_DEFAULT"])
        kie.state.api_key = connection["password"] = "another-key-0123456789"
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))

    try:
        threading.Timer(0.8, replace_it).start()
        with pytest.raises(e.KieBatchFailedError) as error:
            task.run_once()
        assert not isinstance(error.value, AirflowFailException)  # so Airflow tries again
        assert task.run_once()["succeeded"] == 8
        assert max(prompts(kie).values()) <= 2  # refused once at most, with the old key
        assert kie.accepted_submits == 8
    finally:
        kie.state.api_key = old


@switched(longest_repeat_pause=1.0)
def test_a_long_pause_that_kie_asks_for_is_waited_for(kie, batch, monkeypatch):
    note = pacing.Cooldowns.note

    def longer(self, settings, error):
        if isinstance(error, e.KieRateLimitError):
            error.retry_after = 1.2
        note(self, settings, error)

    monkeypatch.setattr(pacing.Cooldowns, "note", longer)
    kie.play("rate-limited", endpoint="submit")
    assert batch(foxes(30)).run_once()["succeeded"] == 30
    assert kie.accepted_submits == 30


def test_the_commands_name_the_task_that_has_claimed_the_item(kie, batch, ledger, kie_command, monkeypatch):
    kie.play("accepted-then-reset", endpoint="submit")
    with pytest.raises(e.KieBatchFailedError):
        batch(foxes(1), reuse="input").run_once()
    monkeypatch.setattr(TaskInstance, "task_id", "other")
    with pytest.raises(e.KieBatchFailedError) as error:
        batch(foxes(1), reuse="input", overwrite=True).run_once()
    forget = next(part for part in str(error.value).split("`") if " forget " in part)
    time.sleep(0.2)  # for longer than a submit can take, by the patience of these tests
    assert kie_command(*forget[forget.index("jobs") :].replace("'", "").split())[0] == 0


def test_an_unknown_item_stays_unknown_if_nothing_more_may_be_sent(kie, batch, rows):
    kie.play("accepted-then-reset", endpoint="submit")
    task = batch(foxes(4), on_unknown_submit="resubmit", max_in_flight=1)
    with pytest.raises(e.KieBatchFailedError):
        task.run_once()
    with pytest.raises(e.KieBatchFailedError):
        task.run_once(max_credits=0.001)
    (unknown,) = [row for row in rows() if row["end"] != "succeeded"]
    assert unknown["end"] == "unknown"
    assert unknown["error"]["next_step"]


# --- What fits no job


def test_a_place_that_does_not_fit_the_files_stops_the_submits(kie, batch, rows, tmp_path):
    songs = [
        {"prompt": f"song {number}", "customMode": False, "instrumental": True, "model": "V5"} for number in range(9)
    ]
    place = f"{tmp_path}/out/{{kie_task_id}}.{{ext}}"
    with pytest.raises(e.KieBatchFailedError, match="same place"):
        batch(songs, family="music", destination=place, max_in_flight=1, fail_if=0.9).run_once()
    assert kie.accepted_submits < 9
    (error, *_) = [row["error"] for row in rows() if row["kie_task_id"]]
    assert error["type"] == "KieValidationError"


def test_a_result_without_files_is_in_the_manifest(kie, batch, rows, tmp_path):
    place = f"{tmp_path}/out/{{kie_task_id}}.{{ext}}"
    assert batch([{"prompt": "a song"}], family="lyrics", destination=place).run_once()["succeeded"] == 1
    assert rows()[0]["result"]


@switched(first_repeat_pause=1.0)
def test_a_lost_submit_is_unknown_also_if_the_batch_ends_before_its_repetition(kie, batch, rows):
    kie.play("accepted-then-reset", endpoint="submit")
    ended_after(batch(TRACKS[:1], ConvertCatalogToWavOperator)._build(), 0.1, once=lambda: kie.accepted_submits)
    assert kie.accepted_submits == 1
    assert rows()[0]["end"] == "unknown"
