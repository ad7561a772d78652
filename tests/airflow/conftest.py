# SPDX-License-Identifier: Apache-2.0
"""A real metadata database for the tests below."""

from __future__ import annotations

import pytest

from tests.processes import run_python


@pytest.fixture(scope="session", autouse=True)
def metadata_database():
    done = run_python("-m", "airflow", "db", "migrate")
    assert done.returncode == 0, done.stderr
