# SPDX-License-Identifier: Apache-2.0
"""
A pytest fixture that lets DAGs under test talk to a KIE on loopback.

Name the plugin in the ``conftest.py`` of the DAG project, with ``airflow-provider-kie[emulator]`` installed:

.. code-block:: python

    pytest_plugins = ["airflow_provider_kie.testing"]

and ask for the fixture in a test. Whatever uses the connection ``kie_default`` then reaches the emulator:

.. code-block:: python

    def test_my_dag_waits_through_a_rate_limit(kie_emulator):
        kie_emulator.play("rate-limited", "pending", endpoint="record-info")

        my_dag.test()

        assert kie_emulator.accepted_submits == 1
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_kie.emulator.server import KieEmulator

__all__ = ["kie_emulator"]


@pytest.fixture
def kie_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[KieEmulator]:
    """A fresh emulator: conversions take 0.2 s, submits are not limited, ``kie_default`` leads to it."""
    with KieEmulator(conversion_seconds=0.2, submits_per_window=None) as emulator:
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", emulator.connection_json())
        yield emulator
