# SPDX-License-Identifier: Apache-2.0
"""A job is paid for once where a ledger remembers it: on every Airflow, and across tasks."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.compat import COMMAND
from airflow_provider_kie.hooks import pacing
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.ledger import settle, storage
from airflow_provider_kie.ledger.chain import Chain
from airflow_provider_kie.ledger.storage import init_ledger
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.operators.wav import ConvertToWavOperator
from airflow_provider_kie.times import switched
from airflow_provider_kie.transfers.job_to_object_storage import KieJobToObjectStorageOperator
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator
from tests.jobs import IMAGE_MODEL, QUERY_CANARY, SIGNED_URL
from tests.task_instance import Store, Task, TaskInstance, WorkerCrash, die

QUICK = {"poll_interval": 0.03, "timeout": 20}
FOX = {"model": IMAGE_MODEL, "input": {"prompt": "a fox", "image_urls": [SIGNED_URL]}}


pytestmark = pytest.mark.usefixtures("short_patience")


@pytest.fixture
def ledger(tmp_path):
    return init_ledger(f"file://{tmp_path}/ledger").url


@pytest.fixture
def own_patches():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


class OtherTask(TaskInstance):
    task_id = "another"


def lose(task, **changes):
    """Let a try die after KIE has accepted its submit."""
    with pytest.MonkeyPatch.context() as patch:
        die(patch, KieHook, "_send", after=True)
        with pytest.raises((WorkerCrash, e.KieMaybeSubmittedError)):
            task.run_once(**changes)


def lose_elsewhere(ledger):
    """Let a task of another DAG die after KIE has accepted its submit of the same input."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.task_instance.TaskInstance", type("Owner", (TaskInstance,), {"dag_id": "catalogue"}))
        lose(task_of(ledger, reuse="input"))


def task_of(ledger, store=None, **arguments):
    return Task(KieJobOperator, store, ledger=ledger, **FOX | QUICK | arguments)


def forget_all(ledger):
    opened = storage.open_ledger(ledger)
    for body in [each for bodies in opened.chains() for each in settle.standing(bodies)]:
        settle.forget(opened, body)


def conversion(ledger, store=None):
    return Task(ConvertToWavOperator, store, ledger=ledger, music_task_id="m", audio_id="a", **QUICK)


def files(ledger):
    """Return the states of each chain, in the order in which they rank."""
    chains = {}
    for path in sorted(Path(ledger.removeprefix("file://")).glob("??/*/*")):
        chains.setdefault(path.parent.name, []).append(path.name)
    return sorted(chains.values())


@pytest.fixture(params=[False, True], ids=["sync", "deferrable"])
def task(request, kie, ledger):
    return task_of(ledger, deferrable=request.param)


# --- One task, without Airflow's store


def test_a_retry_goes_on_with_what_was_paid_for(kie, task, ledger, own_patches):
    die(own_patches, TaskInstance, "xcom_push")
    with pytest.raises(WorkerCrash):
        task.run_once()
    job = task.run_once()
    assert (len(kie.requests("submit")), kie.accepted_submits) == (1, 1)
    assert job["files"]
    assert files(ledger) == [["0001.claimed", "0001.finished", "0001.submitted"]]


def test_an_entry_says_whose_it_is_and_what_it_cost(kie, task, ledger, tmp_path):
    job = task.run_once()
    (path,) = (tmp_path / "ledger").glob("??/*/0001.finished")
    told = json.loads(path.read_text())
    assert told["identity"]["model"] == IMAGE_MODEL
    assert told["task"] == {"dag_id": "dag", "run_id": "run", "task_id": "archive", "map_index": -1}
    assert (told["kie_task_id"], told["credits"]) == (job["kie_task_id"], 4.0)
    everything = "".join(each.read_text() for each in (tmp_path / "ledger").rglob("*") if each.is_file())
    assert not any(secret in everything for secret in (kie.api_key, QUERY_CANARY, "?sig", "/s/"))


@pytest.mark.parametrize("when", ["before the answer", "before the note"])
def test_a_submit_of_unknown_outcome_is_not_repeated(kie, task, ledger, own_patches, when):
    if when == "before the note":
        die(own_patches, Chain, "note")
    else:
        die(own_patches, KieHook, "_send", after=True)
    with pytest.raises((WorkerCrash, e.KieMaybeSubmittedError)):
        task.run_once()
    for _ in range(2):
        with pytest.raises(e.KieMaybeSubmittedError) as end:
            task.run_once()
        assert isinstance(end.value, AirflowFailException)
        assert f"{COMMAND} jobs adopt dag run archive --ledger {ledger} KIE_TASK_ID" in str(end.value)
    assert kie.accepted_submits == 1


