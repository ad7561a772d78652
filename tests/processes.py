# SPDX-License-Identifier: Apache-2.0
"""Python in a process of its own, which finds this package whether it is installed or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow_provider_kie

#: Where the package is found.
ROOT = Path(airflow_provider_kie.__file__).parents[1]


def run_python(*argv: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def printed_by(program: str, *argv: str) -> Any:
    """Run a program and return what the last line that it prints is as JSON."""
    ended = run_python("-c", program, *argv)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])
