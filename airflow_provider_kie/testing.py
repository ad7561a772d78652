# SPDX-License-Identifier: Apache-2.0
"""
A pytest fixture that connects DAGs under test to the emulator, a KIE on loopback.

With ``airflow-provider-kie[emulator]`` installed, pytest finds the fixture by itself. In a test that requests it,
everything that uses the connection ``kie_default`` reaches the emulator:

.. code-block:: python

    def test_my_dag_waits_through_a_rate_limit(kie_emulator):
        kie_emulator.play("rate-limited", "pending", endpoint="record-info")

        my_dag.test()

        assert kie_emulator.accepted_submits == 1

If pytest does not load plugins by itself (``PYTEST_DISABLE_PLUGIN_AUTOLOAD``), name it in the ``conftest.py`` of the
DAG project, which is harmless otherwise:

.. code-block:: python

    pytest_plugins = ["airflow_provider_kie.testing"]
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

# pytest loads this module in every run, before a project has configured Airflow, so all other imports are late.
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_kie.emulator.server import KieEmulator

__all__ = ["kie_emulator"]

#: The client's own pauses, which are up to minutes in life, see :class:`airflow_provider_kie.times.Times`.
SHORT_TIMES: Final = {
    "after_deferral": 0.0,  # dag.test() has no scheduler that must first record a deferral
    "rate_limit": sys.maxsize,  # the emulator refuses no submits, so none need be held back
    "rate_window": 0.1,
    "rate_jitter": 0.02,
    "shortest_rate_pause": 0.01,
    "first_repeat_pause": 0.01,
    "maintenance_pause": 0.05,
    "first_download_pause": 0.01,
    "grace": 0.6,
    "settling_pause": 0.05,
    "ledger_look": 0.05,
    "longest_submit": 1.0,
}


@pytest.fixture
def kie_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[KieEmulator]:
    """
    A fresh emulator: jobs take 0.2 s, submits are not limited, pauses are short, ``kie_default`` points to it.

    The test fails before it begins if Airflow finds another connection, which could cost real credits, or if the extra
    ``emulator`` is not installed.
    """
    try:
        from airflow_provider_kie.emulator.server import KieEmulator
    except ModuleNotFoundError as error:
        pytest.fail(f"{error.name} is missing: pip install 'airflow-provider-kie[emulator]'", pytrace=False)
    from airflow_provider_kie.connection import DEFAULT_CONN_ID
    from airflow_provider_kie.times import switched

    with KieEmulator(conversion_seconds=0.2, submits_per_window=None) as emulator:
        monkeypatch.setenv(f"AIRFLOW_CONN_{DEFAULT_CONN_ID.upper()}", emulator.connection_json())
        for name in ("no_proxy", "NO_PROXY"):
            if (others := os.environ.get(name, "").strip()) != "*":  # a wildcard only if it stands alone
                monkeypatch.setenv(name, ",".join(filter(None, (others, "127.0.0.1"))))
        _put_environment_before_secrets_backend(monkeypatch)
        _check_connection(emulator)
        with switched(**SHORT_TIMES):
            yield emulator


def _put_environment_before_secrets_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this connection from the configured secrets backends, which Airflow reads before the environment."""
    from airflow.providers.common.compat.sdk import conf

    configured = (("secrets", "backend"), ("workers", "secrets_backend"))
    for backend in {conf.getimport(section, option, fallback=None) for section, option in configured} - {None}:
        for name in ("get_connection", "aget_connection"):
            if (original := getattr(backend, name, None)) is not None:
                monkeypatch.setattr(backend, name, _for_other_connections(original))


def _for_other_connections(original: Callable[..., Any]) -> Callable[..., Any]:
    from airflow_provider_kie.connection import DEFAULT_CONN_ID

    def get_connection(self: Any, conn_id: str, *args: Any, **kwargs: Any) -> Any:
        return None if conn_id == DEFAULT_CONN_ID else original(self, conn_id, *args, **kwargs)

    return get_connection


def _check_connection(emulator: KieEmulator) -> None:
    from airflow.providers.common.compat.sdk import AirflowException, BaseHook

    from airflow_provider_kie.connection import DEFAULT_CONN_ID
    from airflow_provider_kie.redaction import quoted

    try:
        found = BaseHook.get_connection(DEFAULT_CONN_ID)
    except AirflowException as error:
        pytest.fail(
            f"Airflow does not find the connection {quoted(DEFAULT_CONN_ID)} that kie_emulator set: {error}",
            pytrace=False,
        )
    if (found.host, found.password) != (emulator.url, emulator.api_key):
        pytest.fail(
            f"Airflow gives another connection {quoted(DEFAULT_CONN_ID)} than the one that kie_emulator set, with host "
            f"{quoted(found.host)}, so this test could spend credits. Something comes before the environment, such as "
            "a secrets backend that wraps others: leave it out of the tests' configuration.",
            pytrace=False,
        )
