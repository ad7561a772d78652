# SPDX-License-Identifier: Apache-2.0
"""Plots of the figures, as SVG files that only change when the figures do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

from benchmarks import parsing, waiting
from benchmarks.figures import Figures

COLORS: Final = {"bare": "#888888", "ticks": "#444444", "kie": "#1b7837", "thread": "#e08214", "http": "#7b3294"}
STYLE: Final = {
    "svg.hashsalt": "airflow-provider-kie",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "figure.facecolor": "white",
}


def draw_all(results: Path, figures: Figures) -> list[Path]:
    """Draw what there are figures for."""
    drawn = []
    with mpl.rc_context(STYLE):
        if rows := figures.get("waiting"):
            drawn.append(draw_waiting(results / "waiting.svg", rows["rows"], rows["interval"]))
        if (rows := figures.get("slow")) and rows["rows"]:
            drawn.append(draw_slow(results / "waiting-slow.svg", rows["rows"]))
        if rows := figures.get("parse"):
            drawn.append(draw_parse(results / "parse.svg", rows["rows"]))
    return drawn


def draw_waiting(path: Path, rows: list[Figures], interval: float) -> Path:
    """Draw cost and lateness over the number of conversions that wait."""
    chart, panels = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    plans: list[tuple[str, str, float | None]] = [
        ("cpu_ms_per_read", "CPU per read, ms", None),
        ("memory_kb", "memory per waiting conversion, KB", None),
        ("block_ms", "longest block of the event loop, ms", waiting.MOST_BLOCK_MS),
        ("late_p99", "finish seen late by, p99, s", interval + waiting.MOST_EXTRA_LATENESS),
    ]
    counts = [row["count"] for row in rows]
    span = (min(counts) * 0.8, max(counts) * 1.25)  # the same for all, one of which has no figure for the fewest
    for panel, (name, title, budget) in zip(panels.flat, plans, strict=True):
        for way, label in waiting.NAMES.items():
            values = [(row["count"], _value(rows, row, name)) for row in rows if row["way"] == way]
            points = sorted((count, max(value, 0.0)) for count, value in values if value is not None)
            panel.plot(*zip(*points, strict=True), marker="o", ms=4, color=COLORS[way], label=label)
        if budget is not None:
            panel.axhline(budget, color="black", ls=":", lw=1, label="budget of this project at 5,000")
        panel.set(xscale="log", xlabel="conversions waiting", title=title, ylim=(0, None), xlim=span)
        if name == "block_ms":
            panel.set(yscale="log", ylim=(1, None))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    handles, labels = panels[1, 1].get_legend_handles_labels()
    chart.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    chart.suptitle(f"Waiting for many conversions, one read each {interval:g} s, KIE answers at once")
    return _save(chart, path)


def draw_slow(path: Path, rows: list[Figures]) -> Path:
    """Draw how late finishes are seen when each answer takes as long as KIE's do."""
    counts = sorted({row["count"] for row in rows})
    chart, panels = plt.subplots(1, len(counts), figsize=(9, 2.6), layout="constrained", squeeze=False)
    for panel, count in zip(panels[0], counts, strict=True):
        chosen = {row["way"]: row for row in rows if row["count"] == count}
        ways = list(reversed(list(chosen)))
        values = [chosen[way]["late_p99"] for way in ways]
        bars = panel.barh([waiting.NAMES[way] for way in ways], values, color=[COLORS[way] for way in ways])
        panel.bar_label(bars, [_lateness(chosen[way]) for way in ways], fontsize=8)
        panel.set(title=f"{count:,} waiting", xlabel="finish seen late by, p99, s", xlim=(0, max(values) * 1.7))
    chart.suptitle(f"The same where each answer takes {waiting.LATENCY_OF_KIE:g} s")
    return _save(chart, path)


def _lateness(row: Figures) -> str:
    unseen = f", {row['unfinished']:,.0f} not seen" if row["unfinished"] else ""
    return f" {waiting.late(row, 'late_p99')}{unseen}"


def _value(rows: list[Figures], row: Figures, name: str) -> float | None:
    return waiting.memory_each(rows, row) if name == "memory_kb" else row[name]


def draw_parse(path: Path, rows: list[Figures]) -> Path:
    """Draw what an import costs."""
    chart, panel = plt.subplots(figsize=(9, 1.9), layout="constrained")
    names = [row["case"] for row in reversed(rows)]
    values = [row["cpu_ms"] for row in reversed(rows)]
    bars = panel.barh(names, values, color=[COLORS["http"], COLORS["thread"], COLORS["kie"]])
    panel.bar_label(bars, [f" {value:,.0f} ms" for value in values], fontsize=8)
    panel.axvline(parsing.MOST_MS, color="black", ls=":", lw=1)
    panel.set(title="Importing it in a DAG file, on top of Airflow", xlabel="ms of CPU", xlim=(0, max(values) * 1.12))
    return _save(chart, path)


def _save(chart: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(path, metadata={"Date": None})
    plt.close(chart)
    return path
