# SPDX-License-Identifier: Apache-2.0
"""The fixture ``kie_emulator`` in a test run of its own, where something else also knows ``kie_default``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

INNER_TEST = """
pytest_plugins = ["airflow_provider_kie.testing"]


def test_it_reaches_the_emulator(kie_emulator):
    from airflow_provider_kie.hooks.kie import KieHook

    assert KieHook().settings.base_url == kie_emulator.url
    assert KieHook().get_credits() > 0
    assert KieHook("another").settings.api_key == "key-of-another-account"
"""


@pytest.fixture
def run_inner_test(tmp_path: Path):
    """Run the test above with a secrets backend that has connections of a real account."""
    real = {"conn_type": "kie", "password": "key-of-the-real-account", "host": "http://127.0.0.1:9"}
    another = real | {"password": "key-of-another-account"}
    (tmp_path / "connections.json").write_text(json.dumps({"kie_default": real, "another": another}))
    (tmp_path / "test_inner.py").write_text(INNER_TEST)

    def run(conftest: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "conftest.py").write_text(conftest)
        for section in ("SECRETS__BACKEND", "WORKERS__SECRETS_BACKEND"):
            environment[f"AIRFLOW__{section}"] = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
            file = {"connections_file_path": str(tmp_path / "connections.json")}
            environment[f"AIRFLOW__{section}_KWARGS"] = json.dumps(file)
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_inner.py"],
            env=os.environ | {"AIRFLOW_HOME": str(tmp_path)} | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_a_secrets_backend_keeps_all_connections_but_this_one(run_inner_test):
    done = run_inner_test()
    assert done.returncode == 0, done.stdout


def test_a_proxy_of_the_environment_is_not_asked(run_inner_test):
    done = run_inner_test(http_proxy="http://127.0.0.1:9", no_proxy="localhost")
    assert done.returncode == 0, done.stdout


def test_it_fails_at_once_where_airflow_gives_another_connection(run_inner_test):
    done = run_inner_test(
        """
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
