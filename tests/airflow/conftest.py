# SPDX-License-Identifier: Apache-2.0
"""A real metadata database for the tests below."""

from __future__ import annotations

import pytest

from airflow_provider_kie.ledger import chain
from tests.processes import run_python


@pytest.fixture(scope="session", autouse=True)
def metadata_database():
    done = run_python("-m", "airflow", "db", "migrate")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def short_patience(monkeypatch):
    """Let a try wait for the id of a claim for a second, where requests time out after three."""
    monkeypatch.setattr(chain, "NOTE_SECONDS", 1.0 - chain.SEND_WITHIN - 2 * 3.0)
    monkeypatch.setattr(chain, "LOOK_EVERY", 0.02)
