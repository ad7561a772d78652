# SPDX-License-Identifier: Apache-2.0
"""
Kill tasks where Airflow remembers nothing from try to try (below 3.3), and count what is paid for twice.

Real processes of Airflow 2.11 (scheduler, triggerer) on a fresh SQLite database in ``.crash``, and the emulator as its
own process. Exits non-zero unless each row is as docs/durable.md says: a WAV conversion is paid for once, by KIE's 409;
any other job is paid for again by the next try.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.system.airflow_processes import AIRFLOW, Airflow, Emulator, ProcessError, print_table, say, wait_for

ROOT: Final = Path(__file__).resolve().parents[2]
HOME: Final = ROOT / ".crash" / "airflow"
DAGS: Final = ROOT / "tests" / "system" / "crash_dags"
SECONDS_FOR_A_RUN: Final = 240.0
CONVERSION_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Row:
    """A task that dies once: where, of which DAG, and how many submits are then accepted."""

    point: str
    dag_id: str
    crash: str
    accepted: int

    @property
    def run_id(self) -> str:
        """The DAG run's, and the name of its job."""
        return f"{self.dag_id}-{self.crash or 'waiting'}"


ROWS: Final = (
    Row("WAV, killed between KIE's answer and XCom", "crash_sync", "kept", 1),
    Row("WAV, killed while waiting", "crash_sync", "", 1),
    Row("WAV, killed while resuming after the wait", "crash_deferrable", "resumed", 1),
    Row("other job, killed between KIE's answer and XCom", "crash_market_sync", "kept", 2),
    Row("other job, killed while waiting", "crash_market_sync", "", 2),
    Row("other job, killed while resuming after the wait", "crash_market_deferrable", "resumed", 2),
)


def submits(emulator: Emulator, row: Row) -> list[dict[str, Any]]:
    return [
        call
        for call in emulator.requests()
        if call["endpoint"] == "submit"
        and row.run_id in (call["json"].get("audioId"), call["json"].get("input", {}).get("prompt"))
    ]


def kill_while_it_waits(airflow: Airflow, emulator: Emulator, row: Row) -> None:
    wait_for(f"the submit of {row.point!r}", lambda: submits(emulator, row), seconds=SECONDS_FOR_A_RUN)

    def process() -> list[int]:
        return [ti["pid"] for ti in airflow.task_instances(row.run_id) if ti["state"] == "running"]

    (pid,) = wait_for("the task's process", process, seconds=30)
    os.kill(pid, signal.SIGKILL)


def carry_out(airflow: Airflow, emulator: Emulator, row: Row) -> tuple[str, ...]:
    """Run a DAG to its end, and return its line of the table."""
    conf = json.dumps({"track": row.run_id, "point": row.crash})
    airflow.processes.start("trigger", [*AIRFLOW, "dags", "trigger", "-r", row.run_id, "-c", conf, row.dag_id])
    airflow.processes.wait("trigger", seconds=120)
    if not row.crash:
        kill_while_it_waits(airflow, emulator, row)

    def ended() -> bool:
        return airflow.run_state(row.run_id) in ("success", "failed")

    wait_for(f"the end of {row.point!r}", ended, seconds=SECONDS_FOR_A_RUN)
    ((state, tries),) = ((ti["state"], ti["try_number"]) for ti in airflow.task_instances(row.run_id))
    accepted = sum(call["accepted"] for call in submits(emulator, row))
    right = (accepted, state) == (row.accepted, "success") and tries > 1
    say(f"  {'right' if right else 'WRONG'}: {row.point}")
    return row.point, str(accepted), str(tries), state, "" if right else "WRONG"


def main() -> int:
    lines: Sequence[tuple[str, ...]] = []
    try:
        with Airflow(HOME, DAGS, {"core.executor": "SequentialExecutor"}) as airflow:
            emulator = Emulator(airflow.processes, CONVERSION_SECONDS)
            airflow.set_environment(
                # The executor starts tasks by the name "airflow".
                PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                AIRFLOW_CONN_KIE_DEFAULT=emulator.connection(),
                KIE_CRASH_LOG=str(HOME / "crashes"),
                KIE_CRASH_MAPPED="0",
            )
            airflow.migrate()
            airflow.start("scheduler", "triggerer")
            known = {row.dag_id for row in ROWS}
            query = "select dag_id from dag"
            wait_for("the DAGs", lambda: known <= {each["dag_id"] for each in airflow.select(query)}, seconds=180)
            lines = [carry_out(airflow, emulator, row) for row in ROWS]
    except ProcessError as error:
        say(f"The crash test failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("Stopped.")
        return 130
    print_table(["point", "accepted submits", "tries", "outcome", ""], lines)
    wrong = any(line[-1] for line in lines)
    say("Something is WRONG; see the table and .crash/" if wrong else "Everything is as the documentation says.")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
