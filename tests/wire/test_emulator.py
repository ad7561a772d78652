# SPDX-License-Identifier: Apache-2.0
"""The emulator on a real socket."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import pytest
import requests

from airflow_provider_kie.emulator import ANSWERS, KieEmulator
from airflow_provider_kie.emulator.audio import wav_bytes
from airflow_provider_kie.emulator.files import LAST_MODIFIED, File

AGENT = {"User-Agent": "kie-tests"}
SUBMIT = "/api/v1/wav/generate"
RECORD = "/api/v1/wav/record-info"
CREDIT = "/api/v1/chat/credit"
DOWNLOAD = "/api/v1/common/download-url"
SIZE = len(wav_bytes())
ETAG = File.of(wav_bytes(), "audio/wav").etag


class Client:
    """Just enough of a client to see the wire."""

    def __init__(self, kie: KieEmulator) -> None:
        self.kie = kie
        self.headers = {**AGENT, "Authorization": f"Bearer {kie.api_key}"}

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.kie.url + path, headers=self.headers, timeout=10, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return requests.post(self.kie.url + path, headers=self.headers, timeout=10, **options)

    def submit(self, music_task_id: str = "music-1", audio_id: str = "audio-1") -> requests.Response:
        body = {"taskId": music_task_id, "audioId": audio_id, "callBackUrl": "https://example.com/cb"}
        return self.post(SUBMIT, json=body)

    def read(self, kie_task_id: str) -> requests.Response:
        return self.get(RECORD, params={"taskId": kie_task_id})

    def control(self, path: str, body: Any = None) -> requests.Response:
        method = "GET" if body is None else "POST"
        return requests.request(method, self.kie.url + path, json=body, timeout=10)


@pytest.fixture(scope="module")
def emulator() -> Iterator[KieEmulator]:
    with KieEmulator(conversion_seconds=0.05) as running:
        yield running


@pytest.fixture
def kie(emulator: KieEmulator) -> KieEmulator:
    emulator.reset()
    return emulator


@pytest.fixture
def client(kie: KieEmulator) -> Client:
    return Client(kie)


@pytest.fixture
def wav_url(kie: KieEmulator, client: Client) -> str:
    record = client.read(kie.create_conversion(finished=True)).json()["data"]
    return str(record["response"]["audioWavUrl"])


def fetch(url: str, method: str = "GET", **headers: str) -> requests.Response:
    return requests.request(method, url, headers=AGENT | headers, timeout=10)


# The life of a conversion


def test_submit_wait_and_download(client: Client) -> None:
    kie_task_id = client.submit().json()["data"]["taskId"]
    until = time.monotonic() + 10
    while (record := client.read(kie_task_id).json()["data"])["successFlag"] == "PENDING":
        assert time.monotonic() < until
    assert record["successFlag"] == "SUCCESS"

    url = record["response"]["audioWavUrl"]
    assert url.startswith(client.kie.url + "/s/")
    assert "?sig=" in url
    with wave.open(io.BytesIO(fetch(url).content)) as wav:
        assert wav.getframerate() == 48_000


def test_fifty_at_once_start_one_conversion(client: Client) -> None:
    with ThreadPoolExecutor(50) as pool:
        bodies = [answer.json() for answer in pool.map(lambda _: client.submit(), range(50))]
    assert sorted(body["code"] for body in bodies) == [200] + [409] * 49
    assert len({body["data"]["taskId"] for body in bodies}) == 1
    assert client.kie.accepted_submits == 1
    assert sum(entry["accepted"] for entry in client.kie.requests("submit")) == 1


# The door


@pytest.mark.parametrize(
    "agent", ["python-requests/2.34", "Python-urllib/3.11", "python-urllib3/2.6", "Python/3.11 aiohttp/3.13", "", None]
)
@pytest.mark.parametrize("path", [CREDIT, "/s/1.wav"])
def test_the_edge_blocks_default_user_agents(kie: KieEmulator, path: str, agent: str | None) -> None:
    connection = HTTPConnection("127.0.0.1", int(kie.url.rpartition(":")[2]), timeout=10)
    connection.request("GET", path, headers={} if agent is None else {"User-Agent": agent})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (403, b"error code: 1010")
    connection.close()


@pytest.mark.parametrize("authorization", [None, "Bearer wrong-key", "Basic kie-emulator-key"])
def test_a_wrong_key_is_refused_and_takes_no_answer(kie: KieEmulator, authorization: str | None) -> None:
    headers = {**AGENT, **({"Authorization": authorization} if authorization else {})}
    kie.play("credit-zero")
    answer = requests.get(kie.url + CREDIT, headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (200, 401)
    entry = kie.requests()[-1]
    assert (entry["authorized"], entry["code"], entry["answer"]) == (False, 401, None)


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/api/v1/nowhere", 404), ("GET", SUBMIT, 405)])
def test_wrong_paths_and_methods(client: Client, method: str, path: str, code: int) -> None:
    answer = requests.request(method, client.kie.url + path, headers=client.headers, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (code, code)


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff", b'{"taskId": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json_object(client: Client, body: bytes) -> None:
    answer = client.post(SUBMIT, data=body)
    assert (answer.status_code, answer.json()["code"]) == (200, 400)


# The file host


def test_a_whole_file(wav_url: str) -> None:
    answer = fetch(wav_url)
    assert (answer.status_code, answer.content) == (200, wav_bytes())
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["last-modified"] == LAST_MODIFIED
    assert answer.headers["etag"] == ETAG
    head = fetch(wav_url, "HEAD")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(SIZE), b"")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ({"Range": "bytes=0-3"}, 0, 3),
        ({"Range": f"bytes={SIZE - 1}-"}, SIZE - 1, SIZE - 1),
        ({"Range": "bytes=-5"}, SIZE - 5, SIZE - 1),
        ({"Range": f"bytes=10-{SIZE * 2}"}, 10, SIZE - 1),
        ({"Range": "bytes=4-", "If-Range": ETAG}, 4, SIZE - 1),
        ({"Range": "bytes=4-", "If-Range": LAST_MODIFIED}, 4, SIZE - 1),
    ],
)
def test_a_part_of_a_file(wav_url: str, asked: dict[str, str], first: int, last: int) -> None:
    answer = fetch(wav_url, **asked)
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.content == wav_bytes()[first : last + 1]


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0"])
def test_a_part_that_does_not_exist(wav_url: str, asked: str) -> None:
    answer = fetch(wav_url, Range=asked)
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")


@pytest.mark.parametrize(
    "asked",
    [
        *({"Range": "bytes=5-2"}, {"Range": "bytes=0-1,4-5"}, {"Range": "items=0-3"}),
        *({"Range": "bytes=4-", "If-Range": '"another"'}, {"Range": "bytes=4-", "If-Range": f"W/{ETAG}"}),
    ],
)
def test_a_range_that_is_not_served_brings_the_file(wav_url: str, asked: dict[str, str]) -> None:
    answer = fetch(wav_url, **asked)
    assert (answer.status_code, len(answer.content)) == (200, SIZE)


def test_links_and_who_asks_for_them(client: Client, wav_url: str) -> None:
    assert fetch(wav_url.partition("?")[0]).status_code == 403
    assert fetch(wav_url + "0").status_code == 403
    link = client.post(DOWNLOAD, json={"url": wav_url}).json()["data"]
    assert fetch(link, Range="bytes=0-3").content == b"RIFF"
    assert fetch(f"{client.kie.url}/d/{'0' * 32}").status_code == 403
    requests.get(wav_url, headers=client.headers, timeout=10)
    assert [entry["authorized"] for entry in client.kie.requests("file")] == [False] * 4 + [True]


# Queued answers and faults


def test_every_answer_arrives_as_written(client: Client) -> None:
    instant = [a for a in ANSWERS.values() if a.body is not None and not a.fault and a.endpoint != "submit"]
    for answer in instant:
        client.kie.play(answer.name, endpoint="record-info")
        sent = client.get(RECORD, params={"taskId": "988e00aa"}, allow_redirects=False)
        assert sent.status_code == answer.status, answer.name
        assert sent.content == answer.render(
            wav_url=client.kie.state.wav_url("988e00aa"), client_key=client.kie.api_key
        )
        assert sent.headers.get("content-type") == answer.headers.get("content-type")
        assert client.kie.requests()[-1]["answer"] == answer.name


# The control routes


def test_answers_are_queued_over_http(client: Client) -> None:
    body = {"endpoint": "record-info", "answers": ["rate-limited", "pending"], "kie_task_id": "a", "repeat": True}
    assert client.control("/_emulator/answers", body).json() == {"ok": True}
    assert client.read("b").json()["data"] is None
    codes = [client.read("a").json()["code"] for _ in range(4)]
    assert codes == [429, 200, 200, 200]
    assert [entry["answer"] for entry in client.kie.requests()] == [None, "rate-limited"] + ["pending"] * 3


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("answers", {"answers": ["rate-limitted"]}, "rate-limited"),
        ("answers", {}, "list of names"),
        ("answers", {"answers": ["pending"], "endpoint": "reads"}, "record-info"),
        ("answers", {"answers": ["pending"], "repeat": 1}, "repeat"),
        ("answers", ["pending"], "JSON object"),
        ("settings", {"speed": 1}, "conversion_seconds"),
        ("settings", {"credits": "many"}, "credits"),
    ],
)
def test_wrong_control_requests_are_explained(client: Client, path: str, body: Any, words: str) -> None:
    answer = client.control(f"/_emulator/{path}", body)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_settings_and_reset_over_http(client: Client) -> None:
    settings = {"conversion_seconds": 60, "conflict_names_id": False, "submits_per_window": None, "credits": 10}
    changed = client.control("/_emulator/settings", settings).json()
    assert {name: changed[name] for name in settings} == settings
    kie_task_id = client.submit().json()["data"]["taskId"]
    assert client.submit().json()["data"] is None
    assert client.read(kie_task_id).json()["data"]["successFlag"] == "PENDING"
    summary = client.control("/_emulator").json()
    assert (summary["accepted_submits"], summary["requests"], summary["settings"]["credits"]) == (1, 3, 9.6)

    assert client.control("/_emulator/reset", {}).json() == {"ok": True}
    assert client.read(kie_task_id).json()["data"] is None
    assert [entry["name"] for entry in client.control("/_emulator/answers").json()] == list(ANSWERS)


def test_the_log_tells_everything_but_the_key(client: Client) -> None:
    key = client.kie.api_key
    client.post(SUBMIT, json={"taskId": f"x{key}", "audioId": "\ud800", "callBackUrl": f"https://example.com/{key}"})
    client.kie.play("wrong-key-echoed")
    assert key in client.get(RECORD, params={"taskId": key}).json()["msg"]
    wrong = {**AGENT, "Authorization": "Bearer another-key"}
    requests.get(client.kie.url + CREDIT, headers=wrong, timeout=10)
    text = client.control("/_emulator/requests").text
    assert key not in text
    assert "another-key" not in text
    submit, read, credit = json.loads(text)
    assert (submit["path"], submit["family"], submit["json"]["taskId"]) == (SUBMIT, "wav", "x***")
    assert (submit["http_status"], submit["code"], submit["accepted"]) == (200, 200, True)
    assert (read["params"], read["answer"]) == ({"taskId": "***"}, "wrong-key-echoed")
    assert credit["authorized"] is False
    assert abs(submit["at"] - time.time()) < 60


# The server


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", ""])
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        KieEmulator(host=host)


def test_a_stopped_emulator_frees_port_and_thread() -> None:
    with KieEmulator(api_key="another-key") as kie:
        port = int(kie.url.rpartition(":")[2])
        assert requests.get(kie.url + "/_emulator", timeout=10).status_code == 200
        with pytest.raises(OSError, match="use"):
            KieEmulator(port=port).start()
    assert f"kie-emulator-{port}" not in {thread.name for thread in threading.enumerate()}
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_stopping_does_not_wait_for_a_hanging_answer(caplog: pytest.LogCaptureFixture) -> None:
    outcome: list[type[BaseException]] = []
    with KieEmulator() as kie:
        kie.play("hang")

        def wait() -> None:
            try:
                Client(kie).get(CREDIT)
            except requests.ConnectionError as error:
                outcome.append(type(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        until = time.monotonic() + 10
        while not kie.requests("credit"):
            assert time.monotonic() < until
        began = time.monotonic()
    assert time.monotonic() - began < 3
    waiting.join(10)
    assert outcome == [requests.ConnectionError]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