def test_a_hook_that_asks_nobody_before_it_sends_does_not_lose_a_claim(kie, ledger, own_patches):
    hook = KieHook()
    own_patches.setattr(KieHook, "submit_job", lambda _, **fields: hook.call(hook.submit_call(**fields)))
    task = task_of(ledger)
    lose(task)
    with pytest.raises(e.KieMaybeSubmittedError):
        task.run_once()
    assert kie.accepted_submits == 1


def test_resubmit_pays_once_more_after_an_unknown_outcome(kie, ledger, own_patches):
    task = task_of(ledger, on_unknown_submit="resubmit")
    die(own_patches, KieHook, "_send", after=True)
    with pytest.raises(WorkerCrash):
        task.run_once()
    assert task.run_once()["files"]
    assert kie.accepted_submits == 2
    assert files(ledger) == [["0001.claimed", "0002.claimed", "0002.finished", "0002.submitted"]]


@pytest.mark.parametrize("store", [True, False])
def test_resubmit_is_no_consent_to_pay_for_another_input(kie, ledger, store):
    task = task_of(ledger, Store() if store else None, on_unknown_submit="resubmit")
    lose(task)
    with pytest.raises(e.KieMaybeSubmittedError, match="another digest"):
        task.run_once(input={"prompt": "a cat"})
    assert kie.accepted_submits == 1


def test_a_refused_submit_counts_as_none(kie, task, ledger):
    kie.play("insufficient-credits", endpoint="submit")
    with pytest.raises(e.KieInsufficientCreditsError):
        task.run_once()
    assert files(ledger) == [["0001.claimed", "0001.refused"]]
    task.run_once()
    assert kie.accepted_submits == 1
    assert files(ledger)[0][-2:] == ["0002.finished", "0002.submitted"]


def test_each_repetition_after_a_rate_limit_has_a_claim_of_its_own(kie, task, ledger):
    kie.play("rate-limited", "rate-limited", endpoint="submit")
    task.run_once()
    assert files(ledger) == [
        [
            *("0001.claimed", "0001.refused", "0002.claimed", "0002.refused"),
            *("0003.claimed", "0003.finished", "0003.submitted"),
        ]
    ]


@switched(send_within=0.05)
def test_a_claim_is_not_sent_after_a_long_pause(kie, task, ledger, monkeypatch):
    """A cool-down of another call lies between the claim and the request."""
    monkeypatch.setattr(pacing.COOLDOWNS, "pause", lambda *_, **__: 0.1)
    task.run_once()
    assert files(ledger) == [["0001.claimed", "0001.refused", "0002.claimed", "0002.finished", "0002.submitted"]]
    assert kie.accepted_submits == 1


def test_a_failed_job_is_paid_for_again(kie, ledger):
    task = task_of(ledger, input={"prompt": "fail: a fox"})
    for accepted in (1, 2):
        with pytest.raises(e.KieJobFailedError):
            task.run_once()
        assert kie.accepted_submits == accepted
    states = [
        f"{generation}.{state}" for generation in ("0001", "0002") for state in ("claimed", "failed", "submitted")
    ]
    assert files(ledger) == [states]


def test_a_job_that_failed_by_its_input_is_not_paid_for_again(kie, task, ledger):
    kie.play("jobs-sensitive-word", endpoint="record-info", repeat=True)
    for _ in range(2):
        with pytest.raises(e.KieJobRefusedError):
            task.run_once()
    assert kie.accepted_submits == 1
    assert files(ledger) == [["0001.claimed", "0001.submitted"]]


@pytest.mark.parametrize("durable", [True, False])
def test_another_input_stops_a_retry_and_not_a_clear(kie, task, ledger, durable):
    task.arguments["durable"] = durable
    task.run_once()
    with pytest.raises(e.KieMaybeSubmittedError, match="another digest"):
        task.run_once(input={"prompt": "a cat"})
    task.clear()
    cat = task.run_once(input={"prompt": "a cat"})
    assert kie.accepted_submits == 2
    assert files(ledger)[0][:2] == ["0001.claimed", "0001.finished"]
    assert "0001.forgotten" in files(ledger)[0]
    assert task.run_once(input={"prompt": "a cat"})["kie_task_id"] == cat["kie_task_id"]


