# SPDX-License-Identifier: Apache-2.0
"""A DAG run of the cluster test, what is seen of it, and the means to break what it runs on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.system.airflow_processes import Emulator
from tests.system.cluster import HELD, HOME, SCHEDULERS, SERVERS, SLOTS, TRIGGERERS, WORKERS, Cluster
from tests.system.cluster_services import NEEDED
from tests.system.processes import Processes, say, wait_for

#: How long anything that a row waits for may take.
SECONDS: Final = 240.0
#: What a scheduler writes of the tasks of a dead one: those with a known message are adopted, the others are reset.
TAKEN_OVER: Final = re.compile(r"(?:Adopted|Reset) the following \d+")


@dataclass
class Stage:
    """A DAG run of a row, and the means to break what it runs on."""

    cluster: Cluster
    emulator: Emulator
    run_id: str
    count: int
    #: The jobs that were hit, and when.
    hit: dict[str, float] = field(default_factory=dict)
    waits: list[Mapping[str, int]] = field(default_factory=list)
    #: How many submits KIE had heard when the run had ended.
    submits: int = 0

    def until(self, what: str, look: Callable[[], Any]) -> Any:
        """Wait for something to happen in the run, while what ends by itself is started again."""

        def look_on() -> Any:
            self.cluster.processes.alive("emulator")  # which is no part of the cluster: its memory is the proof
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

    def restore(self) -> None:
        """Bring everything back after a row that went wrong, and let its run end."""
        processes, services = self.cluster.processes, self.cluster.services
        processes.alive("emulator")
        self.let_go()
        for forgotten in (processes.ended(), services.processes.ended()):
            say(f"  ended by themselves: {', '.join(forgotten) or 'none'}")
        for name in missing(services.processes, NEEDED):
            services.start(name)
        for name in {*WORKERS, *TRIGGERERS} - set(missing(processes, (*WORKERS, *TRIGGERERS))):
            processes.kill(name)  # suspended, perhaps, or started with options of the row
        self.cluster.start(*missing(processes, (*SERVERS, *SCHEDULERS, *WORKERS)))
        self.cluster.start_triggerers()
        going_on = "select 1 from dag_run where state in ('queued', 'running')"
        self.until("the end of the run", lambda: not self.cluster.select(going_on))

    def strike(self, *names: str, hit: set[str] | None = None) -> None:
        """SIGKILL processes with all below them."""
        self.note_strike(hit)
        for name in names:
            self.cluster.processes.kill(name)
            say(f"  killed: {name}")

    def note_strike(self, hit: set[str] | None = None) -> None:
        hit = set(self.states("queued", "running", "deferred")) if hit is None else hit
        self.waits.append(self.cluster.waits(self.run_id))
        self.hit |= dict.fromkeys(hit, time.time())


def missing(processes: Processes, names: Iterable[str]) -> list[str]:
    def is_there(name: str) -> bool:
        with suppress(KeyError):
            return bool(processes.pid(name))
        return False

    return [name for name in names if not is_there(name)]


def name_of(run_id: str, ti: Mapping[str, Any]) -> str:
    """What KIE hears of a job: its track or its prompt."""
    return f"{run_id}-{ti['task_id']}-{ti['map_index']}"


def job_of_scheduler(name: str) -> int:
    """The id of its job in the database; 0 as long as it has sent nothing."""
    file = HOME / f"{name}.job"
    return int(file.read_text() or 0) if file.exists() else 0
