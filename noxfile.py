# SPDX-License-Identifier: Apache-2.0
"""
The built wheel beside every Airflow that is supported, on the oldest and the newest Python; ``make matrix`` runs it.

    nox --list
    nox --session 'matrix(3.1.8-py3.13)'                        one of them
    nox --session 'matrix(3.1.8-py3.13)' -- tests/unit -x       with arguments for pytest

A Python that is not on this machine is a failure. The tests run in the unpacked sdist without the package, so that they
test the wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True
nox.options.download_python = "never"

ROOT = Path(__file__).resolve().parent
TESTS = ("-q", "-n", "4", "tests/unit", "tests/wire", "tests/airflow")
#: It looks at the checkout, which is the same beside every Airflow.
NOT_OF_THE_WHEEL = "tests/unit/test_docs.py"
ROWS = [
    ("3.11", "2.11.0", "lowest"),
    ("3.11", "2.11.2", ""),
    ("3.12", "2.11.2", ""),
    ("3.11", "3.1.8", ""),
    ("3.13", "3.1.8", ""),
    ("3.11", "3.2.2", ""),
    ("3.13", "3.2.2", ""),
    ("3.11", "3.3.2", ""),
    ("3.11", "3.3.2", "without-greenback"),
    ("3.13", "3.3.2", ""),
]
NAMED = [nox.param(*row, id="-".join(filter(None, (row[1], f"py{row[0]}", row[2])))) for row in ROWS]
# pyenv hides all Pythons but one.
for versions in Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob("3.1[1-3].*/bin"):
    os.environ["PATH"] = f"{versions}{os.pathsep}{os.environ['PATH']}"


def build(session: nox.Session) -> tuple[Path, Path]:
    """Return the wheel and the folder of the tests."""
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder)
    session.run("uv", "build", "--quiet", "--out-dir", str(folder), str(ROOT), external=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    tests = sdist.with_name(sdist.name.removesuffix(".tar.gz"))
    shutil.rmtree(tests / "airflow_provider_kie")
    return wheel, tests


@nox.session
@nox.parametrize("python,airflow,special", NAMED)
def matrix(session: nox.Session, airflow: str, special: str) -> None:
    """Run the tests beside an Airflow."""
    wheel, tests = build(session)
    pins = ROOT / "constraints" / (f"{special}.txt" if special == "lowest" else f"airflow-{airflow}.txt")
    session.install(f"{wheel}[dev]", f"apache-airflow=={airflow}", "--constraint", str(pins))
    session.env["AIRFLOW_HOME"] = str(tests / "airflow-home")
    if special == "without-greenback":
        session.env["AIRFLOW_DISABLE_GREENBACK_PORTAL"] = "true"
    session.chdir(tests)
    session.run("python", "-m", "pytest", f"--ignore={NOT_OF_THE_WHEEL}", *(session.posargs or TESTS))


@nox.session(python="3.11")
@nox.parametrize("airflow", ["2.10.5", "3.0.6"])
def refused(session: nox.Session, airflow: str) -> None:
    """Show that the wheel cannot be installed beside an Airflow that does not suit, and that it is Airflow's doing."""
    wheel, _ = build(session)
    said = session.run(
        *("uv", "pip", "install", "--dry-run", str(wheel), f"apache-airflow=={airflow}"),
        external=True,
        silent=True,
        success_codes=[1],
    )
    if "apache-airflow>=2.11.0" not in re.sub(r"\s+", "", str(said)):
        session.error(f"refused for another reason: {said}")
