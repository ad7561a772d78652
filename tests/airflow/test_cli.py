# SPDX-License-Identifier: Apache-2.0
"""The commands and the metadata database; with a connection of the environment: ``tests/wire/test_cli.py``."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import Any

import airflow
import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from packaging.version import Version

from airflow_provider_kie.compat import find_task_state_store
from airflow_provider_kie.durable import RETENTION
from airflow_provider_kie.emulator import KieEmulator
from tests.dag_runs import Run, clear_and_run, load_dag, run_dag
from tests.processes import run_python

AIRFLOW = Version(airflow.__version__).release[:2]
CANARY = "canary-7f3a91c0d2e84b56"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    ended = run_python("-m", *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def in_database():
    with KieEmulator(api_key=CANARY) as emulator:
        described = ["--conn-type", "kie", "--conn-host", emulator.url, "--conn-password", CANARY]
        run("airflow", "connections", "add", "kie_in_database", *described)
        yield emulator


both_command_lines = pytest.mark.parametrize(
    "program",
    [
        ["airflow_provider_kie"],
        pytest.param(["airflow", "kie"], marks=pytest.mark.skipif(AIRFLOW < (3, 2), reason="has no such commands")),
    ],
    ids=" ".join,
)


@both_command_lines
def test_the_connection_is_found_in_the_database(in_database, program):
    ended = run(*program, "check", "--conn-id", "kie_in_database", "--output", "json")
    assert json.loads(ended.stdout)["base_url"] == in_database.url
    assert CANARY not in ended.stdout + ended.stderr


@both_command_lines
def test_a_ledger_is_made_and_read(program, tmp_path):
    url = f"file://{tmp_path}/ledger"
    assert json.loads(run(*program, "ledger", "init", url, "-o", "json").stdout) == {"ledger": url}
    within = ["--within", "3d", "--ledger", url, "-o", "json"]
    assert json.loads(run(*program, "ledger", "expiring", *within).stdout) == []


# --- Settled by hand

needs_store = pytest.mark.skipif(AIRFLOW < (3, 3), reason="there is no store below Airflow 3.3")
ERROR = re.compile(r"KieMaybeSubmittedError: (?P<text>.*)")


@dataclass(frozen=True)
class Lost:
    """A DAG run whose submits KIE has accepted without an answer, and the commands that its errors name."""

    run: Run
    commands: set[str]

    def settle(self, name: str, task: str, *more: str) -> subprocess.CompletedProcess[str]:
        (command,) = (each for each in self.commands if f" {name} " in each and f" {task}" in each)
        return run_python("-m", *shlex.split(command.replace("KIE_TASK_ID", "")), *more, "-o", "json")


@pytest.fixture
def lost(kie, capfd):
    kie.play("accepted-then-reset", endpoint="submit", repeat=True)
    ended = run_dag(load_dag("one_image"))
    assert ended.states() == {"make": "failed", "mapped[0]": "failed", "mapped[1]": "failed"}
    kie.reset()
    errors = ERROR.findall("".join(capfd.readouterr()))
    return Lost(ended, {command for error in errors for command in re.findall("`([^`]+)`", error)})


@pytest.fixture
def entry(lost, kie_command):
    """What a task remembers, as ``jobs show`` shows it."""

    def entry(task: str, *more: str) -> dict[str, Any]:
        code, out, err = kie_command("jobs", "show", lost.run.dag_id, lost.run.run_id, task, *more, "-o", "json")
        assert code == 0, err
        shown: dict[str, Any] = json.loads(out)
        return shown

    return entry


@pytest.fixture
def refused(lost, kie_command):
    """Run a command that settles nothing, and return why."""

    def refused(*argv: str) -> str:
        code, out, err = kie_command("jobs", *argv)
        assert (code, out) == (1, "")
        assert "Traceback" not in err
        return err

    return refused


@needs_store
def test_the_next_try_goes_on_with_an_adopted_job(kie, lost, entry):
    before = entry("mapped", "--map-index", "1")
    assert (before["key"], before["state"], before["kie_task_id"]) == ("kie_job", "claimed", None)

    kie_task_id = kie.create_job("jobs", finished=True, model="m/1", prompt="a harbour")
    adopted = lost.settle("adopt", "mapped --map-index 1", kie_task_id)
    assert adopted.returncode == 0, adopted.stderr
    after = {"state": "submitted", "kie_task_id": kie_task_id, "max_tries": None}
    assert json.loads(adopted.stdout) == entry("mapped", "--map-index", "1") == before | after

    clear_and_run(load_dag("one_image"), lost.run, "mapped", 1)
    assert lost.run.states() == {"make": "failed", "mapped[0]": "failed", "mapped[1]": "success"}
    assert lost.run.xcom("mapped", "kie_task_id", 1) == kie_task_id
    assert kie.requests("submit") == []


@needs_store
def test_what_is_forgotten_is_submitted_again(kie, lost, entry):
    forgotten = lost.settle("forget", "make")
    assert forgotten.returncode == 0, forgotten.stderr
    assert [each["state"] for each in json.loads(forgotten.stdout)] == ["claimed"]
    assert "PAYS AGAIN" in forgotten.stderr

    clear_and_run(load_dag("one_image"), lost.run, "make")
    assert lost.run.states()["make"] == "success"
    assert kie.accepted_submits == 1
    assert entry("make")["kie_task_id"] == lost.run.xcom("make", "kie_task_id")


@needs_store
def test_what_cannot_be_settled_is_an_error(kie, lost, entry, refused, kie_command, monkeypatch):
    of, job = (lost.run.dag_id, lost.run.run_id), kie.create_job("jobs", finished=True)
    monkeypatch.setenv("AIRFLOW_CONN_KIE_OTHER", kie.connection_json())
    before = entry("make")
    assert "KIE does not know this job of family jobs" in refused("adopt", *of, "make", "no-such-job")
    assert "name the task's connection" in refused("adopt", *of, "make", job, "--conn-id", "kie_other")
    assert "a mapped task needs --map-index" in refused("show", *of, "mapped")
    assert "no task instance make of DAG one_image, run no_such_run" in refused("forget", of[0], "no_such_run", "make")
    assert entry("make") == before

    assert kie_command("jobs", "forget", *of, "make")[0] == 0
    for name, more in (("show", []), ("adopt", [job]), ("forget", [])):
        assert "Nothing is remembered for make of DAG one_image" in refused(name, *of, "make", *more)


@needs_store
def test_an_entry_of_a_conversion_is_one_of_family_wav(kie, lost, entry, refused, kie_command):
    of = (lost.run.dag_id, lost.run.run_id, "make")
    store = find_task_state_store(*of, -1)
    store.set("kie_wav_conversion", {"music_task_id": "m", "kie_task_id": None}, retention=RETENTION)
    assert "Both kie_job and kie_wav_conversion are remembered" in refused("show", *of)
    store.delete("kie_job")
    kie_task_id = kie.create_conversion()
    assert kie_command("jobs", "adopt", *of, kie_task_id)[0] == 0
    kept = {"music_task_id": "m", "kie_task_id": kie_task_id, "state": "submitted", "max_tries": None}
    assert entry("make") == {"key": "kie_wav_conversion", **kept}


@needs_store
def test_an_entry_for_workers_alone_is_left_alone(kie, lost, refused, kie_command):
    of = (lost.run.dag_id, lost.run.run_id, "make")
    store = find_task_state_store(*of, -1)
    store.set("kie_job", {"a reference": "of [workers] state_store_backend"}, retention=RETENTION)
    assert "cannot be read here" in refused("show", *of)
    assert "cannot be read here" in refused("adopt", *of, kie.create_job("jobs", finished=True))
    assert kie_command("jobs", "forget", *of)[0] == 0
    assert store.get("kie_job") is None


@pytest.mark.skipif(AIRFLOW >= (3, 3), reason="has a store")
@pytest.mark.parametrize(("name", "more"), [("show", []), ("adopt", ["job-1"]), ("forget", [])])
def test_without_a_store_or_a_ledger_there_is_nothing_to_settle(kie, kie_command, name, more):
    code, out, err = kie_command("jobs", name, "dag", "run", "task", *more)
    assert (code, out) == (1, "")
    assert "stores nothing from one try to the next" in err


@needs_store
def test_only_the_job_that_was_submitted_is_adopted(kie, lost, entry, refused):
    of, before = (lost.run.dag_id, lost.run.run_id, "make"), entry("make")
    other = kie.create_job("jobs", finished=True, model="kling/v3-turbo-text-to-video")
    assert "with model 'm/1'" in refused("adopt", *of, other)
    failed = kie.create_job("jobs", finished=True, prompt="fail", model="m/1")
    assert "The next try would submit again" in refused("adopt", *of, failed)
    assert entry("make") == before


@needs_store
def test_a_task_that_is_under_way_is_not_settled(kie, lost, entry, refused):
    of, before = (lost.run.dag_id, lost.run.run_id, "make"), entry("make")
    with create_session() as session:
        session.query(TaskInstance).filter_by(run_id=of[1], task_id="make").update({"state": "running"})
    for name, more in (("adopt", [kie.create_job("jobs", finished=True)]), ("forget", [])):
        assert "is under way" in refused(name, *of, *more)
    assert entry("make") == before
