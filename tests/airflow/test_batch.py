# SPDX-License-Identifier: Apache-2.0
"""Many jobs in one task: each paid for once, whatever happens, and told one by one."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.batch import run as batch_run
from airflow_provider_kie.batch.submits import Submits
from airflow_provider_kie.compat import COMMAND
from airflow_provider_kie.ledger.entry import LedgerEntry
from airflow_provider_kie.operators.batch import ConvertCatalogToWavOperator, KieBatchOperator
from tests.batch_runner import Batch
from tests.batches import counts, foxes, prompts, statuses
from tests.jobs import IMAGE_MODEL, QUERY_CANARY, SIGNED_URL
from tests.task_instance import die

MANY = 300


pytestmark = pytest.mark.usefixtures("no_patience")


# --- All goes well


def test_all_items_succeed_and_no_rate_limit_is_met(limited, batch, rows):
    items = foxes(MANY)
    started = time.monotonic()
    told = batch(items).run_once()
    seconds = time.monotonic() - started
    assert (told["total"], told["succeeded"], told["credits"]) == (MANY, MANY, 4.0 * MANY)
    assert limited.accepted_submits == len(limited.requests("submit")) == MANY
    assert seconds >= (MANY - 20) / 20 * 0.5  # so the limit was there to be met
    assert [row["item"] for row in rows()] == items
    assert {row["end"] for row in rows()} == {"succeeded"}
    assert len({row["kie_task_id"] for row in rows()}) == MANY


def test_tracks_are_converted(kie, batch, rows):
    tracks = [{"music_task_id": "m", "audio_id": f"a{number}"} for number in range(30)]
    told = batch(tracks, ConvertCatalogToWavOperator).run_once()
    assert (told["succeeded"], told["credits"], kie.accepted_submits) == (30, None, 30)
    assert [row["item"] for row in rows()] == tracks


def test_another_family_is_carried_out_too(kie, batch):
    songs = [{"prompt": f"song {n}", "customMode": False, "instrumental": True, "model": "V5"} for n in range(5)]
    told = batch(songs, family="music").run_once()
    assert (told["succeeded"], kie.accepted_submits) == (5, 5)


def test_files_are_stored_and_a_second_try_fetches_only_what_is_missing(kie, batch, rows, tmp_path):
    task = batch(foxes(12), destination=f"{tmp_path}/out/{{kie_task_id}}-{{index}}.{{ext}}")
    task.run_once()
    stored = sorted((tmp_path / "out").iterdir())
    assert len(stored) == 12
    assert sorted(path for row in rows() for path in row["destinations"]) == [str(path) for path in stored]
    stored[0].unlink()
    fetched = len(kie.requests("file"))
    task.run_once()
    assert len(list((tmp_path / "out").iterdir())) == 12
    assert len(kie.requests("file")) == fetched + 1
    assert kie.accepted_submits == 12


def test_at_most_so_many_jobs_run_at_a_time(kie, batch):
    kie.configure(conversion_seconds=0.3)
    batch(foxes(30), max_in_flight=5).run_once()
    events = sorted(each["at"] for each in kie.requests("submit"))
    for first, sixth in zip(events, events[5:], strict=False):
        assert sixth - first >= 0.29


# --- Items


def test_a_line_put_in_front_of_the_file_buys_nothing_again(kie, batch, rows, tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(map(json.dumps, foxes(5))))
    task = batch(str(file))
    task.run_once()
    file.write_text(json.dumps({"prompt": "a new one"}) + "\n\n" + file.read_text())
    task.run_once()
    assert kie.accepted_submits == 6
    assert prompts(kie)["a new one"] == 1
    assert [row["line"] for row in rows()] == [1, 3, 4, 5, 6, 7]


def test_equal_items_are_jobs_of_their_own(kie, batch, rows):
    task = batch([{"prompt": "twin"}, {"prompt": "other"}, {"prompt": "twin"}])
    task.run_once()
    assert kie.accepted_submits == 3
    assert [row["ordinal"] for row in rows()] == [0, 0, 1]
    task.run_once()
    assert kie.accepted_submits == 3


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ("file:{'prompt'", "Line 2 of items is not JSON"),
        ('file:["fox"]', "Line 2 of items: input must be a dict"),
        ([{"prompt": "a"}, "fox"], "Item 2 of items: input must be a dict"),
        (None, "items is empty"),
        ("/nowhere/items.jsonl", "cannot be read"),
        (7, "items is a int"),
    ],
)
def test_a_wrong_item_is_refused_before_anything_is_sent(kie, batch, tmp_path, items, said):
    if isinstance(items, str) and items.startswith("file:"):
        file = tmp_path / "items.jsonl"
        file.write_text('{"prompt": "fox"}\n' + items.removeprefix("file:"))
        items = str(file)
    with pytest.raises(e.KieValidationError, match=said):
        batch(items).run_once()
    assert kie.requests() == []


def test_items_that_are_no_list_are_refused(batch):
    with pytest.raises(e.KieValidationError, match="items is a dict, but must be a list"):
        batch({"prompt": "fox"}).run_once()


def test_a_wrong_track_is_named(kie, batch):
    with pytest.raises(e.KieValidationError, match="Item 2 of tracks: audio_id is empty"):
        batch([{"music_task_id": "m", "audio_id": "a"}, {"music_task_id": "m"}], ConvertCatalogToWavOperator).run_once()


def test_no_items_are_no_failure(kie, batch, rows):
    assert batch([]).run_once()["total"] == 0
    assert rows() == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ledger": None}, "needs a ledger"),
        ({"ledger": False}, "needs a ledger"),
        ({"family": "music"}, "Either model or family"),
        ({"fail_if": 1.5}, "fail_if"),
        ({"fail_if": "some"}, "fail_if"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_credits": 0}, "max_credits"),
        ({"reuse": "never"}, "reuse"),
        ({"on_unknown_submit": "maybe"}, "on_unknown_submit"),
        ({"destination": "/tmp/all-the-same.png"}, "same place"),
        ({"max_credits": "5"}, "max_credits"),
        ({"max_attempts": True}, "max_attempts"),
        ({"manifest": None}, "manifest"),
        ({"manifest": "/"}, "manifest"),
        ({"names": 5}, "names"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_sent(kie, batch, wrong, said):
    with pytest.raises(e.KieValidationError, match=said):
        batch(foxes(1), **{"model": IMAGE_MODEL} | wrong).run_once()
    assert kie.requests("submit") == []


def test_another_file_where_the_manifest_goes_is_not_replaced(kie, batch, tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"prompt": "these are my items"}\n')
    with pytest.raises(e.KieDestinationExistsError, match="run_id"):
        batch(foxes(1)).run_once()
    assert kie.requests("submit") == []
    batch(foxes(1), overwrite=True).run_once()


def test_no_signature_gets_into_the_manifest_or_the_ledger(kie, batch, tmp_path):
    batch([{"prompt": "fox", "image_urls": [SIGNED_URL]}]).run_once()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert QUERY_CANARY not in path.read_text()
            assert kie.api_key not in path.read_text()


# --- Some items fail


@pytest.mark.parametrize(("fail_if", "fails"), [("any", True), (0.05, True), (0.1, False), ("all", False)])
def test_failures_are_counted_by_cause_and_the_rest_is_stored(kie, batch, rows, tmp_path, fail_if, fails):
    """5 % of the items fail, 1 % stay unknown, and 1 % have dead links."""
    items = foxes(93) + [{"prompt": f"fail {number}"} for number in range(5)] + [{"prompt": "x"}, {"prompt": "dead"}]
    kie.play("accepted-then-reset", endpoint="submit")
    dead = threading.Thread(target=_kill_links, args=(kie, "dead"), daemon=True)
    dead.start()
    task = batch(items, destination=f"{tmp_path}/out/{{kie_task_id}}.{{ext}}", fail_if=fail_if, max_in_flight=20)
    if fails:
        with pytest.raises(e.KieBatchFailedError) as end:
            task.run_once()
        assert "5 x KieJobFailedError" in str(end.value)
        assert "1 x KieMaybeSubmittedError" in str(end.value)
        assert "1 x KieLinkExpiredError" in str(end.value)
        assert isinstance(end.value, AirflowFailException)  # another try would change nothing
    else:
        assert task.run_once()["succeeded"] == 93
    assert counts(task) == {"total": 100, "succeeded": 93, "failed": 6, "unknown": 1}
    assert len(list((tmp_path / "out").iterdir())) == 93
    assert kie.accepted_submits == 100
    by_end = Counter((row["end"], row["error"] and row["error"]["type"]) for row in rows())
    assert by_end == {
        ("succeeded", None): 93,
        ("failed", "KieJobFailedError"): 5,
        ("failed", "KieLinkExpiredError"): 1,
        ("unknown", "KieMaybeSubmittedError"): 1,
    }


def _kill_links(kie, prompt):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for job in list(kie.state._jobs.values()):
            if job.input.get("prompt") == prompt:
                kie.expire_links(job.kie_task_id)
                return
        time.sleep(0.005)


def test_a_failed_item_is_paid_for_again_only_as_often_as_allowed(kie, batch, rows):
    task = batch([{"prompt": "fail: a fox"}, {"prompt": "fox"}], max_attempts=2)
    for _ in range(2):  # the second try has none left
        with pytest.raises(e.KieBatchFailedError):
            task.run_once()
    assert prompts(kie) == {"fail: a fox": 2, "fox": 1}
    assert [row["end"] for row in rows()] == ["failed", "succeeded"]
    with pytest.raises(e.KieBatchFailedError):
        task.run_once(max_attempts=3)
    assert prompts(kie)["fail: a fox"] == 3


def test_max_credits_stops_submits_and_says_what_is_not_known(kie, batch, rows, caplog):
    with pytest.raises(e.KieBatchFailedError) as end:
        batch(foxes(20), max_credits=12, max_in_flight=1).run_once()
    assert kie.accepted_submits == 3
    assert Counter(row["end"] for row in rows()) == {"succeeded": 3, "not submitted": 17}
    assert "17 x not submitted" in str(end.value)
    assert "max_credits=12 is reached" in caplog.text
    with pytest.raises(e.KieBatchFailedError):
        batch(foxes(20), max_credits=12).run_once()
    assert kie.accepted_submits == 3


@pytest.mark.parametrize("answer", ["insufficient-credits", "wrong-key"])
def test_an_error_of_the_account_stops_the_submits(kie, batch, rows, answer):
    kie.configure(conversion_seconds=0.1)
    batch(foxes(3)).run_once()
    kie.play(answer, endpoint="submit", repeat=True)
    with pytest.raises(e.KieBatchFailedError, match="Nothing more was submitted") as end:
        batch(foxes(50), fail_if="all").run_once()
    assert isinstance(end.value, AirflowFailException)
    assert kie.accepted_submits == 3
    assert len(kie.requests("submit")) <= 3 + batch_run.SUBMITTERS
    assert Counter(row["end"] for row in rows()) == {"succeeded": 3, "not submitted": 47}
    kie.reset()


def test_a_rate_limit_that_is_met_all_the_same_costs_nothing(kie, batch):
    kie.play("rate-limited", "rate-limited", endpoint="submit")
    assert batch(foxes(10)).run_once()["succeeded"] == 10
    assert kie.accepted_submits == 10


def test_an_item_that_takes_too_long_is_waited_for_again(kie, batch, rows):
    kie.configure(conversion_seconds=1.0)
    task = batch(foxes(3), timeout=0.2)
    with pytest.raises(e.KieBatchFailedError, match="3 x KieWaitTimeoutError") as end:
        task.run_once()
    assert not isinstance(end.value, AirflowFailException)
    assert task.run_once(timeout=30)["succeeded"] == 3
    assert kie.accepted_submits == 3


# --- Unknown outcomes


@pytest.mark.parametrize("policy", ["fail", "resubmit"])
def test_an_unknown_outcome_follows_the_policy(kie, batch, rows, ledger, policy):
    kie.play("accepted-then-reset", endpoint="submit")
    task = batch(foxes(3), on_unknown_submit=policy)
    with pytest.raises(e.KieBatchFailedError) as end:
        task.run_once()
    assert isinstance(end.value, AirflowFailException) == (policy == "fail")
    assert Counter(row["end"] for row in rows()) == {"succeeded": 2, "unknown": 1}
    if policy == "resubmit":
        assert task.run_once()["succeeded"] == 3
        assert kie.accepted_submits == 4
        return
    with pytest.raises(e.KieBatchFailedError) as end:
        task.run_once()
    (unknown,) = [row for row in rows() if row["end"] == "unknown"]
    assert f"{COMMAND} jobs adopt dag run archive --ledger {ledger} --entry {unknown['entry']}" in str(end.value)
    assert kie.accepted_submits == 3


def test_a_guarded_family_is_submitted_again_and_paid_once(kie, batch, rows):
    tracks = [{"music_task_id": "m", "audio_id": f"a{number}"} for number in range(3)]
    kie.play("accepted-then-reset", endpoint="submit")
    assert batch(tracks, ConvertCatalogToWavOperator).run_once()["succeeded"] == 3
    assert kie.accepted_submits == 3


def test_another_model_does_not_pay_for_the_same_items_by_mistake(kie, batch, rows):
    task = batch(foxes(2))
    task.run_once()
    with pytest.raises(e.KieBatchFailedError, match="another model"):
        task.run_once(model="google/nano-banana")
    assert kie.accepted_submits == 2


def test_two_batches_share_jobs_if_they_are_told_to(kie, batch, monkeypatch, tmp_path):
    first = batch(foxes(5), reuse="input").run_once()
    monkeypatch.setattr("tests.task_instance.TaskInstance.task_id", "other")
    other = {"reuse": "input", "manifest": str(tmp_path / "other.jsonl")}
    assert batch(foxes(7), **other).run_once()["succeeded"] == 7
    assert (first["succeeded"], kie.accepted_submits) == (5, 7)
    assert batch(foxes(2), manifest=str(tmp_path / "other.jsonl")).run_once()["succeeded"] == 2
    assert kie.accepted_submits == 9


# --- It is ended


@pytest.mark.parametrize("way", ["time-out", "kill"])
def test_a_batch_that_is_ended_leaves_a_manifest_and_no_claims(kie, batch, rows, ledger, way):
    kie.configure(conversion_seconds=60)
    task = batch(foxes(200), max_in_flight=30)
    operator = task._build()
    threading.Timer(2.0, operator.on_kill if way == "kill" else _interrupt).start()
    pushed = {}
    context = {"ti": _ti(pushed)}
    started = time.monotonic()
    with pytest.raises(e.KieBatchFailedError if way == "kill" else TimeoutError):
        _with_alarm(lambda: operator.execute(context))
    assert time.monotonic() - started < 15
    ends = Counter(row["end"] for row in rows())
    assert ends == {"running": 30, "not submitted": 170}
    assert pushed["batch"]["total"] == 200
    names = [path.name for path in Path(ledger.removeprefix("file://")).glob("??/*/*")]
    assert Counter(names)["0001.submitted"] == kie.accepted_submits == 30
    assert Counter(names)["0001.claimed"] == 30 + Counter(names)["0001.refused"]
    kie.configure(conversion_seconds=0.1)


def _interrupt():
    os.kill(os.getpid(), signal.SIGALRM)


def _with_alarm(run):
    def raise_it(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        return run()
    finally:
        signal.signal(signal.SIGALRM, before)


def _ti(pushed):
    from tests.task_instance import TaskInstance

    ti = TaskInstance()
    ti.pushed = pushed
    return ti


@pytest.mark.parametrize("operator", [KieBatchOperator, ConvertCatalogToWavOperator])
def test_killed_five_times_it_pays_for_each_item_once(limited, batch, rows, operator):
    """Real processes, killed with SIGKILL at random moments."""
    limited.configure(conversion_seconds=0.5)
    is_wav = operator is ConvertCatalogToWavOperator
    items = [{"music_task_id": "m", "audio_id": f"a{n}"} for n in range(200)] if is_wav else foxes(200)
    task = batch(items, operator)
    chance = random.Random(7)
    killed = Batch(limited, operator.__name__, task.arguments, scale=0.05)
    for _ in range(5):
        assert killed.is_killed(after=limited.accepted_submits + 1, seconds=chance.uniform(0, 0.3))
    assert limited.accepted_submits < 200  # so there is something left to do
    told = killed.ended(seconds=120)
    assert [row["item"] for row in rows()] == items
    if is_wav:
        assert told["succeeded"] == limited.accepted_submits == 200
    else:  # a kill between the request and its note leaves an outcome that nobody may assume
        assert told["succeeded"] + told["unknown"] == 200
        assert max(prompts(limited).values()) == 1
        assert told["unknown"] <= 5 * batch_run.SUBMITTERS
    assert statuses(limited)[429] == 0


def test_what_dies_between_claim_and_note_is_unknown_and_not_paid_twice(kie, batch, rows, monkeypatch):
    task = batch(foxes(3), max_in_flight=1)
    with pytest.MonkeyPatch.context() as patch:
        die(patch, LedgerEntry, "commit")
        with pytest.raises(BaseException):  # noqa: B017, PT011 - a worker that dies
            task.run_once()
    with pytest.raises(e.KieBatchFailedError):
        task.run_once()
    assert Counter(row["end"] for row in rows()) == {"succeeded": 2, "unknown": 1}
    assert kie.accepted_submits == 3


# --- It is settled by hand


def test_only_the_named_item_is_settled(kie, batch, rows, ledger, kie_command):
    kie.play("accepted-then-reset", endpoint="submit")
    task = batch(foxes(3))
    with pytest.raises(e.KieBatchFailedError):
        task.run_once()
    (unknown,) = [row for row in rows() if row["end"] == "unknown"]
    of_task = ("dag", "run", "archive", "--ledger", ledger)
    time.sleep(0.2)  # for longer than a submit can take, by the patience of these tests
    code, _, said = kie_command("jobs", "forget", *of_task)
    assert (code != 0, "--entry" in said) == (True, True)
    assert kie_command("jobs", "forget", *of_task, "--entry", unknown["entry"])[0] == 0
    assert task.run_once()["succeeded"] == 3
    assert kie.accepted_submits == 4
    assert prompts(kie)[unknown["item"]["prompt"]] == 2


# --- What a claim waits for


def test_a_claim_that_comes_while_another_is_waited_for_gets_patience_of_its_own(kie, batch, ledger):
    """Somebody claims the item again just before the patience with a dead claim is over, and then submits."""
    task = batch(foxes(1), on_unknown_submit="resubmit", reuse="input")
    kie.play("accepted-then-reset", endpoint="submit")
    with pytest.raises(e.KieBatchFailedError):
        task.run_once()
    (path,) = Path(ledger.removeprefix("file://")).glob("??/*/0001.claimed")
    looks = []
    look_up = Submits.look_up

    def and_claim(self, item):
        looks.append(item.claim)
        if len(looks) == 2:
            (path.parent / "0002.claimed").write_text(path.read_text())
        if len(looks) == 3:
            body = json.loads(path.read_text()) | {"state": "submitted", "kie_task_id": "their-job"}
            (path.parent / "0002.submitted").write_text(json.dumps(body))
        return look_up(self, item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Submits, "look_up", and_claim)
        with pytest.raises(e.KieBatchFailedError, match="KieNotFoundError"):
            task.run_once()  # it went on with their job, which the emulator does not know
    assert len(kie.requests("submit")) == 1


def test_a_job_of_another_task_whose_files_are_deleted_is_no_success(kie, batch, ledger, monkeypatch):
    batch(foxes(2), reuse="input").run_once()
    for path in Path(ledger.removeprefix("file://")).glob("??/*/*"):
        body = json.loads(path.read_text())
        path.write_text(json.dumps(body | {"at": (datetime.now(UTC) - timedelta(days=15)).isoformat()}))
    assert batch(foxes(2), reuse="input").run_once()["succeeded"] == 2  # its own are known to be old
    monkeypatch.setattr("tests.task_instance.TaskInstance.task_id", "other")
    with pytest.raises(e.KieBatchFailedError, match="2 x KieLinkExpiredError"):
        batch(foxes(2), reuse="input", overwrite=True).run_once()
    assert kie.accepted_submits == 2


def test_fail_forbids_the_repetition_that_the_guard_would_allow(kie, batch):
    tracks = [{"music_task_id": "m", "audio_id": "a"}]
    kie.play("accepted-then-reset", endpoint="submit")
    with pytest.raises(e.KieBatchFailedError, match="1 x KieMaybeSubmittedError"):
        batch(tracks, ConvertCatalogToWavOperator, on_unknown_submit="fail").run_once()
    assert len(kie.requests("submit")) == 1
