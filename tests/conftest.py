# SPDX-License-Identifier: Apache-2.0
"""An Airflow home of the tests' own, and times that do not keep anybody waiting."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

# Airflow reads its configuration when it is first imported, so this comes before any such import.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-provider-kie-tests-"))
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)
os.environ.update(
    {
        "AIRFLOW_HOME": str(AIRFLOW_HOME),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{AIRFLOW_HOME / 'airflow.db'}",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(AIRFLOW_HOME / "dags"),
    }
)
# Airflow 3 only runs DAGs of its own folder.
TESTS = Path(__file__).resolve().parent
(AIRFLOW_HOME / "dags").mkdir()
for source in (*TESTS.glob("dags/*.py"), *TESTS.parent.glob("example_dags/*.py")):
    shutil.copy(source, AIRFLOW_HOME / "dags")
for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN_", "KIE_"))]:
    del os.environ[name]

# A shell makes what it starts in the background ignore Ctrl-C, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis  # noqa: E402 - after what must be set first
import pytest  # noqa: E402 - the same

# The same examples in every run, and no opinion about how fast a busy machine is.
hypothesis.settings.register_profile("calm", deadline=None, derandomize=True)
hypothesis.settings.load_profile("calm")

pytest_plugins = ["airflow_provider_kie.testing"]


@pytest.fixture(autouse=True)
def _no_pause_left_over():
    """Each test starts without a cool-down or submits of an earlier one."""
    from airflow_provider_kie.hooks.pacing import COOLDOWNS, PACER

    COOLDOWNS.clear()
    PACER.clear()


@pytest.fixture
def short_times():
    """Shrink the pauses and graces, which are a minute in life, to fractions of a second."""
    from airflow_provider_kie.times import switched

    waits = {"grace": 0.15, "settling_pause": 0.04, "shortest_poll_pause": 0.01, "after_deferral": 0.02}
    limits = {"rate_window": 0.04, "rate_jitter": 0.02, "shortest_rate_pause": 0.01}
    with switched(**waits, **limits, first_repeat_pause=0.01, maintenance_pause=0.02, first_download_pause=0.001):
        yield


@pytest.fixture
def lookups(monkeypatch):
    """The connections that are looked up in the triggerer, one entry for each time."""
    from airflow_provider_kie.hooks import kie_async

    original, seen = kie_async.get_async_connection, []

    async def counted(conn_id):
        seen.append(conn_id)
        return await original(conn_id)

    monkeypatch.setattr(kie_async, "get_async_connection", counted)
    return seen


@pytest.fixture
def kie_connection(monkeypatch):
    """Define ``kie_default`` at api.kie.ai, for tests in which requests-mock answers."""
    key = "canary-key-0123456789"
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", f'{{"conn_type": "kie", "password": "{key}"}}')
    return key


@pytest.fixture
def kie_command(capfd, monkeypatch):
    """Run a command in this process; the exit code, standard output and standard error."""
    from tests.commands import in_this_process

    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # which the command sets otherwise, for the whole process
    return in_this_process(capfd)


@pytest.fixture(scope="session")
def running_emulator():
    """One emulator for the whole run; tests ask for ``kie``."""
    from airflow_provider_kie.emulator import KieEmulator

    with KieEmulator(conversion_seconds=0.2, submits_per_window=None) as emulator:
        yield emulator


@pytest.fixture
def kie(running_emulator, monkeypatch, short_times):
    """An emulator that knows nothing, behind ``kie_default``, which waits three seconds for an answer."""
    running_emulator.reset()
    connection = json.loads(running_emulator.connection_json())
    connection["extra"]["timeout"] = 3.0
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    return running_emulator
