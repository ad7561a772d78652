# SPDX-License-Identifier: Apache-2.0
"""When a call is sent again, how often, and after which pause: on a clock that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import threading
import time
from dataclasses import replace
from itertools import chain, repeat
from types import SimpleNamespace

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.call import Call, Repeat
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.hooks import pacing
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.hooks.kie_async import KieAsyncHook
from airflow_provider_kie.hooks.pacing import COOLDOWNS, PACER, Cooldowns
from airflow_provider_kie.times import switched, times

FREE = Call("Counting", "GET", "/count", lambda data: data)
PAID = Call("Buying", "POST", "/buy", lambda data: data, repeat=Repeat.GUARDED)
UNGUARDED = Call("Ordering", "POST", "/order", lambda data: data, repeat=Repeat.NEVER_TWICE)
KINDS = {"free": FREE, "paid": PAID, "unguarded": UNGUARDED}


def body(code: int) -> Response:
    return Response(200, json.dumps({"code": code, "msg": "x", "data": "done"}).encode())


#: What KIE can say, by short names. ``reset``: sent, but no answer; ``unsent``: certainly never sent.
SAYS = {
    "ok": body(200),
    "key": body(401),
    "rate": body(429),
    "cap": body(433),
    "maintenance": body(455),
    "server": body(500),
    "unlisted": body(531),
    "rate, with an id": Response(200, b'{"code": 429, "msg": "x", "data": {"taskId": "t-1"}}'),
    "unreadable": Response(200, b"<html>"),
    "reset": e.KieConnectionError("No answer"),
    "unsent": e.KieConnectionError("No answer", sent=False),
}


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if seconds:
            self.pauses.append(round(seconds, 6))

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pacing, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep_async)
    return clock


@pytest.fixture
def no_jitter(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda least, most: least)


class Script:
    """Plays answers in place of the network, the last one for ever, and counts the requests."""

    def __init__(self, names, retry_after=None):
        self.answers = chain(names, repeat(names[-1]))
        self.retry_after = retry_after
        self.sent = 0

    def next(self, call):
        self.sent += 1
        said = SAYS[next(self.answers)]
        if isinstance(said, e.KieConnectionError):
            raise call.explain(e.KieConnectionError(said.problem, sent=not said.nothing_created))
        return Response(said.status, said.body, self.retry_after)


def settings_of(conn_id):
    return KieSettings(conn_id, "key")


def over_requests(script, conn_id="kie_default"):
    hook = KieHook(conn_id)
    hook.__dict__["settings"] = settings_of(conn_id)
    hook._send = script.next
    return hook


def play(names, call, *, retry_after=None, conn_id="kie_default"):
    """Carry out a call; return the result or the error's class, and the number of requests."""
    script = Script(names, retry_after)
    try:
        return over_requests(script, conn_id).call(call), script.sent
    except e.KieError as error:
        return type(error).__name__, script.sent


def attempt_over_requests(name, **options):
    return over_requests(Script([name])).attempt(FREE, **options)


def attempt_over_aiohttp(name):
    script = Script([name])

    async def send(asked):
        return script.next(asked)

    hook = KieAsyncHook(settings_of("kie_default"), False)
    hook._send = send
    return asyncio.run(hook.attempt(FREE))


@pytest.mark.parametrize(
    ("name", "outcome", "sent"),
    [
        *(
            ("ok", "done", (1, 1, 1)),
            ("key", "KieAuthenticationError", (1, 1, 1)),
            ("cap", "KieKeyCapError", (1, 1, 1)),
        ),
        *(("rate", "KieRateLimitError", (11, 11, 11)), ("rate, with an id", "KieRateLimitError", (11, 1, 1))),
        ("maintenance", "KieMaintenanceError", (4, 4, 4)),
        ("server", "KieServerError", (4, 2, 1)),
        ("unlisted", "KieUnexpectedCodeError", (4, 1, 1)),
        ("unreadable", "KieUnreadableAnswerError", (4, 2, 1)),
        *(("reset", "KieConnectionError", (4, 2, 1)), ("unsent", "KieConnectionError", (4, 4, 4))),
    ],
)
def test_how_often_a_call_is_sent_if_the_answer_stays(clock, name, outcome, sent):
    for call, requests in zip((FREE, PAID, UNGUARDED), sent, strict=True):
        COOLDOWNS.clear()
        assert play([name], call) == (outcome, requests)


