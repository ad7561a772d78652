# SPDX-License-Identifier: Apache-2.0
"""The trigger ends in exactly one event of plain JSON, on every path, and blocks nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace

import airflow
import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, timezone
from packaging.version import Version

from airflow_provider_kie.exceptions import KieAuthenticationError, KieError
from airflow_provider_kie.hooks import kie_async
from airflow_provider_kie.hooks.kie_async import KieAsyncHook
from airflow_provider_kie.tasks import deferral
from airflow_provider_kie.times import switched
from airflow_provider_kie.triggers.event import read_event
from airflow_provider_kie.triggers.job import AIRFLOW_MARGIN, EXIT_MARGIN, LONGEST_RECOVERY, KieJobTrigger
from airflow_provider_kie.triggers.wav import WavConversionTrigger
from airflow_provider_kie.waiting.pace import Pace
from airflow_provider_kie.waiting.verdict import Failed
from tests.jobs import URL, wav_job
from tests.modes import only_event


def trigger(kie_task_id, seconds=20.0, **arguments):
    return WavConversionTrigger(
        **({"kie_conn_id": "kie_default", "poll_interval": 0.03} | arguments),
        kie_task_id=kie_task_id,
        deadline=time.time() + seconds,
        timeout=seconds,
    )


def test_it_is_stored_as_json_scalars_without_the_key(kie):
    path, arguments = trigger("988e00aa", max_wait=4.0).serialize()
    assert path == "airflow_provider_kie.triggers.wav.WavConversionTrigger"
    assert json.loads(json.dumps(arguments)) == arguments
    assert all(isinstance(value, (str, int, float, bool, type(None))) for value in arguments.values())
    assert kie.api_key not in json.dumps(arguments)
    assert WavConversionTrigger(**arguments).serialize() == (path, arguments)


def test_a_wait_that_moves_keeps_its_deadline(kie):
    kie.configure(conversion_seconds=600)
    first = trigger(kie.create_conversion(), seconds=0.3)
    moved = WavConversionTrigger(**first.serialize()[1])
    assert moved.deadline == first.deadline
    event = asyncio.run(only_event(moved))
    assert event["error"]["type"] == "KieWaitTimeoutError"
    assert time.time() == pytest.approx(first.deadline, abs=5)


def test_a_deadline_that_passed_still_leaves_one_poll(kie):
    kie_task_id = kie.create_conversion(finished=True)
    event = asyncio.run(only_event(trigger(kie_task_id, seconds=-60.0)))
    assert event["status"] == "success"


def test_an_unknown_connection_ends_what_no_worker_began(kie):
    """``start_from_trigger``: nobody has found the connection before, so it may be a slip of the pen."""
    arguments = trigger("988e00aa", kie_conn_id="nowhere").serialize()[1] | {"deadline": None}
    event = asyncio.run(only_event(WavConversionTrigger(**arguments)))
    assert event["error"]["type"] == "KieConnectionNotFoundError"
    assert event["error"]["kie_task_id"] == "988e00aa"


def limit_of_airflow(waiting, seconds):
    """Let Airflow end a deferral in so many seconds, wherever this Airflow says so."""
    limit = timezone.utcnow() + timedelta(seconds=seconds)
    if Version(airflow.__version__).major >= 3:
        waiting.timeout_after = limit
    else:
        waiting.task_instance = SimpleNamespace(trigger_timeout=limit.replace(tzinfo=None))
    return limit


@pytest.mark.parametrize("without", [{}, {"deadline": None}], ids=["deferred", "started from trigger"])
def test_the_event_comes_before_airflows_own_limit(kie, without):
    kie.configure(conversion_seconds=600)
    arguments = trigger(kie.create_conversion(), seconds=3600).serialize()[1] | without
    waiting = WavConversionTrigger(**arguments)
    limit = limit_of_airflow(waiting, AIRFLOW_MARGIN + 0.2)
    event = asyncio.run(only_event(waiting))
    assert event["error"]["type"] == "KieWaitTimeoutError"
    said = r"within 0\.\d seconds; last: .* the task's execution_timeout, .* its timeout of 3600 seconds short"
    assert re.search(said, event["error"]["problem"])
    assert timezone.utcnow() < limit


class Slept(BaseException):
    """Breaks a wait off where it first sleeps."""


@pytest.mark.parametrize(
    ("deadline_in", "timeout", "poll_interval", "at_least", "at_most"),
    [
        pytest.param(3600, 3600, 0.1, 4.9, 5.2, id="just deferred by a worker"),
        pytest.param(3600, 3600, 4, 4.9, 9.2, id="with an interval that is shorter than that"),
        pytest.param(4200, 3600, 0.1, 4.9, 5.2, id="by a worker whose clock is ahead"),
        pytest.param(3598, 3600, 0.1, 2.9, 3.2, id="two seconds ago"),
        pytest.param(1800, 3600, 0.1, 0.0, 0.1, id="moved to another triggerer"),
        pytest.param(None, 3600, 0.1, 0.0, 0.1, id="started in the triggerer"),
        pytest.param(1.0, 1.0, 0.1, 0.9, 1.0, id="with less time than that"),
    ],
)
def test_no_poll_before_the_deferral_is_recorded(monkeypatch, deadline_in, timeout, poll_interval, at_least, at_most):
    """Airflow fails a task whose trigger fires earlier."""

    sleep, here = asyncio.sleep, threading.get_ident()

    async def first_sleep(seconds, *result):
        if threading.get_ident() != here:  # an emulator's loop
            return await sleep(seconds, *result)
        raise Slept(seconds)

    waiting = WavConversionTrigger(
        kie_task_id="988e00aa",
        kie_conn_id="kie_default",
        poll_interval=poll_interval,
        deadline=None if deadline_in is None else time.time() + deadline_in,
        timeout=timeout,
    )
    monkeypatch.setattr(asyncio, "sleep", first_sleep)
    with pytest.raises(Slept) as slept:
        asyncio.run(only_event(waiting))
    assert at_least <= slept.value.args[0] <= at_most


def test_code_that_cannot_be_loaded_yet_ends_no_wait(kie, monkeypatch):
    attempts = iter([ImportError("the disk is away")])

    async def sometimes_away(cls):
        for error in attempts:
            raise error
        return KieAsyncHook

    monkeypatch.setattr(WavConversionTrigger, "_hook_class", None)
    monkeypatch.setattr(WavConversionTrigger, "_load_hook_class", classmethod(sometimes_away))
    kie_task_id = kie.create_conversion(finished=True)
    assert asyncio.run(only_event(trigger(kie_task_id)))["status"] == "success"


def test_an_error_that_stays_ends_at_the_deadline(kie, monkeypatch):
    async def broken(self, *args, **kwargs):
        raise ValueError("always")

    monkeypatch.setattr(KieAsyncHook, "wait", broken)
    event = asyncio.run(only_event(trigger("988e00aa", seconds=0.2)))
    assert event["error"]["type"] == "KieWaitTimeoutError"
    assert "unexpected ValueError" in event["error"]["problem"]


@pytest.mark.parametrize("odd", [float("inf"), None, "10"])
def test_whatever_it_is_given_it_ends_in_an_event(kie, odd):
    event = asyncio.run(only_event(trigger(kie.create_conversion(finished=True), poll_interval=odd)))
    assert event["error"]["type"] == "KieWaitTimeoutError"
    assert "broke off: unexpected" in event["error"]["problem"]
    assert event["error"]["kie_task_id"]


@switched(grace=0.0, lookup_reuse=0.0)
def test_a_wait_outlasts_errors_and_the_secrets_backend(kie, monkeypatch):
    """``start_from_trigger``, after the minute in which nobody may know the connection."""
    find, troubles = kie_async.get_async_connection, [None, AirflowNotFoundException("away"), None]
    look, faults = KieAsyncHook.wait, [ValueError("once")]

    async def find_sometimes(conn_id):
        if trouble := troubles.pop(0):
            raise trouble
        return await find(conn_id)

    async def look_in_the_end(self, *args, **kwargs):
        if faults:
            raise faults.pop()
        return await look(self, *args, **kwargs)

    monkeypatch.setattr(kie_async, "get_async_connection", find_sometimes)
    monkeypatch.setattr(KieAsyncHook, "wait", look_in_the_end)
    arguments = trigger(kie.create_conversion(finished=True)).serialize()[1] | {"deadline": None}
    assert asyncio.run(only_event(WavConversionTrigger(**arguments)))["status"] == "success"
    assert troubles == []


@pytest.fixture
def rotation(kie, monkeypatch):
    """KIE takes only the second key; the connection has the first one until somebody has looked it up."""
    monkeypatch.setattr(kie.state, "api_key", "the-second-key-of-the-account")
    old = json.loads(os.environ["AIRFLOW_CONN_KIE_DEFAULT"])
    find, passwords = kie_async.get_async_connection, []

    async def find_and_change(conn_id):
        password = passwords.pop(0) if passwords else kie.api_key
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(old | {"password": password}))
        if password is None:
            raise AirflowNotFoundException("the backend is away")
        return await find(conn_id)

    monkeypatch.setattr(kie_async, "get_async_connection", find_and_change)
    passwords.append(old["password"])
    return passwords


def test_a_key_that_changed_a_moment_ago_is_found(kie, rotation, caplog):
    """Well within the seconds for which a connection that was found serves others."""
    assert asyncio.run(only_event(trigger(kie.create_conversion(finished=True))))["status"] == "success"
    assert [request["authorized"] for request in kie.requests()] == [False, True]
    assert "KIE refused the key, and the connection has changed" in caplog.text
    assert kie_async._SHARED == {}


@switched(lookup_reuse=0.0)
def test_keys_that_never_work_end_at_the_deadline(kie, rotation):
    rotation += [f"never-right-{n}" for n in range(10_000)]
    event = asyncio.run(only_event(trigger(kie.create_conversion(finished=True), seconds=0.5)))
    assert event["error"]["type"] == "KieWaitTimeoutError"
    assert "KIE refused the key" in event["error"]["problem"]


def test_hundreds_whose_key_is_refused_share_one_look_up(kie, monkeypatch, lookups):
    async def wait_for_all():
        waits = [trigger(f"wav-{n}", poll_interval=0.01) for n in range(200)]
        return await asyncio.gather(*map(only_event, waits))

    async def refused(self, call):
        await released.wait()
        raise KieAuthenticationError("The key was refused")

    async def release():
        while kie_async._SHARED == {} or next(iter(kie_async._SHARED.values())).holders < 200:
            await asyncio.sleep(0.01)
        released.set()

    async def both():
        return (await asyncio.gather(wait_for_all(), release()))[0]

    released = asyncio.Event()
    monkeypatch.setattr(KieAsyncHook, "attempt", refused)
    events = asyncio.run(both())
    assert {event["error"]["type"] for event in events} == {"KieAuthenticationError"}
    assert len(lookups) < 10


@pytest.mark.parametrize("trouble", ["refused", "html", "reset", "rate-limited"])
def test_a_wait_keeps_nothing_of_an_outage(kie, trouble, monkeypatch, unused_tcp_port):
    """With the garbage collector off, so that neither a reference nor a cycle is left to it."""
    if trouble == "refused":
        nobody = json.loads(kie.connection_json()) | {"host": f"http://127.0.0.1:{unused_tcp_port}"}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(nobody))
    else:
        kie.play(trouble, endpoint="record-info", repeat=True)
    polls, original = Counter(), KieJobTrigger._report

    def counted(self, pause):
        original(self, pause)
        polls[self.kie_task_id] += 1

    async def errors_left():
        waits = [asyncio.create_task(only_event(trigger(f"wav-{n}", 3600.0, poll_interval=0.2))) for n in range(20)]
        while len(polls) < len(waits):
            await asyncio.sleep(0.01)
        gc.collect()
        gc.disable()
        before, errors_before = sum(polls.values()), set(map(id, errors_in_memory()))
        try:
            while sum(polls.values()) < before + 2 * len(waits):
                await asyncio.sleep(0.01)
            if trouble == "refused" and sys.version_info >= (3, 12):
                gc.collect()  # asyncio's own errors are a cycle here, and their frames lead to ours
            return [error for error in errors_in_memory() if id(error) not in errors_before]
        finally:
            gc.enable()
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    monkeypatch.setattr(KieJobTrigger, "_report", counted)
    # Who reads at this very moment has its error in hand.
    assert len(asyncio.run(errors_left())) <= 5


def errors_in_memory():
    # By type(), because isinstance() asks some of Airflow's lazy objects for their class, which imports it.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), KieError)]


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that the trigger asks for between its polls, none of which is kept."""
    original, asked = Pace.pause, []

    def keep(self, polls):
        asked.append(original(self, polls))
        return 0.0

    monkeypatch.setattr(Pace, "pause", keep)
    return asked


