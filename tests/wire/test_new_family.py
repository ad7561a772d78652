# SPDX-License-Identifier: Apache-2.0
"""A family that only this test knows is waited for everywhere, by its row and its cases alone."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_kie.api import families
from airflow_provider_kie.api.family import Family, Words
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.hooks.kie_async import KieAsyncHook
from airflow_provider_kie.sensors.job import KieJobSensor
from airflow_provider_kie.triggers.job import KieJobTrigger
from airflow_provider_kie.waiting.pace import Pace
from airflow_provider_kie.waiting.verdict import Done
from tests.modes import MODES, only_event, run_sensor

ROW = Family(
    name="holograms",
    submit="/api/v1/holograms/generate",
    query="/api/v1/holograms/detail",
    words=Words(running=(0, 2), done=(1,), failed=(3,)),
    status=("stage",),
    files=(("result", "response.holograms[].link"), ("thumbnail", "response.thumbnail")),
    result=("response.depth",),
    errors=("failCode", "failMsg"),
    id_key="hologramId",
)
ID = "holo-1"
LINK = "https://tempfile.example/h/{}.holo"

DONE = {
    "stage": 1,
    "response": {"holograms": [{"link": LINK.format(1)}, {"link": LINK.format(2)}], "thumbnail": LINK.format("t")},
}
#: Records, and how a wait ends if KIE goes on giving them.
CASES = {
    "running": ({"stage": 0}, "KieSensorTimeoutError"),
    "running, other number": ({"stage": 2, "response": None}, "KieSensorTimeoutError"),
    "done": (DONE, "done"),
    "done, as text in snake case": (
        {"stage": "1", "response": json.dumps({"holograms": [{"Link": LINK.format(1)}]})},
        "done",
    ),
    "failed": ({"stage": 3, "failCode": "E7", "failMsg": "no light"}, "KieJobFailedError"),
    "failed for its input": ({"stage": 3, "failCode": 422, "failMsg": "too dark"}, "KieJobRefusedError"),
    "a number that nobody names": ({"stage": 7}, "KieUnexpectedCodeError"),
    "success without a file": ({"stage": 1, "response": {"holograms": []}}, "KieUnreadableAnswerError"),
    "refused while it runs": ({"stage": 0, "failCode": 500}, "KieUnexpectedCodeError"),
    "unknown": (None, "KieNotFoundError"),
}


@pytest.fixture(autouse=True)
def new_family(monkeypatch, short_times):
    monkeypatch.setattr(families, "FAMILIES", MappingProxyType({**families.FAMILIES, ROW.name: ROW}))


@pytest.fixture
def kie_says(monkeypatch):
    """Answer each read of the family with the next of these records, and with the last one for ever."""

    @contextmanager
    def serve(*records):
        answers = [None if record is None else {ROW.id_key: ID, **record} for record in records]

        class Kie(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = urlsplit(self.path)
                assert (asked.path, parse_qs(asked.query)) == (ROW.query, {ROW.id_key: [ID]})
                data = answers.pop(0) if len(answers) > 1 else answers[0]
                body = json.dumps({"code": 200, "msg": "success", "data": data}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Kie)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = {"conn_type": "kie", "password": "key-of-a-test", "host": f"http://127.0.0.1:{server.server_port}"}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()

    return serve


def check_job(job):
    assert job["family"] == "holograms"
    assert [(file["name"], file["index"]) for file in job["files"]] == [("result", 0), ("result", 1), ("thumbnail", 0)]
    assert [file["url"] for file in job["files"]] == [LINK.format(1), LINK.format(2), LINK.format("t")]


def test_it_is_waited_for_over_requests(kie_says):
    with kie_says(None, {"stage": 0}, {"stage": 2}, DONE):
        end = KieHook().wait(ROW, ID, poll_interval=0.02, timeout=20)
    check_job(end.job)


def test_it_is_waited_for_over_aiohttp(kie_says):
    async def wait():
        async with KieAsyncHook.connect("kie_default") as hook:
            return await hook.wait(ROW, ID, pace=Pace(0.02), left=lambda: 20.0, polls=0, report=lambda pause: None)

    with kie_says(None, {"stage": 0}, {"stage": 2}, DONE):
        end = asyncio.run(wait())
    assert isinstance(end, Done)
    check_job(end.job)


def test_it_is_waited_for_in_the_triggerer(kie_says):
    trigger = KieJobTrigger(ID, "kie_default", 0.02, None, 20.0, family=ROW.name)
    arguments = trigger.serialize()[1]
    assert arguments["family"] == ROW.name
    with kie_says({"stage": 0}, DONE):
        event = asyncio.run(only_event(KieJobTrigger(**arguments)))
    check_job(event["job"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_it_ends_the_same_in_every_mode(kie_says, monkeypatch, mode, case):
    record, expected = CASES[case]
    arguments = {"kie_task_id": ID, "family": ROW.name, "poke_interval": 0.03, "timeout": 0.6}
    with kie_says(record):
        ended = run_sensor(mode, monkeypatch, KieJobSensor, **arguments)
    if expected == "done":
        assert ended.state == "success", ended
        assert ended.xcom["files"][0]["url"] == LINK.format(1)
    else:
        assert ended.error == expected, ended
        assert not ended.retried
        assert "holograms job 'holo-1'" in ended.message