@pytest.mark.parametrize("durable", [True, False])
def test_never_submits_again_after_a_clear_only(kie, task, durable):
    task.arguments["durable"] = durable
    first = task.run_once(reuse="never")
    assert task.run_once(reuse="never") == first
    task.clear()
    assert task.run_once(reuse="never")["kie_task_id"] != first["kie_task_id"]
    assert kie.accepted_submits == 2


def test_never_shares_no_job_with_another_task(kie, ledger, monkeypatch):
    first = task_of(ledger, reuse="never").run_once()
    monkeypatch.setattr("tests.task_instance.TaskInstance", OtherTask)
    assert task_of(ledger, reuse="never").run_once()["kie_task_id"] != first["kie_task_id"]


def test_an_error_before_the_request_gives_the_claim_back(kie, ledger, own_patches):
    store = Store()
    task = task_of(ledger, store)
    die(own_patches, Store, "set")
    with pytest.raises(WorkerCrash):
        task.run_once()
    assert kie.requests("submit") == []
    assert files(ledger) == [["0001.claimed", "0001.refused"]]
    assert task.run_once()["files"]


@pytest.mark.parametrize("wrong", ["no marker", "not a folder", "newer", "memory"])
def test_a_ledger_that_cannot_be_used_is_an_error_before_anything_is_sent(kie, task, tmp_path, wrong):
    folder = tmp_path / "other"
    if wrong == "newer":
        folder.mkdir()
        (folder / "ledger.json").write_text('{"schema": 99}')
    url = "memory://ledger" if wrong == "memory" else f"file://{folder}"
    with pytest.raises(e.KieLedgerError, match=r"(?i)ledger"):
        task.run_once(ledger=url)
    assert kie.requests("submit") == []


def test_reuse_of_an_input_needs_a_ledger(kie, task):
    with pytest.raises(e.KieValidationError, match="needs a ledger"):
        task.run_once(ledger=False, reuse="input")
    assert kie.requests() == []


def test_the_connection_may_name_the_ledger(kie, ledger, monkeypatch):
    connection = json.loads(kie.connection_json())
    connection["extra"] |= {"ledger": ledger, "timeout": 3}
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    task_of(None).run_once()
    assert len(files(ledger)) == 1
    kie.reset()
    task_of(False).run_once()
    assert (len(files(ledger)), kie.accepted_submits) == (1, 1)


# --- WAV, which KIE guards


def test_a_conversion_is_remembered_too(kie, ledger, own_patches):
    task = conversion(ledger)
    die(own_patches, TaskInstance, "xcom_push")
    with pytest.raises(WorkerCrash):
        task.run_once()
    assert task.run_once().startswith(kie.url)
    assert len(kie.requests("submit")) == kie.accepted_submits == 1


def test_a_repetition_that_the_guard_allows_has_a_claim_of_its_own(kie, ledger):
    kie.play("accepted-then-reset", endpoint="submit")
    assert conversion(ledger).run_once().startswith(kie.url)
    assert kie.accepted_submits == 1
    assert files(ledger) == [["0001.claimed", "0002.claimed", "0002.finished", "0002.submitted"]]


@pytest.mark.parametrize("store", [True, False])
def test_the_guard_of_one_route_says_nothing_about_the_other(kie, ledger, store):
    task = conversion(ledger, Store() if store else None)
    lose(task, route="jobs")
    with pytest.raises(e.KieMaybeSubmittedError):
        task.run_once(route="wav")
    assert kie.accepted_submits == len(kie.requests("submit")) == 1


@pytest.mark.parametrize("store", [True, False])
def test_the_guard_of_one_account_says_nothing_about_another(kie, ledger, store, monkeypatch):
    task = conversion(ledger, Store() if store else None)
    lose(task)
    connection = json.loads(kie.connection_json())
    connection["extra"] |= {"account": "another", "timeout": 3}
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    with pytest.raises(e.KieMaybeSubmittedError, match="another account"):
        task.run_once()
    assert kie.accepted_submits == len(kie.requests("submit")) == 1


# --- Several tasks


