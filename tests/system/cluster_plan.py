# SPDX-License-Identifier: Apache-2.0
"""What the cluster test breaks, when, and what has to come of it."""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from tests.system.airflow_processes import IS_2, Emulator, say, wait_for
from tests.system.cluster import HELD, HOME, ROOT, SCHEDULERS, SLOTS, TRIGGERERS, WORKERS, Cluster

#: How long anything that a row waits for may take.
SECONDS: Final = 240.0
#: Stands for two minutes: the conversions and the time until a triggerer counts as dead are scaled alike.
OUTAGE: Final = 40.0
#: The first commit with triggers of every family.
EARLIER: Final = "a7f2802"
#: A scheduler may be killed when a task has just started: it has to count as dead while that task runs.
SECONDS_YOUNG: Final = 10.0
#: What a scheduler writes of the tasks of a dead one: those with a known message are adopted, the others are reset.
TAKEN_OVER: Final = re.compile(r"(?:Adopted|Reset) the following \d+")


@dataclass
class Stage:
    """A DAG run of a row, and the means to break what it runs on."""

    cluster: Cluster
    emulator: Emulator
    run_id: str
    count: int
    at: float | None = None
    hit: set[str] = field(default_factory=set)
    waits: list[Mapping[str, int]] = field(default_factory=list)

    def until(self, what: str, look: Callable[[], Any]) -> Any:
        """Wait for something to happen in the run, while what ends by itself is started again."""

        def look_on() -> Any:
            self.cluster.revive()
            return look()

        return wait_for(what, look_on, seconds=SECONDS, every=0.5)

    def states(self, *states: str) -> list[str]:
        """The jobs in these states of Airflow's."""
        tasks = self.cluster.task_instances(self.run_id)
        return [name_of(self.run_id, ti) for ti in tasks if ti["state"] in states]

    def until_waiting(self, share: float = 0.5) -> None:
        wanted = 2 * self.count * share
        self.until("waits", lambda: len(self.states("deferred", "success")) >= wanted and self.states("deferred"))

    def until_held(self) -> set[str]:
        """Wait until each slot of the only worker holds a task at the wanted instant; then there is a second worker."""

        def held() -> list[Path]:
            files = [file for file in HELD.glob("*-*") if file.read_text()]
            return files if len(files) == SLOTS else []

        files = wait_for("tasks at the instant", held, seconds=120)
        self.cluster.start(WORKERS[1])
        return {f"{self.run_id}-{file.name.split('-')[0]}-{file.read_text()}" for file in files}

    def until_taken_over(self, name: str) -> None:
        """Wait until a killed scheduler counts as dead and the other one has adopted or reset what it had sent."""
        (other,) = set(SCHEDULERS) - {name}
        job = job_of_scheduler(name)

        def taken_over() -> list[str]:
            (state,) = self.cluster.select("select state from job where id = :job", job=job)
            is_dead = state["state"] == "failed" and not self.sent_by(name)
            return TAKEN_OVER.findall((self.cluster.home / f"{other}.log").read_text())[before:] if is_dead else []

        before = len(TAKEN_OVER.findall((self.cluster.home / f"{other}.log").read_text()))
        found = self.until(f"{other} to take over from {name}", taken_over)
        say(f"  {other} has taken over: {', '.join(found)}")

    def sent_by(self, scheduler: str) -> dict[str, float]:
        """The jobs whose tasks a scheduler has sent and that wait or run, and since when they run."""
        query = "select * from task_instance where run_id = :run_id and queued_by_job_id = :job"
        tasks = self.cluster.select(query, run_id=self.run_id, job=job_of_scheduler(scheduler))
        return {
            name_of(self.run_id, ti): ti["start_date"].timestamp() if ti["state"] == "running" else 0.0
            for ti in tasks
            if ti["state"] in ("queued", "running")
        }

    def let_go(self) -> None:
        (HELD / "wanted").unlink(missing_ok=True)
        for file in HELD.iterdir():
            file.unlink()

    def strike(self, *names: str, hit: set[str] | None = None) -> None:
        """SIGKILL processes with all below them."""
        self.note_strike(hit)
        for name in names:
            self.cluster.processes.kill(name)
            say(f"  killed: {name}")

    def note_strike(self, hit: set[str] | None = None) -> None:
        self.hit |= set(self.states("queued", "running", "deferred")) if hit is None else hit
        self.waits.append(self.cluster.waits(self.run_id))
        self.at = self.at or time.time()


