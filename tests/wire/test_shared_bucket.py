# SPDX-License-Identifier: Apache-2.0
"""One limit for several processes, by a real Redis and a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.hooks import shared_pacing
from airflow_provider_kie.hooks.shared_pacing import await_turn
from tests.processes import ROOT
from tests.system.cluster_services import NEEDED, Services, program
from tests.system.processes import Processes

MISSING = [name for name in NEEDED if not program(name)]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}, which 'make cluster' installs")

LIMIT, WINDOW = 10, 0.5
TAKE_TURNS = f"""
import json, sys, time
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.hooks.shared_pacing import await_turn

settings, taken = KieSettings("kie_default", "key-0123456789", account="shop", pacing=sys.argv[1]), []
for _ in range(15):
    await_turn(settings, {LIMIT}, {WINDOW})
    taken.append(time.time())
print(json.dumps(taken))
"""


@pytest.fixture(scope="module")
def services(tmp_path_factory) -> Iterator[Services]:
    with Services(Processes(tmp_path_factory.mktemp("services"))) as services:
        yield services


@pytest.fixture(params=NEEDED)
def storage(request, services, monkeypatch):
    monkeypatch.setattr(shared_pacing, "_RESTING_UNTIL", {})
    monkeypatch.setattr(shared_pacing, "_BUCKETS", {})
    return request.param


def url_of(services, storage):
    return services.database.replace("+psycopg2", "") if storage == "postgres" else services.broker


def test_processes_keep_the_limit_together(services, storage):
    argv = [sys.executable, "-c", TAKE_TURNS, url_of(services, storage)]
    processes = [subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    taken = sorted(turn for process in processes for turn in json.loads(process.communicate(timeout=120)[0]))
    assert len(taken) == 60
    assert all(later - earlier >= WINDOW for earlier, later in zip(taken, taken[LIMIT:], strict=False))


def test_a_storage_that_goes_away_holds_nothing_up_and_is_used_again(services, storage, caplog):
    settings = KieSettings("kie_default", "key-0123456789", account=storage, pacing=url_of(services, storage))
    await_turn(settings, LIMIT, WINDOW)
    services.crash(storage)
    await_turn(settings, LIMIT, WINDOW)
    assert "paces itself" in caplog.text
    services.start(storage)
    caplog.clear()
    shared_pacing._RESTING_UNTIL.clear()  # the minute is over
    await_turn(settings, LIMIT, WINDOW)
    assert caplog.text == ""
