# SPDX-License-Identifier: Apache-2.0
"""The table of cases over a real socket: requests and aiohttp must come to the same result and the same words."""

from __future__ import annotations

import errno
import json
import socket
import ssl
import threading

import pytest

from airflow_provider_kie.api import common, wav
from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.api.job import read_job
from airflow_provider_kie.emulator.answers import ANSWERS
from airflow_provider_kie.exceptions import KieConfigurationError, KieConnectionError, KieError
from tests.cases import COMMON, TABLE
from tests.file_server import Act, FileServer
from tests.transports import each_transport, outcome_of_both

#: Answers that any call may meet, and those to a submit; what a record means is the parser's affair.
ENVELOPES = [name for name in TABLE if ANSWERS[name].endpoint in ("any", "submit")]
RECORDS = ["pending", "success", "task-unknown"]
SUBMIT = wav.convert_to_wav("music", "track", "https://api.example.com/callback")


# Each answer is played again and again, because aiohttp by itself repeats a GET that is cut off.


@pytest.mark.parametrize("name", [name for name in ENVELOPES if TABLE[name].submit is not None])
def test_submit(kie, name):
    kie.play(name, repeat=True)
    outcome, expected = outcome_of_both(SUBMIT), TABLE[name].submit
    assert outcome.reused == (expected == "reused") if isinstance(expected, str) else type(outcome) is expected


@pytest.mark.parametrize("name", RECORDS)
def test_read(kie, name):
    kie_task_id = kie.create_conversion(finished=True)
    kie.play(name, repeat=True)
    outcome = outcome_of_both(read_job(WAV, kie_task_id))
    assert outcome["kie_task_id"] == kie_task_id if TABLE[name].read == "record" else outcome is None


@pytest.mark.parametrize("name", COMMON)
def test_common_endpoints(kie, name):
    calls = {"credit": common.credit(), "download-url": common.download_url("https://tempfile.example/s/1.wav")}
    kie.play(name, repeat=True)
    outcome_of_both(calls[ANSWERS[name].endpoint])


@each_transport
def test_a_refused_connection_was_certainly_not_sent(kie, transport, unused_tcp_port, monkeypatch):
    host = f"http://127.0.0.1:{unused_tcp_port}"
    monkeypatch.setenv(
        "AIRFLOW_CONN_KIE_DEFAULT", json.dumps({"conn_type": "kie", "password": "kie-emulator-key", "host": host})
    )
    with pytest.raises(KieError, match="could not connect") as caught:
        transport(SUBMIT)
    assert caught.value.nothing_created


@each_transport
@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (OSError(errno.EMFILE, "Too many open files"), KieConnectionError),
        (ssl.SSLError("no certificate or crl found"), KieConfigurationError),
        (FileNotFoundError(), KieConfigurationError),
    ],
)
def test_certificates_that_cannot_be_read_for_now(transport, problem, expected, monkeypatch):
    def load(bundle, state):
        raise problem

    monkeypatch.setattr("airflow_provider_kie.hooks.environment._load", load)
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", '{"conn_type": "kie", "password": "kie-emulator-key"}')
    with pytest.raises(KieError, match="certificates") as caught:
        transport(SUBMIT)
    assert type(caught.value) is expected
    assert caught.value.conn_id == "kie_default"
    assert caught.value.nothing_created
    assert caught.value.transient == (expected is KieConnectionError)


@each_transport
def test_a_redirect_is_not_followed(kie, transport):
    kie.play("redirect")
    with pytest.raises(KieError, match="redirects are not followed"):
        transport(common.credit())
    assert len(kie.requests()) == 1


@each_transport
def test_the_proxy_does_not_get_the_key(transport, monkeypatch):
    # Headers of an aiohttp session go to the proxy too, so the key must be a header of each request.
    with FileServer() as proxy:
        proxy.play(Act(status=403))
        connection = {"conn_type": "kie", "password": "kie-emulator-key", "extra": {"proxy": proxy.url}}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
        with pytest.raises(KieError) as caught:
            transport(SUBMIT)
    assert [request.target for request in proxy.requests] == ["api.kie.ai:443"]
    assert "kie-emulator-key" not in str(proxy.requests)
    assert caught.value.nothing_created


@each_transport
def test_a_proxy_that_breaks_off_may_have_passed_the_request_on(transport, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def break_off():
            with proxy.accept()[0] as connection:
                asked.append(connection.recv(65536))

        asked = []
        threading.Thread(target=break_off, daemon=True).start()
        extra = {"insecure_http": True, "proxy": f"http://127.0.0.1:{proxy.getsockname()[1]}"}
        connection = {"conn_type": "kie", "password": "kie-emulator-key", "host": "http://kie.invalid", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
        with pytest.raises(KieConnectionError) as caught:
            transport(SUBMIT)
    assert asked[0].startswith(b"POST http://kie.invalid/")
    assert not caught.value.nothing_created


@each_transport
def test_the_edge_lets_our_user_agent_pass(kie, transport):
    assert transport(common.credit()) == 5916.25
    assert kie.requests()[0]["user_agent"].startswith("airflow-provider-kie/")
