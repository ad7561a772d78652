# SPDX-License-Identifier: Apache-2.0
"""
Carry out a batch on an emulator beside it, in a process of its own: how long it takes, its CPU and its memory.

KIE's window of 10 seconds is scaled, for the emulator and the provider alike, so that a run takes minutes. Jobs are
short, so that the rate of submits limits; or long, so that ``max_in_flight`` does. The ledger is on the local disk, and
nothing is stored. What mapped tasks cost beside it is in :mod:`benchmarks.mapped`.

Run it with ``python -m benchmarks.batch [--items 1000 10000] [--scale 0.2]``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import ROOT, Figures, table

WINDOW, LIMIT = 10.0, 20
MODEL: Final = "seedream/4.5-text-to-image"
#: Seconds that a job takes and between two polls, and how many may run, by what limits the batch.
KINDS: Final = {"the rate of submits": (0.5, 0.6, 100), "max_in_flight": (10.0, 0.5, 250)}
HEADER: Final = [
    *["items", "limited by", "seconds", "x the limit", "CPU, ms an item", "peak memory, MB", "submits", "429s"],
]


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description="Measure a batch.")
    parser.add_argument("--items", type=int, nargs="+", default=[1_000, 10_000], help="how many items")
    parser.add_argument("--scale", type=float, default=0.2, help="how much shorter KIE's window of 10 seconds is")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what limits the batch")
    parser.add_argument("--workers", type=int, default=1, help="so many batches of the account at once, for their 429s")
    parser.add_argument("--pacing", help="URL of a Redis or PostgreSQL by which they keep one limit")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(carry_out(**json.loads(options.run))))
        return
    window = WINDOW * options.scale
    print(f"KIE's window of {WINDOW:g} seconds is scaled to {window:g}.", flush=True)
    if options.workers > 1:
        print(at_once(options.workers, options.items[0], window, options.pacing), flush=True)
        return
    rows = [row_of(items, kind, window) for kind in options.kinds for items in options.items]
    print(table(HEADER, *rows), flush=True)


def at_once(workers: int, items: int, window: float, pacing: str | None) -> str:
    """Carry out several batches at once, and say how many 429s they met."""
    each = {"items": items, "seconds": 0.5, "poll_interval": 0.6, "in_flight": 100, "window": window}
    found = measure(each, workers, pacing)
    how = "with one bucket" if pacing else "each for itself"
    return (
        f"{workers} workers with {items:,} items, {how}: {found['submits']:,} submits accepted, {found['429']:,} 429s, "
        f"{found['seconds']:.0f} s; the limit allows {(workers * items - LIMIT) / LIMIT * window + 0.5:.0f} s."
    )


def row_of(items: int, kind: str, window: float) -> list[str]:
    """Measure one batch, and return its row of the table."""
    seconds, interval, in_flight = KINDS[kind]
    batch = {"items": items, "seconds": seconds, "poll_interval": interval, "in_flight": in_flight}
    found = measure(batch | {"window": window})
    limit = max((items - LIMIT) / LIMIT * window + seconds, items / in_flight * seconds)
    return [
        *[f"{items:,}", kind, f"{found['seconds']:.0f}", f"{found['seconds'] / limit:.3f}"],
        *[f"{found['cpu'] / items * 1000:.2f}", f"{found['memory']:.0f}", str(found["submits"]), str(found["429"])],
    ]


def measure(arguments: dict[str, Any], workers: int = 1, pacing: str | None = None) -> Figures:
    """Carry out batches or a job in processes of their own, beside an emulator in this one; the last one's figures."""
    from airflow_provider_kie.emulator import KieEmulator

    limit = {"submits_per_window": LIMIT, "window_seconds": arguments["window"]}
    with (
        KieEmulator(conversion_seconds=arguments["seconds"], credits=1e9, **limit) as kie,
        tempfile.TemporaryDirectory(prefix="kie-batch-") as folder,
    ):
        connection = json.loads(kie.connection_json())
        connection["extra"] |= {"pacing": pacing} if pacing else {}
        environment = os.environ | {
            "AIRFLOW_CONN_KIE_DEFAULT": json.dumps(connection),
            "AIRFLOW_HOME": folder,
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "PYTHONPATH": str(ROOT),
        }
        started = [
            subprocess.Popen(  # noqa: S603 - our own words
                [
                    sys.executable,
                    "-m",
                    "benchmarks.batch",
                    "--run",
                    json.dumps(arguments | {"folder": f"{folder}/{n}"}),
                ],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(workers)
        ]
        ended = [process.communicate()[0].splitlines()[-1] for process in started]
        if any(process.returncode for process in started):
            raise SystemExit("A batch failed; see above.")
        found: Figures = max(map(json.loads, ended), key=lambda each: each["seconds"])
        codes = [each["code"] for each in kie.requests("submit")]
        return found | {"submits": kie.accepted_submits, "429": codes.count(429)}


def carry_out(items: int, seconds: float, poll_interval: float, in_flight: int, window: float, folder: str) -> Figures:
    """Carry out a batch, and return what it took."""
    from airflow_provider_kie.ledger.storage import init_ledger
    from airflow_provider_kie.operators.batch import KieBatchOperator
    from airflow_provider_kie.times import switched
    from tests.task_instance import TaskInstance

    Path(folder).mkdir()
    ledger = init_ledger(f"file://{folder}/ledger").url
    source = Path(folder, "items.jsonl")
    with source.open("w") as file:
        file.writelines(json.dumps({"prompt": f"fox {number}"}) + "\n" for number in range(items))
    operator = KieBatchOperator(
        task_id="batch",
        model=MODEL,
        items=str(source),
        ledger=ledger,
        manifest=f"{folder}/manifest.jsonl",
        poll_interval=poll_interval,
        max_in_flight=in_flight,
    )
    before, started = time.process_time(), time.monotonic()
    with switched(rate_window=window):
        operator.execute({"ti": TaskInstance()})
    return {
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - before,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
