# SPDX-License-Identifier: Apache-2.0
"""
Let a real triggerer wait for a thousand conversions at once, and show that none is lost, doubled or blocks the rest.

The second run kills the triggerer half way, starts another one, and shows that none is lost then either; blocks only
count until the kill there, see docs/performance.md. Real processes
(API server, scheduler with LocalExecutor, DAG processor, triggerer) on a fresh SQLite database in ``.soak``, whose logs
stay there, and the benchmarks' server as KIE. Exits non-zero unless every line of the report is as promised.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.host import cores, keep_on, stolen
from benchmarks.server import Server
from tests.system.airflow_processes import Airflow
from tests.system.processes import ProcessError, free_port, say, wait_for

ROOT: Final = Path(__file__).resolve().parents[2]
HOME: Final = ROOT / ".soak"
SETTINGS: Final = ROOT / "tests" / "system" / "soak_local_settings.py"
#: In earnest a triggerer has a machine of its own. Here its event loop has a core of its own, and all else the rest,
#: which also tells exactly what the host took from it.
*OTHER_CORES, LOOPS_CORE = cores()
INTERVAL: Final = 10.0
#: Seconds that a task process is given: it starts twice for each wait, and all share this machine.
SECONDS_FOR_A_TASK: Final = 4.0
#: The rate of reads while all wait stays between these, as a share of one per interval and conversion. Each sensor has
#: taken its own first look by then.
ENOUGH_READS: Final = 0.85
MOST_READS: Final = 1.15
LONG_ENOUGH: Final = 300.0

CONFIGURATION: Final = {
    # Enough to use the cores, few enough that the triggerer gets its share of them.
    "core.parallelism": "4",
    "core.max_active_tasks_per_dag": "2000",
    # The operator's code and libraries are loaded once, before the processes of the tasks are forked.
    "scheduler.max_tis_per_query": "32",
    # A busy machine makes everything late; only the death of the triggerer is to be noticed soon.
    "scheduler.scheduler_health_check_threshold": "60",
    "scheduler.task_instance_heartbeat_timeout": "300",
    "triggerer.triggerer_health_check_threshold": "15",
    "logging.logging_level": "INFO",
}
BLOCKED: Final = re.compile(r"^(\S+)Z? .*async thread was blocked for ([0-9.]+) seconds", re.MULTILINE)
#: A log without it is not written as this script reads it.
STARTED: Final = re.compile(r"^(\S+)Z? .*Starting the triggerer", re.MULTILINE)
#: Airflow says this once a minute.
RUNNING: Final = re.compile(r"([0-9]+) triggers currently running")
#: What must not be in a log, after a kill neither: a killed process says nothing, and the next one starts in order.
ALARM: Final = re.compile(
    r"^.*(?:unexpected error|exited with error|exited without sending an event|Unclosed c|never retrieved).*$",
    re.MULTILINE | re.IGNORECASE,
)
FIRED: Final = re.compile(r"Trigger fired event")
FIRED_LATE: Final = re.compile(r"Trigger fired event.* (map_index=[0-9]+) ")
FINISHED: Final = re.compile(r"WAV task (held-[0-9]+) is finished")


def start_server(airflow: Airflow) -> Server:
    """Start the benchmarks' server as a process among Airflow's."""
    server = Server(free_port())
    command = [sys.executable, str(ROOT / "benchmarks" / "server.py"), "--port", str(server.port)]
    airflow.processes.start("server", command)

    def listens() -> bool:
        try:
            return bool(server.statistics())
        except OSError:
            return False

    wait_for("the server", listens, seconds=60)
    return server


@dataclass
class Run:
    """One run of the mapped task, from deferring to the end, and what was seen."""

    count: int
    kill: bool
    airflow: Airflow
    kie: Server
    begun: float = 0.0
    stolen: float = 0.0
    blocks_to_count: list[float] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        return "killed" if self.kill else "quiet"

    def carry_out(self, hold: float, over: float) -> None:
        """Defer all, let them wait together, let them finish, and count."""
        self.start()
        self.defer_all()
        self.hold(hold)
        self.finish_all(over)
        self.check()

    def start(self) -> None:
        airflow = self.airflow
        connection = f'{{"conn_type": "kie", "password": "soak-key", "host": "{self.kie.url}"}}'
        airflow.set_environment(
            AIRFLOW_CONN_KIE_DEFAULT=connection, KIE_SOAK_COUNT=str(self.count), KIE_SOAK_INTERVAL=str(INTERVAL)
        )
        (airflow.home / "config").mkdir()
        shutil.copy(SETTINGS, airflow.home / "config" / "airflow_local_settings.py")
        say(f"Run '{self.run_id}': starting Airflow for {self.count} waits.")
        airflow.migrate()
        airflow.start("api-server", "dag-processor", "scheduler")
        self.start_triggerer()
        airflow.wait_until_ready({"soak"})
        self.begun = time.time()  # what Airflow's own start takes is not counted
        self.stolen = stolen(LOOPS_CORE)
        airflow.trigger("soak", self.run_id)

    def start_triggerer(self) -> None:
        self.airflow.start("triggerer")
        wait_for("the triggerer's event loop", self.loop_has_its_core, seconds=120)

    def loop_has_its_core(self) -> bool:
        """Give the triggerer's event loop, which runs in a child of it, its core as soon as it is there."""
        loops = self.airflow.processes.family("triggerer")[1:]
        for process in loops:
            keep_on(process.pid, LOOPS_CORE)
        return bool(loops)

    def defer_all(self) -> None:
        """Wait until all are deferred and the triggerer has taken them."""
        started = time.monotonic()
        told = 0.0

        def all_deferred() -> bool:
            nonlocal told
            for name in ("scheduler", "triggerer", "api-server"):
                self.airflow.processes.alive(name)
            states = self.states()
            if time.monotonic() - told > 30:
                told = time.monotonic()
                say(f"  {dict(states)}; load {psutil.getloadavg()[0]:.1f}")
            return states["deferred"] == self.count and self.triggers_at_work() == self.count

        wait_for("all to be deferred", all_deferred, seconds=LONG_ENOUGH + SECONDS_FOR_A_TASK * self.count, every=2)
        self.found["seconds to defer all"] = round(time.monotonic() - started)

    def hold(self, seconds: float) -> None:
        """Watch all of them wait at the same time, with nothing else to do."""
        say(f"All {self.count} are deferred; they wait together for {seconds:.0f} seconds.")
        triggerer = self.airflow.processes.family("triggerer")
        time.sleep(INTERVAL)
        before, cpu, started = self.kie.statistics()["reads"], cpu_of(triggerer), time.monotonic()
        blocked_before = len(self.blocks())
        time.sleep(seconds)
        reads, elapsed = self.kie.statistics()["reads"] - before, time.monotonic() - started
        self.found["reads per second while all wait"] = round(reads / elapsed, 1)
        self.found["triggerer's CPU per read, ms"] = round((cpu_of(triggerer) - cpu) / max(reads, 1) * 1e3, 2)
        self.found["triggerer's memory, MB"] = round(sum(process.memory_info().rss for process in triggerer) / 1e6)
        self.found["blocks while all wait"] = len(self.blocks()) - blocked_before
        share = reads / elapsed / (self.count / INTERVAL)
        if not ENOUGH_READS <= share <= MOST_READS:
            self.wrong.append(f"{share:.2f} reads per interval and conversion")

    def finish_all(self, over: float) -> None:
        """Let the conversions finish, and kill the triggerer meanwhile if this run does that."""
        say(f"The conversions finish from now on, over {over:.0f} seconds.")
        started = time.monotonic()
        self.kie.ask(f"/release?over={over}")
        if self.kill:
            wait_for("half of the waits to end", self.half_is_over, seconds=over + LONG_ENOUGH, every=0.2)
            waiting = self.states()["deferred"]
            self.blocks_to_count = self.blocks()
            self.airflow.processes.kill("triggerer")
            self.found["deferred when the triggerer was killed"] = waiting
            say(f"The triggerer is killed while {waiting} are deferred; another one starts in 5 seconds.")
            if not waiting:
                self.wrong.append("nothing was left to wait for when the triggerer was killed")
            time.sleep(5)
            self.start_triggerer()
        patience = over + LONG_ENOUGH + SECONDS_FOR_A_TASK * self.count
        wait_for("the run to end", self.ended, seconds=patience, every=3)
        self.found["seconds to finish all"] = round(time.monotonic() - started)
        if not self.kill:
            self.blocks_to_count = self.blocks()

    def half_is_over(self) -> bool:
        return self.states()["deferred"] <= self.count / 2

    def ended(self) -> bool:
        for name in ("scheduler", "triggerer", "api-server"):
            self.airflow.processes.alive(name)
        return self.airflow.run_state(self.run_id) in ("success", "failed")

    def states(self) -> Counter[str]:
        query = "select coalesce(state, 'none') as state, count(*) as n from task_instance group by 1"
        return Counter({row["state"]: row["n"] for row in self.airflow.select(query)})

    def triggers_at_work(self) -> int:
        query = "select count(*) as n from trigger where triggerer_id is not null"
        return int(self.airflow.select(query)[0]["n"])

    def blocks(self) -> list[float]:
        """Return how long each block of the event loop lasted that the triggerer warned of."""
        found = BLOCKED.findall(self.triggerer_log())
        return [float(seconds) for when, seconds in found if as_epoch(when) >= self.begun]

    def check(self) -> None:
        """Count what is left behind: task instances, XComs, events and resumed tasks."""
        run_id, count = self.run_id, self.count
        states = Counter(task["state"] for task in self.airflow.task_instances(run_id))
        values = self.airflow.xcom(run_id, "return_value")
        right = {("wait", n): f"held-{n}" for n in range(count)}
        tries = Counter(task["try_number"] for task in self.airflow.task_instances(run_id))
        fired, resumed = self.count_in_logs()
        again = sum(n - 1 for n in resumed.values() if n > 1)
        self.found |= {"task instances": dict(states), "tries": dict(tries), "XComs": len(values)}
        self.found |= {"tasks with an event": len(fired), "events fired twice": sum(n > 1 for n in fired.values())}
        self.found |= {"tasks that ended": len(resumed), "ended twice": again}
        blocks = self.blocks()
        self.found["blocks in all, longest"] = [len(blocks), max(blocks, default=0)]
        self.found["blocks that count"] = len(self.blocks_to_count)
        self.found["seconds that the host took of the loop's core"] = round(stolen(LOOPS_CORE) - self.stolen, 1)
        self.found["most triggers at a time, says the log"] = max(
            map(int, RUNNING.findall(self.triggerer_log())), default=0
        )
        alarms = self.alarms()
        self.found["alarms in logs, the first"] = [len(alarms), *alarms[:1]]
        self.found["triggers left"] = int(self.airflow.select("select count(*) as n from trigger")[0]["n"])
        promises = {
            "task instances": states == {"success": count},
            "tries": tries == {1: count},
            "XComs": {key: value["kie_task_id"] for key, value in values.items()} == right,
            # A triggerer that is killed takes lines of its log along, and an event that it had not stored yet fires
            # once more, as it should.
            "events": self.kill or (fired == dict.fromkeys(fired, 1) and len(fired) == count),
            "ends": resumed == {f"held-{n}": 1 for n in range(count)},
            # A triggerer that takes over hundreds of triggers at once logs more lines of them than its own supervisor,
            # which is at the database then, reads.
            "blocks": not self.blocks_to_count,
            "readable log": len(STARTED.findall(self.triggerer_log())) == 1 + self.kill,
            "no alarms in logs": not alarms,
            "triggers left": not self.found["triggers left"],
        }
        self.wrong += [name for name, kept in promises.items() if not kept]

    def count_in_logs(self) -> tuple[Counter[str], Counter[str]]:
        """Return the events by map index, and the resumed tasks by WAV task."""
        fired: Counter[str] = Counter()
        resumed: Counter[str] = Counter()
        for path in (self.airflow.home / "logs").rglob("*.log*"):
            text = path.read_text(errors="replace")
            if events := len(FIRED.findall(text)):
                fired[path.parent.name] += events
            resumed.update(FINISHED.findall(text))
        # What Airflow logs of a trigger whose log it has closed by then goes into its own.
        fired.update(FIRED_LATE.findall(self.triggerer_log()))
        return fired, resumed

    def triggerer_log(self) -> str:
        """Return what the triggerer, or both of them, has logged so far of itself."""
        return (self.airflow.home / "triggerer.log").read_text(errors="replace")

    def alarms(self) -> list[str]:
        """Return what should not be in the logs of the triggerer, the triggers and the tasks."""
        paths = [self.airflow.home / "triggerer.log", *(self.airflow.home / "logs").rglob("*.log*")]
        return [line for path in paths for line in ALARM.findall(path.read_text(errors="replace"))]


