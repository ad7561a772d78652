# SPDX-License-Identifier: Apache-2.0
"""
Install the built wheel beside every Airflow that is supported, on the oldest and the newest Python, and run the tests.

    python scripts/matrix.py                    every row; what has passed since the last change is not run again
    python scripts/matrix.py --only 3.1.8       only the rows whose name begins so
    python scripts/matrix.py --fresh            every row again

The tests run in a folder that holds everything but the package, so that it is the wheel that they test. The table in
docs/compatibility.md is written when all rows are there. Needs uv, which makes ten environments in the time that pip
takes for two, and the Pythons themselves; a Python that is not on this machine is a failed row, not a skipped one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
WORK: Final = ROOT / ".tmp" / "matrix"
PAGE: Final = ROOT / "docs" / "compatibility.md"
PACKAGE: Final = "airflow_provider_kie"
TESTS: Final = ("tests/unit", "tests/wire", "tests/airflow")
#: What these look at is the checkout, which is the same in every row.
NOT_OF_THE_WHEEL: Final = ("tests/unit/test_docs.py", "tests/unit/test_release_check.py")
SECONDS: Final = 1800
#: What the result of a row depends on.
SOURCES: Final = (
    "pyproject.toml",
    "docs/design.md",
    "docs/emulator.md",
    "scripts/matrix.py",
    *(f"{folder}/**/*" for folder in (PACKAGE, "tests", "example_dags")),
)


class Row(NamedTuple):
    """
    One environment.

    :param airflow: version of Airflow.
    :param python: version of Python.
    :param note: what is special about it.
    :param lowest: install the lowest versions that the metadata allows.
    :param environment: variables of the tests' processes.
    """

    airflow: str
    python: str
    note: str = ""
    lowest: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """What the row is called."""
        return " ".join(filter(None, (f"{self.airflow}-py{self.python}", self.note)))

    @property
    def constraints(self) -> list[Path]:
        """The versions that were tested together; none for versions that were not written down."""
        name = "lowest" if self.lowest else f"airflow-{self.airflow}"
        return [path for path in (ROOT / "constraints" / f"{name}.txt",) if path.exists()]


GREENBACK_OFF: Final = (("AIRFLOW_DISABLE_GREENBACK_PORTAL", "true"),)
ROWS: Final = (
    Row("2.11.0", "3.11", "lowest versions", lowest=True),
    Row("2.11.2", "3.11"),
    Row("2.11.2", "3.12"),
    Row("3.1.8", "3.11"),
    Row("3.1.8", "3.13"),
    Row("3.2.2", "3.11"),
    Row("3.2.2", "3.13"),
    Row("3.3.2", "3.11"),
    Row("3.3.2", "3.11", "without greenback", environment=GREENBACK_OFF),
    Row("3.3.2", "3.13"),
)
REFUSED: Final = ("2.10.5", "3.0.6")


def main() -> int:
    """Run the rows; the result is the exit code."""
    parser = argparse.ArgumentParser(prog="python scripts/matrix.py", description="Test the wheel in every Airflow.")
    parser.add_argument("--only", default="", metavar="ROW", help="only rows whose name begins so, such as 3.1.8")
    parser.add_argument("--fresh", action="store_true", help="run again what has passed")
    options = parser.parse_args()
    rows = [row for row in ROWS if row.name.startswith(options.only)]
    if not rows:
        parser.error(f"no row's name begins with {options.only!r}; there are: {', '.join(row.name for row in ROWS)}")
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kie-matrix-") as folder:
        checkout = Path(folder, "checkout")
        wheel = build(checkout)
        digests = {row.name: digest_of(row, checkout) for row in rows}
        shutil.rmtree(checkout / PACKAGE)
        results = {} if options.fresh else kept()
        for row in rows:
            digest = digests[row.name]
            if not (results.get(row.name, {}).get("passed") and results[row.name]["digest"] == digest):
                results[row.name] = run(row, wheel, checkout) | {"digest": digest}
                keep(results)
            print(f"{row.name}: {results[row.name]['said']}", flush=True)
        refusals = [refuses(version, wheel) for version in REFUSED]
    wrong = [row.name for row in rows if not results[row.name]["passed"]]
    if len(rows) == len(ROWS) and not wrong and all(refusals):
        write_table(results)
    print(f"Not as they should be: {', '.join(wrong)}" if wrong else f"Rows that passed: {len(rows)}.", flush=True)
    return int(bool(wrong) or not all(refusals))


def build(checkout: Path) -> Path:
    """Copy what git knows, and build the wheel of it."""
    tracked = command("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
    command("uv", "build", "--quiet", "--wheel", "--out-dir", str(checkout.parent), cwd=checkout)
    return next(checkout.parent.glob("*.whl"))


def run(row: Row, wheel: Path, checkout: Path) -> dict[str, object]:
    """Make an environment for a row, run the tests there, and say how they ended."""
    started = time.monotonic()
    environment = WORK / re.sub(r"[^\w.]+", "-", row.name)
    log = environment.with_suffix(environment.suffix + ".log")
    try:
        install(row, wheel, environment)
        said, passed = test(row, environment, checkout, log)
    except subprocess.SubprocessError as error:
        said, passed = f"{type(error).__name__}: {str(getattr(error, 'stderr', '') or error)[-2000:]}", False
    finally:
        shutil.rmtree(environment, ignore_errors=True)
    return {"said": said, "passed": passed, "seconds": round(time.monotonic() - started)}


def install(row: Row, wheel: Path, environment: Path) -> None:
    """Install the wheel with what its tests need, beside the row's Airflow."""
    command("uv", "venv", "--quiet", "--clear", "--no-python-downloads", "--python", interpreter(row.python),
            str(environment))  # fmt: skip
    command(
        "uv", "pip", "install", "--quiet", "--python", str(environment / "bin" / "python"),
        f"{wheel}[dev]", f"apache-airflow=={row.airflow}",
        *(argument for path in row.constraints for argument in ("--constraint", str(path))),
    )  # fmt: skip


