# SPDX-License-Identifier: Apache-2.0
"""
``make release-check``: build both archives in a folder of their own, and look at them as a stranger would.

The rule for versions: the newest section of CHANGELOG.md that says anything is

* a version with its day, ``## [0.2.0] - 2026-12-01``: it is this package's ``__version__``, which is being released; or
* ``## [Unreleased]``: ``__version__`` is what these changes will be released as, so no section has its number yet.

With ``--release`` only the first will do.
"""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "airflow_provider_kie"

SECTION = re.compile(
    r"^## \[(?P<name>[^\]]+)\](?: - (?P<day>\S+))?\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")

#: What must be in no file of a wheel, and what to call it.
FORBIDDEN = {
    "a canary of the tests": re.compile(rb"canary", re.IGNORECASE),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY"),
    # The ids of the examples consist of zeros for the most part.
    "what looks like an API key": re.compile(
        rb"\b(?:sk-[A-Za-z0-9]{16,}|(?![0-9a-f]*0{12})[0-9a-f]{32}|Bearer [A-Za-z0-9]{16,})\b"
    ),
    "a path of a machine": re.compile(rb"(?:/home/|/Users/|/root/|/tmp/|[A-Z]:\\+Users\\+)\w"),
}
CLASSIFIERS = {"Framework :: Apache Airflow", "Framework :: Apache Airflow :: Provider", "Typing :: Typed"}


class Archives(NamedTuple):
    """What was built."""

    sdist: Path
    wheel: Path

    def files(self) -> dict[str, bytes]:
        """Return what is in the wheel, by name."""
        with zipfile.ZipFile(self.wheel) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}

    def source_names(self) -> set[str]:
        """Return what is in the sdist, without the folder that holds it all."""
        with tarfile.open(self.sdist) as archive:
            return {member.name.partition("/")[2] for member in archive if member.isfile()}

    def info(self, name: str) -> str:
        """
        Return a file of the wheel's metadata.

        :param name: such as ``METADATA``.
        """
        (found,) = (text for path, text in self.files().items() if path.endswith(f".dist-info/{name}"))
        return found.decode()

    def metadata(self) -> Message:
        """Return the wheel's metadata."""
        return message_from_string(self.info("METADATA"))