def test_a_wait_that_moves_backs_off_where_it_was(kie, pauses):
    kie_task_id = kie.create_conversion(finished=True)
    kie.play("pending")
    first = trigger(kie_task_id, poll_interval=0.5, seconds=3600, exponential_backoff=True, max_wait=400.0)
    arguments = first.serialize()[1]
    moved = WavConversionTrigger(**arguments | {"deadline": time.time() + 1800})
    assert asyncio.run(only_event(moved))["status"] == "success"
    assert 300 < pauses[0] <= 440


def test_waits_wake_up_together_and_stay_spread(kie, monkeypatch):
    sleep, moments = asyncio.sleep, []

    async def note(seconds):
        if seconds >= 1.0:
            moments.append(time.monotonic() + seconds)
        await sleep(0)

    async def pending(self, call):
        return wav_job() if len(moments) < 600 else wav_job("SUCCESS", wav_url=URL)

    async def wait_for_many():
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "sleep", note)
            await asyncio.gather(*[only_event(trigger(f"wav-{n}", 3600.0, poll_interval=10.0)) for n in range(200)])

    monkeypatch.setattr(KieAsyncHook, "attempt", pending)
    asyncio.run(wait_for_many())
    ticks = [moment * 10 for moment in moments]
    assert sum(abs(tick - round(tick)) < 0.1 for tick in ticks) > 0.95 * len(ticks)
    assert len({round(tick) for tick in ticks}) > 80


