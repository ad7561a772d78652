# SPDX-License-Identifier: Apache-2.0
"""
What importing a provider costs a DAG file while it is parsed, on top of what any DAG file imports of Airflow.

Run it with ``python -m benchmarks.parsing``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Final

from benchmarks import ROOT, Figures, table

#: Each with the modules that a DAG file would name.
CASES: Final = {
    "airflow-provider-kie": (
        "airflow_provider_kie.sensors.wav",
        "airflow_provider_kie.operators.wav",
        "airflow_provider_kie.transfers.wav_to_object_storage",
    ),
    "HttpSensor": ("airflow.providers.http.sensors.http",),
    "AnthropicBatchOperator": ("airflow.providers.anthropic.operators.batch",),
}
REPEATS: Final = 9
#: What a DAG file should not bring in.
UNWANTED: Final = ("requests", "aiohttp", "anthropic", "tenacity")
SCRIPT: Final = """
import importlib, json, sys, time
from airflow.providers.common.compat.sdk import DAG, BaseOperator, BaseSensorOperator

before = set(sys.modules)
started, cpu = time.perf_counter(), time.process_time()
for name in sys.argv[1:]:
    importlib.import_module(name)
ended, cpu_ended = time.perf_counter(), time.process_time()
new = set(sys.modules) - before
print(json.dumps({"ms": (ended - started) * 1e3, "cpu_ms": (cpu_ended - cpu) * 1e3, "modules": sorted(new)}))
"""


def main() -> None:
    """Import each in fresh processes, in turns, and print the medians."""
    runs: dict[str, list[Figures]] = {case: [] for case in CASES}
    for repeat in range(REPEATS + 1):
        for case, modules in CASES.items():
            figures = import_once(modules)
            if repeat:  # the first one may have compiled files and filled the disk cache
                runs[case].append(figures)
    print(table(["import", "CPU", "elapsed", "new modules", "of these heavy"], *map(cells, runs.items())))


def import_once(modules: tuple[str, ...]) -> Figures:
    """Import modules in a fresh process."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed in earnest has its bytecode
    command = [sys.executable, "-c", SCRIPT, *modules]
    ended = subprocess.run(  # noqa: S603 - constants
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=300, check=False
    )
    if ended.returncode:
        raise SystemExit("Is something missing? pip install --editable '.[bench]'")
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def cells(measured: tuple[str, list[Figures]]) -> list[str]:
    """Return a row of the table."""
    case, runs = measured
    cpu, elapsed = (statistics.median(run[name] for run in runs) for name in ("cpu_ms", "ms"))
    modules = runs[0]["modules"]
    heavy = ", ".join(name for name in UNWANTED if name in modules)
    return [case, f"{cpu:.1f} ms", f"{elapsed:.1f} ms", str(len(modules)), heavy or "none"]


if __name__ == "__main__":
    main()
