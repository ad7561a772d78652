# SPDX-License-Identifier: Apache-2.0
"""The commands about a ledger, and what ``jobs`` settles in one."""

from __future__ import annotations

import json
import os
import re
import shlex
from datetime import UTC, datetime, timedelta

import airflow
import pytest
from packaging.version import Version

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.compat import COMMAND
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.ledger.chain import Chain
from airflow_provider_kie.ledger.storage import init_ledger, open_ledger
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.operators.wav import ConvertToWavOperator
from tests.dag_runs import clear_and_run, load_dag, run_dag
from tests.jobs import IMAGE_MODEL
from tests.task_instance import Task, WorkerCrash, die

AIRFLOW = Version(airflow.__version__).release[:2]
QUICK = {"poll_interval": 0.03, "timeout": 20}
OF = ("dag", "run", "archive")


pytestmark = pytest.mark.usefixtures("short_patience")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ledger"


@pytest.fixture
def ledger(folder, kie, monkeypatch):
    """A ledger that the connection names."""
    url = init_ledger(f"file://{folder}").url
    connection = json.loads(os.environ["AIRFLOW_CONN_KIE_DEFAULT"])
    connection["extra"]["ledger"] = url
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    return url


@pytest.fixture
def run(kie, kie_command):
    """Run a command that succeeds; its result."""

    def run(*argv):
        code, out, err = kie_command(*argv, "-o", "json")
        assert code == 0, err
        assert kie.api_key not in out + err
        return json.loads(out)

    return run


@pytest.fixture
def refused(kie_command):
    """Run a command that does nothing; why."""

    def refused(*argv):
        code, out, err = kie_command(*argv)
        assert (code, out) == (1, "")
        assert "Traceback" not in err
        return err

    return refused


def image(**arguments):
    fields = {"model": IMAGE_MODEL, "input": {"prompt": "a fox"}}
    return Task(KieJobOperator, None, **fields | QUICK | arguments)


def age(folder, by):
    """Let all entries be older than they are."""
    for path in folder.glob("??/*/*"):
        body = json.loads(path.read_text())
        path.write_text(json.dumps(body | {"at": (datetime.fromisoformat(body["at"]) - by).isoformat()}))


@pytest.fixture
def lose_the_answer():
    """Let the next submit be accepted, and its answer be lost with the worker."""

    def lose(task):
        with pytest.MonkeyPatch.context() as patch:
            die(patch, KieHook, "_send", after=True)
            with pytest.raises((WorkerCrash, e.KieMaybeSubmittedError)):
                task.run_once()

    return lose


def files(folder):
    return sorted(path.name for path in folder.glob("??/*/*"))


# --- Making one


def test_init_makes_a_ledger_once(run, folder, kie_command):
    assert run("ledger", "init", f"file://{folder}") == {"ledger": f"file://{folder}"}
    made = (folder / "ledger.json").read_text()
    assert run("ledger", "init", f"file://{folder}") == {"ledger": f"file://{folder}"}
    assert (folder / "ledger.json").read_text() == made
    assert run("ledger", "list", "--ledger", f"file://{folder}") == []


def test_init_refuses_a_storage_that_cannot_refuse(refused):
    assert "'memory'" in refused("ledger", "init", "memory://ledger")


def test_there_must_be_a_ledger(refused, kie, tmp_path):
    assert "names no ledger" in refused("ledger", "list")
    assert f"{COMMAND} ledger init" in refused("ledger", "list", "--ledger", f"file://{tmp_path}/none")


# --- Reading it


def test_list_tells_each_submit_by_its_state(run, kie, ledger, folder, lose_the_answer):
    image().run_once()
    kie.play("insufficient-credits", endpoint="submit")
    with pytest.raises(e.KieInsufficientCreditsError):
        image(input={"prompt": "a cat"}, reuse="input").run_once()
    lose_the_answer(image(input={"prompt": "a dog"}, reuse="input"))
    assert sorted(each["state"] for each in run("ledger", "list")) == ["claimed", "finished", "refused"]
    (finished,) = run("ledger", "list", "--state", "finished")
    assert (finished["family"], finished["model"], finished["credits"]) == ("jobs", IMAGE_MODEL, 4.0)
    assert [finished[name] for name in ("dag_id", "run_id", "task_id", "map_index")] == [*OF, -1]
    assert run("ledger", "list", "--state", "unknown") == []
    age(folder, timedelta(minutes=61))
    (unknown,) = run("ledger", "list", "--state", "unknown")
    assert (unknown["kie_task_id"], unknown["reuse"]) == (None, "input")


