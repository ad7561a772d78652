# SPDX-License-Identifier: Apache-2.0
"""The crash test's second part: many mapped conversions while task processes and the triggerer die at random."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Final

from tests.system.airflow_processes import Airflow, Emulator
from tests.system.processes import ProcessError, kill, print_table, say

HOME: Final = Path(__file__).resolve().parents[2] / ".crash"
CRASHES: Final = HOME / "crashes.txt"
#: Seconds that a conversion of the emulator takes.
SHORT: Final = 4.0
SECONDS_FOR_MAPPED: Final = 2400.0


def crash_log() -> list[tuple[str, str, float, str]]:
    """Where each process that ended itself was, with which track, when, and which id KIE had given."""
    lines = CRASHES.read_text().splitlines() if CRASHES.exists() else []
    return [(point, track, float(at), kie_task_id) for point, track, at, kie_task_id in map(str.split, lines)]


class MappedTest:
    """Runs them, and judges what came of it."""

    run_id = "run-mapped"

    def __init__(self, airflow: Airflow, emulator: Emulator, count: int, seed: int) -> None:
        self.airflow = airflow
        self.emulator = emulator
        self.count = count
        self.chance = random.Random(seed)
        self.killed: Counter[str] = Counter()

    def run(self) -> bool:
        self.emulator.configure(conversion_seconds=SHORT, conflict_names_id=True)
        earlier = self.emulator.summary()["accepted_submits"]
        started = time.monotonic()
        say(f"{self.count} mapped conversions, half of them deferrable, while processes are killed at random.")
        self.airflow.trigger("crash_mapped", self.run_id)
        self._kill_until_the_end(time.monotonic() + SECONDS_FOR_MAPPED)
        return self._judge(earlier, time.monotonic() - started)

    def _kill_until_the_end(self, until: float) -> None:
        kills = max(4, self.count // 3)
        triggerers = set(self.chance.sample(range(kills), max(1, kills // 16)))
        told = 0.0
        while self.airflow.run_state(self.run_id) not in ("success", "failed"):
            if time.monotonic() > until:
                raise ProcessError(f"{self.run_id} did not end: {self._states()}")
            if time.monotonic() - told > 15:
                told = time.monotonic()
                say(f"  {dict(self._states())}, killed: {dict(self.killed)}")
            time.sleep(self.chance.uniform(0.3, 2.0))
            number, ended = self.killed.total(), self._states()["success"]
            # Spread over the whole run, and over early enough for the last tries to end.
            if number < kills and number <= kills * (ended + 10) / (self.count * 0.9):
                self._kill_one(number in triggerers)

    def _kill_one(self, the_triggerer: bool) -> None:
        if the_triggerer:
            if self._states()["deferred"]:
                self.airflow.processes.kill("triggerer")
                self.airflow.start("triggerer")
                self.killed["triggerer"] += 1
            return
        tasks = self.airflow.task_processes()
        if tasks and kill(self.chance.choice(tasks)):
            self.killed["task"] += 1

    def _states(self) -> Counter[str]:
        return Counter(str(ti["state"]) for ti in self.airflow.task_instances(self.run_id))

    def _judge(self, earlier: int, seconds: float) -> bool:
        urls = {url for url in self.airflow.xcom(self.run_id, "return_value").values() if isinstance(url, str)}
        submits = [call for call in self.emulator.requests() if call["endpoint"] == "submit"]
        mine = [call for call in submits if call["json"].get("audioId", "").startswith("mapped-")]
        conflicts = {call["json"]["audioId"] for call in mine if call["code"] == 409}
        accepted = Counter(call["json"]["audioId"] for call in mine if call["accepted"])
        refused = Counter(call["code"] for call in mine)
        deaths = [(point, track) for point, track, *_ in crash_log() if track in accepted]
        not_stored = {track for point, track in deaths if point == "answered"}
        tries = [ti["try_number"] for ti in self.airflow.task_instances(self.run_id)]
        found = {
            "outcome of the DAG run": (self.airflow.run_state(self.run_id), "success"),
            "different URLs in XCom": (len({url for url in urls if url.startswith(self.emulator.url)}), self.count),
            "accepted submits": (self.emulator.summary()["accepted_submits"] - earlier, self.count),
            "tracks with exactly one accepted submit": (list(accepted.values()).count(1), self.count),
        }
        notes = {
            "submits sent": f"{len(mine)}; refused {refused[409]} with 409, {refused[429]} with 429",
            "tracks that met a 409 without having died just before the id was stored": len(conflicts - not_stored),
            "task processes killed from outside": self.killed["task"],
            "task processes that died just before the id was stored": sum(point == "answered" for point, _ in deaths),
            "task processes that died just after the id was stored": sum(point == "kept" for point, _ in deaths),
            "triggerers killed": self.killed["triggerer"],
            "tries": f"{sum(tries)}, at most {max(tries)} for one conversion",
            "seconds": f"{seconds:.0f}",
        }
        lines = [[what, str(is_), "" if is_ == wanted else f"WRONG: {wanted}"] for what, (is_, wanted) in found.items()]
        lines += [[what, str(is_), ""] for what, is_ in notes.items()]
        print_table([f"{self.count} mapped conversions", "result", ""], lines)
        return all(is_ == wanted for is_, wanted in found.values())
