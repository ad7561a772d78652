# SPDX-License-Identifier: Apache-2.0
"""Poke, reschedule and deferrable mode mean the same: same XCom, same error, same message, same time-out."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

from airflow_provider_kie import exceptions
from airflow_provider_kie.waiting import pace
from tests.cases import TABLE
from tests.modes import MODES, run_sensor

# A wait that ends by itself has time to do so on a slow machine; one that does not is given up soon.
QUICK = {"poke_interval": 0.03, "timeout": 20}
SOON = {"timeout": 0.3}


def run_in_every_mode(kie, monkeypatch, *names, **arguments):
    """Play the answers from the start for each mode; the last one stays."""
    kie_task_id = kie.create_conversion(finished=True)
    ends = []
    for mode in MODES:
        kie.play(*names, endpoint="record-info", repeat=True)
        ends.append(run_sensor(mode, monkeypatch, **(QUICK | {"kie_task_id": kie_task_id} | arguments)))
    return kie_task_id, ends


def check_alike(ends):
    for end in ends[1:]:
        assert end == ends[0]
    return ends[0]


@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name].wait is not None])
def test_every_case_ends_alike(kie, monkeypatch, name):
    expected = TABLE[name].wait
    kie_task_id, ends = run_in_every_mode(kie, monkeypatch, name, **(SOON if expected == "time-out" else {}))
    end = check_alike(ends)
    if expected == "done":
        assert end.state == "success"
        assert end.xcom["kie_task_id"] == kie_task_id
        assert end.xcom["wav_url"].startswith(kie.url)
    else:
        error = "KieSensorTimeoutError" if expected == "time-out" else expected.__name__
        assert (end.state, end.error, end.retried) == ("failed", error, False)
        assert kie_task_id in end.message
        assert end.message.endswith(getattr(exceptions, error).next_step)


FLAGS = ({"soft_fail": True}, {"never_fail": True}, {"silent_fail": True}, {"exponential_backoff": True})


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: next(iter(flags)))
@pytest.mark.parametrize(
    ("answers", "end_without_flags", "limit"),
    [
        (("pending", "success"), "success", {}),
        (("wav-failed",), "failed", {}),
        (("wrong-key",), "failed", {}),
        (("pending",), "failed", SOON),
        (("server-error",), "failed", SOON),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_flags_mean_the_same(kie, monkeypatch, answers, end_without_flags, limit, flags):
    _, ends = run_in_every_mode(kie, monkeypatch, *answers, **limit, **flags)
    skips = {"soft_fail", "never_fail"} & set(flags)
    assert check_alike(ends).state == ("skipped" if skips and end_without_flags == "failed" else end_without_flags)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kie_task_id", "says"),
    [
        ("", "kie_task_id is empty"),
        (None, "kie_task_id is empty"),
        ("None", "kie_task_id is empty"),
        ("has space", "kie_task_id is 'has space'"),
        ("a;b", "kie_task_id is 'a;b'"),
        ("a?b=c", "kie_task_id is 'a…'"),
    ],
)
def test_a_bad_id_is_refused_before_anything_is_sent(kie, monkeypatch, mode, kie_task_id, says):
    end = run_sensor(mode, monkeypatch, kie_task_id=kie_task_id, **QUICK)
    assert (end.state, end.error, end.retried) == ("failed", "KieValidationError", False)
    assert end.message.startswith(says)
    assert kie.requests() == []


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_connection_is_named(kie, monkeypatch, mode):
    end = run_sensor(mode, monkeypatch, kie_task_id="988e00aa", kie_conn_id="nowhere", **QUICK)
    assert (end.state, end.error, end.retried) == ("failed", "KieConnectionNotFoundError", True)
    assert "connection 'nowhere'" in end.message


@pytest.mark.parametrize("mode", MODES)
def test_an_unknown_id_gets_the_grace_and_is_then_not_found(kie, monkeypatch, mode):
    end = run_sensor(mode, monkeypatch, kie_task_id="988e00aa", **QUICK)
    assert end.error == "KieNotFoundError"
    assert "'988e00aa'" in end.message
    assert len(kie.requests("record-info")) >= 2


@pytest.mark.parametrize("mode", MODES)
def test_an_id_that_becomes_visible_late_is_found(kie, monkeypatch, mode):
    monkeypatch.setattr(pace, "GRACE_SECONDS", QUICK["timeout"])  # the fixture's short one is for running out
    kie_task_id = kie.create_conversion(finished=True)
    kie.play("task-unknown", "task-unknown", "pending")
    assert run_sensor(mode, monkeypatch, kie_task_id=kie_task_id, **QUICK).state == "success"


@pytest.mark.parametrize("mode", MODES)
def test_trouble_in_the_middle_does_not_end_a_wait(kie, monkeypatch, mode):
    kie_task_id = kie.create_conversion(finished=True)
    kie.play("pending", "reset", "bad-gateway", "html", "rate-limited", "maintenance", "hang", "pending", "cut-off",
             endpoint="record-info")  # fmt: skip
    end = run_sensor(mode, monkeypatch, kie_task_id=kie_task_id, poke_interval=0.01, timeout=30)
    assert end.state == "success"


SECOND_KEY = "the-second-key-of-the-account"


@pytest.fixture
def third_look(kie):
    """Call something once a wait that goes on has looked three times, which is in the triggerer if there is one."""
    threads = []

    def at_the_third_look(change):
        def run():
            given_up = time.monotonic() + 15
            while len(kie.requests("record-info")) < 3 and time.monotonic() < given_up:
                time.sleep(0.005)
            change()
            kie.play("success", endpoint="record-info", repeat=True)

        kie.play("pending", endpoint="record-info", repeat=True)
        threads.append(threading.Thread(target=run))
        threads[0].start()

    yield at_the_third_look
    threads[0].join()


@pytest.mark.parametrize("mode", MODES)
def test_a_wait_goes_on_with_a_new_key_once_kie_refuses_the_old_one(kie, monkeypatch, third_look, mode):
    def change():
        new = json.loads(os.environ["AIRFLOW_CONN_KIE_DEFAULT"]) | {"password": SECOND_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(new))
        monkeypatch.setattr(kie.state, "api_key", SECOND_KEY)

    kie_task_id = kie.create_conversion(finished=True)
    third_look(change)
    assert run_sensor(mode, monkeypatch, kie_task_id=kie_task_id, **QUICK).state == "success"
    if mode != "reschedule":  # which has looked the connection up for each look anyway
        assert not all(request["authorized"] for request in kie.requests())


@pytest.mark.parametrize(("mode", "refused"), [("poke", 2), ("deferrable", 1)])  # the third looks it up each time
def test_a_secrets_backend_that_is_away_ends_no_wait_whose_key_was_refused(kie, monkeypatch, third_look, mode, refused):
    def change():
        new = json.loads(os.environ["AIRFLOW_CONN_KIE_DEFAULT"]) | {"password": SECOND_KEY}
        monkeypatch.delenv("AIRFLOW_CONN_KIE_DEFAULT")
        monkeypatch.setattr(kie.state, "api_key", SECOND_KEY)
        given_up = time.monotonic() + 15
        while sum(not request["authorized"] for request in kie.requests()) < refused and time.monotonic() < given_up:
            time.sleep(0.005)
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(new))

    kie_task_id = kie.create_conversion(finished=True)
    third_look(change)
    assert run_sensor(mode, monkeypatch, kie_task_id=kie_task_id, **QUICK).state == "success"


@pytest.mark.parametrize("mode", MODES)
def test_a_key_that_was_only_withdrawn_ends_a_wait(kie, monkeypatch, third_look, mode):
    kie_task_id = kie.create_conversion(finished=True)
    third_look(lambda: monkeypatch.setattr(kie.state, "api_key", SECOND_KEY))
    end = run_sensor(mode, monkeypatch, kie_task_id=kie_task_id, **QUICK)
    assert (end.state, end.error, end.retried) == ("failed", "KieAuthenticationError", False)


def test_a_finished_conversion_costs_no_deferral(kie, monkeypatch):
    kie_task_id = kie.create_conversion(finished=True)
    assert run_sensor("deferrable", monkeypatch, kie_task_id=kie_task_id, **QUICK).state == "success"
    assert len(kie.requests("record-info")) == 1