def test_show_finds_a_job_and_a_task(run, refused, kie_command, kie, ledger):
    job = image(reuse="input").run_once()
    shown = run("ledger", "show", job["kie_task_id"])
    assert (shown["state"], shown["credits"], shown["destinations"]) == ("finished", 4.0, None)
    assert [each["state"] for each in shown["generations"]] == ["finished"]
    assert run("ledger", "show", *OF) == shown
    open_ledger(ledger).note_archived("jobs", job["kie_task_id"], ["s3://masters/fox.png"])
    archived = {"state": "archived", "destinations": ["s3://masters/fox.png"]}
    assert run("ledger", "show", job["kie_task_id"]) == shown | archived
    assert "knows nothing of 'other'" in refused("ledger", "show", "other")
    assert "knows nothing of" in refused("ledger", "show", *OF, "--map-index", "1")
    assert "either a KIE_TASK_ID, or DAG, RUN and TASK" in refused("ledger", "show", "dag", "run")


def write(folder, number, *, state="finished", ago=timedelta(), **told):
    """Write an entry as another task would have left it."""
    name = f"{number:064x}"[::-1]
    path = folder / name[:2] / name
    path.mkdir(parents=True)
    body = {
        "schema": 1,
        "token": "t",
        "state": state,
        "kie_task_id": f"job-{number}",
        "at": (datetime.now(UTC) - ago).isoformat(),
        "credits": 0.1,
        "complete_time": None,
        "task": {"dag_id": "songs", "run_id": "run", "task_id": "make", "map_index": number},
        "identity": {"account": "kie_default", "base_url": "", "family": "jobs", "model": "m/1", "digest": str(number)},
    }
    (path / "0001.claimed").write_text(json.dumps(body | {"state": "claimed", "kie_task_id": None}))
    (path / f"0001.{state}").write_text(json.dumps(body | told))


def test_spend_sums_up_what_kie_reported(run, kie, ledger, folder):
    write(folder, 1, complete_time="2026-11-01T23:59:59+00:00")
    write(folder, 2, complete_time="2026-11-02T00:00:00+00:00")
    write(folder, 3, credits=None, state="submitted")
    write(folder, 4, state="forgotten", complete_time="2026-11-02 08:00:00")
    write(folder, 5, state="claimed", kie_task_id=None)
    write(folder, 6, kie_task_id="job-2", complete_time="2026-11-02T00:00:00+00:00")  # known to two entries
    write(folder, 7, identity={"music_task_id": "m", "audio_id": "a"}, guarded=True, credits=None)
    rest = {"jobs": 4, "credits": pytest.approx(0.3), "credits_unknown": 1}
    nothing = {"jobs": 1, "credits": None, "credits_unknown": 1}
    jobs = {"family": "jobs", **rest}
    assert run("ledger", "spend", "--by", "family") == [jobs, {"family": "wav", **nothing}]
    assert run("ledger", "spend", "--by", "model")[0] == {"family": "jobs", "model": "m/1", **rest}
    (make,) = run("ledger", "spend", "--by", "task")
    assert make == {"dag_id": "songs", "task_id": "make", **rest, "jobs": 5, "credits_unknown": 2}
    assert run("ledger", "spend", "--by", "dag")[0]["jobs"] == 5
    first, second, today = run("ledger", "spend", "--by", "day")
    assert (first["day"], first["jobs"], first["credits"]) == ("2026-11-01", 1, 0.1)
    assert (second["day"], second["jobs"], second["credits"]) == ("2026-11-02", 2, 0.2)
    assert (today["day"], today["jobs"], today["credits"]) == (datetime.now(UTC).date().isoformat(), 2, None)
    assert run("ledger", "spend", "--by", "day", "--since", "2026-11-02") == [second, today]


def test_expiring_lists_what_nobody_stored(run, kie, ledger, folder):
    soon, late = timedelta(days=12), timedelta(days=3)
    write(folder, 1, ago=soon)
    write(folder, 2, ago=soon + timedelta(hours=1), state="submitted")
    write(folder, 3, ago=soon)
    open_ledger(ledger).note_archived("jobs", "job-3", ["s3://masters/3.png"])
    write(folder, 4, ago=late)
    write(folder, 5, ago=late, complete_time=(datetime.now(UTC) - soon).isoformat())
    write(folder, 6, ago=timedelta(days=15))  # deleted already
    write(folder, 7, ago=soon, state="failed")
    write(folder, 8, ago=soon, state="claimed", kie_task_id=None)
    for number, guarded in ((9, True), (10, False), (11, False)):
        write(folder, number, ago=soon, identity={"music_task_id": "m", "audio_id": "a"}, guarded=guarded)
    open_ledger(ledger).note_archived("wav", "job-11", ["s3://masters/11.wav"])
    found = run("ledger", "expiring", "--within", "3d")
    assert found[0]["kie_task_id"] == "job-2"
    assert {each["kie_task_id"]: each["family"] for each in found} == {
        **{f"job-{number}": "jobs" for number in (1, 2, 5)},
        **{f"job-{number}": "wav" for number in (9, 10)},
    }
    expires_at = datetime.fromisoformat(found[0]["expires_at"])
    assert timedelta(hours=46) < expires_at - datetime.now(UTC) <= timedelta(hours=47)
    assert run("ledger", "expiring", "--within", "47h") == found[:1]
    assert len(run("ledger", "expiring", "--within", "20000m")) == 6


