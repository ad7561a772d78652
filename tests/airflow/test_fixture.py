# SPDX-License-Identifier: Apache-2.0
"""The fixture ``kie_emulator`` in a test run of its own, where something else also knows ``kie_default``."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.processes import run_python

PLUGIN = "airflow_provider_kie.testing"
NAMED = f'pytest_plugins = ["{PLUGIN}"]\n'
INNER_TEST = """
import time


def test_it_reaches_the_emulator(kie_emulator):
    from airflow_provider_kie.hooks.kie import KieHook

    assert KieHook().settings.base_url == kie_emulator.url
    kie_emulator.play("rate-limited", endpoint="credit")
    started = time.monotonic()
    assert KieHook().get_credits() > 0
    assert time.monotonic() - started < 5  # of the 10 seconds that it takes in life
    assert KieHook("another").settings.api_key == "key-of-another-account"
"""


@pytest.fixture
def run_inner_test(tmp_path: Path):
    """Run the test above with a secrets backend that has connections of a real account."""
    real = {"conn_type": "kie", "password": "key-of-the-real-account", "host": "http://127.0.0.1:9"}
    another = real | {"password": "key-of-another-account"}
    (tmp_path / "connections.json").write_text(json.dumps({"kie_default": real, "another": another}))
    (tmp_path / "test_inner.py").write_text(INNER_TEST)

    def run(conftest: str = NAMED, **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "conftest.py").write_text(conftest)
        for section in ("SECRETS__BACKEND", "WORKERS__SECRETS_BACKEND"):
            environment[f"AIRFLOW__{section}"] = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
            file = {"connections_file_path": str(tmp_path / "connections.json")}
            environment[f"AIRFLOW__{section}_KWARGS"] = json.dumps(file)
        argv = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_inner.py")
        return run_python(*argv, cwd=tmp_path, AIRFLOW_HOME=str(tmp_path), **environment)

    return run


def test_it_comes_before_a_secrets_backend_and_a_proxy(run_inner_test):
    done = run_inner_test(http_proxy="http://127.0.0.1:9", no_proxy="localhost")
    assert done.returncode == 0, done.stdout


def test_it_fails_where_airflow_gives_another_connecti(run_inner_test):
    done = run_inner_test(
        NAMED
        + """
import pytest


@pytest.fixture(autouse=True)
def something_that_wins(monkeypatch):
    from airflow.providers.common.compat.sdk import BaseHook, Connection

    other = Connection(conn_id="kie_default", host="https://api.kie.ai", password="key-of-the-real-account")
    monkeypatch.setattr(BaseHook, "get_connection", lambda conn_id: other)
"""
    )
    assert done.returncode == 1
    assert "Airflow gives another connection 'kie_default'" in done.stdout
    assert "https://api.kie.ai" in done.stdout
    assert "key-of-the-real-account" not in done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """Return a path for Python on which the package is as if it had just been installed, with its entry points."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    about = tmp_path / "installed" / "kie-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kie\nVersion: 1\n")
    lines = (f"{name} = {target}\n" for name, target in project["entry-points"]["pytest11"].items())
    (about / "entry_points.txt").write_text("[pytest11]\n" + "".join(lines))
    return os.pathsep.join(filter(None, (str(about.parent), os.environ.get("PYTHONPATH"))))


@pytest.mark.parametrize("conftest", ["", NAMED], ids=["found", "found and named"])
def test_pytest_finds_it_by_itself(run_inner_test, installed: str, conftest: str) -> None:
    done = run_inner_test(conftest, PYTHONPATH=installed, PYTEST_ADDOPTS="-W error::pytest.PytestAssertRewriteWarning")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_without_the_extra_only_the_fixture_fails(run_inner_test, tmp_path: Path, installed: str) -> None:
    (tmp_path / "test_inner.py").write_text(INNER_TEST + "\n\ndef test_of_something_else():\n    pass\n")
    done = run_inner_test("import sys\n\nsys.modules['uvicorn'] = None\n", PYTHONPATH=installed)
    assert "1 passed, 1 error" in done.stdout
    assert "uvicorn is missing: pip install 'airflow-provider-kie[emulator]'" in done.stdout


def test_the_plugin_can_be_switched_off(run_inner_test, installed: str) -> None:
    done = run_inner_test("", PYTHONPATH=installed, PYTEST_ADDOPTS=f"-p no:{PLUGIN}")
    assert "fixture 'kie_emulator' not found" in done.stdout
