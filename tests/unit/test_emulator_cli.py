# SPDX-License-Identifier: Apache-2.0
"""The ``kie-emulator`` command as a real process."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys

import pytest
import requests

from tests.processes import ROOT, run_python

COMMAND = [sys.executable, "-m", "airflow_provider_kie.emulator"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "airflow_provider_kie.emulator", *arguments)


def test_it_says_where_it_listens_and_stops_by_itself() -> None:
    ended = run("--port", "0", "--stop-after", "0.01", "--api-key", "it's mine", "--conversion-seconds", "1")
    assert (ended.returncode, ended.stderr) == (0, "")
    listens, export, stop = ended.stdout.splitlines()
    word, assignment = shlex.split(export)
    name, _, value = assignment.partition("=")
    connection = json.loads(value)
    assert (word, name) == ("export", "AIRFLOW_CONN_KIE_DEFAULT")
    assert (connection["conn_type"], connection["password"]) == ("kie", "it's mine")
    assert connection["host"] in listens
    assert "Ctrl+C" in stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_it_is_told_to_stop(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--stop-after", "60"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        _, export, _ = (process.stdout.readline() for _ in range(3))
        connection = json.loads(shlex.split(export)[1].partition("=")[2])
        headers = {"User-Agent": "kie-tests", "Authorization": f"Bearer {connection['password']}"}
        answer = requests.get(connection["host"] + "/api/v1/chat/credit", headers=headers, timeout=10)
        assert answer.json() == {"code": 200, "msg": "success", "data": 5916.25}
        process.send_signal(number)
        assert process.wait(20) == 0


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--port", str(port), "--stop-after", "0.01")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert str(port) in line
    assert "in use" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "loopback"),
        (["--port", "70000"], "0-65535"),
        (["--conversion-seconds", "-1"], "conversion_seconds"),
        (["--api-key", ""], "API key"),
    ],
)
def test_wrong_arguments_are_one_clear_line(arguments: list[str], words: str) -> None:
    ended = run("--stop-after", "0.01", *arguments)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert words in line


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "python_multipart"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[0] = 'kie-emulator'\n"
        "from airflow_provider_kie.emulator.__main__ import main; sys.exit(main())"
    )
    ended = run_python("-c", program)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert missing in line
    assert "pip install 'airflow-provider-kie[emulator]'" in line


def test_it_needs_neither_airflow_nor_an_http_client() -> None:
    program = (
        "import sys, airflow_provider_kie.emulator.server\n"
        "sys.exit({'airflow', 'requests', 'aiohttp'} & set(sys.modules) or None)"
    )
    ended = run_python("-c", program)
    assert (ended.returncode, ended.stderr) == (0, "")
