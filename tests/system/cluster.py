# SPDX-License-Identifier: Apache-2.0
"""Airflow as on a cluster, but on one machine: Celery, Redis, PostgreSQL, and two of each part that may be two."""

from __future__ import annotations

import base64
import fcntl
import os
import re
import secrets
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from tests.system.airflow_processes import IS_2, Airflow, Emulator
from tests.system.cluster_services import Services
from tests.system.processes import ProcessError, Processes, say, wait_for

ROOT: Final = Path(__file__).resolve().parents[2]
HOME: Final = ROOT / ".cluster"
LOCK: Final = ROOT / ".cluster.lock"
HELD: Final = HOME / "held"
LEDGER: Final = f"file://{HOME}/ledger"
WORKERS: Final = ("worker-1", "worker-2")
SCHEDULERS: Final = ("scheduler-1", "scheduler-2")
TRIGGERERS: Final = ("triggerer-1", "triggerer-2")
#: In 2.11 no task asks a server, and schedulers parse the DAG files.
SERVERS: Final = () if IS_2 else ("api-server", "dag-processor")
#: Slots of a worker, and what each of the two schedulers may have queued, so that no message waits for a slot.
SLOTS: Final = 4

#: What differs from Airflow's defaults besides what every such test changes.
OPTIONS: Final = {
    "core.executor": "CeleryExecutor",
    "core.parallelism": str(SLOTS),
    "celery.worker_concurrency": str(SLOTS),
    "celery.operation_timeout": "10",
    "scheduler.parsing_processes": "1",
    "scheduler.scheduler_health_check_threshold": "20",
    "scheduler.task_instance_heartbeat_timeout": "25",
    "scheduler.local_task_job_heartbeat_sec": "2",
    "scheduler.scheduler_zombie_task_threshold": "25",
    "scheduler.zombie_detection_interval": "3",
    "scheduler.task_queued_timeout": "60",
    "scheduler.task_queued_timeout_check_interval": "10",
    "triggerer.triggerer_health_check_threshold": "10",
}


RECEIVED: Final = re.compile(r"\[([0-9a-f-]{36})\] received")
SUCCEEDED: Final = re.compile(r"succeeded in ([0-9.]+)s")


class Cluster(Airflow):
    """
    Two schedulers, two triggerers, two workers, and what they share.

    :param count: jobs of each kind in a DAG run.
    :param ledger: whether the jobs are remembered by a ledger.
    """

    def __init__(self, count: int, *, ledger: bool) -> None:
        self._lock = LOCK.open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ProcessError("another cluster test runs in this checkout") from error
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir()
        self.services = Services(Processes(HOME))
        shared = {f"{place}_key": secrets.token_hex() for place in ("api.secret", "webserver.secret")}
        shared["core.fernet_key"] = base64.urlsafe_b64encode(secrets.token_bytes()).decode()
        shared["api_auth.jwt_secret"] = secrets.token_hex()
        shared["database.sql_alchemy_conn"] = self.services.database
        shared["celery.broker_url"] = self.services.broker
        shared["celery.result_backend"] = f"db+{self.services.database}"
        super().__init__(HOME / "airflow", ROOT / "tests" / "system" / "cluster_dags", OPTIONS | shared)
        HELD.mkdir()
        (self.home / "config").mkdir()
        shutil.copy(ROOT / "tests" / "system" / "cluster_settings.py", self.home / "config/airflow_local_settings.py")
        # The workers of 2.11 start tasks by the name "airflow".
        self.set_environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        self.set_environment(KIE_CLUSTER_COUNT=str(count), KIE_CLUSTER_HELD=str(HELD))
        if ledger:
            self.set_environment(KIE_CLUSTER_LEDGER=LEDGER)
        self.triggerers: dict[int, str] = {}
        self.revived: Counter[str] = Counter()

    def __enter__(self) -> Self:
        super().__enter__()
        self.services.__enter__()
        # Workers that are killed leave temporary files, and sockets need a short path.
        temporary = self.services.folder / "tmp"
        temporary.mkdir()
        self.set_environment(TMPDIR=str(temporary))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            self.services.__exit__()
            self._lock.close()
        if left := left_running(HOME, self.services.folder):
            say(f"Still running at the end: {left}")
            if kind is None:
                raise ProcessError("processes of the test are still running")

    def start_all(self) -> Emulator:
        say("Starting PostgreSQL, Redis, the emulator and Airflow; logs are in .cluster/")
        emulator = Emulator(self.processes, 10)
        self.set_environment(AIRFLOW_CONN_KIE_DEFAULT=emulator.connection(timeout=8))
        self.migrate()
        if "KIE_CLUSTER_LEDGER" in self.processes.environment:
            self.processes.start("ledger", [sys.executable, "-m", "airflow_provider_kie", "ledger", "init", LEDGER])
            self.processes.wait("ledger", seconds=120)
        self.start(*SERVERS, *SCHEDULERS, *WORKERS)
        self.start_triggerers()
        self.wait_until_ready({"cluster_deferrable", "cluster_sync"})
        for worker in WORKERS:
            wait_for(worker, lambda worker=worker: self.says(worker, " ready."), seconds=120)
        return emulator

    def start(self, *names: str, **environment: str) -> None:
        for name in names:
            super().start(name, **{"KIE_CLUSTER_PROCESS": name} | environment)

    def start_triggerers(self, *names: str, **environment: str) -> None:
        """Start triggerers one after the other, and learn which is which by the ids of their jobs."""
        for name in names or TRIGGERERS:
            before = self._newest_triggerer()
            self.start(name, **environment)
            wait_for(name, lambda before=before: self._newest_triggerer() > before, seconds=120)
            self.triggerers[self._newest_triggerer()] = name

    def _newest_triggerer(self) -> int:
        (job,) = self.select("select coalesce(max(id), 0) as id from job where job_type = 'TriggererJob'")
        return int(job["id"])

    def revive(self) -> None:
        """Start what ended by itself once more, as a cluster's supervisor does."""
        for name in self.processes.ended():
            say(f"  {name} ended by itself; it is started again")
            self.revived[name] += 1
            self.start_triggerers(name) if name in TRIGGERERS else self.start(name)

    def waits(self, run_id: str) -> Counter[str]:
        """How many waits each triggerer has."""
        query = "select triggerer_id from trigger join task_instance on trigger.id = trigger_id where run_id = :run_id"
        ids = [row["triggerer_id"] for row in self.select(query, run_id=run_id)]
        return Counter(self.triggerers.get(number, "nobody") for number in ids)

    def cpu_seconds(self) -> Counter[str]:
        return self.processes.cpu_seconds() + self.services.processes.cpu_seconds()

    def starts(self) -> Counter[str]:
        """How often tasks have been started, and how many seconds they have held a slot together."""
        seconds = [
            float(held) for name in WORKERS for held in SUCCEEDED.findall((self.home / f"{name}.log").read_text())
        ]
        return Counter({"number": len(seconds), "seconds": sum(seconds)})

    def says(self, name: str, words: str) -> bool:
        """Whether a process has written something."""
        self.processes.alive(name)
        return words in (self.home / f"{name}.log").read_text()

    def messages(self, worker: str) -> set[str]:
        """The ids of the messages that a worker has got."""
        return set(RECEIVED.findall((self.home / f"{worker}.log").read_text()))


def left_running(*folders: Path) -> list[psutil.Process]:
    """The processes without a terminal that work in folders of the test."""
    found = []
    for process in psutil.process_iter():
        try:
            if not process.terminal() and any(Path(process.cwd()).is_relative_to(folder) for folder in folders):
                found.append(process)
        except psutil.Error:
            continue
    return found
