# SPDX-License-Identifier: Apache-2.0
"""
Whatever KIE sends: the parser, the waiting rule, both transports and the books of the emulator hold.

The examples are the same in every run (``derandomize``), so that a failure here is a failure everywhere.
"""

from __future__ import annotations

import contextlib
import json
import math
import socketserver
import string
import threading
import time
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from airflow_provider_kie.api import common, wav
from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.api.fields import http_url
from airflow_provider_kie.api.job import KieJob, read_job
from airflow_provider_kie.exceptions import (
    KieConnectionError,
    KieError,
)
from airflow_provider_kie.waiting.verdict import Done, Failed, Judge, Wait, timed_out
from tests.transports import each_transport, outcome_of, outcome_of_both, over_aiohttp, over_requests

KEY = "sk-canary/0123456789+key"
CANARY = "QUERYCANARY"
SIGNED = f"https://tempfile.example/s/1.wav?sig={CANARY}"
URL = "https://tempfile.example/s/1.wav"

bounded = settings(
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)

#: Calls of each kind; the reads ask for the id that most generated records bear.
CALLS: dict[str, Call[Any]] = {
    "submit": wav.convert_to_wav("music", "track", "https://api.example.com/callback"),
    "read": read_job(WAV, "wav-1"),
    "credit": common.credit(),
    "download-url": common.download_url(URL),
    "request": Call("GET /any", "GET", "/any", lambda data: data),
}

