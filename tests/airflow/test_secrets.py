# SPDX-License-Identifier: Apache-2.0
"""The key stays in the connection: not in a log, an exception, XCom, a trigger's row, a rendered field or a URL."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from airflow_provider_kie.emulator import KieEmulator
from airflow_provider_kie.hooks.kie import KieHook
from tests.conftest import AIRFLOW_HOME
from tests.dag_runs import load_dag, run_dag

CANARY = "canary-7f3a91c0d2e84b56"
HMAC_CANARY = "hmac-canary-55d1"
PROXY_CANARY = "proxy-canary-91aa"


@pytest.fixture
def kie(monkeypatch, short_times):
    with KieEmulator(api_key=CANARY, conversion_seconds=0.2, submits_per_window=None) as emulator:
        connection = json.loads(emulator.connection_json()) | {"extra": {"webhook_hmac_key": HMAC_CANARY}}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
        yield emulator


def files_with(secret: str) -> list[Path]:
    return [path for path in AIRFLOW_HOME.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_nothing_that_a_run_leaves_behind_holds_the_key(kie, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        run = run_dag(load_dag("every_way"))
        assert run.state == "success"
        kie.play("pending", "wrong-key-echoed", endpoint="record-info", repeat=True)
        failed = run_dag(load_dag("every_way"))
        assert failed.state == "failed"
    output = capfd.readouterr()
    for secret in (CANARY, HMAC_CANARY):
        assert secret not in caplog.text + output.out + output.err
        assert files_with(secret) == []
    assert "Unauthorized: invalid key ***" in caplog.text + output.out + output.err


def test_the_key_is_only_sent_to_the_connections_host(kie):
    hook = KieHook()
    kie_task_id = kie.create_conversion(finished=True)
    with KieEmulator(api_key=CANARY) as other_host:
        url = hook.get_wav_conversion(kie_task_id)["wav_url"].replace(kie.url, other_host.url)
        hook.get_conn().get(url, timeout=10)
        assert [request["authorized"] for request in other_host.requests()] == [False]


def test_no_repr_shows_a_secret(monkeypatch):
    connection = {
        "conn_type": "kie",
        "password": CANARY,
        "extra": {"webhook_hmac_key": HMAC_CANARY, "proxy": f"http://user:{PROXY_CANARY}@127.0.0.1:9"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    hook = KieHook()
    shown = repr(hook) + repr(hook.settings) + str(hook.settings) + repr(hook.get_conn()) + repr(hook.get_conn().auth)
    for secret in (CANARY, HMAC_CANARY, PROXY_CANARY):
        assert secret not in shown
    ok, message = hook.test_connection()
    assert not ok
    assert PROXY_CANARY not in message
