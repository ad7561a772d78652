# SPDX-License-Identifier: Apache-2.0
"""
Airflow as it runs in earnest, one process for each component, and the emulator beside it, for tests that kill.

Everything listens on loopback, writes below one folder, and is gone when the ``with`` block ends.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Mapping
from importlib.metadata import version as airflow_version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil
import requests
from packaging.version import Version
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from airflow_provider_kie.emulator.server import DEFAULT_KEY
from tests.system.processes import HOST, ProcessError, Processes, free_port, say, stop_by_exit, wait_for

RELEASE: Final = Version(airflow_version("apache-airflow"))
IS_2: Final = RELEASE.major == 2
HAS_STORE: Final = RELEASE.release >= (3, 3)

AIRFLOW: Final = [sys.executable, "-m", "airflow"]
COMMANDS: Final[dict[str, list[str]]] = {
    "api-server": ["api-server", "--host", HOST, "--port", "{port}"],
    "dag-processor": ["dag-processor"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "webserver": ["webserver", "--hostname", HOST, "--port", "{port}", "--workers", "1"],
    "worker": ["celery", "worker", "--skip-serve-logs", "--without-gossip", "--celery-hostname", "{name}@%h"],
}

#: What differs from Airflow's defaults so that deaths are noticed in seconds instead of minutes, by option.
QUICKER: Final[dict[str, str]] = {
    "scheduler.scheduler_heartbeat_sec": "1",
    "scheduler.job_heartbeat_sec": "1",
    "scheduler.scheduler_idle_sleep_time": "0.3",
    # Not shorter: a scheduler on a busy machine takes itself for dead then, and starts its living tasks once more.
    "scheduler.scheduler_health_check_threshold": "15",
    "scheduler.orphaned_tasks_check_interval": "3",
    "scheduler.task_instance_heartbeat_timeout": "10",
    "scheduler.task_instance_heartbeat_timeout_detection_interval": "2",
    "triggerer.job_heartbeat_sec": "1",
    "triggerer.triggerer_health_check_threshold": "6",
    "workers.min_heartbeat_interval": "2",
}
#: What differs to spare the machine, and for a metadata database in one file.
MODEST: Final[dict[str, str]] = {
    "core.parallelism": "8",
    "core.max_active_tasks_per_dag": "400",
    "core.load_examples": "False",
    "core.dags_are_paused_at_creation": "False",
    "core.simple_auth_manager_all_admins": "True",
    "dag_processor.parsing_processes": "1",
    "dag_processor.min_file_process_interval": "600",
    "dag_processor.stale_dag_threshold": "1200",
    "dag_processor.dag_file_processor_timeout": "180",
    "core.dagbag_import_timeout": "120",
    "workers.execution_api_timeout": "30",
}
#: SQLite lets one process write at a time; the others wait for it this long.
DATABASE_PATIENCE: Final = 60


def tell_configuration(more: Mapping[str, str] | None = None) -> None:
    """Tell which of Airflow's options are not as they come; those of one test go before the common ones."""
    say("Airflow's options that differ from the defaults:")
    for option, value in sorted((QUICKER | MODEST | dict(more or {})).items()):
        print(f"  {option}={value}")


