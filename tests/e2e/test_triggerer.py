# SPDX-License-Identifier: Apache-2.0
"""Sensors between a real scheduler and a real triggerer, and the DAG of the quick start with all of its jobs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kie.emulator.server import DEFAULT_KEY
from tests.e2e.conftest import SONG
from tests.system.processes import wait_for

if TYPE_CHECKING:
    from tests.e2e.conftest import Site


@pytest.fixture(scope="module", autouse=True)
def connection(site: Site) -> None:
    body = {"conn_type": "kie", "host": site.emulator.url, "password": DEFAULT_KEY}
    for conn_id in ("kie_ready", "kie_default"):
        site.airflow.call("POST", "connections", body | {"connection_id": conn_id})


def run(site: Site, dag_id: str, *, seconds: float, **params: object) -> str:
    run_id = f"{dag_id}-1"
    site.airflow.trigger(dag_id, run_id, **params)
    wait_for("the run to end", lambda: site.airflow.run_state(run_id) in ("success", "failed"), seconds=seconds)
    return run_id


def test_a_sensor_starts_in_the_triggerer_with_the_id_of_another_task(site: Site) -> None:
    """The scheduler and the triggerer render it on their own."""
    airflow, run_id = site.airflow, run(site, "in_triggerer", seconds=90)
    assert airflow.run_state(run_id) == "success"
    submitted = airflow.xcom(run_id, "kie_task_id")["submit", -1]
    assert airflow.xcom(run_id, "return_value")["wait", -1]["kie_task_id"] == submitted
    logs = "".join(log.read_text() for log in airflow.home.rglob("dag_id=in_triggerer/**/task_id=wait/*.log*"))
    assert "is finished" in logs
    assert "deferring" not in logs  # which a worker logs that polls first
    assert "no effect" not in logs


def test_a_song_its_tracks_and_their_stems(site: Site) -> None:
    airflow, before = site.airflow, site.emulator.summary()["accepted_submits"]
    run_id = run(site, SONG, seconds=240, folder=f"file://{airflow.home}/songs")
    assert airflow.run_state(run_id) == "success"
    returned = airflow.xcom(run_id, "return_value")
    for index in (0, 1):
        assert Path(returned["keep", index].removeprefix("file://")).read_bytes().startswith(b"RIFF")
        assert [file["name"] for file in returned["stems", index]["files"]] == ["vocal", "instrumental"]
    assert site.emulator.summary()["accepted_submits"] == before + 5


def test_no_task_fails_because_its_trigger_was_faster_than_the_scheduler(site: Site) -> None:
    """Airflow fails a deferred task whose trigger fires before the scheduler has noted the deferral."""
    site.emulator.configure(submits_per_window=None)
    ids = [site.emulator.submit("m-many", f"a-{number}")["data"]["taskId"] for number in range(32)]
    for kie_task_id in ids:  # the worker sees it running, and the triggerer's first look finds it finished
        site.emulator.play("pending", endpoint="record-info", kie_task_id=kie_task_id)
    run_id = run(site, "deferred", seconds=600, kie_task_ids=ids)
    states = Counter(ti["state"] for ti in site.airflow.task_instances(run_id) if ti["task_id"] == "wait")
    assert states == {"success": 32}
    logs = [log.read_text() for log in site.airflow.home.rglob("dag_id=deferred/**/task_id=wait/**/*.log*")]
    assert sum("deferring" in log for log in logs) == 32
