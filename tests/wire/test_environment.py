# SPDX-License-Identifier: Apache-2.0
"""Proxies and certificates over real sockets: all who send anything read them alike, and notice what has changed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
from contextlib import contextmanager

import pytest

from airflow_provider_kie.api import common
from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieConfigurationError, KieConnectionError
from airflow_provider_kie.files.host import FileHost, Link
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.hooks.kie_async import KieAsyncHook
from airflow_provider_kie.times import switched
from airflow_provider_kie.triggers.wav import WavConversionTrigger
from airflow_provider_kie.waiting.verdict import Done
from tests import transports
from tests.certificates import certificate
from tests.file_server import Act, FileServer
from tests.modes import only_event

KEY = "canary-key-0123456789"
CREDITS = Act(body=b'{"code": 200, "msg": "success", "data": 5.0}')


def record(status, url=None):
    data = {"taskId": "988e00aa", "musicId": "track", "successFlag": status, "response": {"audioWavUrl": url}}
    return Act(body=json.dumps({"code": 200, "msg": "success", "data": data}).encode())


PENDING, FINISHED = record("PENDING"), record("SUCCESS", "https://files.example.com/1.wav")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, short_times):
    """The environment without what it says of proxies and certificates."""
    for name in [name for name in os.environ if name.lower().endswith(("_proxy", "_ca_bundle"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def connect(monkeypatch):
    def define(base_url, **extra):
        fields = {"conn_type": "kie", "password": KEY, "host": base_url, "extra": {"timeout": 3.0} | extra}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(fields))
        return base_url

    return define


def worker(base_url):
    transports.over_requests(common.credit())


def triggerer(base_url):
    transports.over_aiohttp(common.credit())


def file_host(base_url):
    FileHost(KieHook().settings).ask(Link(f"{base_url}/1.wav", True), {}).close()


SENDERS = [worker, triggerer, file_host]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("http_proxy", "{}"), ("HTTP_PROXY", "//{}"), ("ALL_PROXY", " http://{}/\n"), ("http_proxy", "user@{}")),
        *(("http_proxy", "HTTP://user:p%40ss@{}"), ("ALL_PROXY", "us%5Cer:@{}"), ("http_proxy", "user:p@s%C3%A9@{}")),
    ],
)
def test_all_send_the_same_to_the_proxy(monkeypatch, connect, name, value):
    base_url = connect("http://kie.invalid", insecure_http=True)
    seen = []
    for send in SENDERS:
        with FileServer() as proxy:
            proxy.play(CREDITS)
            monkeypatch.setenv(name, value.format(proxy.url.partition("//")[2]))
            send(base_url)
        assert [request.target.startswith("http://kie.invalid/") for request in proxy.requests] == [True]
        seen.append(proxy.requests[0].headers.get("proxy-authorization"))
    assert len(set(seen)) == 1
    assert bool(seen[0]) == ("@" in value)


@pytest.mark.parametrize("send", SENDERS)
def test_a_network_without_proxy_is_reached_without_one(monkeypatch, connect, send):
    with FileServer() as server:
        server.play(CREDITS)
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,127.0.0.0/8")
        send(connect(server.url))
    assert len(server.requests) == 1


def refusals(base_url):
    for send in SENDERS:
        with pytest.raises(KieConfigurationError) as refused:
            send(base_url)
        yield str(refused.value).removeprefix("Reading the credit balance: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http_proxy", "socks5://user:pr0xy-8d1f6c@{}"),
        ("ALL_PROXY", "ftp://{}"),
        ("ALL_PROXY", "http://user:pr0xy-8d1f6c/@{}"),
    ],
)
def test_a_proxy_that_cannot_work_is_refused_by_all(monkeypatch, connect, name, value):
    with FileServer() as server:
        monkeypatch.setenv(name, value.format(server.url.partition("//")[2]))
        said = set(refusals(connect(server.url)))
    assert server.requests == []
    assert len(said) == 1
    assert f"Environment variable {name!r} " in (only := said.pop())
    assert "pr0xy-8d1f6c" not in only


# --- Certificates


@pytest.fixture
def pems(tmp_path):
    """Two certificates for this machine, each signed by itself."""
    return [certificate(tmp_path / f"{name}.pem", "localhost") for name in ("old", "new")]


@pytest.fixture
def kie(pems):
    """A KIE on TLS, with the old certificate for now, which closes each connection after its answer."""
    with FileServer(certificate=pems[0]) as server:
        server.url = f"https://localhost:{server.port}"
        yield server


@pytest.fixture
def bundle(tmp_path, pems):
    """The CA bundle, which has the old certificate for now."""
    return shutil.copy(pems[0], tmp_path / "bundle.pem")


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_all_trust_the_bundle_of_the_environment(monkeypatch, connect, kie, bundle, name):
    monkeypatch.setenv(name, f" {bundle} ")
    kie.play(CREDITS)
    for send in SENDERS:
        send(connect(kie.url))
    assert len(kie.requests) == len(SENDERS)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_bundle_that_is_missing_is_refused_by_all(monkeypatch, connect, kie, name):
    monkeypatch.setenv(name, "/no/such/file.pem")
    (said,) = set(refusals(connect(kie.url)))
    assert f"Environment variable {name!r} does not lead to CA certificates" in said
    connect("http://127.0.0.1:1")  # a file host with TLS is not asked either where KIE has none
    with pytest.raises(KieConfigurationError, match=f"{name!r} does not lead to CA certificates"):
        file_host(kie.url)
    assert kie.requests == []


def trigger(**arguments):
    values = {"poll_interval": 0.03, "deadline": None, "timeout": 20.0} | arguments
    return WavConversionTrigger("988e00aa", "kie_default", **values)


def until(condition):
    ends = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.005)


@contextmanager
def replaced(kie, bundle, new):
    """Take a KIE from its old certificate to the new one, while somebody waits for a conversion."""

    def run():
        until(lambda: kie.requests)
        kie.present(new)
        before = kie.connections
        until(lambda: kie.connections > before + 2)  # who comes again was refused
        kie.play(FINISHED)
        shutil.copy(new, bundle)

    kie.play(PENDING)
    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize("whose", ["connection", "environment"])
@pytest.mark.parametrize("where", ["triggerer", "worker"])
def test_a_wait_goes_on_with_a_new_ca_in_the_bundle(monkeypatch, connect, kie, bundle, pems, whose, where):
    if whose == "environment":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    connect(kie.url, **({"verify": str(bundle)} if whose == "connection" else {}))
    with replaced(kie, bundle, pems[1]):
        if where == "triggerer":
            assert asyncio.run(only_event(trigger()))["status"] == "success"
        else:
            assert isinstance(KieHook().wait(WAV, "988e00aa", poll_interval=0.03, timeout=20), Done)


@pytest.mark.parametrize("state", ["missing", "half written"])
def test_a_bundle_that_is_missing_for_a_moment_ends_no_wait(connect, kie, bundle, pems, state):
    async def read_before_and_after():
        async with KieAsyncHook.connect("kie_default") as triggerer:
            await triggerer.attempt(common.credit())
            worker.attempt(common.credit())
            kie.present(pems[1])
            if state == "missing":
                bundle.unlink()
            else:
                bundle.write_text("-----BEGIN CERTIFICATE-----")
            with pytest.raises(KieConnectionError):
                await triggerer.attempt(common.credit())
            with pytest.raises(KieConnectionError):
                worker.attempt(common.credit())
            shutil.copy(pems[1], bundle)
            with pytest.raises(KieConnectionError):
                await triggerer.attempt(common.credit())
            return await triggerer.attempt(common.credit()), worker.attempt(common.credit())

    connect(kie.url, verify=str(bundle))
    kie.play(CREDITS)
    worker = KieHook()
    assert asyncio.run(read_before_and_after()) == (5.0, 5.0)


@switched(lookup_reuse=0.0)
def test_a_ca_that_was_removed_is_no_longer_trusted(connect, kie, bundle, pems):
    async def read_while_another_waits():
        async with KieAsyncHook.connect("kie_default") as waits:
            await waits.attempt(common.credit())
            shutil.copy(pems[1], bundle)
            await asyncio.sleep(0)  # what was found a moment ago is forgotten
            async with KieAsyncHook.connect("kie_default") as begins:
                assert begins is waits
            with pytest.raises(KieConnectionError, match="TLS"):
                await waits.attempt(common.credit())

    connect(kie.url, verify=str(bundle))
    kie.play(CREDITS)
    asyncio.run(read_while_another_waits())


def test_a_download_goes_on_with_a_new_ca(kie, bundle, pems):
    host = FileHost(KieSettings("kie_default", KEY, timeout=3.0, verify=str(bundle)))
    link = Link(f"{kie.url}/1.wav", True)
    host.ask(link, {}).close()
    kie.present(pems[1])
    bundle.unlink()
    with pytest.raises(KieConnectionError):  # which a transfer outlasts
        host.ask(link, {})
    shutil.copy(pems[1], bundle)
    assert host.ask(link, {}).status_code == 200