class Emulator:
    """
    The emulator as a process of its own.

    :param processes: what it is started among.
    :param conversion_seconds: how long a conversion takes.
    """

    def __init__(self, processes: Processes, conversion_seconds: float) -> None:
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        self._http = requests.Session()
        self._http.trust_env = False
        command = [sys.executable, "-m", "airflow_provider_kie.emulator", "--port", str(port)]
        processes.start("emulator", [*command, "--conversion-seconds", str(conversion_seconds)])
        wait_for("the emulator", lambda: processes.alive("emulator") and self._listens(), seconds=60)

    def connection(self, **extra: object) -> str:
        """The value of an ``AIRFLOW_CONN_…`` variable that leads here."""
        return json.dumps({"conn_type": "kie", "password": DEFAULT_KEY, "host": self.url, "extra": extra})

    def summary(self) -> dict[str, Any]:
        return dict(self._get("/_emulator"))

    def record(self, path: str, kie_task_id: str) -> dict[str, Any]:
        """What KIE tells of a job, to somebody else."""
        return dict(self._call("GET", f"{path}?taskId={kie_task_id}").json()["data"])

    def requests(self) -> list[dict[str, Any]]:
        return list(self._get("/_emulator/requests"))

    def configure(self, **settings: object) -> None:
        """Change settings; running conversions keep their time."""
        self._post("/_emulator/settings", settings)

    def submit(self, music_task_id: str, audio_id: str) -> dict[str, Any]:
        """Submit as somebody else would, and return the answer."""
        body = {"taskId": music_task_id, "audioId": audio_id, "callBackUrl": "https://example.com/callback"}
        return dict(self._call("POST", "/api/v1/wav/generate", body).json())

    def play(self, *answers: str, endpoint: str = "submit", kie_task_id: str | None = None) -> None:
        """Queue answers for the next calls, of one task if told so."""
        body = {"answers": list(answers), "endpoint": endpoint, "kie_task_id": kie_task_id}
        self._post("/_emulator/answers", {name: value for name, value in body.items() if value is not None})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {DEFAULT_KEY}", "User-Agent": "somebody else"}
        return self._http.request(method, self.url + path, json=body, headers=headers, timeout=30)

    def _listens(self) -> bool:
        try:
            return bool(self.summary())
        except requests.ConnectionError:
            return False

    def _get(self, path: str) -> Any:
        answer = self._http.get(self.url + path, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self._http.post(self.url + path, json=body, timeout=30).raise_for_status()


class Airflow:
    """
    Airflow's components, each a process of its own, on a fresh database: of SQLite, if no other is configured.

    :param home: the AIRFLOW_HOME; what was there is removed.
    :param dags: the folder of the DAG files.
    :param configuration: options beside :data:`QUICKER` and :data:`MODEST`, as ``section.option``.
    """

    def __init__(self, home: Path, dags: Path, configuration: dict[str, str] | None = None) -> None:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self.home = home
        self.processes = Processes(home)
        self._port = free_port()
        self._http = requests.Session()
        self._http.trust_env = False
        places = {
            "core.dags_folder": str(dags),
            "core.executor": "LocalExecutor",
            "core.execution_api_server_url": f"{self.url}/execution/",
            "api.base_url": self.url,
            "database.sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}?timeout={DATABASE_PATIENCE}",
        }
        options = QUICKER | MODEST | places | (configuration or {})
        names = {f"AIRFLOW__{option.upper().replace('.', '__')}": value for option, value in options.items()}
        self.processes.environment |= names | {"AIRFLOW_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        self._database = create_engine(options["database.sql_alchemy_conn"], poolclass=NullPool)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop_by_exit)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a second Ctrl+C must not leave processes behind
            signal.signal(number, signal.SIG_IGN)
        self.processes.end_all()

    def set_environment(self, **variables: str) -> None:
        self.processes.environment |= variables

    def migrate(self) -> None:
        self.processes.start("migrate", [*AIRFLOW, "db", "migrate"])
        self.processes.wait("migrate", seconds=300)

    def start(self, *names: str, **environment: str) -> None:
        """Start components; several of a kind have numbers, as in ``scheduler-2``."""
        for name in names:
            command = [part.format(port=self._port, name=name) for part in COMMANDS[name.rstrip("-0123456789")]]
            self.processes.start(name, AIRFLOW + command, **environment)

    def command(self, *arguments: str) -> None:
        """Run a command of Airflow's to its end."""
        self.processes.start("command", [*AIRFLOW, *arguments])
        self.processes.wait("command", seconds=120)

    def wait_until_ready(self, dag_ids: set[str]) -> None:
        """Wait until the API answers and the DAGs are known."""
        if not IS_2:
            wait_for("the API server", self._answers, seconds=180)
            token = self._http.get(f"{self.url}/auth/token", timeout=60).json()["access_token"]
            self._http.headers["Authorization"] = f"Bearer {token}"
        wait_for(f"the DAGs {sorted(dag_ids)}", lambda: dag_ids <= self._known_dags(), seconds=180)

    def call(self, method: str, path: str, body: dict[str, Any]) -> None:
        """Call the REST API, below ``/api/v2/``."""
        answer = self._http.request(method, f"{self.url}/api/v2/{path}", json=body, timeout=180)
        if not answer.ok:
            raise ProcessError(f"Airflow refused {method} {path}: {answer.text}")

    def trigger(self, dag_id: str, run_id: str, **params: object) -> None:
        if IS_2:  # whose REST API needs a user of its own
            self.command("dags", "trigger", "-r", run_id, "-c", json.dumps(params), dag_id)
            return
        self.call("POST", f"dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": params})

    def clear(self, dag_id: str, run_id: str) -> None:
        if IS_2:
            (run,) = self.select("select execution_date from dag_run where run_id = :run_id", run_id=run_id)
            when = str(run["execution_date"])
            self.command("tasks", "clear", "-y", "-s", when, "-e", when, dag_id)
            return
        body = {"dag_run_id": run_id, "dry_run": False, "only_failed": False, "reset_dag_runs": True}
        self.call("POST", f"dags/{dag_id}/clearTaskInstances", body)

    def select(self, query: str, **values: object) -> list[dict[str, Any]]:
        """Read from the metadata database, past the API server, which has enough to do."""
        with self._database.connect() as database:
            return [dict(row) for row in database.execute(text(query), values).mappings()]

    def run_state(self, run_id: str) -> str:
        return str(self.select("select state from dag_run where run_id = :run_id", run_id=run_id)[0]["state"])

    def task_instances(self, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a DAG run, as the scheduler sees them."""
        columns = "task_id, map_index, state, try_number, pid, end_date"
        return self.select(f"select {columns} from task_instance where run_id = :run_id", run_id=run_id)

    def xcom(self, run_id: str, key: str) -> dict[tuple[str, int], Any]:
        """The values under a key, by task and map index."""
        query = "select task_id, map_index, value from xcom where run_id = :run_id and key = :key"
        rows = self.select(query, run_id=run_id, key=key)
        return {(row["task_id"], row["map_index"]): self._decoded(row["value"]) for row in rows}

    def _decoded(self, value: Any) -> Any:
        """A value of XCom: bytes in 2.11, else JSON, which PostgreSQL's driver has decoded."""
        if isinstance(value, bytes | memoryview):
            return json.loads(bytes(value))
        return json.loads(value) if self._database.dialect.name == "sqlite" else value

    def task_processes(self) -> list[psutil.Process]:
        """
        The processes that run tasks, in the order of their pids.

        The scheduler's children are LocalExecutor's workers; a worker's child runs a task.
        """
        pids = {row["pid"] for row in self.select("select pid from task_instance where state = 'running'")}
        below = self.processes.family("scheduler")[1:]
        return sorted((process for process in below if process.pid in pids), key=lambda process: process.pid)

    def _known_dags(self) -> set[str]:
        if not IS_2:
            self.processes.alive("dag-processor")
        return {row["dag_id"] for row in self.select("select dag_id from serialized_dag")}

    def _answers(self) -> bool:
        self.processes.alive("api-server")
        try:
            return self._http.get(f"{self.url}/api/v2/version", timeout=5).ok
        except requests.RequestException:
            return False
