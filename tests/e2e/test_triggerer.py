# SPDX-License-Identifier: Apache-2.0
"""A sensor with start_from_trigger in a real scheduler and a real triggerer, which render its id on their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_kie.emulator.server import DEFAULT_KEY

if TYPE_CHECKING:
    from tests.e2e.conftest import Site


def test_a_sensor_starts_in_the_triggerer_with_the_id_of_another_task(site: Site) -> None:
    from scripts.airflow_processes import wait_for  # not before the fixture has skipped older Airflows

    airflow, run = site.airflow, "run-1"
    body = {"connection_id": "kie_ready", "conn_type": "kie", "host": site.emulator.url, "password": DEFAULT_KEY}
    airflow.call("POST", "connections", body)
    airflow.trigger("in_triggerer", run)
    wait_for("the run to end", lambda: airflow.run_state(run) in ("success", "failed"), seconds=90)
    assert airflow.run_state(run) == "success"
    submitted = airflow.xcom(run, "kie_task_id")["submit", -1]
    assert airflow.xcom(run, "return_value")["wait", -1]["kie_task_id"] == submitted
    logs = "".join(log.read_text() for log in airflow.home.rglob("task_id=wait/*.log*"))
    assert "is finished" in logs
    assert "deferring" not in logs  # which a worker says that looks first
    assert "no effect" not in logs
