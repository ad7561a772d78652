# SPDX-License-Identifier: Apache-2.0
"""What the cluster test breaks, when, and what has to come of it."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.system.airflow_processes import IS_2
from tests.system.cluster import HELD, HOME, ROOT, SCHEDULERS, SLOTS, TRIGGERERS, WORKERS
from tests.system.cluster_stage import Stage, name_of
from tests.system.processes import ProcessError, say

#: Stands for two minutes: the conversions and the time until a triggerer counts as dead are scaled alike.
OUTAGE: Final = 40.0
#: What ends by itself when the database goes away.
DEPENDENT: Final = frozenset({"scheduler", "triggerer", "dag-processor"})
#: Of a worker whose messages are delivered again after 10 seconds.
IMPATIENT: Final = {
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "10",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__UNACKED_RESTORE_INTERVAL": "1",
}
#: The first commit with triggers of every family.
EARLIER: Final = "a7f2802"
#: A scheduler may be killed when a task has just started: it has to count as dead while that task runs.
SECONDS_YOUNG: Final = 10.0


def leave_alone(stage: Stage) -> None:
    stage.until_waiting()
    stage.waits.append(stage.cluster.waits(stage.run_id))


def worker(stage: Stage) -> None:
    stage.strike(WORKERS[0], hit=stage.until_held())
    stage.let_go()
    stage.cluster.start(WORKERS[0])


def worker_warm(stage: Stage) -> None:
    stage.note_strike(stage.until_held())
    stage.cluster.processes.family(WORKERS[0])[0].send_signal(signal.SIGTERM)
    stage.let_go()
    stage.cluster.processes.wait(WORKERS[0], seconds=120)
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
    def waits_on(name: str) -> int:
        return stage.cluster.waits(stage.run_id)[name]

    stage.until_waiting()
    stage.until("waits on a triggerer", lambda: any(map(waits_on, TRIGGERERS)))
    name = max(TRIGGERERS, key=waits_on)
    (other,) = set(TRIGGERERS) - {name}
    stage.strike(name)
    stage.until("the move", lambda: waits_on(other) and not waits_on(name))
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
        stage.until("messages", lambda: len(stage.states("queued")) >= SLOTS and stage.cluster.services.messages())
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


def one_impatient_worker(stage: Stage) -> None:
    """Leave one worker, for which a message may stay unconfirmed for 10 seconds only; no task has begun yet."""
    for name in WORKERS:
        stage.cluster.processes.kill(name)
    stage.cluster.start(WORKERS[0], **IMPATIENT)


def redelivery(stage: Stage) -> None:
    """Wait longer in a worker than a message may stay unconfirmed, and bring a second worker with free slots."""

    def delivered_twice() -> set[str]:
        """The jobs at work whose message both workers have got."""
        first, second = map(stage.cluster.messages, WORKERS)
        query = "select * from task_instance where run_id = :run_id and state = 'running'"
        tasks = stage.cluster.select(query, run_id=stage.run_id)
        return {name_of(stage.run_id, ti) for ti in tasks if ti["external_executor_id"] in first & second}

    stage.until("tasks", lambda: len(stage.states("running")) >= SLOTS)
    stage.cluster.start(WORKERS[1], AIRFLOW__CELERY__WORKER_CONCURRENCY=str(2 * SLOTS), **IMPATIENT)
    twice = stage.until("the message of a task at work for the second time", delivered_twice)
    stage.note_strike(twice)
    say(f"  delivered twice: the messages of {len(twice)} tasks at work")
    stage.emulator.configure(conversion_seconds=5)
    stage.until("the end of tasks", lambda: not stage.states("queued", "running", "scheduled"))
    for name in WORKERS:
        stage.cluster.processes.kill(name)
        stage.cluster.start(name)


def api_server(stage: Stage) -> None:
    query = "select 1 from task_instance where run_id = :run_id and next_method is not null and state in "
    query += "('queued', 'running')"
    stage.until("tasks that are resumed", lambda: stage.cluster.select(query, run_id=stage.run_id))
    stage.strike("api-server")
    time.sleep(5)
    stage.cluster.start("api-server")


def clear(stage: Stage) -> None:
    stage.until("all waits", lambda: len(stage.states("deferred")) == 2 * stage.count)
    stage.note_strike()
    stage.cluster.clear(stage.run_id.split("--")[0], stage.run_id)


def earlier_triggerers(stage: Stage) -> None:
    """Replace both triggerers by ones that run an earlier commit."""
    code = subprocess.run(["git", "archive", EARLIER], cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
    place = HOME / "earlier"
    with tarfile.open(fileobj=io.BytesIO(code)) as archive:
        archive.extractall(place, filter="data")
    environment = {"PYTHONPATH": str(place)}
    if not (imported := what_is_imported(stage, environment)).is_relative_to(place):
        raise ProcessError(f"the triggerers would import {imported} and not what is in {place}")
    for name in TRIGGERERS:
        stage.cluster.processes.kill(name)
    stage.cluster.start_triggerers(**environment)
    stage.until_waiting()
    stage.note_strike(set())
    stage.until("the end of waits", lambda: not stage.states("deferred", "running", "scheduled", "queued", None))
    for name in TRIGGERERS:
        stage.cluster.processes.kill(name)
    stage.cluster.start_triggerers()


def what_is_imported(stage: Stage, environment: dict[str, str]) -> Path:
    """Where Airflow's processes find the provider, started with this environment."""
    processes = stage.cluster.processes
    command = [sys.executable, "-c", "import airflow_provider_kie; print(airflow_provider_kie.__file__)"]
    environment = processes.environment | environment
    found = subprocess.run(
        command, env=environment, cwd=processes.folder, capture_output=True, check=True, text=True, timeout=60
    )
    return Path(found.stdout.splitlines()[-1])


def has_history() -> bool:
    if not shutil.which("git"):
        return False
    command = ["git", "cat-file", "-e", f"{EARLIER}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60).returncode == 0


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
    :param doubles: submits beyond one for each job, alike; if not said, those that are paid for twice. KIE refuses the
        others, as it does with a second conversion of a track.
    :param revives: the kinds of parts that may end by themselves; they are started again.
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
    doubles: Mapping[str, int | None] = field(default_factory=dict)
    revives: frozenset[str] = frozenset()
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
        doubles={"store": 2, "ledger": 2, "nothing": 4},
    ),
    Row("worker killed after the note", worker, point="noted", again={"nothing": 2}, doubles={"nothing": 4}),
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
    Row("Redis killed, its messages kept", redis(forgets=False), again={"nothing": None}),
    Row("Redis killed, its messages lost", redis(forgets=True), again={"nothing": None}),
    Row(
        "message delivered twice",
        redelivery,
        prepare=one_impatient_worker,
        dag_id="cluster_sync",
        conversion=30,
    ),
    Row("PostgreSQL crashed for 5 s", postgres, again={"nothing": None}, revives=DEPENDENT),
    Row("API server killed while tasks resume", api_server, skip="2.11 has none that a task asks" if IS_2 else ""),
    Row("cleared while all wait", clear, conversion=90 if IS_2 else 40, again={"nothing": None}),
    Row("triggerers of an earlier commit", earlier_triggerers, skip="" if has_history() else "no history here"),
)