def test_two_tasks_with_one_input_pay_once(kie, ledger):
    first = task_of(ledger, reuse="input").run_once()
    other = task_of(ledger, reuse="input", input={"image_urls": [SIGNED_URL + "2"], "prompt": "a fox"})
    assert other.run_once() == first
    assert kie.accepted_submits == 1
    assert task_of(ledger, reuse="input", input={"prompt": "a cat"}).run_once() != first
    assert kie.accepted_submits == 2


@switched(longest_submit=None)
def test_tasks_that_want_the_same_job_at_the_same_moment_pay_once(kie, ledger, monkeypatch):
    """The others wait as long as KIE may take for its answer, and not only until the claim is too old to be sent."""
    kie.configure(conversion_seconds=0.5)
    send = KieHook._send
    monkeypatch.setattr(KieHook, "_send", lambda hook, call: (time.sleep(0.5), send(hook, call))[1])
    tasks = [task_of(ledger, reuse="input") for _ in range(4)]
    jobs, together = [], threading.Barrier(4)

    def run(task):
        with contextlib.suppress(ImportError):  # Airflow 2.11 has this in the main thread only
            from airflow.models.baseoperator import ExecutorSafeguard

            ExecutorSafeguard._sentinel.callers = {}
        together.wait()
        jobs.append(task.run_once())

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(jobs) == 4
    assert len({job["kie_task_id"] for job in jobs}) == kie.accepted_submits == 1


def test_who_waits_in_vain_is_told_whose_submit_it_is(kie, ledger, own_patches):
    class Owner(TaskInstance):
        dag_id = "catalogue"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.task_instance.TaskInstance", Owner)
        die(own_patches, KieHook, "_send", after=True)
        with pytest.raises(e.KieMaybeSubmittedError):
            task_of(ledger, reuse="input").run_once()
    with pytest.raises(e.KieMaybeSubmittedError, match="jobs forget catalogue run archive --ledger"):
        task_of(ledger, reuse="input").run_once()
    assert kie.accepted_submits == 1


@pytest.mark.parametrize("store", [True, False])
def test_a_job_whose_files_are_deleted_is_not_handed_out(kie, ledger, tmp_path, monkeypatch, store):
    class Owner(TaskInstance):
        dag_id = "catalogue"

    monkeypatch.setattr("tests.task_instance.TaskInstance", Owner)
    job = task_of(ledger, reuse="input").run_once()
    monkeypatch.setattr("tests.task_instance.TaskInstance", TaskInstance)
    for path in (tmp_path / "ledger").glob("??/*/*"):
        body = json.loads(path.read_text())
        path.write_text(json.dumps(body | {"at": (datetime.now(UTC) - timedelta(days=15)).isoformat()}))
    storage.open_ledger(ledger).note_archived("jobs", job["kie_task_id"], ["s3://masters/fox.png"])
    task = task_of(ledger, Store() if store else None, reuse="input")
    with pytest.raises(e.KieLinkExpiredError) as deleted:
        task.run_once()
    assert "s3://masters/fox.png" in str(deleted.value)
    assert f"{COMMAND} jobs forget catalogue run archive" in str(deleted.value)
    assert kie.accepted_submits == 1
    forget_all(ledger)
    task.clear()
    assert task.run_once()["kie_task_id"] != job["kie_task_id"]


# --- Beside Airflow's store


def test_what_either_memory_knows_counts(kie, ledger, caplog):
    store = Store()
    first = task_of(False, store).run_once()
    assert task_of(ledger, store).run_once() == first  # the store knows, and tells the ledger
    assert task_of(ledger).run_once() == first
    fresh = Store()
    assert task_of(ledger, fresh).run_once() == first  # the ledger knows, and tells the store
    assert task_of(False, fresh).run_once() == first
    assert kie.accepted_submits == 1
    assert "does not stand in the ledger" in caplog.text


def test_where_the_two_name_different_jobs_the_log_says_so(kie, ledger, caplog):
    store = Store()
    task_of(False, store).run_once()
    second = task_of(ledger).run_once()
    assert kie.accepted_submits == 2
    assert task_of(ledger, store).run_once() == second
    assert "the ledger counts" in caplog.text
    assert kie.accepted_submits == 2