# What stands in a field: sensible things, and everything else that JSON can hold.

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", " ", "0", "200", "413", "None", "x" * 600, f"see {SIGNED}", f"bad key {KEY}", URL, SIGNED]),
)
numbers = st.one_of(
    st.integers(),
    st.sampled_from([0, 1, 200, 401, 409, 500, 10**11, 2**63, -(2**63), 10**400]),
    st.floats(allow_nan=True, allow_infinity=True),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
words = st.sampled_from([*wav.WavStatus, "QUEUED", "NEW_FAILED", "NEW_ERROR", " success ", 0, 1, 2, None])
links = st.fixed_dictionaries(
    {}, optional={"audioWavUrl": st.sampled_from([URL, SIGNED, "", None]) | anything, "audio_wav_url": anything}
)
records = st.fixed_dictionaries(
    {},
    optional={
        "taskId": st.sampled_from(["wav-1", "wav-1", "wav-2", ""]) | anything,
        "successFlag": words | anything,
        "status": words | anything,
        "response": links | anything,
        "musicId": anything,
        "musicIndex": anything,
        "createTime": anything,
        "completeTime": anything,
        "errorCode": anything,
        "errorMessage": anything,
    },
)
codes = st.one_of(
    st.just(200),
    st.sampled_from([400, 401, 402, 403, 404, 409, 422, 429, 433, 451, 455, 500, 501, 505, 531]),
    anything,
)
envelopes = st.fixed_dictionaries(
    {}, optional={"code": codes, "msg": anything, "data": records | anything, "taskId": texts}
)
statuses = st.one_of(st.just(200), st.integers(min_value=200, max_value=599))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A body: mostly an envelope, sometimes cut, bent or no JSON at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    value = draw(st.one_of(envelopes, envelopes, envelopes, anything))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        text = text.replace("/", r"\/")
    body = text.encode(errors="surrogatepass")
    how = draw(st.integers(0, 9))
    if how == 0:
        return body[: draw(st.integers(0, len(body)))]
    if how == 1:
        return draw(st.sampled_from([b"\xef\xbb\xbf", b"\xff", b" ", b"\x00"])) + body
    return body


# Deep and long ones, which a generator of values does not reach.
extremes = st.sampled_from(
    [
        b'{"code":200,"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"code":200,"data":{"errorCode":' + b"[" * 500 + b"]" * 500 + b"}}",
        b'{"code":200,"data":{"successFlag":' + b'{"a":' * 500 + b"null" + b"}" * 500 + b"}}",
        b'{"code":' + b"9" * 5000 + b"}",
        b'{"code":200,"data":{"createTime":' + b"9" * 4000 + b"}}",
        b'{"code":200,"data":1e999}',
        b'{"code":200,"data":{"musicIndex":1e999,"errorCode":-1e999,"createTime":1e999}}',
        b'{"code":200,"code":401}',
        b'{"code":401,"msg":"' + KEY.encode() * 50 + b'"}',
        b'{"code":200,"data":"' + b"x" * 200_000 + b'"}',
    ]
)
headers = st.one_of(
    st.none(),
    st.sampled_from(["0", "-1", "5", "1e400", "nan", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 5000]),
    st.text(string.printable, max_size=20),
)


def check_texts(*said: str) -> None:
    """No text may show the key or a query string."""
    for text in said:
        assert KEY not in text
        assert KEY.replace("/", r"\/") not in text
        assert CANARY not in text.upper()


def check_outcome(outcome: object) -> None:
    if isinstance(outcome, KieError):
        described = outcome.to_dict()
        assert json.loads(json.dumps(described)) == described
        if len(outcome.problem) <= 500:  # longer ones get shorter on the way: see test_call
            assert str(KieError.from_dict(described)) == str(outcome)
        assert outcome.retry_after is None or 0 <= outcome.retry_after <= 3600
        check_texts(str(outcome), repr(outcome), outcome.problem)
    else:
        json.dumps(outcome)


def check_record(job: KieJob | None) -> None:
    if job is None:
        return
    assert json.loads(json.dumps(job, allow_nan=False)) == job
    assert all(file["url"] == http_url(file["url"]) for file in job["files"])
    record = wav.as_conversion(job)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(record) == set(wav.WavConversion.__annotations__)
    assert (record["kie_task_id"], type(record["status"])) == ("wav-1", str)
    assert record["wav_url"] == http_url(record["wav_url"])
    for name in ("music_id", "create_time", "complete_time", "error_message"):
        assert record[name] is None or (type(record[name]) is str and record[name])
    assert type(record["music_index"]) in (int, type(None))
    assert type(record["error_code"]) in (int, str, type(None))
    assert record["error_code"] not in (0, 200, "")
    check_texts(str(record["error_message"]), str(record["error_code"]))


def check_verdict(verdict: object, reading: object) -> None:
    match verdict:
        case Done():
            check_texts(verdict.warning)
            url = wav.as_conversion(verdict.job)["wav_url"]
            assert url == http_url(url) is not None
        case Failed():
            check_outcome(verdict.error)
            assert not verdict.error.transient
        case Wait():
            check_texts(verdict.reason)
            check_outcome(timed_out(WAV, "wav-1", "kie_default", 5.0, verdict.reason).error)
            assert (verdict.trouble is not None) == isinstance(reading, KieError)
        case _:
            raise AssertionError(verdict)


@settings(bounded, max_examples=400)
@given(status=statuses, body=bodies() | extremes, retry_after=headers, kind=st.sampled_from(sorted(CALLS)))
@example(200, b'{"code":200,"data":{"successFlag":"SUCCESS","response":{"audioWavUrl":"ftp://x"}}}', None, "read")
@example(401, f'{{"code":401,"msg":"key {KEY}"}}'.encode(), None, "submit")
@example(200, f'["{SIGNED}"]'.encode(), None, "credit")
def test_the_parser_gives_a_result_or_an_error_of_ours(status, body, retry_after, kind):
    answer = Response.of(status, {"Retry-After": retry_after} if retry_after else {}, body, secret=KEY)
    outcome = outcome_of(CALLS[kind].read, answer)
    check_outcome(outcome)
    if not isinstance(outcome, KieError):
        assert 200 <= status < 300 or kind in ("submit", "read")
        match kind:
            case "submit":
                assert outcome.kie_task_id == outcome.kie_task_id.strip() != ""
            case "read":
                check_record(outcome)
            case "credit":
                assert math.isfinite(outcome)
            case "download-url":
                assert outcome == http_url(outcome)


@settings(bounded, max_examples=250)
@given(
    readings=st.lists(
        st.tuples(statuses, st.one_of(envelopes.map(lambda value: json.dumps(value).encode()), bodies())),
        min_size=1,
        max_size=4,
    ),
    pauses=st.lists(st.floats(0.0, 100.0), min_size=4, max_size=4),
)
def test_the_waiting_rule_is_never_done_without_a_url(readings, pauses):
    judge, now = Judge(WAV, "wav-1", "kie_default"), 0.0
    for (status, body), pause in zip(readings, pauses, strict=False):
        reading = outcome_of(CALLS["read"].read, Response.of(status, {}, body, secret=KEY))
        verdict = judge.judge(reading, now)
        check_verdict(verdict, reading)
        if isinstance(reading, KieError):  # trouble that may pass never ends a wait
            assert isinstance(verdict, Wait) == reading.transient
        if not isinstance(verdict, Wait):
            return
        now += pause


# The same over a socket


class Raw(socketserver.StreamRequestHandler):
    """Answers a request with the bytes that the server was given, and closes the connection."""

    timeout = 5.0

    def handle(self) -> None:
        server: Any = self.server
        with contextlib.suppress(OSError):
            length = 0
            while line := self.rfile.readline().lower().strip():
                length = int(line[15:]) if line.startswith(b"content-length:") else length
            self.rfile.read(length)
            size = max(1, -(-len(server.reply) // server.pieces))
            for start in range(0, len(server.reply), size):
                self.wfile.write(server.reply[start : start + size])
                time.sleep(server.pause)


@pytest.fixture
def raw(monkeypatch, short_times):
    """A server for ``kie_default`` that takes ``reply`` in ``pieces``, with a ``pause`` after each."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Raw) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.pieces, server.pause = 1, 0.0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.connect = partial(connect, monkeypatch, f"http://127.0.0.1:{server.server_address[1]}")
        server.connect(5.0)
        yield server
        server.shutdown()


def connect(monkeypatch, host, timeout):
    connection = {"conn_type": "kie", "password": KEY, "host": host, "extra": {"timeout": timeout}}
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))


def http(status: int, body: bytes, framing: str, *more: str) -> bytes:
    """An HTTP answer around a body; ``framing`` says how its end is told, truly or not."""
    lines = [f"HTTP/1.1 {status} Some words", "Content-Type: application/json", *more]
    sent = body
    match framing:
        case "length":
            lines.append(f"Content-Length: {len(body)}")
        case "cut":
            lines.append(f"Content-Length: {len(body) + 10}")
        case "chunked":
            lines.append("Transfer-Encoding: chunked")
            sent = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part) + b"0\r\n\r\n"
        case "chunked, cut":
            lines.append("Transfer-Encoding: chunked")
            sent = b"%x\r\n%s" % (len(body) + 5, body)
        case "close":
            pass
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + sent


FRAMINGS = ["length", "length", "chunked", "close", "cut", "chunked, cut"]


@settings(bounded, max_examples=120)
@given(
    status=statuses,
    body=bodies(),
    framing=st.sampled_from(FRAMINGS),
    pieces=st.integers(1, 3),
    kind=st.sampled_from(["read", "submit", "credit"]),
)
@example(200, b"x" * 300_000, "length", 3, "read")
@example(200, b'{"code":200}' + b" " * 3_000_000, "chunked", 3, "credit")
@example(204, b"", "close", 1, "read")
@example(304, b"", "close", 1, "read")
def test_both_transports_make_the_same_of_any_bytes(raw, status, body, framing, pieces, kind):
    assume(status not in (204, 304) or not body)  # they have none, whatever comes after their head
    raw.reply, raw.pieces = http(status, body, framing), pieces
    started = time.monotonic()
    outcome = outcome_of_both(CALLS[kind])
    assert time.monotonic() - started < 10.0
    check_outcome(outcome)
    if framing.endswith("cut"):
        assert isinstance(outcome, KieConnectionError)


LOCATION = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1",
        b"nonsense\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n{}",
        b"HTTP/1.1 abc OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        LOCATION + b"https://kie.invalid/?a=" + CANARY.encode() + b"\r\n\r\n",
        LOCATION + b"http://[\r\n\r\n",
    ],
)
def test_both_transports_make_the_same_of_broken_http(raw, reply):
    raw.reply = reply
    outcome = outcome_of_both(CALLS["submit"])
    assert isinstance(outcome, KieError)
    check_outcome(outcome)


@pytest.mark.parametrize("header", ["Content-Length: x", "Content-Length: -5", "Bad Header"])
@each_transport
def test_headers_that_one_library_tolerates_are_transient_errors(raw, transport, header):
    raw.reply = f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n{{}}".encode()
    with pytest.raises(KieError) as caught:
        transport(CALLS["submit"])
    assert caught.value.transient
    assert not caught.value.nothing_created


BY_EACH_READ = "requests limits the time for each read of the head, not for all"


@pytest.mark.parametrize(
    ("reply", "pieces"),
    [
        pytest.param(b"HTTP", 1, id="no head"),
        pytest.param(http(200, b'{"code":200,"data":null', "cut"), 1, id="no end"),
        pytest.param(http(200, b'{"code":200}' + b" " * 400, "length"), 50, id="body drips"),
        pytest.param(http(200, b"", "chunked")[:-5] + b"1\r\n \r\n" * 400, 50, id="chunks drip"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 400,
            50,
            id="head drips",
            marks=pytest.mark.xfail(strict=True, reason=BY_EACH_READ),
        ),
    ],
)
def test_nobody_waits_longer_than_the_time_out(raw, reply, pieces):
    raw.connect(0.3)
    raw.reply, raw.pieces, raw.pause = reply, pieces, 2.0 if pieces == 1 else 0.03
    for transport in (over_aiohttp, over_requests):
        started = time.monotonic()
        with pytest.raises(KieConnectionError, match="timed out"):
            transport(CALLS["read"])
        assert time.monotonic() - started < 1.0
