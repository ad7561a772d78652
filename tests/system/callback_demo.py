# SPDX-License-Identifier: Apache-2.0
"""
A job that another system submitted, its callback, and the DAG run of a real Airflow that stores its file.

The emulator is in KIE's place. It is a test of ``tests/airflow``, and ``make demo CALLBACK=yes`` shows it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import airflow
import requests

from airflow_provider_kie.callbacks.airflow_api import AirflowApi
from airflow_provider_kie.callbacks.settings import CallbackSettings
from airflow_provider_kie.emulator import KieEmulator
from tests.system.airflow_processes import AIRFLOW, IS_2, Airflow
from tests.system.processes import HOST, free_port, say, stop_by_exit, wait_for

ROOT: Final = Path(__file__).resolve().parents[2]
DAG_ID: Final = "example_kie_finished_job"
ASSET: Final = "kie://kie_default/jobs"
KEY, USER, PASSWORD = "the-key-of-kie-ai-settings", "receiver", "not-to-be-guessed"
COMPONENTS: Final = ("webserver", "scheduler") if IS_2 else ("api-server", "scheduler", "dag-processor")


class Seen(NamedTuple):
    """What was to be seen."""

    kie_task_id: str
    runs: list[dict[str, Any]]
    #: The callbacks that were sent.
    sent: list[dict[str, Any]]
    #: The files that are stored, and the content of the one at KIE.
    stored: list[Path]
    original: bytes
    #: Whether Airflow says that it has the event of this job, and that of another.
    has_event: list[bool]
    #: The log of the receiver.
    log: str


def play(folder: Path) -> Seen:
    """
    Start all of it, submit a job, and wait until a DAG run has ended.

    :param folder: for Airflow's home; an earlier one is removed.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with (
            KieEmulator(conversion_seconds=0.5, webhook_hmac_key=KEY, callback_pause=2) as kie,
            start_airflow(folder) as site,
        ):
            return _play(kie, site)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def start_airflow(folder: Path) -> Airflow:
    """Return an Airflow with the example, which knows a user for the receiver and nobody else."""
    dags, passwords = folder / "dags", folder / "passwords.json"
    shutil.rmtree(dags, ignore_errors=True)
    dags.mkdir(parents=True)
    shutil.copy(ROOT / "example_dags" / f"{DAG_ID}.py", dags)
    passwords.write_text(json.dumps({USER: PASSWORD}))
    options = {
        "core.simple_auth_manager_all_admins": "False",
        "core.simple_auth_manager_users": f"{USER}:op",
        "core.simple_auth_manager_passwords_file": str(passwords),
        "api.auth_backends": "airflow.api.auth.backend.basic_auth",
    }
    if IS_2:  # which uses SQLite with no other
        options["core.executor"] = "SequentialExecutor"
    return Airflow(folder / "airflow", dags, options)


def _play(kie: KieEmulator, site: Airflow) -> Seen:
    port = free_port()
    callback_url = f"http://{HOST}:{port}/kie/kie_default"
    connection = json.loads(kie.connection_json())
    connection["extra"] |= {"callback_url": callback_url, "webhook_hmac_key": KEY}
    site.set_environment(
        AIRFLOW_CONN_KIE_DEFAULT=json.dumps(connection),
        KIE_CALLBACKS_AIRFLOW_URL=site.url,
        KIE_CALLBACKS_AIRFLOW_USERNAME=USER,
        KIE_CALLBACKS_AIRFLOW_PASSWORD=PASSWORD,
        # Where the executor of 2.11 looks for Airflow's command.
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    say(f"Airflow {airflow.__version__} starts, with a DAG that is scheduled on {ASSET}.")
    _make_database(site)
    site.start(*COMPONENTS)
    version = f"{site.url}/api/{'v1' if IS_2 else 'v2'}/version"
    wait_for("Airflow's API", lambda: _answers(version), seconds=240)
    assets = f"select * from {'dataset' if IS_2 else 'asset_active'} where uri = :uri"
    wait_for("the DAG", lambda: site.select(assets, uri=ASSET), seconds=240)
    site.processes.start("callbacks", [sys.executable, "-m", "airflow_provider_kie.callbacks", "--port", str(port)])
    wait_for("the receiver", lambda: site.processes.alive("callbacks") and _answers(callback_url), seconds=120)
    say(f"kie-callbacks listens at {callback_url}.")

    submitted = {"model": "google/imagen4", "input": {"prompt": "a fox"}, "callBackUrl": callback_url}
    headers = {"Authorization": f"Bearer {kie.api_key}", "User-Agent": "another system"}
    answer = requests.post(f"{kie.url}/api/v1/jobs/createTask", json=submitted, headers=headers, timeout=10)
    kie_task_id = answer.json()["data"]["taskId"]
    say(f"Another system has submitted job {kie_task_id}.")

    runs = "select run_id, state from dag_run where dag_id = :dag_id"
    ended = wait_for(
        "the run to end",
        lambda: [run for run in site.select(runs, dag_id=DAG_ID) if run["state"] in ("success", "failed")],
        seconds=240,
    )
    settings = CallbackSettings(("kie_default",), site.url, USER, PASSWORD)
    record = kie.state.record_info(kie_task_id, "jobs").data
    assert isinstance(record, dict)
    link = record["response"]["resultUrls"][0]
    return Seen(
        kie_task_id=kie_task_id,
        runs=ended,
        sent=kie.callbacks(),
        stored=sorted((site.home / "kie-jobs" / kie_task_id).glob("*")),
        original=requests.get(link, headers={"User-Agent": "a test"}, timeout=10).content,
        has_event=[asyncio.run(_has_event(settings, each)) for each in (kie_task_id, "0" * 32)],
        log=(site.home / "callbacks.log").read_text(),
    )


def _make_database(site: Airflow) -> None:
    site.migrate()
    if not IS_2:
        return
    names = ["--firstname", "x", "--lastname", "y", "--email", "receiver@example.com", "--role", "Op"]
    user = ["users", "create", "--username", USER, "--password", PASSWORD, *names]
    for name, command in (("roles", ["sync-perm"]), ("user", user)):
        site.processes.start(name, AIRFLOW + command)
        site.processes.wait(name, seconds=180)


async def _has_event(settings: CallbackSettings, kie_task_id: str) -> bool:
    """Ask what a receiver asks that does not know whether its event was made."""
    api = AirflowApi(settings)
    try:
        return await api.has_event(ASSET, kie_task_id)
    finally:
        await api.close()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code in (200, 405)
    except requests.RequestException:
        return False


def main() -> int:
    """Show it; the result is the exit code."""
    signal.signal(signal.SIGTERM, stop_by_exit)
    seen = play(ROOT / ".demo" / "callback")
    (sent,) = seen.sent
    say(f"The emulator called back with {json.dumps(sent['json'])[:150]}…")
    say(f"and was answered {sent['http_status']}. The log of kie-callbacks:")
    print("\n".join(f"    {line}" for line in seen.log.splitlines() if seen.kie_task_id in line))
    for run in seen.runs:
        say(f"DAG run {run['run_id']}: {run['state']}")
    for path in seen.stored:
        say(f"Stored: {path} ({path.stat().st_size:,} bytes)")
    done = [run["state"] for run in seen.runs] == ["success"] and seen.stored
    say("Done." if done else f"That is not as it should be: see {ROOT / '.demo' / 'callback' / 'airflow'}")
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