def test_a_submit_of_unknown_outcome_elsewhere_outweighs_an_own_refusal(kie, ledger):
    task = task_of(ledger, Store(), reuse="input")
    kie.play("insufficient-credits", endpoint="submit")
    with pytest.raises(e.KieInsufficientCreditsError):
        task.run_once()
    lose_elsewhere(ledger)
    with pytest.raises(e.KieMaybeSubmittedError, match="jobs forget catalogue"):
        task.run_once()
    assert kie.accepted_submits == 1


def test_who_was_forestalled_is_free_once_the_other_submit_is_settled(kie, ledger, monkeypatch):
    task = task_of(ledger, Store(), reuse="input")
    kie.play("rate-limited", endpoint="submit")
    pauses = iter([lambda: None, lambda: lose_elsewhere(ledger)])
    monkeypatch.setattr(pacing.COOLDOWNS, "pause", lambda *_: next(pauses, lambda: None)() or 0.0)
    with pytest.raises(e.KieMaybeSubmittedError, match="jobs forget catalogue"):
        task.run_once()
    forget_all(ledger)
    assert task.run_once()["files"]
    assert kie.accepted_submits == 2


def test_who_was_forestalled_goes_on_with_the_other_job_in_both_memories(kie, ledger, monkeypatch):
    task = task_of(ledger, Store(), reuse="input")
    kie.play("rate-limited", endpoint="submit")
    others = []
    pauses = iter([lambda: None, lambda: others.append(task_of(ledger, reuse="input").run_once())])
    monkeypatch.setattr(pacing.COOLDOWNS, "pause", lambda *_: next(pauses, lambda: None)() or 0.0)
    assert [task.run_once(), task.run_once(ledger=False, reuse="task")] == others * 2
    assert kie.accepted_submits == 1


@pytest.mark.parametrize("earlier", ["known", "unknown"])
def test_a_clear_with_another_input_is_no_consent_to_pay_for_a_submit_of_unknown_outcome(kie, ledger, earlier):
    task = task_of(ledger, Store(), reuse="input")
    cat = {"input": {"prompt": "a cat"}}
    task.run_once(**cat) if earlier == "known" else lose(task, **cat)
    lose_elsewhere(ledger)
    task.clear()
    with pytest.raises(e.KieMaybeSubmittedError, match="jobs forget catalogue"):
        task.run_once()
    assert kie.accepted_submits == 2


def test_a_failed_job_in_the_store_settles_no_other_submit(kie, ledger):
    lose(task_of(ledger))
    task = task_of(ledger, Store(), input={"prompt": "fail: a fox"})
    with pytest.raises(e.KieJobFailedError):
        task.run_once(ledger=False)
    with pytest.raises(e.KieMaybeSubmittedError):
        task.run_once()
    assert kie.accepted_submits == 2


@pytest.mark.parametrize("known", [True, False])
def test_a_failed_job_is_paid_for_again_under_one_claim(kie, ledger, known):
    task = task_of(ledger, Store(), input={"prompt": "fail: a fox"})
    with pytest.raises(e.KieJobFailedError):
        task.run_once(ledger=ledger if known else False)
    with pytest.raises(e.KieJobFailedError):
        task.run_once()
    assert kie.accepted_submits == 2
    generations = ["0001", "0002"] if known else ["0001"]
    assert files(ledger) == [
        [f"{each}.{state}" for each in generations for state in ("claimed", "failed", "submitted")]
    ]


# --- Where the files are


@pytest.mark.parametrize("family", ["jobs", "wav"])
def test_operators_that_store_files_write_where(kie, ledger, monkeypatch, tmp_path, family):
    connection = json.loads(kie.connection_json())
    connection["extra"] |= {"ledger": ledger, "timeout": 3}
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    if family == "wav":
        kie_task_id = kie.create_conversion(finished=True)
        operator = WavToObjectStorageOperator(task_id="a", kie_task_id=kie_task_id, destination=f"{tmp_path}/a.wav")
    else:
        kie_task_id = kie.create_job("jobs", finished=True, model=IMAGE_MODEL)
        operator = KieJobToObjectStorageOperator(
            task_id="a", kie_task_id=kie_task_id, destination=f"{tmp_path}/a.{{ext}}"
        )
    operator.execute({"ti": TaskInstance()})
    kept = storage.open_ledger(ledger).archived(family, kie_task_id)
    assert kept["destinations"] == [f"{tmp_path}/a.{'wav' if family == 'wav' else 'png'}"]