def version() -> str:
    """Return the package's ``__version__``."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    return found[1] if found else ""


# --- The checks: each yields what is wrong


def check_version(changelog: str, number: str, *, release: bool) -> Iterator[str]:
    """
    See whether version and changelog agree.

    :param changelog: the text of CHANGELOG.md.
    :param number: the package's version.
    :param release: whether this is to be released now.
    """
    sections = [found.groupdict() for found in SECTION.finditer(changelog)]
    newest = next((section for section in sections if section["text"].strip()), None)
    if not VERSION.fullmatch(number):
        yield f"__version__ {number!r} is not of the form 1.2.3"
    if newest is None:
        yield "CHANGELOG.md has no section that says anything"
    elif newest["name"] == "Unreleased":
        if release:
            yield f"CHANGELOG.md still has entries below Unreleased; name that section [{number}] and give it its day"
        if number in {section["name"] for section in sections}:
            yield f"there are unreleased changes, but {number} is released already; raise __version__"
    else:
        if newest["name"] != number:
            yield f"CHANGELOG.md speaks of {newest['name']}, __version__ of {number}"
        if not _is_day(newest["day"]):
            yield f"section [{newest['name']}] of CHANGELOG.md has no day of the form 2026-12-01"


def _is_day(text: str | None) -> bool:
    try:
        return bool(text) and date.fromisoformat(str(text)).isoformat() == text
    except ValueError:
        return False


def check_names(files: set[str], expected: set[str]) -> Iterator[str]:
    """
    See whether the wheel holds the package, its metadata and nothing else.

    :param files: the names in the wheel.
    :param expected: those of the package's sources.
    """
    metadata = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    inner = {name for name in files if not re.match(r"[^/]+\.dist-info/", name)}
    beside = {name.partition(".dist-info/")[2] for name in files - inner}
    for what, difference in (
        ("is missing in the wheel", (expected - inner) | (metadata - beside)),
        ("does not belong into the wheel", (inner - expected) | (beside - metadata)),
    ):
        yield from (f"{name} {what}" for name in sorted(difference))


def check_contents(files: dict[str, bytes]) -> Iterator[str]:
    """
    See whether something stands in the wheel that is nobody's business.

    :param files: what is in the wheel, by name.
    """
    here = re.compile(re.escape(str(ROOT)).encode())
    for name, content in files.items():
        for what, pattern in {**FORBIDDEN, "the path of this checkout": here}.items():
            if found := pattern.search(content):
                yield f"{name} holds {what}: {found[0][:40]!r}"


def check_metadata(metadata: Message, project: dict[str, object], number: str) -> Iterator[str]:
    """
    See whether an installer and an index are told what pyproject.toml says.

    :param metadata: the wheel's.
    :param project: the table ``project`` of pyproject.toml.
    :param number: the package's version.
    """
    extras = dict(project["optional-dependencies"])  # type: ignore[call-overload]  # a table of lists
    wanted: dict[str, tuple[object, object]] = {
        "Name": (metadata["Name"], project["name"]),
        "Version": (metadata["Version"], number),
        "License-Expression": (metadata["License-Expression"], "Apache-2.0"),
        "License-File": (metadata.get_all("License-File"), ["LICENSE"]),
        "Requires-Python": (metadata["Requires-Python"], project["requires-python"]),
        "Provides-Extra": (set(metadata.get_all("Provides-Extra", [])), set(extras)),
        "Classifier": (CLASSIFIERS - set(metadata.get_all("Classifier", [])), set()),
    }
    for name, (found, expected) in wanted.items():
        if found != expected:
            yield f"metadata {name}: {found!r}, not {expected!r}"
    needs = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    if not any(need.startswith("apache-airflow") and ">=2.11" in need and "!=3.0" in need for need in needs):
        yield f"metadata does not say which Airflow is needed: {needs}"
    if any(" @ " in need or "file:" in need for need in metadata.get_all("Requires-Dist", [])):
        yield "a dependency is a file or a URL, which an index refuses"


def check_entry_points(text: str, files: set[str]) -> Iterator[str]:
    """
    See whether what the entry points name is in the wheel.

    :param text: ``entry_points.txt``.
    :param files: the names in the wheel.
    """
    parsed = configparser.ConfigParser(delimiters=("=",))
    parsed.read_string(text)
    for group in ("apache_airflow_provider", "console_scripts", "pytest11"):
        for name, target in parsed.items(group) if parsed.has_section(group) else [("-", "")]:
            module = target.partition(":")[0].replace(".", "/")
            if not {f"{module}.py", f"{module}/__init__.py"} & files:
                yield f"entry point {group}, {name}: the wheel has no {target or 'such group'}"


def check_sdist(names: set[str], tracked: set[str]) -> Iterator[str]:
    """
    See whether the sdist holds only what is under version control, and enough to run the tests.

    :param names: the names in the sdist.
    :param tracked: the names that git knows; empty where there is no git.
    """
    if tracked:
        yield from (f"{name} is in the sdist, but not in git" for name in sorted(names - tracked - {"PKG-INFO"}))
    for name in ("CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml", "tests/conftest.py"):
        if name not in names:
            yield f"{name} is missing in the sdist"


# --- Doing it


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _build(folder: str) -> Archives:
    built = _run(sys.executable, "-m", "build", "--outdir", folder)
    if built.returncode:
        raise SystemExit(f"python -m build failed:\n{built.stdout}{built.stderr}")
    (sdist,), (wheel,) = Path(folder).glob("*.tar.gz"), Path(folder).glob("*.whl")
    return Archives(sdist, wheel)


def _twine(archives: Archives) -> Iterator[str]:
    checked = _run(sys.executable, "-m", "twine", "check", "--strict", str(archives.sdist), str(archives.wheel))
    if checked.returncode:
        yield f"twine check: {checked.stdout.strip()}{checked.stderr.strip()}"


def main() -> int:
    """Check, say what was found, and return the exit code."""
    parser = argparse.ArgumentParser(description="Build the release and look at it.")
    parser.add_argument("--release", action="store_true", help="the newest entry of the changelog must be this version")
    options = parser.parse_args()
    number = version()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tracked = set(_run("git", "ls-files").stdout.splitlines())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*") if path.is_file()}
    sources = {name for name in sources if name.endswith((".py", "/py.typed"))}
    with tempfile.TemporaryDirectory(prefix="release-check-") as folder:
        archives = _build(folder)
        files, changelog = archives.files(), (ROOT / "CHANGELOG.md").read_text()
        checks: dict[str, Callable[[], Iterator[str]]] = {
            "version and changelog": lambda: check_version(changelog, number, release=options.release),
            "names in the wheel": lambda: check_names(set(files), sources),
            "contents of the wheel": lambda: check_contents(files),
            "metadata": lambda: check_metadata(archives.metadata(), project, number),
            "entry points": lambda: check_entry_points(archives.info("entry_points.txt"), set(files)),
            "names in the sdist": lambda: check_sdist(archives.source_names(), tracked),
            "twine check": lambda: _twine(archives),
        }
        results = {name: list(check()) for name, check in checks.items()}
        for archive in archives:
            print(f"{archive.name}: {archive.stat().st_size:,} bytes")
    for name, problems in results.items():
        print(f"{'NO' if problems else 'ok'}  {name}")
        for problem in problems:
            print(f"      {problem}")
    if not tracked:
        print("    (no git here, so nobody knows what in the sdist is meant to be there)")
    bad = any(results.values())
    print(f"{number} is {'not fit for release' if bad else 'as it should be'}.")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