def interpreter(version: str) -> str:
    """Return a Python of a version: of pyenv where it is there, else what uv finds."""
    found = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob(f"{version}.*"))
    return str(found[-1] / "bin" / "python") if found else version


def test(row: Row, environment: Path, checkout: Path, log: Path) -> tuple[str, bool]:
    """Run the tests, and return pytest's last line and whether it was content."""
    with tempfile.TemporaryDirectory(prefix="kie-matrix-home-") as home, log.open("w") as output:
        ended = subprocess.run(
            [
                environment / "bin" / "python",
                "-m",
                "pytest",
                "-q",
                "-n",
                "4",
                *TESTS,
                *(f"--ignore={path}" for path in NOT_OF_THE_WHEEL),
            ],
            cwd=checkout,
            env=os.environ | {"AIRFLOW_HOME": home} | dict(row.environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
    lines = log.read_text(errors="replace").strip().splitlines()
    return (lines[-1].strip("= ") if lines else "nothing was said"), ended.returncode == 0


def refuses(version: str, wheel: Path) -> bool:
    """Tell whether the wheel cannot be installed beside an Airflow that is too old."""
    with tempfile.TemporaryDirectory(prefix="kie-matrix-old-") as folder:
        command("uv", "venv", "--quiet", "--no-python-downloads", "--python", interpreter("3.11"), folder)
        try:
            command("uv", "pip", "install", "--dry-run", "--python", f"{folder}/bin/python",
                    str(wheel), f"apache-airflow=={version}")  # fmt: skip
        except subprocess.CalledProcessError as error:
            # uv says which requirement stands in the way; only that one may.
            refused = "apache-airflow>=2.11.0" in re.sub(r"\s+", "", error.stderr)
        else:
            refused = False
    print(f"{version}: {'refused, as it should be' if refused else 'NOT refused'}", flush=True)
    return refused


def command(*line: str, cwd: Path | None = None) -> str:
    """Run a command and return what it printed."""
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=True).stdout


def digest_of(row: Row, checkout: Path) -> str:
    """Return what stands for everything that a row's result depends on."""
    digest = hashlib.sha256()
    for source in (*SOURCES, *(str(path.relative_to(ROOT)) for path in row.constraints)):
        for path in sorted(path for path in checkout.glob(source) if path.is_file()):
            digest.update(str(path.relative_to(checkout)).encode() + path.read_bytes())
    return digest.hexdigest()


def kept() -> dict[str, dict[str, object]]:
    """Return the results of earlier runs."""
    path = WORK / "results.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def keep(results: dict[str, dict[str, object]]) -> None:
    """Write the results down."""
    (WORK / "results.json").write_text(json.dumps(results, indent=1))


def write_table(results: dict[str, dict[str, object]]) -> None:
    """Put the results between the markers of the page."""
    lines = ["| Airflow | Python | | tests |", "| --- | --- | --- | --- |"]
    for row in ROWS:
        said = re.sub(r" in [\d.]+s.*", "", str(results[row.name]["said"]))
        lines.append(f"| {row.airflow} | {row.python} | {row.note} | {said} |")
    lines += [f"| {version} | 3.11 | | refused by the installer |" for version in REFUSED]
    block = "\n".join(lines)
    pattern = r"(<!-- matrix:table -->\n).*?(<!-- /matrix -->)"
    PAGE.write_text(re.sub(pattern, lambda found: f"{found[1]}{block}\n{found[2]}", PAGE.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    sys.exit(main())
