# SPDX-License-Identifier: Apache-2.0
"""The commands as the processes that a user starts, against the emulator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import airflow
import pytest
from packaging.version import Version

from airflow_provider_kie import cli, cli_jobs
from airflow_provider_kie.emulator import KieEmulator
from tests.processes import ROOT, run_python

AIRFLOW = Version(airflow.__version__).release[:2]
CANARY = "canary-7f3a91c0d2e84b56"
PLAIN = ["-m", "airflow_provider_kie"]
WAYS = [
    pytest.param(PLAIN, id="plain"),
    pytest.param(
        ["-m", "airflow", "kie"],
        id="airflow",
        marks=pytest.mark.skipif(AIRFLOW < (3, 2), reason="Airflow 3.2 is the first that asks providers for commands"),
    ),
]


@pytest.fixture(scope="module")
def emulator():
    with KieEmulator(api_key=CANARY, conversion_seconds=0.0, submits_per_window=None) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def kie(emulator):
    emulator.reset()
    return emulator


@pytest.fixture
def environment(kie, airflow_home):
    """No metadata database, the connection in the environment, and an Airflow that tells much."""
    return {
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{airflow_home / 'airflow.db'}",
        "AIRFLOW_CONN_KIE_DEFAULT": kie.connection_json(),
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def run(environment, airflow_home):
    def run(command: list[str], *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        ended = run_python(*command, *arguments, cwd=airflow_home, **environment | more)
        assert CANARY not in ended.stdout + ended.stderr
        return ended

    return run


@pytest.fixture
def start(environment, airflow_home):
    started = []

    def start(command: list[str], *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            env=os.environ | environment,
            cwd=airflow_home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read standard error up to the line that holds the text."""
    assert process.stderr
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"the process ended without a word of {text!r}")


@pytest.mark.parametrize("command", WAYS)
def test_standard_output_holds_the_result_alone(run, kie, tmp_path, command):
    # Airflow's own log of its start is not ours to lead away, so only our own command line has to bear all of it.
    level = "DEBUG" if command is PLAIN else "INFO"
    (tmp_path / "airflow_local_settings.py").write_text("print('a word of the settings')" * (command is PLAIN))
    more = {"AIRFLOW__LOGGING__LOGGING_LEVEL": level, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    kie.play("server-error", endpoint="credit")
    ended = run(command, "check", "--output", "json", **more)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["base_url"], found["key_accepted"], found["credits"]) == (kie.url, True, 5916.25)
    assert "Sending it again." in ended.stderr
    assert command is not PLAIN or "a word of the settings" in ended.stderr


@pytest.mark.parametrize("command", WAYS)
def test_a_job_from_submit_to_files(run, kie, command):
    fields = json.dumps({"prompt": "a sea shanty", "model": "V5", "customMode": False, "instrumental": True})
    of = ("--family", "music")
    dry = json.loads(run(command, "submit", *of, "--input", fields, "--dry-run", "-o", "json").stdout)
    assert (dry["path"], kie.accepted_submits) == ("/api/v1/generate", 0)
    ended = run(command, "submit", *of, "--input", fields, "--wait", "--poll-interval", "0.2", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    song = json.loads(ended.stdout)
    assert (song["family"], len(song["files"]), kie.accepted_submits) == ("music", 2, 1)
    assert f"kie_task_id: {song['kie_task_id']}" in ended.stderr.splitlines()
    (sent,) = kie.requests("submit")
    assert sent["json"] == dry["body"]
    again = "wait" if command is PLAIN else "show"
    shown = json.loads(run(command, again, song["kie_task_id"], *of, "-o", "json").stdout)
    assert {**shown, "reused": False} == song


def test_an_error_is_a_message(run):
    ended = run(PLAIN, "check", "--conn-id", "nowhere")  # and there is no database
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "connection 'nowhere'" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", WAYS)
def test_ctrl_c_while_waiting(start, kie, command):
    kie.play("pending", repeat=True)
    process = start(command, "convert", "music-1", "audio-1", "--wait")
    kie_task_id = read_until(process, "kie_task_id: ").split()[-1]
    read_until(process, "status PENDING")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    program = cli.WITHOUT_AIRFLOW if command is PLAIN else cli.WITHIN_AIRFLOW
    assert err.startswith("Interrupted. ")
    assert err.endswith(f"{program} wait {kie_task_id} --conn-id kie_default\n")


def test_ctrl_c_while_a_submit_is_under_way(start, kie):
    kie.play("hang", endpoint="submit")
    process = start(PLAIN, "convert", "music-1", "audio-1")
    deadline = time.monotonic() + 60
    while not kie.requests("submit"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    read_until(process, cli_jobs.HELD_BACK)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == f"Interrupted. {cli_jobs.MAYBE_SUBMITTED}\n"


def test_a_pipe_that_nobody_reads_is_no_traceback(start, kie):
    process = start(PLAIN, "check")
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    err = process.stderr.read()
    assert process.wait(60) == 1
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
