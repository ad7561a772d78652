# SPDX-License-Identifier: Apache-2.0
"""
Where figures are kept.

Single measurements in ``.tmp/bench``, so that an interrupted run goes on where it stopped, and what came of them in
``docs/img/bench.json``, from which plots and tables are drawn without measuring again.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
RAW: Final = ROOT / ".tmp" / "bench"
IMAGES: Final = ROOT / "docs" / "img"
#: A figure that depends on what these say is measured again when they change.
SOURCES: Final = (
    "airflow_provider_kie/**/*.py",
    "benchmarks/host.py",
    *(f"benchmarks/{name}.py" for name in ("http_check", "parsing", "server", "variants", "waiter")),
)
#: What the saved figures are about; fewer than above, so that hardly any change that cannot matter calls them old.
SUBJECTS: Final = (
    *(f"airflow_provider_kie/{folder}/*.py" for folder in ("api", "hooks", "triggers")),
    *(f"airflow_provider_kie/{module}.py" for module in ("connection", "waiting")),
    *SOURCES[1:],
    "benchmarks/download.py",
)
PACKAGES: Final = (
    "apache-airflow",
    "aiohttp",
    "requests",
    "apache-airflow-providers-http",
    "apache-airflow-providers-anthropic",
)

Figures = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """
    How much to measure.

    :param counts: conversions waiting at the same time, with how often each is measured.
    :param slow_counts: the same for a KIE that takes its time to answer.
    :param interval: seconds between two reads of a conversion.
    :param duration: seconds until the last conversion of a measurement finishes.
    :param imports: fresh processes for each import.
    :param results: where plots and ``bench.json`` go.
    """

    counts: dict[int, int]
    slow_counts: dict[int, int]
    interval: float
    duration: float
    imports: int
    results: Path


FULL: Final = Plan({100: 1, 1000: 3, 5000: 3, 10000: 1}, {1000: 1, 5000: 3}, 10.0, 32.0, 9, IMAGES)
QUICK: Final = Plan({100: 1, 500: 1}, {}, 2.0, 7.2, 1, RAW)


def reduced(plan: Plan, most: int, *, once: bool) -> Plan:
    """
    Return a smaller plan.

    :param plan: the whole one.
    :param most: conversions waiting at most.
    :param once: True to measure everything once.
    """

    def fewer(counts: dict[int, int]) -> dict[int, int]:
        return {count: 1 if once else repeats for count, repeats in counts.items() if count <= most}

    return replace(plan, counts=fewer(plan.counts), slow_counts=fewer(plan.slow_counts))


class Notebook:
    """Keeps each measurement as soon as it is made, and gives it back as long as nothing changed."""

    def __init__(self, *, fresh: bool) -> None:
        self._path = RAW / f"{digest(SOURCES, json.dumps(machine()))}.json"
        RAW.mkdir(parents=True, exist_ok=True)
        self._kept: dict[str, Figures] = {}
        if self._path.exists() and not fresh:
            self._kept = json.loads(self._path.read_text())

    def get(self, key: str, measure: Callable[[], Figures]) -> Figures:
        """Return the figures of a measurement, which is made only if it is not there."""
        if key not in self._kept:
            self._kept[key] = measure()
            self._path.write_text(json.dumps(self._kept, indent=1))
        return self._kept[key]


def medians(runs: Sequence[Figures]) -> Figures:
    """Return the median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def digest(patterns: Sequence[str], beside: str = "") -> str:
    """Return a short digest of files, and of a text."""
    paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    return sha256(b"".join(path.read_bytes() for path in paths) + beside.encode()).hexdigest()[:12]


def machine() -> Figures:
    """Return what figures depend on besides the code."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "-"
    return {"python": platform.python_version(), "cores": os.cpu_count(), "packages": found}


def load(results: Path) -> Figures:
    """Return the figures that were saved."""
    path = results / "bench.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def save(results: Path, name: str, figures: object, subjects: str) -> None:
    """Save the figures of one benchmark, and the digest of what was measured, beside those of the others."""
    results.mkdir(parents=True, exist_ok=True)
    figures_of_all = load(results) | {"machine": machine(), name: figures}
    figures_of_all.setdefault("measured", {})[name] = datetime.now(UTC).date().isoformat()
    figures_of_all.setdefault("subjects", {})[name] = subjects
    (results / "bench.json").write_text(json.dumps(figures_of_all, indent=1, sort_keys=True) + "\n")


def outdated(figures: Figures) -> list[str]:
    """Return the benchmarks whose figures are of other sources than those that are here."""
    now = digest(SUBJECTS)
    return sorted(name for name in figures["measured"] if figures["subjects"].get(name) != now)
