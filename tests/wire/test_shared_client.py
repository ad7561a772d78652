# SPDX-License-Identifier: Apache-2.0
"""All waits of a connection in one event loop share one client, which is closed when the last one ends."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings

import pytest

from airflow_provider_kie.exceptions import KieConnectionNotFoundError
from airflow_provider_kie.hooks import kie_async
from airflow_provider_kie.hooks.kie_async import KieAsyncHook
from airflow_provider_kie.times import switched


async def hold(conn_id, entered, leave):
    async with KieAsyncHook.connect(conn_id) as hook:
        entered.append(hook.transport.session)
        await leave.wait()
    return hook.transport.session


async def hold_several(conn_ids):
    entered, leave = [], asyncio.Event()
    tasks = [asyncio.create_task(hold(conn_id, entered, leave)) for conn_id in conn_ids]
    while len(entered) < len(tasks):
        await asyncio.sleep(0.01)
    leave.set()
    return await asyncio.gather(*tasks)


def test_one_client_for_many_waits_and_none_left_open(kie):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        sessions = asyncio.run(hold_several(["kie_default"] * 50))
    assert len(set(map(id, sessions))) == 1
    assert sessions[0].closed
    assert kie_async._SHARED == {}


def test_another_connection_has_another_client(kie, monkeypatch):
    other = json.loads(kie.connection_json()) | {"extra": {"timeout": 7}}
    monkeypatch.setenv("AIRFLOW_CONN_KIE_OTHER", json.dumps(other))
    sessions = asyncio.run(hold_several(["kie_default", "kie_other"]))
    assert sessions[0] is not sessions[1]


def test_a_wait_that_is_cancelled_gives_the_client_back(kie):
    async def cancel_one():
        entered, leave = [], asyncio.Event()
        tasks = [asyncio.create_task(hold("kie_default", entered, leave)) for _ in range(2)]
        while len(entered) < 2:
            await asyncio.sleep(0.01)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        still_open = not entered[1].closed
        leave.set()
        await tasks[1]
        return still_open, entered[1].closed

    assert asyncio.run(cancel_one()) == (True, True)
    assert kie_async._SHARED == {}


def test_a_thousand_that_start_look_up_once(kie, lookups):
    asyncio.run(hold_several(["kie_default"] * 1000))
    assert lookups == ["kie_default"]


def test_a_cancelled_wait_does_not_cancel_the_shared_look_up(kie, monkeypatch):
    original, found = kie_async.get_async_connection, asyncio.Event()

    async def slow(conn_id):
        await found.wait()
        return await original(conn_id)

    async def cancel_the_first():
        entered, leave = [], asyncio.Event()
        first, second = (asyncio.create_task(hold("kie_default", entered, leave)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        found.set()
        leave.set()
        return first.cancelled(), (await second).closed

    monkeypatch.setattr(kie_async, "get_async_connection", slow)
    assert asyncio.run(cancel_the_first()) == (True, True)


def test_a_failed_look_up_without_callers_is_not_reported(kie, monkeypatch):
    complaints, away = [], asyncio.Event()

    async def slow(conn_id):
        await away.wait()
        raise RuntimeError("the backend is away")

    async def cancel_all():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        waits = [asyncio.create_task(hold("kie_default", [], asyncio.Event())) for _ in range(3)]
        await asyncio.sleep(0)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        away.set()
        search = kie_async._LOOKUPS.pop((asyncio.get_running_loop(), "kie_default"))
        await asyncio.wait([search])
        del search
        gc.collect()

    monkeypatch.setattr(kie_async, "get_async_connection", slow)
    asyncio.run(cancel_all())
    assert complaints == []


@switched(lookup_reuse=0.0, longest_lookup=0.5)
def test_a_look_up_that_hangs_is_started_again(kie, monkeypatch):
    original, hangs = kie_async.get_async_connection, [True]

    async def hang_once(conn_id):
        if hangs:
            hangs.pop()
            await asyncio.Event().wait()
        return await original(conn_id)

    async def search_twice():
        with pytest.raises(KieConnectionNotFoundError):
            await hold("kie_default", [], asyncio.Event())
        async with KieAsyncHook.connect("kie_default") as hook:
            return hook.settings.base_url

    monkeypatch.setattr(kie_async, "get_async_connection", hang_once)
    assert asyncio.run(search_twice()) == kie.url


@switched(lookup_reuse=0.01)
def test_a_changed_connection_is_seen_soon(kie, monkeypatch):
    async def timeouts():
        seen = []
        for timeout in (7, 8):
            changed = json.loads(kie.connection_json()) | {"extra": {"timeout": timeout}}
            monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(changed))
            async with KieAsyncHook.connect("kie_default") as hook:
                seen.append(hook.settings.timeout)
            while (asyncio.get_running_loop(), "kie_default") in kie_async._LOOKUPS:
                await asyncio.sleep(0.01)
        return seen

    assert asyncio.run(timeouts()) == [7, 8]


def test_nothing_of_a_loop_that_ended_is_kept(kie):
    for _ in range(3):
        asyncio.run(hold_several(["kie_default"]))
    assert len({loop for loop, _ in kie_async._LOOKUPS}) <= 1