def test_a_missing_connection_is_looked_up_less_and_less_often(kie, pauses, caplog):
    event = asyncio.run(only_event(trigger("988e00aa", seconds=1.5, kie_conn_id="nowhere")))
    assert event["error"]["type"] == "KieWaitTimeoutError"
    assert "connection is not defined or cannot be read" in event["error"]["problem"]
    assert pauses[5] > 10 * pauses[0]
    assert max(pauses) <= LONGEST_RECOVERY * 1.1
    ours = [record for record in caplog.records if record.name.startswith("airflow_provider_kie")]
    assert len(ours) == 1
    assert not ours[0].exc_info


def test_a_last_poll_that_hangs_is_cut_off_in_time(kie):
    kie_task_id = kie.create_conversion(finished=True)
    kie.play("hang", endpoint="record-info", repeat=True)
    waiting = trigger(kie_task_id, seconds=3600)
    limit = limit_of_airflow(waiting, EXIT_MARGIN + 0.5)
    event = asyncio.run(only_event(waiting))
    assert event["error"]["type"] == "KieWaitTimeoutError"
    assert event["error"]["kie_task_id"] == kie_task_id
    assert "not finished within" in event["error"]["problem"]
    assert timezone.utcnow() < limit


def test_killing_says_that_the_conversion_goes_on(kie, caplog, capfd):
    asyncio.run(trigger("988e00aa").on_kill())
    # Airflow 3 writes a trigger's log past the standard library's handlers.
    assert "WAV task 988e00aa goes on" in caplog.text + capfd.readouterr().out


