# SPDX-License-Identifier: Apache-2.0
"""The shared bucket: who waits for it, and what happens where it is out of reach."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.hooks import shared_pacing
from airflow_provider_kie.hooks.pacing import Pacer
from airflow_provider_kie.hooks.shared_pacing import await_turn

SETTINGS = KieSettings("kie_default", "key-0123456789", pacing="redis://:secret-canary@127.0.0.1/0")


class Bucket:
    """Refuses so many turns, and then gives one after the other."""

    def __init__(self, refusals=0):
        self.refusals = refusals
        self.given = 0

    def now(self):
        return 0

    def leak(self, now):
        return 0

    def put(self, item):
        self.refusals -= 1
        self.given += self.refusals < 0
        return self.refusals < 0


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    seconds = []
    monkeypatch.setattr(shared_pacing.time, "sleep", seconds.append)
    monkeypatch.setattr(shared_pacing, "_RESTING_UNTIL", {})
    monkeypatch.setattr(shared_pacing, "_BUCKETS", {})
    return seconds


def use(monkeypatch, bucket):
    asked = []
    monkeypatch.setattr(shared_pacing, "_bucket", lambda *of: (asked.append(of), bucket)[1])
    return asked


def test_a_full_bucket_is_awaited_and_the_claim_is_given_back_first(monkeypatch, slept):
    bucket, released = Bucket(refusals=3), []
    use(monkeypatch, bucket)
    await_turn(SETTINGS, 20, 10.0, lambda: released.append(len(slept)))
    assert (len(slept), released, bucket.given) == (3, [0, 1, 2], 1)


def test_each_submit_asks_the_bucket_and_no_other_call_does(monkeypatch, slept):
    bucket = Bucket()
    use(monkeypatch, bucket)
    pacer = Pacer()
    for _ in range(3):
        with pacer.turn(SETTINGS, 60.0):
            pass
    with pacer.turn(replace(SETTINGS, pacing=None), 60.0):
        pass
    assert (bucket.given, slept) == (3, [])


def test_the_limit_is_the_accounts(monkeypatch):
    asked = use(monkeypatch, Bucket())
    for conn_id, account in (("a", "shop"), ("b", "shop"), ("c", None), ("d", None)):
        await_turn(replace(SETTINGS, conn_id=conn_id, account=account), 20, 10.0)
    a, b, c, d = (bucket for _, bucket, *_ in asked)
    assert a == b
    assert len({a, c, d}) == 3
    assert all(bucket.isidentifier() for bucket in (a, c, d))


def test_a_bucket_out_of_reach_holds_nothing_up_and_is_not_asked_each_time(monkeypatch, slept, caplog):
    class Broken(Bucket):
        asked = 0

        def put(self, item):
            Broken.asked += 1
            raise ConnectionError("redis://:secret-canary@127.0.0.1 is gone")

    use(monkeypatch, Broken())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await_turn(SETTINGS, 20, 10.0)
    assert (Broken.asked, slept) == (1, [])
    assert "paces itself" in caplog.text
    assert "secret-canary" not in caplog.text


def test_a_missing_extra_is_named_before_anything_is_sent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrate_limiter", None)
    with pytest.raises(e.KieConfigurationError, match=r"airflow-provider-kie\[pacing\]"):
        await_turn(SETTINGS, 20, 10.0)


def test_the_url_is_not_shown():
    assert "secret-canary" not in repr(SETTINGS)