def as_epoch(when: str) -> float:
    return datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()


def cpu_of(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def soak(count: int, kill: bool, hold: float, over: float) -> Run:
    home = HOME / ("killed" if kill else "quiet")
    with Airflow(home, ROOT / "tests" / "system" / "soak_dags", CONFIGURATION) as airflow:
        run = Run(count, kill, airflow, start_server(airflow))
        run.carry_out(hold, over)
        return run


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1000, help="waits in each run (default: %(default)s)")
    parser.add_argument("--only", choices=["quiet", "killed"], help="one of the two runs")
    parser.add_argument("--hold", type=float, default=60.0, help="seconds that all wait together")
    parser.add_argument("--over", type=float, default=60.0, help="seconds over which the conversions finish")
    args = parser.parse_args(argv)
    keep_on(0, *OTHER_CORES)
    good = True
    for name in [args.only] if args.only else ["quiet", "killed"]:
        try:
            run = soak(args.count, name == "killed", args.hold, args.over)
        except ProcessError as error:
            say(f"Run '{name}' failed: {error}; its logs are in {(HOME / name).relative_to(ROOT)}")
            good = False
            continue
        say(f"Run '{name}' with {args.count} waits: {'as promised' if not run.wrong else f'WRONG: {run.wrong}'}")
        for what, value in run.found.items():
            print(f"    {what}: {value}")
        good = good and not run.wrong
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
