# SPDX-License-Identifier: Apache-2.0
"""
Wait for many conversions in each of the ways, one fresh process for each measurement, and compare.

Run it with ``python -m benchmarks.waiting [--quick]``: it waits where KIE answers at once, and where it takes its time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Final

from benchmarks import ROOT, Figures, table
from benchmarks.server import serving
from benchmarks.variants import WAYS, environment

#: Conversions waiting at the same time, with how often each is measured, by the seconds before each answer.
FULL: Final = {0.0: {100: 1, 1000: 3, 5000: 3, 10000: 1}, 0.6: {1000: 1, 5000: 3}}
QUICK: Final = {0.0: {100: 1, 500: 1}}
#: Seconds for starting and ending a measurement, on a busy machine.
SECONDS_AROUND: Final = 180.0
NAMES: Final = {
    "bare": "bare aiohttp loop",
    "ticks": "bare aiohttp loop on ticks",
    "kie": "WavConversionTrigger",
    "thread": "a thread for each read",
    "http": "HttpEventTrigger",
}
#: The loops that the others are compared with.
LOOPS: Final = ("bare", "ticks")
#: With fewer waits than this, a measurement is a third of a second of CPU, whose ratios are noise.
FEWEST_FOR_A_RATIO: Final = 500
#: Of these the worst of all repeats counts.
WORST: Final = ("block_ms", "server_load")
HEADER: Final = [
    *["waiting", "way", "CPU per read", "x bare", "x ticks", "memory each", "longest block"],
    *["late p50", "late p99", "reads", "not seen", "server's share of a core"],
]


def main() -> None:
    """Measure and print one table for each latency."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting", description="Compare ways of waiting.")
    parser.add_argument("--quick", action="store_true", help="few waits, once; too short for a lateness")
    quick = parser.parse_args().quick
    interval, duration = (2.0, 7.2) if quick else (10.0, 32.0)
    for latency, repeats in (QUICK if quick else FULL).items():
        rows = measure(repeats, latency, interval, duration)
        cells_of = (cells(row, memory_each(rows, row)) for row in rows)
        print(f"\nAnswers after {latency:g} s:", table(HEADER, *cells_of), sep="\n", flush=True)


def measure(repeats: dict[int, int], latency: float, interval: float, duration: float) -> list[Figures]:
    """Measure all ways at all counts; repeats go round the ways, so that a ratio compares neighbours in time."""
    runs: dict[tuple[str, int], list[Figures]] = {(way, count): [] for count in repeats for way in WAYS}
    for repeat in range(max(repeats.values())):
        for (way, count), measured in runs.items():
            if repeat < repeats[count]:
                measured.append(measure_once(way, count, latency, interval, duration))
                print(f"  {NAMES[way]}, {count:,} waiting: {measured[-1]['cpu_ms_per_read']:.2f} ms a read", flush=True)
    return [summarize(runs, way, count) for way, count in runs]


def measure_once(way: str, count: int, latency: float, interval: float, duration: float) -> Figures:
    """Measure one way once, in a process of its own, beside a server of its own."""
    with serving(latency) as server:
        command = [sys.executable, "-m", "benchmarks.waiter", way, "--port", str(server.port), "--count", str(count)]
        command += ["--interval", str(interval), "--duration", str(duration)]
        settings = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"} | environment(server.url)
        limit = duration + 4 * interval + SECONDS_AROUND
        try:
            ended = subprocess.run(  # noqa: S603 - constants
                command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=limit, check=True
            )
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"measuring {way} with {count} failed:\n{error.stderr[-3000:]}") from error
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def summarize(runs: dict[tuple[str, int], list[Figures]], way: str, count: int) -> Figures:
    """Return the medians of a way at a count, the worst of blocks, and the ratios to the bare loops run by run."""
    own = runs[way, count]

    def ratio_to(loop: str) -> float:
        pairs = zip(own, runs[loop, count], strict=True)
        return statistics.median(run["cpu_ms_per_read"] / limit["cpu_ms_per_read"] for run, limit in pairs)

    ratios = {f"x_{loop}": ratio_to(loop) for loop in LOOPS}
    medians = {name: statistics.median(run[name] for run in own) for name in own[0]}
    worst = {name: max(run[name] for run in own) for name in WORST}
    return {"way": way, "count": count} | ratios | medians | worst


def memory_each(rows: list[Figures], row: Figures) -> float | None:
    """Return the KB that each wait fills above the fewest; None for these, which fill what is loaded once as well."""
    fewest = min((other for other in rows if other["way"] == row["way"]), key=lambda other: other["count"])
    if row["count"] == fewest["count"]:
        return None
    more = row["memory_kb"] * row["count"] - fewest["memory_kb"] * fewest["count"]
    return float(more / (row["count"] - fewest["count"]))


def late(row: Figures, name: str) -> str:
    """Return a lateness, or what it exceeds where it was not seen to end."""
    return f"{'> ' if row[name] >= row['late_seen_to'] else ''}{row[name]:.1f} s"


def cells(row: Figures, memory: float | None) -> list[str]:
    """Return a row of the table."""
    return [
        f"{row['count']:,}",
        NAMES[row["way"]],
        f"{row['cpu_ms_per_read']:.2f} ms",
        *[f"{row[f'x_{loop}']:.2f}" if row["count"] >= FEWEST_FOR_A_RATIO else "-" for loop in LOOPS],
        f"{memory:.0f} KB" if memory is not None else "-",
        f"{row['block_ms']:,.0f} ms",
        late(row, "late_p50"),
        late(row, "late_p99"),
        f"{row['reads']:,.0f}",
        f"{row['unfinished']:,.0f}",
        f"{row['server_load']:.0%}",
    ]


if __name__ == "__main__":
    main()
