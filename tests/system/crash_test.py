# SPDX-License-Identifier: Apache-2.0
"""
Kill Airflow's processes at the worst moments, and show that every job is paid for once and its URL arrives.

Real processes (API server, scheduler with LocalExecutor, DAG processor, triggerer) on a fresh SQLite database in
``.crash``, and the emulator as its own process. Exits non-zero unless every row of the tables is as promised.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.system.airflow_processes import AIRFLOW, Airflow, Emulator, tell_configuration
from tests.system.crash_ledger import LEDGER, init_ledger, run_points, run_shared
from tests.system.crash_mapped import CRASHES, HOME, SHORT, MappedTest, crash_log
from tests.system.crash_row import Row, print_rows
from tests.system.processes import ProcessError, T, kill, say, wait_for

ROOT: Final = Path(__file__).resolve().parents[2]
#: Enough to notice a kill, to restart a process on a busy machine and to convert.
SECONDS_FOR_A_RUN: Final = 240.0
#: Seconds for one request, so that an answer that never comes is given up soon.
REQUEST_TIMEOUT: Final = 8
LONG: Final = 20.0
MODES: Final = ("sync", "deferrable")


class CrashTest:
    """The first part: one crash at each point, each in a DAG run of its own."""

    def __init__(self, airflow: Airflow, emulator: Emulator) -> None:
        self.airflow = airflow
        self.emulator = emulator
        self.rows: list[Row] = []

    def run(self) -> list[Row]:
        for phase in (
            self._by_its_own_hand,
            self._from_outside,
            self._scheduler,
            self._network,
            self._edges,
            self._market,
            partial(run_points, self),
        ):
            phase()
        return self.rows

    def _by_its_own_hand(self) -> None:
        """Instants that no killer outside can hit: the task's process ends itself there."""
        say("The task's own process dies at an instant of its first try.")
        instants = {
            "answered": ("1 killed between KIE's answer and the stored id", 2),
            "kept": ("2 killed between the stored id and XCom", 1),
        }
        for crash, (point, calls) in instants.items():
            for mode in MODES:
                self.start(point, mode, calls, crash=crash)
        self.start("3 killed while resuming after the wait", "deferrable", 1, crash="resumed")
        self.finish(*self.rows)

    def _from_outside(self) -> None:
        """SIGKILL while tasks wait: of a task, of a whole worker, of the triggerer."""
        self.emulator.configure(conversion_seconds=LONG)
        say("Processes are killed while tasks wait.")
        task = self.start("3 task killed while waiting", "sync", 1)
        worker = self.start("3 task and its worker killed while waiting", "sync", 1)
        contrast = self.start("3 task killed while waiting, durable=False", "sync", 2, dag_id="crash_not_durable")
        deferred = self.start("4 triggerer killed while deferred", "deferrable", 1)
        for row, with_worker in ((task, False), (contrast, False), (worker, True)):
            self._until_it_waits(row)
            self._kill_task(row, with_worker=with_worker)
        self._until_it_waits(deferred)
        deferred.at = time.time()
        self.airflow.processes.kill("triggerer")
        self.airflow.start("triggerer")
        self.finish(task, worker, contrast, deferred)

    def _scheduler(self) -> None:
        """SIGKILL of the scheduler, with everything below it and alone."""
        say("The scheduler is killed while tasks wait.")
        rows = [self.start("5 scheduler and all below it killed", mode, 1) for mode in MODES]
        self._kill_scheduler(rows, alone=False)
        lonely = self.start("5 scheduler killed, its task lives on", "sync", 1)
        self._kill_scheduler([lonely], alone=True)

    def _network(self) -> None:
        """KIE accepts, and the answer is lost. The answers wait for the next submit, so one row at a time."""
        self.emulator.configure(conversion_seconds=SHORT)
        say("The network is cut between KIE's acceptance and its answer.")
        cuts = {
            "6 accepted, then the connection reset": (2, ["accepted-then-reset"]),
            "6 accepted, then silence": (2, ["accepted-then-hang"]),
            "6 accepted, then reset twice, so the try fails": (3, ["accepted-then-reset", "reset"]),
        }
        rows = []
        for point, (calls, answers) in cuts.items():
            for mode in MODES:
                self.emulator.play(*answers)
                rows.append(self.start(point, mode, calls))
                self._until_submitted(rows[-1])
                self._wait(rows[-1], "the id", partial(self.airflow.xcom, rows[-1].run_id, "kie_task_id"))
        self.emulator.play("accepted-then-hang")
        rows.append(self.start("6 accepted, task killed in the silence", "sync", 2))
        self._until_submitted(rows[-1])
        self._kill_task(rows[-1])
        self.finish(*rows)

    def _edges(self) -> None:
        """What the store can do without KIE's help, what it cannot, and clearing."""
        self.emulator.configure(conflict_names_id=False)
        say("KIE refuses without naming the earlier conversion.")
        kept = self.start("2 the same, and KIE's 409 names no id", "sync", 1, crash="kept")
        lost = self.start("1 the same, and KIE's 409 names no id", "sync", 2, crash="answered", ends="failed")
        self.finish(kept, lost)
        say("Both are cleared; the one that failed gets its conversion written into its store first.")
        track = {"music_task_id": "music", "audio_id": lost.track}
        self.emulator.configure(conflict_names_id=True)
        named = self.emulator.submit(*track.values())["data"]["taskId"]
        place = f"dags/crash_sync/dagRuns/{lost.run_id}/taskInstances/convert/state-store/kie_wav_conversion"
        self.airflow.call("PUT", place, {"value": {**track, "kie_task_id": named}})
        for point, calls, earlier in (
            ("7 cleared after its success", 1, kept),
            ("7 cleared after its failure, with the id put into the store", 3, lost),
        ):
            self.rows.append(Row(point, "sync", calls, track=earlier.track, at=time.time()))
            self.airflow.clear("crash_sync", earlier.run_id)
        self.finish(*self.rows[-2:])

    def _market(self) -> None:
        """Jobs of KIE's Market, which refuses no second submit: there is one, or the task stops and says so."""
        self.emulator.configure(conversion_seconds=LONG)
        say("Jobs without KIE's guard.")
        before = len(self.rows)
        for mode in MODES:
            self.start("8 killed while the submit is held back", mode, 1, crash="held", market=True)
            self.start(
                "8 killed between KIE's answer and the stored id", mode, 1, crash="answered", ends="failed", market=True
            )
            self.start("8 killed between the stored id and XCom", mode, 1, crash="kept", market=True)
        self.start("8 killed while resuming after the wait", "deferrable", 1, crash="resumed", market=True)
        waiting = self.start("8 task killed while waiting", "sync", 1, market=True)
        self._until_it_waits(waiting)
        self._kill_task(waiting)
        rows = self.rows[before:]
        self.finish(*rows)
        self.adopt(*(row for row in rows if row.ends == "failed"))
        for answer in ("accepted-then-reset", "accepted-then-hang"):
            for mode in MODES:
                self.emulator.play(answer)
                row = self.start(f"8 {answer}", mode, 1, ends="failed", market=True)
                self._until_submitted(row)
                self.finish(row)

    def adopt(self, *rows: Row, point: str = "8 the same, adopted and cleared") -> None:
        """Let tasks that stopped go on with what they have paid for, as their errors say."""
        say("The tasks that stopped are told the id, and cleared.")
        ids = {track: kie_task_id for _, track, _, kie_task_id in crash_log()}
        for row in rows:
            command = [*AIRFLOW, "kie", "jobs", "adopt", row.dag_id, row.run_id, "convert", ids[row.track]]
            command += ["--ledger", LEDGER] if row.dag_id.startswith("crash_ledger") else []
            self.airflow.processes.start("adopt", command)
            self.airflow.processes.wait("adopt", seconds=120)
            again = {"market": True, "dag_id": row.dag_id, "at": time.time()}
            self.rows.append(Row(point, row.mode, 1, track=row.track, **again))
            self.airflow.clear(row.dag_id, row.run_id)
        self.finish(*self.rows[-len(rows) :])

    def start(self, point: str, mode: str, calls: int, *, crash: str = "", **differs: Any) -> Row:
        row = Row(point, mode, calls, track=f"track-{len(self.rows) + 1}", **differs)
        self.rows.append(row)
        self.airflow.trigger(row.dag_id, row.run_id, track=row.track, point=crash)
        return row

    def _wait(self, row: Row, what: str, look: Callable[[], T]) -> T:
        """Wait for something to happen in a DAG run, which must not end before."""

        def look_while_it_runs() -> T:
            if not (found := look()) and self._ended(row):
                raise ProcessError(f"{row.point!r} ended before {what}; see the logs of {row.run_id}")
            return found

        return wait_for(f"{what} of {row.point!r}", look_while_it_runs, seconds=SECONDS_FOR_A_RUN, every=0.5)

    def _until_submitted(self, row: Row) -> None:
        """Wait until KIE has accepted; with nothing else in between, that is when the answer got lost."""
        row.at, *_ = self._wait(row, "the submit", lambda: [c["at"] for c in self._calls(row) if c["accepted"]])
        self._wait(row, "the lost answers", lambda: not self.emulator.summary()["queued_answers"])

    def _until_it_waits(self, row: Row) -> None:
        def waits() -> bool:
            states = [ti["state"] for ti in self.airflow.task_instances(row.run_id)]
            return states == ["deferred"] or (states == ["running"] and len(self._calls(row)) > 1)

        self._wait(row, "the wait", waits)

    def _kill_task(self, row: Row, *, with_worker: bool = False) -> None:
        (ti,) = self.airflow.task_instances(row.run_id)
        process = next(process for process in self.airflow.task_processes() if process.pid == ti["pid"])
        row.at = time.time()
        killed = [kill(victim) for victim in (*process.parents()[: int(with_worker)], process)]
        if not all(killed):
            raise ProcessError(f"the task of {row.point!r} ended before it was killed")
        say(f"  killed: {row.point} ({row.mode})")

    def _kill_scheduler(self, rows: list[Row], *, alone: bool) -> None:
        for row in rows:
            self._until_it_waits(row)
        say(f"  killed: {rows[0].point}")
        for row in rows:
            row.at = time.time()
        self.airflow.processes.kill("scheduler", alone=alone)
        self.airflow.start("scheduler")
        self.finish(*rows)

    def _calls(self, row: Row) -> list[dict[str, Any]]:
        """What KIE heard of a track, oldest first: its submits, and the reads of its conversion."""
        ids = set(self.airflow.xcom(row.run_id, "kie_task_id").values())
        return [
            call
            for call in self.emulator.requests()
            if (call["endpoint"] == "submit" and row.track in (call["json"].get("audioId"), _prompt(call["json"])))
            or (call["endpoint"] == "record-info" and call["params"]["taskId"] in ids)
        ]

    def finish(self, *rows: Row) -> None:
        """Wait for the ends of DAG runs, and judge them."""
        for row in rows:
            wait_for(f"the end of {row.point!r}", partial(self._ended, row), seconds=SECONDS_FOR_A_RUN)
            self._judge(row)
            say(f"  {'right' if row.right else 'WRONG'}: {row.point} ({row.mode}) {'; '.join(row.found['wrong'])}")

    def _links(self, row: Row) -> tuple[Any, Any]:
        """Both places in XCom where the link is, which have to say the same."""
        names = ("return_value", "url" if row.market else "wav_conversion")
        returned, pushed = (self.airflow.xcom(row.run_id, name).get(("convert", -1)) for name in names)
        if row.market:
            return pushed, returned and returned["files"][0]["url"]
        return returned, pushed and pushed["wav_url"]

    def _ended(self, row: Row) -> bool:
        return self.airflow.run_state(row.run_id) in ("success", "failed")

    def _judge(self, row: Row) -> None:
        calls = self._calls(row)
        submits = [call for call in calls if call["endpoint"] == "submit"]
        crash = row.at or next((at for _, track, at, _ in crash_log() if track == row.track), None)
        after = [call["at"] for call in calls if crash and call["at"] > crash]
        url, link = self._links(row)
        (ti,) = self.airflow.task_instances(row.run_id)
        row.found = {
            "accepted": sum(call["accepted"] for call in submits),
            "sent": len(submits),
            "tries": ti["try_number"],
            "outcome": self.airflow.run_state(row.run_id),
            "recovered": f"{after[0] - crash:.1f}" if crash and after else "-",
        }
        has_url = isinstance(url, str) and url.startswith(self.emulator.url) and link == url
        promises = {
            "no crash took place": crash is not None,
            f"{row.found['accepted']} accepted submits instead of 1": row.found["accepted"] == 1,
            f"{row.found['sent']} submits sent instead of {row.calls}": row.found["sent"] == row.calls,
            f"ended in {row.found['outcome']}": row.found["outcome"] == row.ends,
            f"XCom holds {url!r}": has_url == (row.ends == "success"),
            "KIE heard nothing after the crash": bool(after) or (row.ends == "failed" and row.calls == 1),
        }
        row.found["wrong"] = [words for words, kept in promises.items() if not kept]
        row.found["mark"] = "" if row.right else "WRONG"


