# SPDX-License-Identifier: Apache-2.0
"""
Carry out jobs as mapped tasks and thousands of them as one batch, in a real Airflow, and compare their CPU.

The CPU is that of all of Airflow's processes, less what they take when nothing runs. The emulator refuses no submits.

Run it with ``python -m benchmarks.mapped [--mapped 200] [--items 10000]``.
"""

from __future__ import annotations

import argparse
import sys
import time

import psutil

from benchmarks import ROOT, table
from tests.system.airflow_processes import Airflow, Emulator
from tests.system.processes import ProcessError, say, wait_for

HOME = ROOT / ".bench"
PARTS = ("api-server", "dag-processor", "scheduler", "triggerer")
DAGS = ("mapped_sync", "mapped_deferrable", "batch")
IDLE_SECONDS = 60.0


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mapped", description="Compare mapped tasks and a batch."
    )
    parser.add_argument("--mapped", type=int, default=200, help="how many mapped tasks")
    parser.add_argument("--items", type=int, default=10_000, help="how many items of the batch")
    options = parser.parse_args()
    try:
        with Airflow(HOME, ROOT / "benchmarks" / "mapped_dags") as airflow:
            print(measure(airflow, options.mapped, options.items), flush=True)
    except ProcessError as error:
        say(f"It could not be carried out: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def measure(airflow: Airflow, mapped: int, items: int) -> str:
    """Carry out each DAG, and return the table."""
    emulator = Emulator(airflow.processes, 1.0)
    emulator.configure(submits_per_window=None, credits=1e9)
    airflow.set_environment(
        AIRFLOW_CONN_KIE_DEFAULT=emulator.connection(),
        KIE_BENCH_MAPPED=str(mapped),
        KIE_BENCH_MANY=str(items),
        KIE_BENCH_FOLDER=f"file://{HOME}/jobs",
    )
    airflow.migrate()
    ledger = f"file://{HOME}/jobs/ledger"
    airflow.processes.start("ledger", [sys.executable, "-m", "airflow_provider_kie", "ledger", "init", ledger])
    airflow.processes.wait("ledger", seconds=120)
    airflow.start(*PARTS)
    airflow.wait_until_ready(set(DAGS))
    time.sleep(10)
    before = cpu_seconds(airflow)
    time.sleep(IDLE_SECONDS)
    idle = (cpu_seconds(airflow) - before) / IDLE_SECONDS
    say(f"With nothing to do, Airflow takes {idle * 1000:.0f} ms of CPU a second.")
    rows = [row_of(airflow, emulator, dag_id, items if dag_id == "batch" else mapped, idle) for dag_id in DAGS]
    return table(["DAG", "jobs", "ended", "accepted submits", "seconds", "CPU, ms a job"], *rows)


def row_of(airflow: Airflow, emulator: Emulator, dag_id: str, count: int, idle: float) -> list[str]:
    """Carry out a DAG, and return its row of the table."""
    run_id = f"run-{dag_id}"
    accepted, before, started = emulator.summary()["accepted_submits"], cpu_seconds(airflow), time.monotonic()
    airflow.trigger(dag_id, run_id)
    wait_for(f"{dag_id} to end", lambda: airflow.run_state(run_id) in ("success", "failed"), seconds=1800, every=1)
    seconds = time.monotonic() - started
    cpu = cpu_seconds(airflow) - before - idle * seconds
    accepted = emulator.summary()["accepted_submits"] - accepted
    say(f"{dag_id} has ended.")
    figures = [f"{count:,}", airflow.run_state(run_id), f"{accepted:,}", f"{seconds:.0f}", f"{cpu / count * 1000:.1f}"]
    return [dag_id, *figures]


def cpu_seconds(airflow: Airflow) -> float:
    """Return the CPU that all parts have taken so far, with the processes below them that have ended."""
    total = 0.0
    for part in PARTS:
        for process in airflow.processes.family(part):
            try:
                total += sum(process.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue  # its parent counts it from now on
    return total


if __name__ == "__main__":
    sys.exit(main())