@pytest.mark.parametrize("reading", [False, True], ids=["asleep", "reading"])
def test_a_cancellation_passes_through_with_airflows_message(kie, reading):
    """Airflow calls ``on_kill`` only where the trigger lets the message of the cancellation through."""
    kie.configure(conversion_seconds=600)
    kie_task_id = kie.create_conversion()
    if reading:
        kie.play("hang", endpoint="record-info")

    async def kill():
        wait = asyncio.create_task(only_event(trigger(kie_task_id, 3600.0, poll_interval=0.3)))
        while not kie.requests("record-info"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        wait.cancel("__airflow_user_action__")
        with pytest.raises(asyncio.CancelledError) as killed:
            await wait
        return killed.value.args

    assert asyncio.run(kill()) == ("__airflow_user_action__",)
    assert kie_async._SHARED == {}


def test_airflows_limit_of_the_deferral_comes_later(kie):
    arguments = deferral(WavConversionTrigger("988e00aa", "kie_default", 30.0, None, 600.0))
    assert arguments["timeout"].total_seconds() > 600
    assert arguments["trigger"].deadline == pytest.approx(time.time() + 600, abs=5)


@pytest.mark.parametrize(
    "event",
    [
        *(None, [], "success", {"status": "done"}, {"status": "failed", "error": "x"}),
        *({"status": "success", "conversion": None}, {"status": "success", "conversion": {"wav_url": ""}}),
    ],
)
def test_an_event_that_is_no_clear_success_is_a_failure(event):
    assert isinstance(read_event(event), Failed)