def name_of(run_id: str, ti: Mapping[str, Any]) -> str:
    """What KIE hears of a job: its track or its prompt."""
    return f"{run_id}-{ti['task_id']}-{ti['map_index']}"


def job_of_scheduler(name: str) -> int:
    """The id of its job in the database; 0 as long as it has sent nothing."""
    file = HOME / f"{name}.job"
    return int(file.read_text() or 0) if file.exists() else 0


def leave_alone(stage: Stage) -> None:
    stage.until_waiting()
    stage.waits.append(stage.cluster.waits(stage.run_id))


def worker(stage: Stage) -> None:
    stage.strike(WORKERS[0], hit=stage.until_held())
    stage.let_go()
    stage.cluster.start(WORKERS[0])


def worker_warm(stage: Stage) -> None:
    stage.note_strike(stage.until_held())
    stage.let_go()
    stage.cluster.processes.ask_to_end(WORKERS[0], number=signal.SIGTERM, seconds=120)
    stage.cluster.start(WORKERS[0])


def schedulers_in_turn(stage: Stage) -> None:
    for name in SCHEDULERS:

        def young(name: str = name) -> bool:
            return any(since > time.time() - SECONDS_YOUNG for since in stage.sent_by(name).values())

        stage.until(f"young tasks of {name}", young)
        stage.strike(name, hit=set(stage.sent_by(name)))
        stage.until_taken_over(name)
        stage.cluster.start(name)


def suspend_workers(stage: Stage) -> None:
    """Let messages wait, and a scheduler as soon as it has sent some."""
    for process in processes_of_workers(stage):
        process.suspend()
    (HELD / "a-scheduler").touch()


def scheduler_while_sending(stage: Stage) -> None:
    def held() -> list[str]:
        return [name for name in SCHEDULERS if (HELD / name).exists()]

    (name,) = stage.until("a scheduler that has sent", held)
    stage.strike(name, hit=set(stage.sent_by(name)))
    stage.until_taken_over(name)
    for process in processes_of_workers(stage):
        process.resume()
    stage.let_go()
    stage.until("the messages' work", lambda: len(stage.states("success", "deferred")) >= stage.count)
    stage.cluster.start(name)


def processes_of_workers(stage: Stage) -> list[psutil.Process]:
    return [process for name in WORKERS for process in stage.cluster.processes.family(name)]


def one_triggerer(stage: Stage) -> None:
    stage.until_waiting()
    waits = stage.cluster.waits(stage.run_id)
    name = max(TRIGGERERS, key=lambda name: waits[name])
    stage.strike(name)
    stage.until("the move", lambda: stage.cluster.waits(stage.run_id)[name] == 0)
    stage.waits.append(stage.cluster.waits(stage.run_id))
    stage.until("the end of waits", lambda: not stage.states("deferred"))
    stage.cluster.start_triggerers(name)


def both_triggerers(stage: Stage) -> None:
    stage.until_waiting()
    stage.strike(*TRIGGERERS)
    time.sleep(OUTAGE)
    stage.cluster.start_triggerers()


def redis(*, forgets: bool) -> Callable[[Stage], None]:
    """Kill Redis while it has messages, for which the workers are stopped for that moment."""

    def strike(stage: Stage) -> None:
        stage.until_waiting(0.2)
        workers = [process for name in WORKERS for process in stage.cluster.processes.family(name)[:1]]
        for process in workers:
            process.suspend()
        stage.until("messages", lambda: len(stage.states("queued")) >= SLOTS)
        crash(stage, "redis-server")
        if forgets:
            stage.cluster.services.forget_messages()
        stage.cluster.services.start("redis-server")
        for process in workers:
            process.resume()

    return strike


def postgres(stage: Stage) -> None:
    stage.until_waiting(0.4)
    crash(stage, "postgres")
    time.sleep(5)
    stage.cluster.services.start("postgres")


def crash(stage: Stage, name: str) -> None:
    stage.note_strike()
    stage.cluster.services.crash(name)
    say(f"  crashed: {name}")


def redelivery(stage: Stage) -> None:
    """Wait longer in a worker than a message may stay unconfirmed, and bring a second worker with free slots."""
    options = {"VISIBILITY_TIMEOUT": "10", "UNACKED_RESTORE_INTERVAL": "1"}
    short = {f"AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__{name}": value for name, value in options.items()}

    def delivered_twice() -> set[str]:
        first, second = (stage.cluster.messages(name) for name in WORKERS)
        return first & second

    before = delivered_twice()
    for name in WORKERS:
        stage.cluster.processes.kill(name)
    stage.cluster.start(WORKERS[0], **short)
    stage.until("tasks", lambda: len(stage.states("running")) >= SLOTS)
    stage.cluster.start(WORKERS[1], AIRFLOW__CELERY__WORKER_CONCURRENCY=str(2 * SLOTS), **short)
    stage.until("a message for the second time", lambda: delivered_twice() - before)
    stage.note_strike()
    stage.emulator.configure(conversion_seconds=5)
    stage.until("the end of tasks", lambda: not stage.states("queued", "running", "scheduled"))
    say(f"  delivered twice: {len(delivered_twice() - before)} messages")
    for name in WORKERS:
        stage.cluster.processes.kill(name)
        stage.cluster.start(name)


