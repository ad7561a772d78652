# SPDX-License-Identifier: Apache-2.0
"""The crash test's third part: jobs that only a ledger remembers, and tasks that ask for the same jobs."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from tests.system.airflow_processes import Airflow, Emulator
from tests.system.crash_mapped import HOME, SHORT
from tests.system.processes import ProcessError, print_table, say

if TYPE_CHECKING:
    from tests.system.crash_test import CrashTest

LEDGER: Final = f"file://{HOME}/ledger"
SECONDS_FOR_SHARED: Final = 2400.0


def init_ledger(airflow: Airflow) -> None:
    """Make the ledger, as a user does."""
    airflow.processes.start("ledger", [sys.executable, "-m", "airflow_provider_kie", "ledger", "init", LEDGER])
    airflow.processes.wait("ledger", seconds=120)


def run_points(test: CrashTest) -> None:
    """Kill tasks with ``durable=False`` around the note in the ledger."""
    test.emulator.configure(conversion_seconds=SHORT)
    say("Jobs that only a ledger remembers.")
    before = len(test.rows)
    for mode in ("sync", "deferrable"):
        how = {"market": True, "dag_id": f"crash_ledger_{mode}"}
        point = "9 ledger: killed between KIE's answer and the note"
        test.start(point, mode, 1, crash="unnoted", ends="failed", **how)
        test.start("9 ledger: killed while the submit is held back", mode, 1, crash="held", **how)
        test.start("9 ledger: killed between the note and XCom", mode, 1, crash="noted", **how)
    test.start("9 ledger: killed while resuming after the wait", "deferrable", 1, crash="resumed", **how)
    rows = test.rows[before:]
    test.finish(*rows)
    test.adopt(*(row for row in rows if row.ends == "failed"), point="9 the same, adopted and cleared")


def run_shared(airflow: Airflow, emulator: Emulator, count: int) -> bool:
    """Run mapped jobs of which each input is asked for twice, in two DAG runs at a time; whether each is paid once."""
    say(f"Two DAG runs of {count} mapped jobs, which ask for {count // 2} inputs.")
    emulator.configure(conversion_seconds=SHORT)
    started, runs = time.monotonic(), ("run-shared-1", "run-shared-2")
    for run_id in runs:
        airflow.trigger("crash_ledger_shared", run_id)
    told = 0.0
    while not all(airflow.run_state(run_id) in ("success", "failed") for run_id in runs):
        if time.monotonic() - started > SECONDS_FOR_SHARED:
            raise ProcessError("the runs of crash_ledger_shared did not end")
        if time.monotonic() - told > 15:
            told = time.monotonic()
            states = Counter(str(ti["state"]) for run_id in runs for ti in airflow.task_instances(run_id))
            say(f"  {dict(states)}")
        time.sleep(1)
    submits = [
        call
        for call in emulator.requests()
        if call["endpoint"] == "submit" and str(call["json"].get("input", {}).get("prompt", "")).startswith("shared-")
    ]
    accepted = Counter(call["json"]["input"]["prompt"] for call in submits if call["accepted"])
    tries = sum(ti["try_number"] for run_id in runs for ti in airflow.task_instances(run_id))
    found = {
        "outcome of the DAG runs": ([airflow.run_state(run_id) for run_id in runs], ["success", "success"]),
        "accepted submits": (accepted.total(), count // 2),
        "inputs with exactly one accepted submit": (list(accepted.values()).count(1), count // 2),
    }
    notes = {"submits sent": len(submits), "tries": tries, "seconds": f"{time.monotonic() - started:.0f}"}
    lines = [[what, str(is_), "" if is_ == wanted else f"WRONG: {wanted}"] for what, (is_, wanted) in found.items()]
    lines += [[what, str(is_), ""] for what, is_ in notes.items()]
    print_table([f"2 x {count} mapped jobs, {count // 2} inputs", "result", ""], lines)
    return all(is_ == wanted for is_, wanted in found.values())