def _prompt(body: dict[str, Any]) -> object:
    return body.get("input", {}).get("prompt")


def start_everything(airflow: Airflow, count: int, seed: int) -> Emulator:
    say("Starting the emulator and Airflow; logs are in .crash/")
    emulator = Emulator(airflow.processes, SHORT)
    airflow.set_environment(
        AIRFLOW_CONN_KIE_DEFAULT=emulator.connection(timeout=REQUEST_TIMEOUT),
        KIE_CRASH_LOG=str(CRASHES),
        KIE_CRASH_SEED=str(seed),
        KIE_CRASH_MAPPED=str(count),
        KIE_CRASH_LEDGER=LEDGER,
    )
    airflow.migrate()
    init_ledger(airflow)
    airflow.start("api-server", "dag-processor", "scheduler", "triggerer")
    dags = ("sync", "deferrable", "not_durable", "mapped", "market_sync", "market_deferrable", "ledger_shared")
    airflow.wait_until_ready({f"crash_{dag}" for dag in dags})
    return emulator


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill Airflow's processes at the worst moments.")
    parser.add_argument("--mapped", type=int, default=200, help="conversions of the second part, 0 to leave it out")
    parser.add_argument("--seed", type=int, default=1, help="of the second part's kills (default: %(default)s)")
    parser.add_argument("--no-points", action="store_true", help="leave the first part out")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    tell_configuration()
    say(f"The emulator's submit limit is on (20 in 10 s); a request to it is given up after {REQUEST_TIMEOUT} s.")
    points: list[Row] = []
    right = True
    try:
        with Airflow(HOME, ROOT / "tests" / "system" / "crash_dags") as airflow:
            emulator = start_everything(airflow, args.mapped, args.seed)
            if not args.no_points:
                points = CrashTest(airflow, emulator).run()
                print_rows(points)
            if args.mapped:
                right = MappedTest(airflow, emulator, args.mapped, args.seed).run()
                right &= run_shared(airflow, emulator, args.mapped)
    except ProcessError as error:
        say(f"The crash test failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("Stopped.")
        return 130
    right = right and all(row.right for row in points)
    say("Everything is as promised." if right else "Something is WRONG; see the tables and .crash/")
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
