# SPDX-License-Identifier: Apache-2.0
"""A real metadata database for the tests below, and what the tests of batches need."""

from __future__ import annotations

import json

import pytest

from airflow_provider_kie.ledger.storage import init_ledger
from airflow_provider_kie.operators.batch import ConvertCatalogToWavOperator, KieBatchOperator
from airflow_provider_kie.times import switched
from tests.jobs import IMAGE_MODEL
from tests.processes import run_python
from tests.task_instance import Task


@pytest.fixture(scope="session", autouse=True)
def metadata_database():
    done = run_python("-m", "airflow", "db", "migrate")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def short_patience():
    """Let a try wait for the id of a claim for a second."""
    with switched(longest_submit=1.0, ledger_look=0.02):
        yield


@pytest.fixture
def no_patience():
    """Let a try wait for the id of a claim for a moment."""
    with switched(longest_submit=0.1, ledger_look=0.02):
        yield


@pytest.fixture
def ledger(tmp_path):
    return init_ledger(f"file://{tmp_path}/ledger").url


@pytest.fixture
def limited(kie):
    """An emulator that refuses more than 20 submits within half a second, and operators that know."""
    kie.configure(submits_per_window=20, window_seconds=0.5)
    with switched(rate_window=0.5):
        yield kie


@pytest.fixture
def batch(kie, ledger, tmp_path):
    """Return a batch of items, each of whose tries is a new operator."""

    def of(items, operator=KieBatchOperator, **arguments):
        kind = {"tracks": items} if operator is ConvertCatalogToWavOperator else {"items": items}
        if "items" in kind and "family" not in arguments:
            kind["model"] = IMAGE_MODEL
        usual = {"manifest": str(tmp_path / "manifest.jsonl"), "ledger": ledger, "poll_interval": 0.05, "timeout": 30}
        return Task(operator, None, **usual | kind | arguments)

    return of


@pytest.fixture
def rows(tmp_path):
    """Return the lines of the manifest."""
    return lambda: [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
