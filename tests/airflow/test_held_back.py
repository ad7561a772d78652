# SPDX-License-Identifier: Apache-2.0
"""A submit that is held back was not sent, and neither memory says that it may have been."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.hooks import pacing
from airflow_provider_kie.memory import Memory
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.times import switched
from tests.jobs import IMAGE_MODEL
from tests.task_instance import Store, Task, WorkerCrash

pytestmark = pytest.mark.usefixtures("no_patience")

REMEMBERED_BY = {"store": (True, False), "ledger": (False, True), "both": (True, True)}


@pytest.fixture(params=REMEMBERED_BY)
def task(request, kie, ledger):
    by_store, by_ledger = REMEMBERED_BY[request.param]
    arguments = {"model": IMAGE_MODEL, "input": {"prompt": "fox"}, "poll_interval": 0.03, "timeout": 20}
    return Task(KieJobOperator, Store() if by_store else None, ledger=ledger if by_ledger else False, **arguments)


def run_for(task, seconds):
    """Carry out a try which Airflow ends by its time-out."""

    def raise_it(*_):
        raise AirflowTaskTimeout("Timeout")

    before = signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        task.run_once()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_time_out_while_it_is_held_back_lets_the_next_try_submit(kie, task):
    with switched(rate_limit=0), pytest.raises(AirflowTaskTimeout):
        run_for(task, 0.6)
    assert kie.requests("submit") == []
    assert task.run_once()["status"] == "success"
    assert kie.accepted_submits == 1


def test_a_process_that_dies_while_it_is_held_back_lets_the_next_try_submit(kie, task):
    def dies(self):
        hold(self)
        raise WorkerCrash

    hold = Memory.hold
    with switched(rate_limit=0), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Memory, "hold", dies)
        patch.setattr(Memory, "release", lambda self: self.ledger and self.ledger.release())
        with pytest.raises(WorkerCrash):
            task.run_once()
    assert task.run_once()["status"] == "success"
    assert kie.accepted_submits == 1


def test_a_time_out_after_it_was_held_back_and_sent_leaves_it_unknown(kie, task):
    kie.play("accepted-then-hang", endpoint="submit")
    with switched(rate_limit=1, rate_window=0.3):
        window = pacing.PACER._windows["kie_default", task._build().hook.settings.base_url]
        window.answered.append(time.monotonic())
        with pytest.raises(e.KieMaybeSubmittedError):
            run_for(task, 1.2)
    with pytest.raises(e.KieMaybeSubmittedError):
        task.run_once()
    assert kie.accepted_submits == 1


def test_a_time_out_in_the_pause_after_a_refusal_lets_the_next_try_submit(kie, task):
    kie.play("maintenance", endpoint="submit")
    with switched(maintenance_pause=30.0), pytest.raises(AirflowTaskTimeout):
        run_for(task, 1.0)
    assert kie.accepted_submits == 0
    assert task.run_once()["status"] == "success"


def test_a_lost_submit_stays_unknown_though_its_repetition_is_refused(kie):
    from airflow_provider_kie.operators.wav import ConvertToWavOperator

    kie.play("accepted-then-reset", *["maintenance"] * 9, endpoint="submit")
    store = Store()
    track = {"music_task_id": "m", "audio_id": "a", "poll_interval": 0.03}
    task = Task(ConvertToWavOperator, store, ledger=False, **track)
    with pytest.raises(e.KieMaintenanceError):
        task.run_once()
    (kept,) = store.values.values()
    assert (kept["state"], kept["kie_task_id"]) == ("claimed", None)


def test_a_lost_submit_is_not_forgotten_while_its_repetition_is_held_back(kie, ledger):
    """KIE's 409 guards a conversion, so it is sent again; but not with on_unknown_submit="fail"."""
    from airflow_provider_kie.operators.wav import ConvertToWavOperator

    kie.play("accepted-then-reset", endpoint="submit")
    track = {"music_task_id": "m", "audio_id": "a", "on_unknown_submit": "fail", "poll_interval": 0.03}
    task = Task(ConvertToWavOperator, Store(), ledger=False, **track)
    with switched(rate_limit=1, rate_window=60.0), pytest.raises(e.KieMaybeSubmittedError):
        task.run_once()
    with pytest.raises(e.KieMaybeSubmittedError):
        task.run_once()
    assert len(kie.requests("submit")) == 1


@switched(rate_limit=1, rate_window=0.3)
def test_the_claim_is_given_back_meanwhile(kie, ledger):
    for prompt in ("a", "b"):
        more = {"model": IMAGE_MODEL, "poll_interval": 0.03, "timeout": 20, "reuse": "input"}
        Task(KieJobOperator, None, ledger=ledger, input={"prompt": prompt}, **more).run_once()
    names = Counter(path.name for path in Path(ledger.removeprefix("file://")).glob("??/*/*"))
    assert (names["0001.refused"], names["0002.submitted"]) == (1, 1)
    assert kie.accepted_submits == 2
