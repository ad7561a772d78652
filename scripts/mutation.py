# SPDX-License-Identifier: Apache-2.0
"""
Change the pure core in hundreds of small ways, and see whether the fast unit tests notice each change.

Needs mutmut (``pip install 'mutmut>=3.8,<4'``). It works in a copy, so that the checkout stays as it is:

    python scripts/mutation.py                  everything; 22 minutes on two busy cores
    python scripts/mutation.py '*waiting*'      only the mutants whose name fits
    python scripts/mutation.py --keep DIR       keep the copy, for ``mutmut show NAME`` in it

The end of the output names the mutants that survive and what each changes; docs/testing.md says why they may.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_provider_kie"
MUTATED = [
    f"{PACKAGE}/api/*.py",
    f"{PACKAGE}/files/riff.py",
    f"{PACKAGE}/waiting/*.py",
    f"{PACKAGE}/money.py",
    f"{PACKAGE}/final_errors.py",
    f"{PACKAGE}/exceptions.py",
    f"{PACKAGE}/connection.py",
    f"{PACKAGE}/redaction.py",
]
# Files of tests/unit that do not judge: a judge has to be quick, to need no socket, and to have something to say.
NO_JUDGES = [
    "test_cli.py",
    "test_docs.py",
    "test_emulator_cli.py",
    "test_emulator_state.py",
    "test_imports.py",
    "test_pacing.py",
    "test_public_names.py",
    "test_release_check.py",
]
# Tests that start a process, which a mutant in this one does not reach, and tests that use a thread of an earlier
# test, for which a fork waits forever.
NOT_ASKED = [
    "test_connection.py::test_a_missing_connection_is_named",
    "test_connection.py::test_a_wrong_value_is_refused_alike_on_the_worker_and_in_the_triggerer",
    "test_connection.py::test_every_form_of_a_connection_works_on_the_worker_and_in_the_triggerer",
    "test_provider_info.py::test_airflow_knows_every_field_and_which_are_secret",
    "test_provider_info.py::test_airflow_loads_the_hook_without_a_word",
    "test_provider_info.py::test_the_web_form_shows_the_api_key_and_every_extra_field",
]
LEAST_KILLED = 0.9


def main() -> int:
    """Run the mutants and tell what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="patterns of mutants' names; all without any")
    parser.add_argument("--keep", type=Path, help="directory for the copy, which then stays")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="kie-mutation-"))
    try:
        copy_to(folder)
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(options.processes), *options.names]
        done = subprocess.run(command, cwd=folder, check=False)
        return done.returncode or report(folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def copy_to(folder: Path) -> None:
    """Copy what the judges need, with a configuration of mutmut beside it."""
    for name in (PACKAGE, "tests"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(HERE / name, folder / name, dirs_exist_ok=True, ignore=ignore)
    judges = sorted(path.name for path in (HERE / "tests/unit").glob("test_*.py") if path.name not in NO_JUDGES)
    settings = {
        "source_paths": [PACKAGE],
        "only_mutate": MUTATED,
        "pytest_add_cli_args": ["-p", "no:cacheprovider", *(f"--deselect=tests/unit/{name}" for name in NOT_ASKED)],
        "pytest_add_cli_args_test_selection": [f"tests/unit/{name}" for name in judges],
        "use_git_change_detection": False,
    }
    lines = ["[tool.mutmut]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    project = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(project + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


def report(folder: Path) -> int:
    """Print the figures and every mutant that was not killed; 1 if too few were."""
    outcomes: dict[str, str] = {}
    listing = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for line in listing.splitlines():
        name, _, outcome = line.strip().partition(": ")
        if outcome and outcome != "not checked":
            outcomes[name] = outcome
    alive = [name for name, outcome in outcomes.items() if outcome not in ("killed", "timeout", "caught by type check")]
    for name in alive:
        shown = subprocess.run(
            [sys.executable, "-m", "mutmut", "show", name], cwd=folder, check=False, capture_output=True, text=True
        ).stdout
        changed = [text for text in shown.splitlines() if text[:1] in "+-" and text[:3] not in ("+++", "---")]
        print(f"\n{name}: {outcomes[name]}", *changed, sep="\n")
    killed = len(outcomes) - len(alive)
    share = killed / len(outcomes) if outcomes else 0.0
    figures = ", ".join(f"{count} {outcome}" for outcome, count in Counter(outcomes.values()).most_common())
    print(f"\n{killed} of {len(outcomes)} mutants noticed ({share:.1%}): {figures}")
    return 0 if share >= LEAST_KILLED else 1


if __name__ == "__main__":
    sys.exit(main())