def test_prune_deletes_what_is_old_and_settled(run, kie_command, kie, ledger, folder):
    write(folder, 1, ago=timedelta(days=91))
    write(folder, 2, ago=timedelta(days=89))
    write(folder, 3, ago=timedelta(days=91), state="claimed", kie_task_id=None)
    code, out, err = kie_command("ledger", "prune", "--older-than", "90d", "-o", "json")
    assert (code, json.loads(out)["deleted"]) == (0, 1)
    assert json.loads(out)["before"] in err
    assert sorted(each["kie_task_id"] or "" for each in run("ledger", "list")) == ["", "job-2"]


def test_reading_a_large_ledger_says_how_far_it_is(kie_command, kie, ledger, folder):
    for number in range(5_000):
        write(folder, number)
    code, out, err = kie_command("ledger", "spend", "--by", "dag", "-o", "json")
    assert (code, json.loads(out)) == (0, [{"dag_id": "songs", "jobs": 5000, "credits": 500.0, "credits_unknown": 0}])
    assert "Reading the ledger's 5,000 entries; 0 are read" in err


# --- Settled by hand


MINUTES = timedelta(minutes=3)


@pytest.fixture(params=["task", "input", "never"])
def lost(request, kie, ledger, folder, lose_the_answer):
    """A task whose submit is of unknown outcome, and which is over for some minutes."""
    task = image(reuse=request.param)
    lose_the_answer(task)
    age(folder, MINUTES)
    return task


def test_the_next_try_goes_on_with_a_job_adopted_into_the_ledger(run, kie_command, kie, folder, lost):
    before = run("jobs", "show", *OF)
    assert (before["key"], before["state"], before["kie_task_id"]) == ("ledger", "claimed", None)
    assert before["model"] == IMAGE_MODEL
    kie_task_id = kie.create_job("jobs", finished=True, model=IMAGE_MODEL)
    adopted = run("jobs", "adopt", *OF, kie_task_id)
    assert (adopted["state"], adopted["kie_task_id"], adopted["max_tries"]) == ("submitted", kie_task_id, None)
    assert run("jobs", "adopt", *OF, kie_task_id)["kie_task_id"] == kie_task_id
    kept = run("ledger", "show", kie_task_id)
    assert kept["complete_time"]
    assert files(folder) == ["0001.claimed", "0001.submitted"]
    if lost.arguments["reuse"] == "never":
        assert "a clear submits again" in kie_command("jobs", "adopt", *OF, kie_task_id)[2]
    else:
        lost.clear()
    assert lost.run_once()["kie_task_id"] == kie_task_id
    assert kie.accepted_submits == 1


def test_what_the_ledger_forgets_is_submitted_again(run, kie_command, kie, folder, lost):
    code, out, err = kie_command("jobs", "forget", *OF, "-o", "json")
    assert (code, [each["state"] for each in json.loads(out)]) == (0, ["claimed"])
    assert "PAYS AGAIN" in err
    assert lost.run_once()["files"]
    assert kie.accepted_submits == 2
    assert files(folder) == ["0001.claimed", "0001.forgotten", "0002.claimed", "0002.finished", "0002.submitted"]


def test_each_generation_that_stands_is_forgotten(run, kie, ledger, folder, lose_the_answer):
    task = image(on_unknown_submit="resubmit")
    lose_the_answer(task)
    job = task.run_once()
    age(folder, MINUTES)
    assert [each["kie_task_id"] for each in run("jobs", "forget", *OF)] == [None, job["kie_task_id"]]
    assert {"0001.forgotten", "0002.forgotten"} < set(files(folder))
    assert run("ledger", "show", job["kie_task_id"])["credits"] == 4.0


def test_only_the_job_of_the_entry_is_adopted(refused, kie, ledger, folder, lost, monkeypatch):
    other = kie.create_job("jobs", finished=True, model="kling/v3-turbo-text-to-video")
    assert f"with model {IMAGE_MODEL!r}" in refused("jobs", "adopt", *OF, other)
    failed = kie.create_job("jobs", finished=True, prompt="fail", model=IMAGE_MODEL)
    assert "The next try would submit again" in refused("jobs", "adopt", *OF, failed)
    assert "KIE does not know this job" in refused("jobs", "adopt", *OF, "no-such-job")
    monkeypatch.setenv("AIRFLOW_CONN_KIE_OTHER", kie.connection_json())
    mine = kie.create_job("jobs", finished=True, model=IMAGE_MODEL)
    adopt = ("jobs", "adopt", *OF, mine, "--conn-id", "kie_other")
    assert "name the task's connection" in refused(*adopt, "--ledger", ledger)
    assert files(folder) == ["0001.claimed"]


