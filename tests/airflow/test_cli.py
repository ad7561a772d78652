# SPDX-License-Identifier: Apache-2.0
"""The commands with a connection of the metadata database; with one of the environment: ``tests/wire/test_cli.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import airflow
import pytest
from packaging.version import Version

from airflow_provider_kie import cli
from airflow_provider_kie.emulator import KieEmulator

AIRFLOW = Version(airflow.__version__).release[:2]
CANARY = "canary-7f3a91c0d2e84b56"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    where = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    program = [sys.executable, "-m", *arguments]
    ended = subprocess.run(program, env=where, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def kie():
    with KieEmulator(api_key=CANARY) as emulator:
        described = ["--conn-type", "kie", "--conn-host", emulator.url, "--conn-password", CANARY]
        run("airflow", "connections", "add", "kie_in_database", *described)
        yield emulator


@pytest.mark.parametrize(
    "program",
    [
        ["airflow_provider_kie"],
        pytest.param(["airflow", "kie"], marks=pytest.mark.skipif(AIRFLOW < (3, 2), reason="has no such commands")),
    ],
    ids=" ".join,
)
def test_the_connection_is_found_in_the_database(kie, program):
    ended = run(*program, "check", "--conn-id", "kie_in_database", "--output", "json")
    assert json.loads(ended.stdout)["base_url"] == kie.url
    assert CANARY not in ended.stdout + ended.stderr
