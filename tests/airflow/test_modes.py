# SPDX-License-Identifier: Apache-2.0
"""Poke, reschedule and deferrable mode mean the same: same XCom, same error, same message, same time-out."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

from airflow_provider_kie import exceptions
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


#: The first answer of the table by which a wait ends in each way.
ONE_OF_EACH = {case.wait: name for name, case in reversed(TABLE.items()) if case.wait}.values()


@pytest.mark.parametrize("name", [*ONE_OF_EACH, "server-error", "html"])
def test_every_way_to_end_is_alike(kie, monkeypatch, name):
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
        assert name != "task-unknown" or len(kie.requests("record-info")) >= 2 * len(MODES)  # there is a grace


FLAGS = ({"soft_fail": True}, {"never_fail": True}, {"silent_fail": True}, {"exponential_backoff": True})


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: next(iter(flags)))
@pytest.mark.parametrize(
    ("answers", "end_without_flags", "limit"),
    [
        (("pending", "success"), "success", {}),
        (("wav-failed",), "failed", {}),
        (("pending",), "failed", SOON),
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
    [(None, "kie_task_id is empty"), ("None", "kie_task_id is empty"), ("a?b=c", "kie_task_id is 'a…'")],
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


#: Readings that are refused while the secrets backend is away; the mode between them looks it up for each.
REFUSED = {"poke": 2, "reschedule": 0, "deferrable": 1}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_away", [False, True], ids=["", "while the secrets backend is away"])
def test_a_wait_goes_on_with_a_new_key(kie, monkeypatch, third_look, mode, is_away):
    def change():
        new = json.loads(os.environ["AIRFLOW_CONN_KIE_DEFAULT"]) | {"password": SECOND_KEY}
        if is_away and REFUSED[mode]:
            monkeypatch.delenv("AIRFLOW_CONN_KIE_DEFAULT")
        monkeypatch.setattr(kie.state, "api_key", SECOND_KEY)
        given_up = time.monotonic() + 15 * is_away
        while sum(not each["authorized"] for each in kie.requests()) < REFUSED[mode] and time.monotonic() < given_up:
            time.sleep(0.005)
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(new))

    kie_task_id = kie.create_conversion(finished=True)
    third_look(change)
    assert run_sensor(mode, monkeypatch, kie_task_id=kie_task_id, **QUICK).state == "success"
    if REFUSED[mode]:
        assert not all(request["authorized"] for request in kie.requests())


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
