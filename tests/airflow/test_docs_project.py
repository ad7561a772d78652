# SPDX-License-Identifier: Apache-2.0
"""The project in docs/emulator.md works: its files are written as the page shows them, and pytest runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = re.compile(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_test_project_of_the_page(tmp_path: Path) -> None:
    files = dict(FILE.findall((ROOT / "docs/emulator.md").read_text()))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "dags").mkdir()
    shutil.copy(ROOT / "example_dags/wav_of_a_track.py", tmp_path / "dags")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        # Named, because the entry point is only there where the package was installed after it was made.
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "airflow_provider_kie.testing",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
        ],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tests = "".join(files.values()).count("\ndef test_")
    assert f"{tests} passed" in done.stdout