TROUBLES = ["server", "reset", "unreadable"] * 3


@pytest.mark.parametrize(
    ("names", "kind", "outcome", "sent"),
    [
        # each cause has repeats of its own
        (["rate"] * 10 + ["server"] * 3 + ["ok"], "free", "done", 14),
        (["server", "reset"] * 3 + ["server"], "free", "KieServerError", 7),
        (["rate"] * 5 + ["server"] * 4, "free", "KieServerError", 9),
        # an unknown outcome is repeated once, whatever its cause
        (["reset", "ok"], "paid", "done", 2),
        (["reset", "unreadable"], "paid", "KieUnreadableAnswerError", 2),
        (["rate"] * 3 + ["reset"] + ["rate"] * 3 + ["ok"], "paid", "done", 8),
        (["rate"] * 3 + ["reset"] + ["rate"] * 3 + ["server"], "paid", "KieServerError", 8),
        (["unsent"] * 3 + ["reset", "ok"], "paid", "done", 5),
        (["reset"] + ["unsent"] * 4, "paid", "KieConnectionError", 5),
        (["rate", "unsent", "maintenance", "ok"], "unguarded", "done", 4),
        (["rate", "unsent", "reset", "ok"], "unguarded", "KieConnectionError", 3),
        (["reset", "unlisted", "ok"], "paid", "KieUnexpectedCodeError", 2),
        # what cannot be helped ends it at once
        (["rate", "server", "key", "ok"], "free", "KieAuthenticationError", 3),
        # and there is an end to everything
        (["rate"] * 10 + TROUBLES + ["ok"], "free", "done", 20),
        (["rate"] * 10 + TROUBLES + ["maintenance"], "free", "KieMaintenanceError", 20),
    ],
)
def test_a_mixed_sequence(clock, names, kind, outcome, sent):
    assert play(names, KINDS[kind]) == (outcome, sent)


@pytest.mark.parametrize(
    ("name", "pauses"),
    [
        *((name, [1.0, 2.0, 4.0]) for name in ("server", "reset", "unlisted")),
        *(("maintenance", [30.0] * 3), ("rate", [10.0] * 10)),
    ],
)
@pytest.mark.usefixtures("no_jitter")
def test_pauses_without_retry_after(clock, name, pauses):
    play([name], FREE)
    assert clock.pauses == pauses


@pytest.mark.parametrize("name", ["server", "unlisted", "maintenance"])
@pytest.mark.parametrize(
    ("header", "pause"),
    [("0", 0.0), ("2.5", 2.5), ("60", 60.0), ("61", 60.0), ("9999999", 60.0), ("-5", 0.0)],
)
@pytest.mark.usefixtures("no_jitter")
def test_retry_after_is_honoured_up_to_a_minute(clock, name, header, pause):
    play([name], FREE, retry_after=header)
    assert clock.pauses == ([pause] * 3 if pause else [])


@pytest.mark.parametrize(("header", "pause"), [("0", 1.0), ("0.5", 1.0), ("2.5", 2.5), ("60", 60.0), ("-5", 1.0)])
@pytest.mark.usefixtures("no_jitter")
def test_the_pause_after_a_rate_limit_is_a_second_at_least(clock, header, pause):
    assert play(["rate"], FREE, retry_after=header) == ("KieRateLimitError", 11)
    assert clock.pauses == [pause] * 10


@pytest.mark.parametrize("header", ["61", "9999999"])
def test_a_longer_rate_limit_is_not_waited_for(clock, caplog, header):
    with caplog.at_level(logging.WARNING):
        assert play(["rate"], FREE, retry_after=header) == ("KieRateLimitError", 1)
    assert clock.pauses == []
    assert "Sending it again" not in caplog.text


