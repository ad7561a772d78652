# SPDX-License-Identifier: Apache-2.0
"""Eight processes want the same 50 jobs at the same moment: each is paid for once, and all get its id."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_kie.ledger.storage import init_ledger
from tests.buckets import MISSING, bucket
from tests.ledger_racer import IDENTITIES

PROCESSES = 8
#: Seconds until a race is given up.
LIMIT = 240
ROOT = Path(__file__).resolve().parents[2]


def race(url: str, folder: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "tests.ledger_racer", url, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [
        subprocess.Popen([*command, str(number)], cwd=ROOT, env=os.environ | environment, **pipes)
        for number in range(PROCESSES)
    ]
    try:
        for racer in racers:
            assert "ready\n" in iter(racer.stdout.readline, "")  # after Airflow's log
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            racer.communicate(timeout=LIMIT)
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    submits = {int(file.suffix[1:]): file.read_text().split() for file in folder.glob("paid.*")}
    assert len(submits) == IDENTITIES
    assert {one: ids for one, ids in submits.items() if len(ids) != 1} == {}
    ends = [end for file in folder.glob("ends.*") for end in json.loads(file.read_text())]
    assert len(ends) == PROCESSES * IDENTITIES
    assert [end for end in ends if [end[2]] != submits[end[0]]] == []
    assert {kind for _, kind, _ in ends} == {"claimed", "job"}


def test_a_race_on_a_local_disk(tmp_path):
    url = str(tmp_path / "ledger")
    init_ledger(url)
    race(url, tmp_path, {})


@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
def test_a_race_on_s3(tmp_path, monkeypatch):
    with bucket("race") as (_, connection):
        monkeypatch.setenv("AIRFLOW_CONN_AWS_RACE", connection)
        url = "s3://aws_race@race/ledger"
        init_ledger(url)
        race(url, tmp_path, {"AIRFLOW_CONN_AWS_RACE": connection})
