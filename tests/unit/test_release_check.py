# SPDX-License-Identifier: Apache-2.0
"""The release check refuses what it is there to refuse; building is left to ``make release-check`` itself."""

from __future__ import annotations

import tomllib
from email.message import Message

import pytest

import airflow_provider_kie
from scripts import release_check

PROJECT = tomllib.loads((release_check.ROOT / "pyproject.toml").read_text())["project"]
UNRELEASED = "## [Unreleased]\n\n- new\n\n"
SOURCES = {"airflow_provider_kie/__init__.py", "airflow_provider_kie/py.typed"}
BESIDE = {f"x-1.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}


def dated(version: str, day: str = " - 2026-12-01") -> str:
    return f"## [{version}]{day}\n\n- said\n\n"


@pytest.mark.parametrize(
    ("changelog", "version", "release", "wrong"),
    [
        (UNRELEASED, "0.1.0", False, ""),
        (UNRELEASED, "0.1.0", True, "still has entries below Unreleased"),
        (UNRELEASED + dated("0.1.0"), "0.2.0", False, ""),
        (UNRELEASED + dated("0.1.0"), "0.1.0", False, "raise __version__"),
        ("## [Unreleased]\n\n" + dated("0.2.0") + dated("0.1.0"), "0.2.0", True, ""),
        (dated("0.2.0"), "0.2.0", False, ""),
        (dated("0.2.0"), "0.3.0", True, "speaks of 0.2.0, __version__ of 0.3.0"),
        (dated("0.2.0", ""), "0.2.0", True, "has no day"),
        (dated("0.2.0", " - 2026-13-01"), "0.2.0", True, "has no day"),
        (dated("1"), "1", True, "not of the form 1.2.3"),
        ("# Changelog\n", "0.1.0", False, "no section that says anything"),
    ],
)
def test_version_and_changelog_agree(changelog: str, version: str, release: bool, wrong: str) -> None:
    problems = list(release_check.check_version(changelog, version, release=release))
    assert len(problems) == bool(wrong)
    assert all(wrong in problem for problem in problems)


@pytest.mark.parametrize(
    ("more", "less", "wrong"),
    [
        (set(), set(), []),
        ({"tests/test_x.py"}, set(), ["tests/test_x.py does not belong into the wheel"]),
        ({"airflow_provider_kie/notes.txt"}, set(), ["airflow_provider_kie/notes.txt does not belong into the wheel"]),
        (set(), {"airflow_provider_kie/py.typed"}, ["airflow_provider_kie/py.typed is missing in the wheel"]),
        (set(), {"x-1.dist-info/licenses/LICENSE"}, ["licenses/LICENSE is missing in the wheel"]),
    ],
)
def test_the_wheel_holds_the_package_and_nothing_else(more: set[str], less: set[str], wrong: list[str]) -> None:
    assert list(release_check.check_names((SOURCES | BESIDE | more) - less, SOURCES)) == wrong


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"KEY = 'kie-emulator-key'", ""),
        (b"music_task_id = '5c790000000000000000000000000be8'", ""),
        (b"key = 'canary-key-0123456789'", "a canary"),
        (b"-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        (b"api_key = '" + b"0123456789abcdef" * 2 + b"'", "an API key"),
        (b"curl -H 'Authorization: Bearer abcdefghijklmnopq'", "an API key"),
        (b'CA = "/home/somebody/ca.pem"', "a path of a machine"),
        (b'CA = "C:\\\\Users\\\\somebody"', "a path of a machine"),
        (str(release_check.ROOT).encode(), "path of"),
    ],
)
def test_the_wheel_holds_nobodys_secrets_and_paths(content: bytes, wrong: str) -> None:
    problems = list(release_check.check_contents({"a.py": b"# fine", "b.py": content}))
    assert bool(problems) == bool(wrong)
    assert all(wrong in problem and "b.py" in problem for problem in problems[:1])


def metadata(**changes: str | None) -> Message:
    message = Message()
    for name, value in (
        {
            "Name": PROJECT["name"],
            "Version": "0.1.0",
            "License-Expression": "Apache-2.0",
            "License-File": "LICENSE",
            "Requires-Python": PROJECT["requires-python"],
        }
        | {name.replace("_", "-"): value for name, value in changes.items()}
    ).items():
        if value is not None:
            message[name] = value
    for header, values in (
        ("Provides-Extra", PROJECT["optional-dependencies"]),
        ("Classifier", release_check.CLASSIFIERS),
        ("Requires-Dist", ["apache-airflow!=3.0.*,>=2.11.0"]),
    ):
        for value in values:
            message[header] = value
    return message


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, []),
        ({"Version": "0.2.0"}, ["metadata Version: '0.2.0', not '0.1.0'"]),
        ({"License_Expression": None}, ["metadata License-Expression: None, not 'Apache-2.0'"]),
        ({"Requires_Python": ">=3.10"}, ["metadata Requires-Python: '>=3.10', not '>=3.11'"]),
    ],
)
def test_the_metadata_is_that_of_the_project(changes: dict[str, str | None], wrong: list[str]) -> None:
    assert list(release_check.check_metadata(metadata(**changes), PROJECT, "0.1.0")) == wrong


def test_an_entry_point_leads_into_the_wheel() -> None:
    text = "[apache_airflow_provider]\nprovider_info = airflow_provider_kie.get_provider_info:get_provider_info\n"
    problems = list(release_check.check_entry_points(text, SOURCES))
    assert [problem.partition(":")[0] for problem in problems] == [
        "entry point apache_airflow_provider, provider_info",
        "entry point console_scripts, -",
        "entry point pytest11, -",
    ]


def test_the_sdist_holds_only_what_is_under_version_control() -> None:
    enough = {"CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml", "tests/conftest.py"}
    assert list(release_check.check_sdist({*enough, "PKG-INFO"}, enough)) == []
    assert list(release_check.check_sdist({*enough, "notes.txt"}, enough)) == [
        "notes.txt is in the sdist, but not in git"
    ]
    assert list(release_check.check_sdist(enough - {"LICENSE"}, enough)) == ["LICENSE is missing in the sdist"]


def test_the_version_is_the_packages() -> None:
    assert release_check.version() == airflow_provider_kie.__version__
