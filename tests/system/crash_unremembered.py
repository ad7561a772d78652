# SPDX-License-Identifier: Apache-2.0
"""
Kill tasks where Airflow remembers nothing from try to try (below 3.3), and count what is paid for twice.

Real processes of Airflow 2.11 (scheduler, triggerer) on a fresh SQLite database in ``.crash``, and the emulator as its
own process. Exits non-zero unless each row is as docs/durable.md says: a WAV conversion is paid for once, by KIE's 409;
any other job is paid for again by the next try, and once where a ledger remembers it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.system.airflow_processes import Airflow, Emulator
from tests.system.processes import ProcessError, print_table, say, wait_for

ROOT: Final = Path(__file__).resolve().parents[2]
HOME: Final = ROOT / ".crash" / "airflow"
DAGS: Final = ROOT / "tests" / "system" / "crash_dags"
CRASHES: Final = HOME / "crashes"
LEDGER: Final = f"file://{HOME}/ledger"
PROVIDER: Final = [sys.executable, "-m", "airflow_provider_kie"]
SECONDS_FOR_A_RUN: Final = 240.0
CONVERSION_SECONDS: Final = 15.0
#: Seconds for one request, on which it depends how long a try waits for the id of a claim.
REQUEST_TIMEOUT: Final = 8


@dataclass(frozen=True)
class Row:
    """
    A task that dies once.

    :param point: where.
    :param crash: the same for the DAG; empty to kill it from outside while it waits.
    :param accepted: how many submits are accepted in all.
    :param settle: the command after which a task that stopped is cleared and goes on; none for one that does not stop.
    """

    point: str
    dag_id: str
    crash: str
    accepted: int
    settle: str = ""

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
    Row("with a ledger, killed between the claim and the submit", "crash_ledger_sync", "claimed", 1, "forget"),
    Row("with a ledger, killed between KIE's answer and the note", "crash_ledger_sync", "unnoted", 1, "adopt"),
    Row("with a ledger, killed between the note and XCom", "crash_ledger_sync", "noted", 1),
    Row("with a ledger, killed while waiting", "crash_ledger_sync", "", 1),
    Row("with a ledger, the same in the triggerer's way: unnoted", "crash_ledger_deferrable", "unnoted", 1, "adopt"),
    Row("with a ledger, killed while resuming after the wait", "crash_ledger_deferrable", "resumed", 1),
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


def end_of(airflow: Airflow, row: Row) -> str:
    """Wait for the end of a DAG run, and return its state."""
    ends = ("success", "failed")
    wait_for(f"the end of {row.point!r}", lambda: airflow.run_state(row.run_id) in ends, seconds=SECONDS_FOR_A_RUN)
    return airflow.run_state(row.run_id)


def settle(airflow: Airflow, row: Row) -> bool:
    """Do what the error of a task that stopped says, and clear it; return whether it had stopped."""
    stopped = end_of(airflow, row) == "failed"
    ids = [line.split()[3] for line in CRASHES.read_text().splitlines() if line.split()[1] == row.run_id]
    command = [*PROVIDER, "jobs", row.settle, row.dag_id, row.run_id, "convert"]
    airflow.processes.start("settle", [*command, *(ids if row.settle == "adopt" else []), "--ledger", LEDGER])
    airflow.processes.wait("settle", seconds=120)
    airflow.clear(row.dag_id, row.run_id)
    wait_for("the clear", lambda: airflow.run_state(row.run_id) != "failed", seconds=60)
    return stopped


def carry_out(airflow: Airflow, emulator: Emulator, row: Row) -> tuple[str, ...]:
    """Run a DAG to its end, and return its line of the table."""
    airflow.trigger(row.dag_id, row.run_id, track=row.run_id, point=row.crash)
    if not row.crash:
        kill_while_it_waits(airflow, emulator, row)

    stopped = not row.settle or settle(airflow, row)
    state = end_of(airflow, row)
    ((tries,),) = ((ti["try_number"],) for ti in airflow.task_instances(row.run_id))
    accepted = sum(call["accepted"] for call in submits(emulator, row))
    right = (accepted, state) == (row.accepted, "success") and tries > 1 and stopped
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
                AIRFLOW_CONN_KIE_DEFAULT=emulator.connection(timeout=REQUEST_TIMEOUT),
                KIE_CRASH_LOG=str(CRASHES),
                KIE_CRASH_MAPPED="0",
                KIE_CRASH_LEDGER=LEDGER,
            )
            airflow.migrate()
            airflow.processes.start("ledger", [*PROVIDER, "ledger", "init", LEDGER])
            airflow.processes.wait("ledger", seconds=120)
            airflow.start("scheduler", "triggerer")
            airflow.wait_until_ready({row.dag_id for row in ROWS})
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
