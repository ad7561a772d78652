# SPDX-License-Identifier: Apache-2.0
"""The tables of the figures, on the terminal and between the markers of ``docs/performance.md``."""

from __future__ import annotations

import re
from typing import Final

from benchmarks import download, parsing, waiting
from benchmarks.figures import ROOT, Figures

PAGE: Final = ROOT / "docs" / "performance.md"


def tables(figures: Figures) -> dict[str, list[list[str]]]:
    """Return the tables that there are figures for, by the name of their marker."""
    found: dict[str, list[list[str]]] = {}
    budgets: list[list[str]] = [["budget", "limit", "measured", "kept"]]
    for name in ("waiting", "slow"):
        if (section := figures.get(name)) and section["rows"]:
            found[name] = waiting.table(section["rows"])
            budgets += waiting.budgets(section["rows"], section["interval"], slow=name == "slow")
    if section := figures.get("parse"):
        found["parse"] = parsing.table(section["rows"])
        budgets += parsing.budgets(section["rows"])
    if section := figures.get("download"):
        found |= {f"download-{name}": download.table(section[name]) for name in download.NAMES}
        budgets += download.budgets(section)
    if section := figures.get("server"):
        found["server"] = server_table(section, busiest(figures))
    return found | {"budgets": budgets}


def server_table(section: Figures, busiest: Figures | None) -> list[list[str]]:
    """Return what the benchmark server could do and what it had to, so that it is visibly not the limit."""
    client = f"a client that does nothing else, with one read at a time on each of {section['sockets']} sockets"
    cells = [
        ["benchmark server", "measured"],
        [f"reads per second of {client}", f"{section['reads_per_second']:,.0f}"],
        ["its share of a core meanwhile", f"{section['load']:.0%}"],
        ["its CPU per read", f"{section['cpu_us_per_read']:.0f} µs"],
    ]
    if busiest:
        when = f"{busiest['count']:,} waiting, {waiting.NAMES[busiest['way']]}"
        cells += [["its share of a core while waits were measured, at most", f"{busiest['server_load']:.0%} ({when})"]]
    return cells


def busiest(figures: Figures) -> Figures | None:
    """Return the row of the waits that kept the server busiest."""
    rows = [row for name in ("waiting", "slow") for row in figures.get(name, {"rows": []})["rows"]]
    known = [row for row in rows if "server_load" in row]  # figures of before that do not have it
    return max(known, key=lambda row: float(row["server_load"]), default=None)


def plain(cells: list[list[str]]) -> str:
    """Return a table for the terminal."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([rows[0], "-" * len(rows[0]), *rows[1:]])


def markdown(cells: list[list[str]]) -> str:
    """Return a table for the page."""
    rows = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([rows[0], "|" + " --- |" * len(cells[0]), *rows[1:]])


def origin(figures: Figures) -> str:
    """Say what was measured with what."""
    about = figures["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    days = ", ".join(sorted(set(figures["measured"].values())))
    names: dict[str, list[str]] = {}
    for name in sorted(figures["measured"]):
        names.setdefault(figures["subjects"].get(name, "unknown"), []).append(name)
    sources = ", ".join(f"{digest} ({', '.join(measured)})" for digest, measured in names.items())
    return (
        f"Measured {days} on {about['cores']} cores with Python {about['python']}, {packages}.\n"
        f"Digest of the sources: {sources}; `python -m benchmarks --redraw` says whether they have changed since."
    )


def update(figures: Figures) -> bool:
    """Write the tables into the page; False if there is no page."""
    if not PAGE.exists():
        return False
    text = PAGE.read_text()
    blocks = {name: markdown(cells) for name, cells in tables(figures).items()} | {"origin": origin(figures)}
    for name, block in blocks.items():
        text = put(text, name, block)
    PAGE.write_text(text)
    return True


def put(text: str, name: str, block: str) -> str:
    """Return a page with a block between the markers of a name."""
    pattern = rf"(<!-- bench:{name} -->\n).*?(<!-- /bench -->)"
    return re.sub(pattern, lambda found: f"{found[1]}{block}\n{found[2]}", text, flags=re.DOTALL)
