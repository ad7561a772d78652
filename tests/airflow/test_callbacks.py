# SPDX-License-Identifier: Apache-2.0
"""A job that another system submitted: KIE calls back, and a DAG run of a real Airflow stores its file."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import airflow
import pytest
import requests
from packaging.version import Version

from airflow_provider_kie.callbacks.airflow_api import AirflowApi
from airflow_provider_kie.callbacks.settings import CallbackSettings
from airflow_provider_kie.emulator import KieEmulator

DAG_ID = "example_kie_finished_job"
EXAMPLE = Path(__file__).resolve().parents[2] / "example_dags" / f"{DAG_ID}.py"
ASSET = "kie://kie_default/jobs"
KEY, USER, PASSWORD = "the-key-of-kie-ai-settings", "receiver", "not-to-be-guessed"
IS_2 = Version(airflow.__version__).major == 2


@pytest.fixture
def site(tmp_path):
    """Airflow's processes with the example, which know a user for the receiver, and nobody else."""
    psutil = pytest.importorskip("psutil")
    assert psutil
    from tests.system.airflow_processes import AIRFLOW, Airflow, wait_for

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(EXAMPLE, dags)
    passwords = tmp_path / "passwords.json"
    passwords.write_text(json.dumps({USER: PASSWORD}))
    options = {
        "core.simple_auth_manager_all_admins": "False",
        "core.simple_auth_manager_users": f"{USER}:op",
        "core.simple_auth_manager_passwords_file": str(passwords),
        "api.auth_backends": "airflow.api.auth.backend.basic_auth",
    }
    if IS_2:  # which uses SQLite with no other
        options["core.executor"] = "SequentialExecutor"
    with Airflow(tmp_path / "airflow", dags, options) as site:
        site.migrate()
        if IS_2:
            names = ["--firstname", "x", "--lastname", "y", "--email", "r@example.com", "--role", "Op"]
            site.processes.start("roles", [*AIRFLOW, "sync-perm"])
            site.processes.wait("roles", seconds=120)
            site.processes.start(
                "user", [*AIRFLOW, "users", "create", "--username", USER, "--password", PASSWORD, *names]
            )
            site.processes.wait("user", seconds=120)
        yield site, wait_for
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_finished_job_starts_a_dag_whoever_submitted_it(site, tmp_path):
    site, wait_for = site
    from tests.system.airflow_processes import HOST, free_port

    port = free_port()
    callback_url = f"http://{HOST}:{port}/kie/kie_default"
    with KieEmulator(conversion_seconds=0.5, webhook_hmac_key=KEY, callback_pause=2) as kie:
        connection = json.loads(kie.connection_json())
        connection["extra"] |= {"callback_url": callback_url, "webhook_hmac_key": KEY}
        site.set_environment(
            AIRFLOW_CONN_KIE_DEFAULT=json.dumps(connection),
            KIE_CALLBACKS_AIRFLOW_URL=site.url,
            KIE_CALLBACKS_AIRFLOW_USERNAME=USER,
            KIE_CALLBACKS_AIRFLOW_PASSWORD=PASSWORD,
            NO_PROXY=HOST,
            # Where the executor of 2.11 looks for Airflow's command.
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        )
        site.start(*(("webserver", "scheduler") if IS_2 else ("api-server", "scheduler", "dag-processor")))
        version = f"{site.url}/api/{'v1' if IS_2 else 'v2'}/version"
        wait_for("Airflow's API", lambda: answers(version), seconds=180)
        assets = f"select * from {'dataset' if IS_2 else 'asset_active'} where uri = ?"
        wait_for("the DAG", lambda: site.select(assets, ASSET), seconds=180)

        command = [sys.executable, "-m", "airflow_provider_kie.callbacks", "--port", str(port)]
        site.processes.start("callbacks", command)
        wait_for("the receiver", lambda: answers(callback_url), seconds=60)
        assert f"accepts {USER}" in (site.home / "callbacks.log").read_text()

        submitted = {"model": "google/imagen4", "input": {"prompt": "a fox"}, "callBackUrl": callback_url}
        headers = {"Authorization": f"Bearer {kie.api_key}", "User-Agent": "another system"}
        answer = requests.post(f"{kie.url}/api/v1/jobs/createTask", json=submitted, headers=headers, timeout=10)
        kie_task_id = answer.json()["data"]["taskId"]

        runs = "select run_id, state from dag_run where dag_id = ?"
        ended = wait_for(
            "the run to end",
            lambda: [run for run in site.select(runs, DAG_ID) if run["state"] in ("success", "failed")],
            seconds=180,
        )
        link = kie.state.record_info(kie_task_id, "jobs").data["response"]["resultUrls"][0]
        original = requests.get(link, headers={"User-Agent": "test"}, timeout=10).content
        (sent,) = kie.callbacks()
        # What a receiver asks that does not know whether its event was made.
        settings = CallbackSettings(("kie_default",), site.url, USER, PASSWORD)
        assert [asyncio.run(has_event(settings, each)) for each in (kie_task_id, "0" * 32)] == [True, False]
    assert [run["state"] for run in ended] == ["success"]
    assert (sent["kie_task_id"], sent["http_status"], sent["attempt"]) == (kie_task_id, 200, 1)
    (stored,) = (site.home / "kie-jobs" / kie_task_id).glob("result-0.*")
    assert hashlib.sha256(stored.read_bytes()).digest() == hashlib.sha256(original).digest()
    log = (site.home / "callbacks.log").read_text()
    assert f"job of family jobs {kie_task_id} is finished; told" in log
    assert not [secret for secret in (KEY, PASSWORD, kie.api_key) if secret in log]


async def has_event(settings: CallbackSettings, kie_task_id: str) -> bool:
    api = AirflowApi(settings)
    try:
        return await api.has_event(ASSET, kie_task_id)
    finally:
        await api.close()


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code in (200, 405)
    except requests.RequestException:
        return False