@pytest.mark.parametrize(("name", "nominal"), [("server", 1.0), ("maintenance", 30.0)])
@pytest.mark.parametrize(("draw", "factor"), [(min, 1.0), (max, 1.3)])
def test_a_pause_is_up_to_a_third_longer(clock, monkeypatch, name, nominal, draw, factor):
    monkeypatch.setattr(random, "uniform", draw)
    play([name, "ok"], FREE)
    assert clock.pauses == [pytest.approx(nominal * factor)]


@pytest.mark.parametrize(("draw", "jitter"), [(min, 0.0), (max, 2.0)])
def test_calls_spread_when_the_window_is_over(clock, monkeypatch, draw, jitter):
    monkeypatch.setattr(random, "uniform", draw)
    play(["rate", "ok"], FREE)
    assert clock.pauses == [10.0 + jitter]


def test_a_repetition_is_announced(clock, caplog):
    with caplog.at_level(logging.WARNING):
        play(["server", "ok"], FREE)
    (said,) = (entry.getMessage() for entry in caplog.records if entry.name.startswith("airflow_provider_kie"))
    assert said.startswith("Counting: KIE answered 500: 'x' (connection 'kie_default').")
    assert said.endswith("Sending it again.")


def test_what_is_no_error_of_kie_is_not_repeated(clock):
    script = Script(["ok"])
    with pytest.raises(ZeroDivisionError):
        over_requests(script).call(Call("Counting", "GET", "/count", lambda data: 1 // 0))
    assert script.sent == 1


@pytest.mark.usefixtures("no_jitter")
class TestCooldown:
    """A rate limit is the account's, so every call of the connection pauses; those of another do not."""

    @pytest.fixture(params=[attempt_over_requests, attempt_over_aiohttp])
    def limited(self, clock, request):
        """Four seconds after one of the hooks has met a rate limit."""
        with contextlib.suppress(e.KieRateLimitError):
            request.param("rate")
        clock.now += 4.0

    @pytest.mark.parametrize(("conn_id", "pauses"), [("kie_default", [6.0]), ("kie_other", [])])
    def test_it_is_shared_by_the_hooks_of_a_connection(self, clock, limited, conn_id, pauses):
        assert play(["ok"], FREE, conn_id=conn_id) == ("done", 1)
        assert clock.pauses == pauses

    @pytest.mark.parametrize("patience", [6.0, 60.0])
    def test_a_patient_caller_waits_for_it(self, clock, limited, patience):
        assert attempt_over_requests("ok", patience=patience) == "done"
        assert clock.pauses == [6.0]

    def impatient(self, name):
        return attempt_over_requests(name, patience=5.875)

    @pytest.mark.parametrize("attempt", [impatient, lambda _, name: attempt_over_aiohttp(name)])
    def test_other_calls_and_the_triggerer_send_nothing_meanwhile(self, clock, limited, attempt):
        with pytest.raises(e.KieRateLimitError, match="Not sent: the connection pauses for another 6 sec") as caught:
            attempt(self, "ok")
        assert (caught.value.code, caught.value.conn_id, caught.value.retry_after) == (429, "kie_default", 6.0)
        assert clock.pauses == []

    @pytest.mark.parametrize("name", ["server", "maintenance", "unlisted", "key", "reset", "ok"])
    def test_other_answers_start_none(self, clock, name):
        with contextlib.suppress(e.KieError):
            attempt_over_requests(name)
        assert COOLDOWNS.pause(settings_of("kie_default"), 60.0) == 0.0

    def test_a_cooldown_counts_down_and_ends(self, clock):
        cooldowns = Cooldowns()
        assert cooldowns.pause(settings_of("a"), 60.0) == 0.0
        cooldowns.note(settings_of("a"), e.KieRateLimitError("slow"))
        for elapsed, rest in ((0.0, 10.0), (4.0, 6.0), (9.875, 0.125), (10.0, 0.0), (11.0, 0.0)):
            clock.now = 1000.0 + elapsed
            assert cooldowns.pause(settings_of("a"), 60.0) == rest
        clock.now = 1000.0
        for other in (settings_of("b"), replace(settings_of("a"), api_key="of another account")):
            assert cooldowns.pause(other, 60.0) == 0.0
        cooldowns.clear()
        assert cooldowns.pause(settings_of("a"), 60.0) == 0.0

    def test_a_shorter_one_does_not_cut_a_longer_one(self, clock):
        cooldowns = Cooldowns()
        cooldowns.note(settings_of("a"), e.KieRateLimitError("slow", retry_after=50.0))
        cooldowns.note(settings_of("a"), e.KieRateLimitError("slow", retry_after=1.0))
        assert cooldowns.pause(settings_of("a"), 60.0) == 50.0
        clock.now += 49.0
        cooldowns.note(settings_of("a"), e.KieRateLimitError("slow"))
        assert cooldowns.pause(settings_of("a"), 60.0) == 10.0


def test_a_thread_in_between_does_not_lose_its_pause(clock):
    """Another thread notes a longer pause at the worst moment: between the reading and the writing of this one."""
    cooldowns = Cooldowns()
    longer = e.KieRateLimitError("slow", retry_after=50.0)
    other = threading.Thread(target=cooldowns.note, args=(settings_of("a"), longer))

    class WorstMoment(dict):
        def get(self, *arguments):
            found = super().get(*arguments)
            if threading.current_thread() is not other and other.ident is None:
                other.start()
                other.join(0.2)
            return found

    cooldowns._until = WorstMoment()
    cooldowns.note(settings_of("a"), e.KieRateLimitError("slow", retry_after=1.0))
    other.join(10)
    assert 50.0 <= cooldowns.pause(settings_of("a"), 60.0) <= 50.0 + times().rate_jitter


# --- A submit's turn


def take_turn(settings, held=None):
    with PACER.turn(settings, 60.0, held) as turn:
        turn.is_sent = True


@pytest.mark.usefixtures("no_jitter")
def test_one_submit_too_many_waits_for_the_window_and_is_held_meanwhile(clock):
    held = []
    with switched(rate_limit=3, rate_window=2.5):
        for _ in range(3):
            take_turn(settings_of("turns"))
        assert clock.pauses == []
        take_turn(settings_of("turns"), lambda: held.append(clock.now))
    assert 2.5 < sum(clock.pauses) < 2.6
    assert len(held) == len(clock.pauses)  # called again and again
    assert max(clock.pauses) <= 1.0


def test_a_turn_that_is_not_used_leaves_its_place(clock):
    with switched(rate_limit=1):
        for _ in range(5):
            with PACER.turn(settings_of("unused"), 60.0):
                pass
    assert clock.pauses == []


@pytest.mark.usefixtures("no_jitter")
def test_a_pause_that_begins_while_a_submit_waits_for_its_turn_is_kept(clock):
    with switched(rate_limit=1, rate_window=2.0):
        take_turn(settings_of("meanwhile"))
        began = clock.now
        refused = e.KieRateLimitError("slow", retry_after=30.0)
        once = iter([lambda: COOLDOWNS.note(settings_of("meanwhile"), refused)])
        take_turn(settings_of("meanwhile"), lambda: next(once, lambda: None)())
    assert clock.now - began >= 30.0


def test_what_holding_raises_ends_the_wait(clock):
    def stop():
        raise TimeoutError

    with switched(rate_limit=0), pytest.raises(TimeoutError):
        take_turn(settings_of("stopped"), stop)


def test_a_shared_bucket_is_asked_first(clock, monkeypatch):
    asked = []
    monkeypatch.setattr(pacing, "await_turn", lambda settings, limit, *_: asked.append((settings.conn_id, limit)))
    take_turn(replace(settings_of("shared"), pacing="redis://127.0.0.1"))
    take_turn(settings_of("alone"))
    assert asked == [("shared", times().rate_limit)]
