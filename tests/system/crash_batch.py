# SPDX-License-Identifier: Apache-2.0
"""
The crash test's fourth part: a batch of thousands that is killed with SIGKILL at random, again and again, and goes on.

    python -m tests.system.crash_batch [--items 10000] [--kills 5]

KIE's window of 10 seconds is scaled, for the emulator and the provider alike. Once for WAV conversions, which KIE's 409
guards; once for jobs of its Market, where a kill between a submit and its note leaves an unknown outcome: what the
emulator has accepted is adopted, the rest forgotten, with the commands that a user has.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from airflow_provider_kie.emulator import KieEmulator
from airflow_provider_kie.ledger.storage import init_ledger
from tests.batch_runner import Batch
from tests.jobs import IMAGE_MODEL
from tests.processes import run_python
from tests.system.processes import ProcessError, print_table, say

SCALE: Final = 0.05
WINDOW: Final = 10 * SCALE
LIMIT: Final = 20
HEADER: Final = [
    *[
        "batch",
        "killed after",
        "unknown",
        "accepted submits",
        "paid twice",
        "lines of the manifest",
        "429s",
        "seconds",
        "",
    ],
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.system.crash_batch", description="Kill a batch.")
    parser.add_argument("--items", type=int, default=10_000, help="how many items")
    parser.add_argument("--kills", type=int, default=5, help="how often it is killed")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="when it is killed")
    options = parser.parse_args()
    say(f"KIE's window of 10 seconds is scaled to {WINDOW:g}; --seed {options.seed}.")
    chance = random.Random(options.seed)
    kinds = {
        "ConvertCatalogToWavOperator": {
            "tracks": [{"music_task_id": "m", "audio_id": f"a{number}"} for number in range(options.items)]
        },
        "KieBatchOperator": {
            "model": IMAGE_MODEL,
            "items": [{"prompt": f"fox {number}"} for number in range(options.items)],
        },
    }
    rows = [run(operator, given, options.items, options.kills, chance) for operator, given in kinds.items()]
    print_table(HEADER, rows)
    sys.exit(any(row[-1] for row in rows))


def run(operator: str, given: dict[str, Any], count: int, kills: int, chance: random.Random) -> list[str]:
    """Kill a batch so many times, let it end, settle what is unknown, and return its row of the table."""
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="kie-crash-batch-") as folder,
        KieEmulator(conversion_seconds=0.5, submits_per_window=LIMIT, window_seconds=WINDOW, credits=1e9) as kie,
    ):
        connection = json.loads(kie.connection_json())
        connection["extra"] |= {"timeout": 3}
        os.environ |= {"AIRFLOW_HOME": folder, "AIRFLOW_CONN_KIE_DEFAULT": json.dumps(connection)}
        _airflow("airflow", "db", "migrate")
        ledger, manifest = init_ledger(f"file://{folder}/ledger").url, Path(folder, "manifest.jsonl")
        items = next(value for value in given.values() if isinstance(value, list))
        source = Path(folder, "items.jsonl")
        source.write_text("".join(json.dumps(item) + "\n" for item in items))
        arguments = {name: str(source) if value is items else value for name, value in given.items()}
        arguments |= {"manifest": str(manifest), "ledger": ledger, "poll_interval": 1.0, "timeout": 60, "fail_if": 0.5}
        batch = Batch(kie, operator, arguments, SCALE)
        killed = []
        for point in sorted(chance.randrange(1, count - LIMIT) for _ in range(kills)):
            if not batch.is_killed(after=point, seconds=chance.uniform(0, 0.5)):
                raise ProcessError(f"{operator} ended before it could be killed")
            killed.append(f"{kie.accepted_submits:,}")
            say(f"  {operator}: killed after {killed[-1]} accepted submits.")
        seconds = 300 + 2 * count / LIMIT * WINDOW
        unknown = batch.ended(seconds)["unknown"]
        if unknown:
            settle(kie, manifest, ledger)
            batch.ended(seconds)
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        jobs = Counter(json.dumps(job.input, sort_keys=True) for job in kie.state.jobs())
        refused = sum(each["code"] == 429 for each in kie.requests("submit"))
    is_right = (
        [row["item"] for row in rows] == items
        and {row["end"] for row in rows} == {"succeeded"}
        and list(jobs.values()) == [1] * count
        and not refused
    )
    figures = [unknown, jobs.total(), sum(paid > 1 for paid in jobs.values()), len(rows), refused]
    took = f"{time.monotonic() - started:.0f}"
    return [operator, ", ".join(killed), *(f"{figure:,}" for figure in figures), took, "" if is_right else "WRONG"]


def settle(kie: KieEmulator, manifest: Path, ledger: str) -> None:
    """Adopt or forget each unknown item, as somebody does who looks into KIE's logs."""
    ids = {str(job.input["prompt"]): job.kie_task_id for job in kie.state.jobs()}
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        if row["end"] == "unknown":
            kie_task_id = ids.get(row["item"]["prompt"])
            words = (
                ["adopt", "dag", "run", "archive", kie_task_id] if kie_task_id else ["forget", "dag", "run", "archive"]
            )
            more = ["--entry", row["entry"], "--ledger", ledger]
            _airflow("airflow_provider_kie", "jobs", *words, *more)
            say(f"  {words[0]}: item {row['line']:,}.")


def _airflow(*words: str) -> None:
    done = run_python("-m", *words)
    if done.returncode:
        raise ProcessError(done.stderr)


if __name__ == "__main__":
    try:
        main()
    except ProcessError as error:
        sys.exit(f"It could not be carried out: {error}")