def test_a_known_job_is_not_replaced(refused, kie, ledger, folder):
    job = image().run_once()
    other = kie.create_job("jobs", finished=True, model=IMAGE_MODEL)
    assert f"knows job of family jobs {job['kie_task_id']}" in refused("jobs", "adopt", *OF, other)


def test_a_submit_that_may_be_under_way_is_not_settled(refused, kie, ledger, folder, lose_the_answer):
    lose_the_answer(image())
    for name, more in (("adopt", [kie.create_job("jobs", finished=True, model=IMAGE_MODEL)]), ("forget", [])):
        assert "may be submitting just now" in refused("jobs", name, *OF, *more)
    assert files(folder) == ["0001.claimed"]


def test_a_claim_without_content_can_only_be_forgotten(run, refused, kie, ledger, folder, lose_the_answer):
    lose_the_answer(image())
    (claim,) = folder.glob("??/*/0001.claimed")
    claim.write_text("")
    job = kie.create_job("jobs", finished=True, model=IMAGE_MODEL)
    assert "only 'forget' can settle it" in refused("jobs", "adopt", *OF, job)
    assert [each["state"] for each in run("jobs", "forget", *OF)] == ["claimed"]


def test_a_conversion_is_settled_as_such(run, refused, kie, ledger, folder):
    task = Task(ConvertToWavOperator, None, music_task_id="m", audio_id="a", on_unknown_submit="fail", **QUICK)
    with pytest.MonkeyPatch.context() as patch:
        die(patch, Chain, "note")
        with pytest.raises(WorkerCrash):
            task.run_once()
    age(folder, MINUTES)
    other = kie.create_conversion(audio_id="b", finished=True)
    assert "with audio_id 'a'" in refused("jobs", "adopt", *OF, other)
    mine = kie.create_conversion(audio_id="a", finished=True)
    adopted = run("jobs", "adopt", *OF, mine)
    assert (adopted["kie_task_id"], adopted["music_task_id"]) == (mine, "m")
    assert task.run_once().startswith(kie.url)


def test_there_is_nothing_to_settle(refused, kie, ledger):
    for name, more in (("show", []), ("adopt", ["job-1"]), ("forget", [])):
        err = refused("jobs", name, *OF, *more)
        assert "Nothing is remembered" in err or "Airflow has no task instance" in err


# --- Beside Airflow's store

TOLD = re.compile(rf"`({COMMAND} jobs [^`]+)`")


@pytest.mark.skipif(AIRFLOW < (3, 3), reason="there is no store below Airflow 3.3")
@pytest.mark.parametrize("name", ["adopt", "forget"])
def test_both_memories_are_settled(run, kie, ledger, capfd, name):
    kie.play("accepted-then-reset", endpoint="submit", repeat=True)
    ended = run_dag(load_dag("one_image"))
    kie.reset()
    commands = set(TOLD.findall("".join(capfd.readouterr())))
    (command,) = (each for each in commands if f" {name} " in each and " make" in each)
    of = shlex.split(command)[4:7]
    shown = run("jobs", "show", *of)
    assert (shown["key"], shown["state"]) == ("kie_job", "claimed")
    assert (shown["ledger"]["key"], shown["ledger"]["state"]) == ("ledger", "claimed")
    if name == "adopt":
        job = kie.create_job("jobs", finished=True, model="m/1")
        adopted = run("jobs", "adopt", *of, job)
        assert adopted["kie_task_id"] == adopted["ledger"]["kie_task_id"] == job
        assert run("jobs", "show", *of)["ledger"]["state"] == "submitted"
    else:
        assert [each["key"] for each in run("jobs", "forget", *of)] == ["ledger", "kie_job"]
    clear_and_run(load_dag("one_image"), ended, "make")
    assert ended.states()["make"] == "success"
    assert kie.accepted_submits == (0 if name == "adopt" else 1)


# --- Before a submit


def test_a_dry_run_says_what_the_ledger_knows_of_the_input(run, kie, ledger):
    dry = ("submit", "--model", IMAGE_MODEL, "--input", '{"prompt": "a fox"}', "--dry-run")
    assert run(*dry)["ledger"] is None
    job = image(reuse="input").run_once()
    known = run(*dry)["ledger"]
    assert (known["state"], known["kie_task_id"]) == ("finished", job["kie_task_id"])
    assert known["task"]["dag_id"] == "dag"
    assert kie.accepted_submits == 1