def api_server(stage: Stage) -> None:
    stage.until("resumed tasks", lambda: stage.states("success"))
    stage.strike("api-server")
    time.sleep(5)
    stage.cluster.start("api-server")


def clear(stage: Stage) -> None:
    stage.until("all waits", lambda: len(stage.states("deferred")) == 2 * stage.count)
    stage.note_strike()
    stage.cluster.clear(stage.run_id.split("--")[0], stage.run_id)


def earlier_triggerers(stage: Stage) -> None:
    """Replace both triggerers by ones that run an earlier commit."""
    code = subprocess.run(["git", "archive", EARLIER], cwd=ROOT, capture_output=True, check=True).stdout
    place = HOME / "earlier"
    with tarfile.open(fileobj=io.BytesIO(code)) as archive:
        archive.extractall(place, filter="data")
    for name in TRIGGERERS:
        stage.cluster.processes.kill(name)
    stage.cluster.start_triggerers(PYTHONPATH=str(place))
    stage.until_waiting()
    stage.note_strike(set())
    stage.until("the end of waits", lambda: not stage.states("deferred", "running", "scheduled", "queued", None))
    for name in TRIGGERERS:
        stage.cluster.processes.kill(name)
    stage.cluster.start_triggerers()


def has_history() -> bool:
    if not shutil.which("git"):
        return False
    found = subprocess.run(
        ["git", "cat-file", "-e", f"{EARLIER}^{{commit}}"], cwd=ROOT, capture_output=True, check=False
    )
    return found.returncode == 0


@dataclass(frozen=True)
class Row:
    """
    One thing that is broken.

    :param name: what, and when.
    :param strike: breaks it.
    :param prepare: what has to be done before the DAG run.
    :param point: where tasks of the first worker are held for it: before or after the note of KIE's id.
    :param stopped: jobs that end with the error that a person has to settle them, by what remembers them.
    :param again: jobs that are paid for twice, alike; None where nothing is promised.
    :param measured: whether the CPU time is told: nothing that is counted may die.
    :param skip: why the row cannot be shown here.
    """

    name: str
    strike: Callable[[Stage], None]
    prepare: Callable[[Stage], None] = lambda _: None
    point: str = ""
    dag_id: str = "cluster_deferrable"
    conversion: float = 10.0
    stopped: Mapping[str, int] = field(default_factory=dict)
    again: Mapping[str, int | None] = field(default_factory=dict)
    measured: bool = False
    skip: str = ""


ROWS: Final[Sequence[Row]] = (
    Row("nothing", leave_alone, measured=True),
    Row(
        "worker killed before the note",
        worker,
        point="unnoted",
        stopped={"store": 2, "ledger": 2},
        again={"nothing": 2},
    ),
    Row("worker killed after the note", worker, point="noted", again={"nothing": 2}),
    Row("worker asked to end", worker_warm, point="noted"),
    Row(
        "each scheduler killed in turn",
        schedulers_in_turn,
        dag_id="cluster_sync",
        conversion=40,
        again={"nothing": None},
    ),
    Row(
        "scheduler killed between message and record",
        scheduler_while_sending,
        prepare=suspend_workers,
        again={"nothing": None},
    ),
    Row("one triggerer killed for good", one_triggerer, conversion=25),
    Row("both triggerers away for 40 s", both_triggerers),
    Row("Redis killed, its messages kept", redis(forgets=False)),
    Row("Redis killed, its messages lost", redis(forgets=True)),
    Row("message delivered twice", redelivery, dag_id="cluster_sync", conversion=30),
    Row("PostgreSQL crashed for 5 s", postgres, again={"nothing": None}),
    Row("API server killed while tasks resume", api_server, skip="2.11 has none that a task asks" if IS_2 else ""),
    Row("cleared while all wait", clear, conversion=40, again={"nothing": None}),
    Row("triggerers of an earlier commit", earlier_triggerers, skip="" if has_history() else "no history here"),
)
