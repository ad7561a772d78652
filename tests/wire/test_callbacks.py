# SPDX-License-Identifier: Apache-2.0
"""KIE's callbacks over sockets: from the emulator through the receiver to the API of an Airflow."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import socket
import sys
import time
from collections.abc import Iterator

import aiohttp
import pytest
import requests

from airflow_provider_kie.api.families import FAMILIES as FAMILY_ROWS
from airflow_provider_kie.callbacks import app, settling, telling
from airflow_provider_kie.callbacks.__main__ import main
from airflow_provider_kie.callbacks.settings import CallbackSettings
from airflow_provider_kie.emulator.callbacks import payload
from airflow_provider_kie.emulator.families import FAMILIES
from airflow_provider_kie.ledger.storage import init_ledger
from airflow_provider_kie.money import identity_of
from airflow_provider_kie.times import switched, times
from tests.wire.callbacks_end import FakeAirflow, Served, eventually

KEY = "webhook-key-c4n4ry"
SECRET = "p4th-c4n4ry_0123456789abc"
CONN_ID = "kie_default"
WAV = f"kie://{CONN_ID}/wav"
JOBS = f"kie://{CONN_ID}/jobs"


@pytest.fixture
def connect(kie, monkeypatch):
    """Change the extra of the connection, and let it be looked up again."""

    def change(**extra):
        given = json.loads(kie.connection_json())
        given["extra"] |= {"timeout": 3.0, "webhook_hmac_key": KEY} | extra
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(given))

    change()
    kie.configure(webhook_hmac_key=KEY, callback_pause=0.1, conversion_seconds=0.1)
    with switched(lookup_reuse=0.0):
        yield change


@pytest.fixture(params=["3.3", "2.11"])
def both_airflows(request) -> Iterator[FakeAirflow]:
    fake = FakeAirflow(old=request.param == "2.11")
    fake.listen(WAV, JOBS)
    with Served(fake.app) as served:
        fake.url = served.url
        yield fake


@pytest.fixture(scope="module")
def running_airflow() -> Iterator[FakeAirflow]:
    fake = FakeAirflow()
    with Served(fake.app) as served:
        fake.url = served.url
        yield fake


@pytest.fixture
def airflow(running_airflow) -> FakeAirflow:
    running_airflow.reset()
    running_airflow.listen(WAV, JOBS)
    return running_airflow


@pytest.fixture
def ledger(connect, tmp_path):
    made = init_ledger(tmp_path / "ledger")
    connect(ledger=made.url)
    return made


def settings_for(url: str) -> CallbackSettings:
    return CallbackSettings((CONN_ID,), url, "receiver", "secret")


@pytest.fixture
def received(connect, airflow, caplog) -> Iterator[str]:
    """The URL of a running receiver."""
    caplog.set_level(logging.INFO, "airflow_provider_kie.callbacks")
    with switched(record_settling=0.3, record_pause=0.05), Served(app.create_app(settings_for(airflow.url))) as served:
        yield f"{served.url}/kie/{CONN_ID}"


def signed(kie_task_id: str, at: float | None = None, key: str = KEY) -> dict[str, str]:
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.new(key.encode(), f"{kie_task_id}.{timestamp}".encode(), hashlib.sha256).digest()
    return {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": base64.b64encode(digest).decode()}


def finished(kie, family="wav", **input) -> str:  # noqa: A002 - KIE's word
    given = {"taskId": "m", "audioId": f"a-{time.monotonic_ns()}"} if family == "wav" and not input else input
    return kie.create_job(family, finished=True, **given)


def about(kie_task_id: str) -> dict[str, object]:
    return {"code": 200, "msg": "success", "data": {"task_id": kie_task_id, "audioWavUrl": "https://evil.example/x"}}


def post(url: str, kie_task_id: str, headers: dict[str, str] | None = None, **more: object) -> int:
    headers = signed(kie_task_id) if headers is None else headers
    return requests.post(url, headers=headers, timeout=20, **({"json": about(kie_task_id)} | more)).status_code


# --- The way of a callback


def test_a_callback_of_the_emulator_becomes_an_event(connect, both_airflows, kie, caplog):
    caplog.set_level(logging.INFO, "airflow_provider_kie.callbacks")
    with Served(app.create_app(settings_for(both_airflows.url))) as served:
        url = f"{served.url}/kie/{CONN_ID}"
        kie_task_id = kie.state.create_conversion("m", "a", callback_url=url)
        (event,) = eventually(lambda: both_airflows.events)
        (sent,) = eventually(kie.callbacks)
    assert (sent["http_status"], sent["attempt"]) == (200, 1)
    extra = event["extra"]
    assert event["asset"] == both_airflows.assets[WAV]
    assert (extra["kie_task_id"], extra["family"], extra["succeeded"]) == (kie_task_id, "wav", True)
    assert extra.keys().isdisjoint({"files", "result"})
    assert "http" not in json.dumps(extra)  # no link of any kind
    assert f"{WAV}: WAV task {kie_task_id} is finished; told" in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_in_every_dialect(received, airflow, kie, family):
    airflow.listen(*(f"kie://{CONN_ID}/{name}" for name in FAMILIES))
    kie_task_id = kie.create_job(family, finished=True, model="m/x", prompt="a fox", type="separate_vocal")
    failed = kie.create_job(family, finished=True, model="m/x", prompt="fail", taskId="fail")
    for each in (kie_task_id, failed):
        job, row = kie.state._jobs[each], FAMILIES[family]
        record = kie.state.record_info(each, family).data
        for manner in ("right", "camel", "snake", "top-level"):
            assert post(received, each, json=payload(job, record, manner)) == 200
    assert airflow.told() == {kie_task_id: 1, failed: 1}  # only the first of each was news
    told = {event["extra"]["kie_task_id"]: event["extra"] for event in airflow.events}
    assert [told[each]["succeeded"] for each in (kie_task_id, failed)] == [True, False]
    # Families that are read at one path are told as the first of them, unless the URL says which.
    first = next(name for name, each in FAMILIES.items() if each.query == row.query)
    assert told[kie_task_id]["family"] == first
    another = kie.create_job(family, finished=True, model="m/x", prompt="a hen", type="separate_vocal", taskId="other")
    assert post(f"{received}?family={family}", another) == 200
    assert airflow.events[-1]["extra"]["family"] == family


@pytest.mark.parametrize("manner", ["stages", "late", "camel", "snake", "top-level", "changed-body"])
def test_other_manners_lead_to_one_event(received, airflow, kie, manner):
    kie.configure(callbacks=manner)
    airflow.listen(f"kie://{CONN_ID}/music")
    body = {"callBackUrl": received, "customMode": False, "instrumental": False, "model": "V6", "prompt": "la"}
    kie_task_id = kie.create_job("music", **body)
    assert eventually(lambda: airflow.told()) == {kie_task_id: 1}
    eventually(lambda: len(kie.callbacks()) == (3 if manner == "stages" else 1))
    assert {each["http_status"] for each in kie.callbacks()} == {200}
    assert airflow.told() == {kie_task_id: 1}
    assert "evil" not in json.dumps(airflow.events)


def test_the_same_callback_twice_is_one_event(received, airflow, kie):
    kie.configure(callbacks="twice")
    kie_task_id = kie.state.create_conversion("m", "a", callback_url=received)
    eventually(lambda: len(kie.callbacks()) == 2)
    assert [each["http_status"] for each in kie.callbacks()] == [200, 200]
    assert airflow.told() == {kie_task_id: 1}


def test_no_asset_by_that_name_means_that_nobody_listens(received, airflow, kie, caplog):
    airflow.assets.clear()
    assert post(received, finished(kie)) == 200
    assert airflow.events == []
    assert "no DAG listens" in caplog.text
    airflow.listen(WAV)
    kie_task_id = finished(kie)
    assert post(received, kie_task_id) == 200
    assert airflow.told() == {kie_task_id: 1}


def test_an_asset_that_has_got_another_id_is_found_again(received, airflow, kie):
    post(received, finished(kie))
    airflow.assets[WAV] = 77
    kie_task_id = finished(kie)
    assert post(received, kie_task_id) == 200
    assert [event["asset"] for event in airflow.events][1:] == [77]


@pytest.mark.parametrize("denial", [401, 403])
def test_a_token_that_is_no_longer_valid_is_renewed(received, airflow, kie, denial):
    """Airflow answers 403 where the token was signed with another key, as before its restart."""
    post(received, finished(kie))
    airflow.denial = denial
    airflow.valid_tokens.clear()
    assert post(received, finished(kie)) == 200
    assert (airflow.tokens, len(airflow.events)) == (2, 2)


@pytest.mark.parametrize("data", [{"callbackType": "first"}, {"voiceId": "v"}, {"state": "generating", "model": "m"}])
def test_what_is_no_end_of_a_job_is_received_and_no_news(received, airflow, kie, data):
    reads = len(kie.requests("record-info"))
    assert post(received, "v1", json={"data": {"task_id": "v1", **data}}) == 200
    assert (airflow.events, len(kie.requests("record-info"))) == ([], reads)


# --- What is refused


def test_a_running_job_is_no_news_yet(received, airflow, kie, caplog):
    kie.configure(conversion_seconds=60)
    assert post(received, kie.create_job("wav", taskId="m", audioId="a")) == 503
    assert "the record does not say that it has ended" in caplog.text
    assert airflow.events == []


def test_a_record_that_comes_after_its_callback_is_waited_for(received, airflow, kie):
    kie_task_id = finished(kie)
    kie.play("not-found", "pending", "server-error", endpoint="record-info", kie_task_id=kie_task_id)
    assert post(f"{received}?family=wav", kie_task_id) == 200
    assert airflow.told() == {kie_task_id: 1}


FORGERIES = {
    "no signature": lambda i: {"headers": {}},
    "no time": lambda i: {"headers": {"X-Webhook-Signature": signed(i)["X-Webhook-Signature"]}},
    "wrong": lambda i: {"headers": signed(i, key="not the key")},
    "hex": lambda i: {
        "headers": signed(i) | {"X-Webhook-Signature": base64.b64decode(signed(i)["X-Webhook-Signature"]).hex()}
    },
    "stale": lambda i: {"headers": signed(i, time.time() - 301)},
    "from the future": lambda i: {"headers": signed(i, time.time() + 310)},
    "of another id": lambda i: {"headers": signed("another")},
    "no ASCII": lambda i: {"headers": signed(i) | {"X-Webhook-Signature": "\xe4\xf6"}},
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_refused(received, airflow, kie, caplog, forgery):
    kie_task_id = finished(kie)
    assert post(received, kie_task_id, **FORGERIES[forgery](kie_task_id)) == 401
    assert airflow.events == []
    assert len(kie.requests("record-info")) == 0
    assert "answered 401" in caplog.text
    assert KEY not in caplog.text


def test_a_changed_body_changes_nothing_that_is_told(received, airflow, kie):
    """A captured signature is valid for any body with its id: only the record counts."""
    failed = kie.create_job("wav", finished=True, taskId="fail", audioId="a")
    assert post(received, failed) == 200
    assert airflow.events[0]["extra"]["succeeded"] is False
    assert "evil" not in json.dumps(airflow.events)


def test_a_body_of_another_family_does_not_hide_the_job(received, airflow, kie):
    kie_task_id = kie.create_job("jobs", finished=True, model="m/x", prompt="a fox")
    assert post(received, kie_task_id) == 200  # with a body like that of a WAV conversion
    assert airflow.events[0]["extra"]["family"] == "jobs"


def test_an_id_beside_the_signed_one_does_not_count(received, airflow, kie):
    mine, other = finished(kie), finished(kie)
    body = {"data": {"task_id": other, "taskId": mine}}
    assert post(received, mine, json=body) == 200
    assert airflow.told() == {mine: 1}


def test_a_foreign_id_is_unknown_to_kie(connect, received, airflow, kie, caplog):
    connect(webhook_hmac_key=None, callback_secret=SECRET)
    assert post(f"{received}/{SECRET}", "0" * 32, {}) == 503
    assert "KIE knows no such job" in caplog.text
    assert airflow.events == []


@pytest.mark.parametrize(
    "path", ["", "/", "/kie", "/kie/other", "/kie/other/x", "/metrics", "/kie/kie_default/x", "/%2e"]
)
def test_a_wrong_path_is_refused(received, airflow, kie, caplog, path):
    root = received.removesuffix(f"/kie/{CONN_ID}")
    assert post(root + path, finished(kie)) == 404
    assert airflow.events == []
    assert "answered 404" in caplog.text
    assert "other" not in caplog.text


def test_a_slash_at_the_end_is_not_redirected(connect, received):
    connect(callback_secret=SECRET)
    answer = requests.post(f"{received}/{SECRET}/", timeout=5, allow_redirects=False)
    assert answer.status_code == 404
    assert SECRET not in f"{answer.headers}{answer.text}"


def test_a_wrong_method_is_refused(received):
    assert [requests.request(method, received, timeout=5).status_code for method in ("GET", "PUT")] == [405, 405]


def test_a_wrong_family_of_the_url_is_refused(received, kie):
    assert post(f"{received}?family=wavs", finished(kie)) == 404


@pytest.mark.parametrize("key", [None, KEY])
def test_the_secret_of_the_path_counts_with_and_without_a_key(connect, received, airflow, kie, caplog, key):
    connect(callback_secret=SECRET, webhook_hmac_key=key)
    kie_task_id = finished(kie)
    for wrong in ("", "/", f"/{SECRET[:-1]}", f"/{SECRET}x", f"/{SECRET.upper()}", "/%C3%A4"):
        assert post(received + wrong, kie_task_id) == 404
    assert airflow.events == []
    assert post(f"{received}/{SECRET}", kie_task_id, None if key else {}) == 200
    assert airflow.told() == {kie_task_id: 1}
    assert SECRET not in caplog.text


def test_a_connection_without_key_and_secret_receives_nothing(connect, received, airflow, kie, caplog):
    connect(webhook_hmac_key=None)
    assert post(received, finished(kie), {}) == 404
    assert "neither webhook_hmac_key nor callback_secret" in caplog.text


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"data":{}}', b"\xff" * 100])
def test_a_body_that_is_no_callback_is_refused(received, data):
    assert post(received, "x", json=None, data=data) == 400


def test_a_huge_body_is_refused_whatever_it_announces(received, airflow):
    assert post(received, "x", json=None, data=b"x" * 70_000) == 413
    chunks = (b"x" * 1_000 for _ in range(70))
    assert post(received, "x", json=None, data=chunks) == 413


@switched(callback_body=0.3)
def test_a_slow_body_is_cut_off(received):
    host, port = received.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=5) as slow:
        slow.sendall(f"POST /kie/{CONN_ID} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        answer = b""
        while piece := slow.recv(4096):  # to the end, because the connection is closed
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408")


# --- When Airflow does not answer


def test_airflow_away_then_the_repetition_makes_the_event(connect, kie, monkeypatch):
    fake = FakeAirflow()
    fake.listen(WAV)
    with Served(fake.app) as first:
        port = first.port
    kie.configure(callback_pause=0.5)
    with Served(app.create_app(settings_for(f"http://127.0.0.1:{port}"))) as served:
        kie_task_id = kie.state.create_conversion("m", "a", callback_url=f"{served.url}/kie/{CONN_ID}")
        eventually(kie.callbacks)
        assert kie.callbacks()[0]["http_status"] == 503
        with Served(fake.app, port):
            eventually(lambda: fake.told())
            eventually(lambda: kie.callbacks()[-1]["http_status"] == 200)
    assert fake.told() == {kie_task_id: 1}


@pytest.mark.parametrize("ledger", [False, True])
@pytest.mark.parametrize("trouble", ["refused", "down"])
@switched(take_over=0.2)
def test_airflow_that_refuses_is_asked_again(connect, received, airflow, kie, tmp_path, trouble, ledger):
    if ledger:
        connect(ledger=init_ledger(tmp_path / "ledger").url)
    kie_task_id = finished(kie)
    airflow.trouble = trouble
    assert [post(received, kie_task_id) for _ in range(2)] == [503, 503]
    airflow.trouble = None
    time.sleep(0.3)  # the take-over's own time, after a 503 of unknown outcome
    assert post(received, kie_task_id) == 200
    assert airflow.told() == {kie_task_id: 1}


@pytest.mark.parametrize("ledger", [False, True])
@switched(take_over=0.1)
def test_an_event_whose_answer_was_lost_is_not_made_again(connect, received, airflow, kie, tmp_path, ledger):
    if ledger:
        connect(ledger=init_ledger(tmp_path / "ledger").url)
    post(received, finished(kie))  # the client is there, and has its time-out
    kie_task_id = finished(kie)
    airflow.trouble = "lost"
    with switched(callback_answer=0.3):
        assert post(received, kie_task_id) == 503
    assert eventually(lambda: airflow.told().get(kie_task_id)) == 1  # the work goes on after its answer
    airflow.trouble = None
    eventually(lambda: post(received, kie_task_id) == 200)
    assert airflow.told()[kie_task_id] == 1


@switched(take_over=0.3)
def test_an_event_that_was_claimed_by_a_receiver_that_died_is_told_by_another(
    connect, received, airflow, kie, tmp_path
):
    ledger = init_ledger(tmp_path / "ledger")
    connect(ledger=ledger.url)
    kie_task_id = finished(kie)
    assert ledger.event(WAV, kie_task_id).claim("fail", 0.0).kind == "claimed"
    assert post(received, kie_task_id) == 503
    # KIE gives up here; the receiver does not.
    assert eventually(airflow.told) == {kie_task_id: 1}
    assert post(received, kie_task_id) == 200
    assert airflow.told() == {kie_task_id: 1}


@switched(take_over=0.2)
def test_an_event_that_was_claimed_before_the_start_is_told_without_a_callback(connect, airflow, kie, ledger):
    ids = {"told": finished(kie), "claimed": finished(kie), "made": finished(kie)}
    for state, kie_task_id in ids.items():
        chain = ledger.event(WAV, kie_task_id)
        assert chain.claim("fail", 0.0).kind == "claimed"
        if state == "told":
            chain.note(1, "finished", kie_task_id)
    airflow.events.append({"asset": airflow.assets[WAV], "extra": {"kie_task_id": ids["made"]}})
    with Served(app.create_app(settings_for(airflow.url))):
        eventually(lambda: not ledger.untold())
    assert airflow.told() == {ids["claimed"]: 1, ids["made"]: 1}


@switched(take_over=-0.9)
def test_what_was_claimed_before_the_start_is_told_once_airflow_is_back(connect, kie, ledger):
    fake = FakeAirflow()
    fake.listen(WAV)
    kie_task_id = finished(kie)
    ledger.event(WAV, kie_task_id).claim("fail", 0.0)
    with Served(fake.app) as first:
        port = first.port
    with Served(app.create_app(settings_for(f"http://127.0.0.1:{port}"))):
        eventually(lambda: len(kie.requests("record-info")) > 1)  # twice in vain
        with Served(fake.app, port):
            assert eventually(fake.told) == {kie_task_id: 1}


@switched(take_over=0.0)
def test_of_two_receivers_that_take_over_at_once_one_tells(ledger):
    ledger.event(WAV, "job-1").claim("fail", 0.0)

    class Slow:
        """An Airflow that both have asked before either goes on."""

        def __init__(self) -> None:
            self.asked = asyncio.Barrier(2)
            self.made = 0

        async def has_event(self, uri, kie_task_id):
            await self.asked.wait()
            return False

        async def make_event(self, uri, extra):
            self.made += 1
            await asyncio.sleep(0.3)
            return True

    async def both() -> tuple[int, list[object]]:
        airflow = Slow()
        tellings = [telling.Telling(airflow) for _ in range(2)]
        news = {"kie_task_id": "job-1"}
        answers = await asyncio.gather(*(each.tell(ledger.url, WAV, news) for each in tellings), return_exceptions=True)
        return airflow.made, sorted(type(each).__name__ for each in answers)

    assert asyncio.run(both()) == (1, ["UnsureError", "bool"])


# --- A submit whose outcome the ledger does not know

FOX = {"prompt": "a fox", "image_urls": ["https://files.example/fox.png"]}


def claim(ledger, kie, *, given=FOX, family="jobs", model="m/x", account=CONN_ID, task="make"):
    """Claim an entry as a task does whose answer to the submit is lost."""
    identity = identity_of(account, kie.url, FAMILY_ROWS[family], model, given)
    chain = ledger.chain({"dag_id": "d", "run_id": "r", "task_id": task, "map_index": -1})
    chain.facts |= {"identity": identity, "max_tries": 3}
    assert chain.claim("fail", 0.0).kind == "claimed"
    return ledger.entry(chain.entry)


@pytest.fixture
def soon():
    """Let all submits have ended soon."""
    with switched(longest_submit=-settling.AHEAD.total_seconds(), claims_reuse=0.5):
        yield


def end_of_the_fox(received, kie, caplog) -> str:
    """Let the job end, and return its id once the ledger has been looked at."""
    kie_task_id = kie.create_job("jobs", finished=True, model="m/x", **FOX)
    assert post(received, kie_task_id) == 200
    eventually(lambda: "the ledger is looked through" in caplog.text)
    return kie_task_id


def test_the_end_of_a_job_settles_the_submit_whose_answer_was_lost(soon, received, ledger, airflow, kie, caplog):
    caplog.set_level(logging.DEBUG, "airflow_provider_kie.callbacks")
    unknown = claim(ledger, kie)
    others = [
        claim(ledger, kie, given={"prompt": "a hen"}, task="another input"),
        claim(ledger, kie, model="m/y", task="another model"),
        claim(ledger, kie, account="studio", task="another account"),
        claim(ledger, kie, family="music", model=None, task="another family"),
    ]
    kie_task_id = end_of_the_fox(received, kie, caplog)
    found = eventually(lambda: (found := unknown.look()).kind == "job" and found)
    assert found.kie_task_id == kie_task_id
    assert found.body["identity"]["model"] == "m/x"
    assert found.body["max_tries"] is None  # the clear that follows is no consent to pay again
    assert [other.look().kind for other in others] == ["unknown"] * 4
    assert airflow.told() == {kie_task_id: 1}


def test_of_two_submits_that_may_be_meant_none_is_settled(soon, received, ledger, airflow, kie, caplog):
    caplog.set_level(logging.DEBUG, "airflow_provider_kie.callbacks")
    both = [claim(ledger, kie, task=task) for task in ("one", "two")]
    end_of_the_fox(received, kie, caplog)
    assert [each.look().kind for each in both] == ["unknown"] * 2


def test_a_job_that_another_entry_has_settles_nothing(soon, received, ledger, airflow, kie, caplog):
    caplog.set_level(logging.DEBUG, "airflow_provider_kie.callbacks")
    kie_task_id = kie.create_job("jobs", finished=True, model="m/x", **FOX)
    claim(ledger, kie, task="one").note(1, "submitted", kie_task_id)
    unknown = claim(ledger, kie, task="two")
    assert post(received, kie_task_id) == 200
    eventually(lambda: "the ledger is looked through" in caplog.text)
    assert unknown.look().kind == "unknown"


@pytest.mark.parametrize("seconds", [-600, -90, 400])
def test_a_job_of_another_time_settles_nothing(soon, received, ledger, airflow, kie, caplog, monkeypatch, seconds):
    caplog.set_level(logging.DEBUG, "airflow_provider_kie.callbacks")
    unknown = claim(ledger, kie)
    monkeypatch.setattr(kie.state, "_clock", lambda: time.time() + seconds)
    end_of_the_fox(received, kie, caplog)
    assert unknown.look().kind == "unknown"


def test_a_submit_that_still_runs_is_not_settled(received, ledger, airflow, kie, caplog, monkeypatch):
    """Its own answer says which job it is, which may be another one with the same input."""
    caplog.set_level(logging.DEBUG, "airflow_provider_kie.callbacks")
    runs = claim(ledger, kie)

    def meanwhile(settings):
        assert runs.note(1, "submitted", "own-job")
        return 0.0

    monkeypatch.setattr(settling, "_longest_submit", meanwhile)
    end_of_the_fox(received, kie, caplog)
    assert runs.look().kie_task_id == "own-job"


def test_a_claim_that_was_made_just_before_the_end_is_settled(soon, received, ledger, airflow, kie, caplog):
    caplog.set_level(logging.DEBUG, "airflow_provider_kie.callbacks")
    post(received, kie.create_job("jobs", finished=True, model="m/y", **FOX))
    eventually(lambda: "the ledger is looked through" in caplog.text)  # so there is a list of claims
    unknown = claim(ledger, kie)
    kie_task_id = kie.create_job("jobs", finished=True, model="m/x", **FOX)
    assert post(received, kie_task_id) == 200
    assert eventually(lambda: unknown.look().kie_task_id) == kie_task_id


# --- Many


@pytest.mark.parametrize("ledger", [False, True])
def test_a_burst_of_a_thousand(connect, received, airflow, kie, tmp_path, ledger):
    if ledger:
        connect(ledger=init_ledger(tmp_path / "ledger").url)
    ids = [finished(kie) for _ in range(1_000)]
    answers = asyncio.run(burst(received, ids))
    # KIE repeats what was not answered with 200.
    for _ in range(3):
        again = [kie_task_id for kie_task_id, status in zip(ids, answers, strict=True) if status != 200]
        if not again:
            break
        time.sleep(1)
        ids, answers = again, asyncio.run(burst(received, again))
    told = airflow.told()
    assert len(told) == 1_000
    assert set(told.values()) == {1}


def test_two_receivers_with_one_ledger_make_one_event(connect, received, airflow, kie, tmp_path):
    connect(ledger=init_ledger(tmp_path / "ledger").url)
    ids = [finished(kie) for _ in range(50)]
    with Served(app.create_app(settings_for(airflow.url))) as second:
        urls = [received, f"{second.url}/kie/{CONN_ID}"]

        async def both() -> None:
            await asyncio.gather(*(burst(url, ids) for url in urls))

        asyncio.run(both())
        for url in urls:  # KIE repeats what was not answered with 200
            again = (asyncio.run(burst(url, ids)) for _ in range(5))
            assert any(set(answers) == {200} for answers in again)
    assert airflow.told() == dict.fromkeys(ids, 1)


async def burst(url: str, ids: list[str]) -> list[int]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(kie_task_id: str) -> int:
            async with session.post(url, json=about(kie_task_id), headers=signed(kie_task_id)) as answer:
                return answer.status

        return await asyncio.gather(*map(one, ids))


# --- The start


@pytest.fixture
def environment(connect, airflow, monkeypatch):
    for name, value in (("URL", airflow.url), ("USERNAME", "receiver"), ("PASSWORD", "secret")):
        monkeypatch.setenv(f"KIE_CALLBACKS_AIRFLOW_{name}", value)
    monkeypatch.setattr("uvicorn.Server.run", lambda self: None)
    yield monkeypatch.setenv
    for name in ("airflow_provider_kie", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def test_it_starts_when_everything_is_right(environment, capfd):
    assert main([]) == 0
    assert "Airflow 3.3.2 accepts receiver" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AIRFLOW_URL", "", "KIE_CALLBACKS_AIRFLOW_URL is not set"),
        ("AIRFLOW_URL", "airflow:8080", "must be a URL"),
        ("AIRFLOW_URL", "http://user:secret@127.0.0.1", "without user"),
        ("AIRFLOW_USERNAME", "", "KIE_CALLBACKS_AIRFLOW_USERNAME is not set"),
        ("AIRFLOW_PASSWORD", "wrong", "check KIE_CALLBACKS_AIRFLOW_USERNAME and _PASSWORD"),
        ("CONNECTIONS", "kie_default, a b", "names 'a b'"),
        ("CONNECTIONS", "kie_missing", "kie_missing"),
    ],
)
def test_it_does_not_start_when_something_is_wrong(environment, capfd, name, value, says):
    environment(f"KIE_CALLBACKS_{name}", value)
    assert main([]) == 1
    complaint = capfd.readouterr().err
    assert says in complaint
    assert "secret@" not in complaint


def test_it_names_the_extra_that_is_missing(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main([]) == 1
    assert "uvicorn is missing: pip install 'airflow-provider-kie[callbacks]'" in capfd.readouterr().err


def test_it_does_not_start_without_key_and_secret(connect, environment, capfd):
    connect(webhook_hmac_key=None)
    assert main([]) == 1
    assert "neither a webhook_hmac_key nor a callback_secret" in capfd.readouterr().err


def test_it_does_not_start_with_another_server_in_airflows_place(environment, kie, capfd):
    environment("KIE_CALLBACKS_AIRFLOW_URL", kie.url)
    assert main([]) == 1
    assert "not the address of an Airflow" in capfd.readouterr().err


def test_it_starts_while_airflow_is_away(environment, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment("KIE_CALLBACKS_AIRFLOW_URL", f"http://127.0.0.1:{port}")
    assert main([]) == 0
    assert "callbacks are answered with 503" in capfd.readouterr().err


# --- The emulator calls nobody else


@pytest.mark.parametrize(
    "url",
    [
        *("https://api.example.com/callback", "http://192.0.2.1/", "http://127.0.0.1.example.com/", "http://[::1"),
        *("ftp://127.0.0.1/x", "http://127.0.0.1@192.0.2.1/", "http://localhost.example.com/", "", "x"),
    ],
)
def test_the_emulator_calls_back_to_this_machine_only(kie, url):
    kie.configure(conversion_seconds=0)
    kie.state.create_conversion("m", "a", callback_url=url)
    assert kie.state.callbacks._due == []


def test_the_emulator_gives_up_after_three_repetitions(received, kie):
    kie.configure(callbacks="wrong-signature", callback_pause=0.02)
    kie.state.create_conversion("m", "a", callback_url=received)
    eventually(lambda: len(kie.callbacks()) == 4)
    eventually(lambda: not kie.state.callbacks._due)
    assert [each["http_status"] for each in kie.callbacks()] == [401] * 4
    assert times().airflow_request < times().callback_answer < 10
