# SPDX-License-Identifier: Apache-2.0
"""
The ways to wait that are compared.

Each prepares itself and returns how one conversion is waited for, so that a process only loads what its own way needs.
What a trigger loads when it first runs counts as its own blocking of the event loop; the rest is loaded before.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

#: How one conversion is waited for until it is finished.
Way = Callable[[str], Awaitable[None]]

PATH: Final = "/api/v1/wav/record-info"
KEY: Final = "benchmark-key"
AGENT: Final = "kie-benchmark/1"
#: A deadline that no benchmark reaches.
FAR: Final = 24 * 3600.0


def environment(url: str) -> dict[str, str]:
    """Return the connections of all ways, as Airflow reads them from the environment."""
    host, port = url.removeprefix("http://").split(":")
    http = {"conn_type": "http", "host": f"http://{host}", "port": int(port)}
    headers = {"Authorization": f"Bearer {KEY}", "User-Agent": AGENT}
    return {
        "AIRFLOW_CONN_KIE_DEFAULT": json.dumps({"conn_type": "kie", "password": KEY, "host": url}),
        "AIRFLOW_CONN_HTTP_DEFAULT": json.dumps({**http, "extra": headers}),
        "KIE_BENCHMARK_URL": url,
    }


def kie(interval: float) -> Way:
    """Our trigger, its ``run()`` consumed as the triggerer does."""
    from airflow_provider_kie.triggers.wav import WavConversionTrigger

    async def wait(kie_task_id: str) -> None:
        deadline = time.time() + FAR
        trigger = WavConversionTrigger(kie_task_id, "kie_default", interval, deadline, FAR)
        async for event in trigger.run():
            check(event.payload["status"] == "success", event.payload)

    return wait


def bare(interval: float) -> Way:
    """A loop over aiohttp that does the same reads and nothing else."""
    return _bare(interval, lambda: interval)


def ticks(interval: float) -> Way:
    """The same with pauses that end on tenths of a second, as our trigger's: the limit of what Python can do here."""
    return _bare(interval, lambda: math.ceil((time.monotonic() + interval) * 10) / 10 - time.monotonic())


def _bare(interval: float, pause: Callable[[], float]) -> Way:
    import aiohttp

    url = os.environ["KIE_BENCHMARK_URL"] + PATH
    headers = {"Authorization": f"Bearer {KEY}", "User-Agent": AGENT}
    session: aiohttp.ClientSession | None = None

    async def is_finished(kie_task_id: str) -> bool:
        # A function of its own, so that a wait which sleeps holds neither the response nor the answer.
        async with session.get(url, params={"taskId": kie_task_id}) as response:
            return bool((await response.json())["data"]["successFlag"] == "SUCCESS")

    async def wait(kie_task_id: str) -> None:
        nonlocal session
        if session is None:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=512), cookie_jar=aiohttp.DummyCookieJar(), headers=headers
            )
        await asyncio.sleep(random.uniform(0.0, interval))
        while not await is_finished(kie_task_id):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(pause())

    return wait


def thread(interval: float) -> Way:
    """
    A blocking client in a thread for each read, as the trigger of the anthropic provider 1.2.0 does it.

    As there, each trigger reads the connection in its first thread and keeps a client of its own.
    """
    import requests
    from airflow.providers.common.compat.sdk import BaseHook
    from airflow.triggers.base import BaseTrigger, TriggerEvent

    class Hook:
        def __init__(self, conn_id: str) -> None:
            self.conn_id = conn_id
            self.session: requests.Session | None = None
            self.url = ""

        def read(self, kie_task_id: str) -> dict[str, Any]:
            if self.session is None:
                connection = BaseHook.get_connection(self.conn_id)
                self.url = f"{connection.host}{PATH}"
                self.session = requests.Session()
                self.session.headers.update({"Authorization": f"Bearer {connection.password}", "User-Agent": AGENT})
            answer = self.session.get(self.url, params={"taskId": kie_task_id}, timeout=30)
            answer.raise_for_status()
            return dict(answer.json()["data"])

    class ThreadTrigger(BaseTrigger):
        def __init__(self, kie_task_id: str) -> None:
            super().__init__()
            self.kie_task_id = kie_task_id

        def serialize(self) -> tuple[str, dict[str, Any]]:
            return ("benchmarks.variants.ThreadTrigger", {"kie_task_id": self.kie_task_id})

        async def run(self) -> AsyncIterator[TriggerEvent]:
            hook = Hook("kie_default")
            while True:
                record = await asyncio.to_thread(hook.read, self.kie_task_id)
                if record["successFlag"] == "SUCCESS":
                    yield TriggerEvent({"status": "success", "record": record})
                    return
                await asyncio.sleep(interval)

    async def wait(kie_task_id: str) -> None:
        async for event in ThreadTrigger(kie_task_id).run():
            check(event.payload["status"] == "success", event.payload)

    return wait


def http(interval: float) -> Way:
    """
    ``HttpEventTrigger`` of the http provider, its ``run()`` consumed as the triggerer does.

    It is made for asset watchers and reads no context, so it runs here as in a triggerer. It opens a client for each
    read, and reloads the module of its check in a thread for each read; the check is in a module of its own.
    """
    from airflow.providers.http.triggers.http import HttpEventTrigger

    def trigger_for(kie_task_id: str) -> HttpEventTrigger:
        return HttpEventTrigger(
            response_check_path="benchmarks.http_check.is_finished",
            http_conn_id="http_default",
            endpoint=f"{PATH}?taskId={kie_task_id}",
            poll_interval=interval,
        )

    async def wait(kie_task_id: str) -> None:
        async for event in trigger_for(kie_task_id).run():
            check(event.payload["status"] == "success", event.payload)

    return wait


def check(right: bool, what: object) -> None:
    """Refuse to measure something that does not work."""
    if not right:
        raise RuntimeError(f"a wait ended in an odd way: {what}")


WAYS: Final[dict[str, Callable[[float], Way]]] = {
    "bare": bare,
    "ticks": ticks,
    "kie": kie,
    "thread": thread,
    "http": http,
}
