# SPDX-License-Identifier: Apache-2.0
"""What importing a provider costs a DAG file while it is parsed, on top of what any DAG file imports of Airflow."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Final

from benchmarks.figures import ROOT, Figures, Notebook, Plan

#: Each with the modules that a DAG file would name; ours are all that it can name.
CASES: Final = {
    "airflow-provider-kie": (
        "airflow_provider_kie.sensors.wav",
        "airflow_provider_kie.operators.wav",
        "airflow_provider_kie.transfers.wav_to_object_storage",
    ),
    "HttpSensor": ("airflow.providers.http.sensors.http",),
    "AnthropicBatchOperator": ("airflow.providers.anthropic.operators.batch",),
}
MOST_MS: Final = 50.0
#: What a DAG file should not bring in.
UNWANTED: Final = ("requests", "aiohttp", "anthropic", "tenacity")
SCRIPT: Final = """
import importlib, importlib.util, json, sys, time
from airflow.providers.common.compat.sdk import DAG, BaseOperator, BaseSensorOperator

def exists(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False

names = [name for name in sys.argv[1:] if exists(name)]
before = set(sys.modules)
started, cpu = time.perf_counter(), time.process_time()
for name in names:
    importlib.import_module(name)
ended, cpu_ended = time.perf_counter(), time.process_time()
new = set(sys.modules) - before
packages = sorted({name.split(".")[0] for name in new} - set(sys.stdlib_module_names) - {"airflow"})
print(json.dumps({
    "ms": (ended - started) * 1e3, "cpu_ms": (cpu_ended - cpu) * 1e3, "modules": len(new),
    "packages": packages, "imported": names, "before": sorted({name.split(".")[0] for name in before}),
}))
"""


def measure(plan: Plan, notebook: Notebook) -> list[Figures]:
    """Import each in fresh processes, in turns."""
    runs: dict[str, list[Figures]] = {case: [] for case in CASES}
    for repeat in range(plan.imports + 1):
        for case, modules in CASES.items():
            figures = notebook.get(f"import {case} {repeat}", lambda modules=modules: import_once(modules))
            if repeat:  # the first one may have compiled files and filled the disk cache
                runs[case].append(figures)
    return [summarize(case, figures) for case, figures in runs.items()]


def import_once(modules: tuple[str, ...]) -> Figures:
    """Import modules in a fresh process."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed in earnest has its bytecode
    ended = subprocess.run(  # noqa: S603 - constants
        [sys.executable, "-c", SCRIPT, *modules],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def summarize(case: str, runs: list[Figures]) -> Figures:
    """Return the median of the times; what is imported is the same each time."""
    if not runs[0]["imported"]:
        raise SystemExit(f"{case} is not installed: pip install --editable '.[bench]'")
    unwanted = [name for name in UNWANTED if name in runs[0]["packages"]]
    return {
        "case": case,
        "runs": len(runs),
        "ms": statistics.median(run["ms"] for run in runs),
        "cpu_ms": statistics.median(run["cpu_ms"] for run in runs),
        "modules": runs[0]["modules"],
        "unwanted": unwanted,
        "packages": runs[0]["packages"],
        "by_airflow": [name for name in UNWANTED if name in runs[0]["before"]],
    }


def table(rows: list[Figures]) -> list[list[str]]:
    """Return the figures as cells, the header first."""
    own = rows[0]["cpu_ms"]
    return [
        ["import", "CPU", "x ours", "elapsed", "new modules", "of these heavy"],
        *[
            [
                row["case"],
                f"{row['cpu_ms']:.0f} ms",
                f"{row['cpu_ms'] / own:.1f}",
                f"{row['ms']:.0f} ms",
                str(row["modules"]),
                ", ".join(row["unwanted"]) or "none",
            ]
            for row in rows
        ],
    ]


def budgets(rows: list[Figures]) -> list[list[str]]:
    """Return what was promised beside what was measured, without a header."""
    own = rows[0]
    heavy = [name for name in ("requests", "aiohttp") if name in own["unwanted"]]
    # CPU, because a busy machine stretches the elapsed time; on a quiet one they are the same.
    kept = "yes" if own["cpu_ms"] < MOST_MS else "NO"
    return [
        ["import while a DAG is parsed", f"below {MOST_MS:g} ms", f"{own['cpu_ms']:.1f} ms", kept],
        ["requests or aiohttp imported with it", "none", ", ".join(heavy) or "none", "NO" if heavy else "yes"],
    ]
