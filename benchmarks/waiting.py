# SPDX-License-Identifier: Apache-2.0
"""Wait for many conversions in each of the ways, one fresh process for each measurement, and compare."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Final

from benchmarks.figures import ROOT, Figures, Notebook, Plan, medians
from benchmarks.server import serving
from benchmarks.variants import WAYS, environment

#: Seconds that KIE usually takes for an answer.
LATENCY_OF_KIE: Final = 0.6
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
#: The budgets of this project: CPU as a multiple of the bare loop; the others where 5,000 wait.
MOST_CPU_RATIO: Final = 1.3
MOST_BLOCK_MS: Final = 200.0
MOST_EXTRA_LATENESS: Final = 1.0
COUNT_OF_BUDGETS: Final = 5000
#: With fewer waits than this, a measurement is a third of a second of CPU, whose ratios are noise.
FEWEST_FOR_A_RATIO: Final = 500
#: What happened once has happened, however good the other repeats are.
WORST: Final = ("block_ms", "server_load")


def measure(plan: Plan, notebook: Notebook, *, slow: bool) -> list[Figures]:
    """Measure all ways at all counts; repeats go round the ways, so that a ratio compares neighbours in time."""
    counts = plan.slow_counts if slow else plan.counts
    runs: dict[tuple[str, int], list[Figures]] = {}
    for repeat in range(max(counts.values(), default=0)):
        for count in [count for count, repeats in counts.items() if repeat < repeats]:
            for way in WAYS:
                key = f"{way} {count} {plan.interval:g} {plan.duration:g} {slow} {repeat}"
                figures = notebook.get(key, lambda way=way, count=count: measure_once(plan, way, count, slow))
                runs.setdefault((way, count), []).append(figures)
                say(way, count, figures)
    return [summarize(runs, way, count) for count in counts for way in WAYS]


def measure_once(plan: Plan, way: str, count: int, slow: bool) -> Figures:
    """Measure one way once, in a process of its own, beside a server of its own."""
    latency = LATENCY_OF_KIE if slow else 0.0
    with serving(latency) as server:
        command = [sys.executable, "-m", "benchmarks.waiter", way, "--port", str(server.port), "--count", str(count)]
        command += ["--interval", str(plan.interval), "--duration", str(plan.duration)]
        settings = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"} | environment(server.url)
        limit = plan.duration + 4 * plan.interval + SECONDS_AROUND
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
    worst = {name: max(run[name] for run in own) for name in WORST}
    return {"way": way, "count": count, "runs": len(own)} | ratios | medians(own) | worst


def say(way: str, count: int, figures: Figures) -> None:
    """Tell the person who watches."""
    cpu, late = figures["cpu_ms_per_read"], figures["late_p99"]
    print(f"  {NAMES[way]:32}{count:7,}{cpu:9.2f} ms CPU a read, {late:6.1f} s late at p99", flush=True)


def table(rows: list[Figures]) -> list[list[str]]:
    """Return the figures as cells, the header first."""
    header = ["waiting", "way", "CPU per read", "x bare", "x ticks", "memory each", "longest block"]
    return [
        [*header, "late p50", "late p99", "reads", "not seen"],
        *[_cells(row, memory_each(rows, row)) for row in rows],
    ]


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


def _cells(row: Figures, memory: float | None) -> list[str]:
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
    ]


def budgets(rows: list[Figures], interval: float, *, slow: bool) -> list[list[str]]:
    """
    Return what was promised of our trigger beside what was measured, without a header.

    :param rows: the figures.
    :param interval: seconds between two reads.
    :param slow: True where KIE took its time for an answer, which is late by that and not by the trigger.
    """
    own = {row["count"]: row for row in rows if row["way"] == "kie"}
    if not own:
        return []
    most = own.get(COUNT_OF_BUDGETS) or own[max(own)]
    where = f"{most['count']:,.0f} waiting" + (f", answers after {LATENCY_OF_KIE:g} s" if slow else "")
    limits = [
        (f"CPU per read as a multiple of the {NAMES['bare']}, {where}", most["x_bare"], MOST_CPU_RATIO, ""),
        (f"longest block, with `gc.freeze`, {where}, worst of {most['runs']}", most["block_ms"], MOST_BLOCK_MS, " ms"),
    ]
    if not slow:
        limits.append((f"finish seen late by, p99, {where}", most["late_p99"], interval + MOST_EXTRA_LATENESS, " s"))
    return [
        [what, f"at most {limit:g}{unit}", f"{value:.2f}{unit}", "yes" if value <= limit else "NO"]
        for what, value, limit, unit in limits
    ]
