# SPDX-License-Identifier: Apache-2.0
"""The hook's async counterpart, over ``aiohttp``: what a triggerer needs, without blocking its event loop."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.job import read_job
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieAuthenticationError, KieError
from airflow_provider_kie.hooks.environment import ssl_context
from airflow_provider_kie.hooks.over_aiohttp import AiohttpTransport
from airflow_provider_kie.hooks.pacing import COOLDOWNS
from airflow_provider_kie.hooks.transport import no_connection
from airflow_provider_kie.times import times
from airflow_provider_kie.waiting.course import Course, Pause, wait
from airflow_provider_kie.waiting.pace import Pace, on_tick
from airflow_provider_kie.waiting.verdict import Done, Failed, Reading, Wait

__all__ = ["KieAsyncHook"]

T = TypeVar("T")

log = logging.getLogger(__name__)


class KieAsyncHook:
    """
    The async counterpart of :class:`KieHook`.

    Get one from :meth:`connect`; all waits on the same connection and event loop share one.

    :param check: how to check the host's certificate; False for not at all.
    """

    def __init__(self, settings: KieSettings, check: ssl.SSLContext | bool) -> None:
        self.settings = settings
        self.transport = AiohttpTransport(settings, check)

    @classmethod
    @asynccontextmanager
    async def connect(cls, kie_conn_id: str) -> AsyncIterator[KieAsyncHook]:
        """
        Look up the connection without blocking, and yield the hook that all waits on it share.

        The first wait creates the hook, the last one closes its client.

        :raises KieConnectionNotFoundError: the connection is not defined or could not be read.
        :raises KieConfigurationError: a field is invalid.
        """
        shared = await _join(kie_conn_id)
        try:
            yield shared.hook
        finally:
            await _leave(shared)

    def wait(
        self,
        row: Family,
        kie_task_id: str,
        *,
        pace: Pace,
        left: Callable[[], float],
        polls: int,
        report: Callable[[Pause], None],
    ) -> Coroutine[Any, Any, Done | Failed | Wait]:
        """
        Wait as :meth:`KieHook.wait` does; if time runs out first, return the last :class:`Wait`.

        Not ``async`` itself, which would cost one more frame for each of thousands of waits.

        :param polls: polls made before, for the back-off.
        :raises KieError: KIE refused the key, and the connection has changed: :meth:`connect` again.
        """
        course = wait(row, kie_task_id, self.settings.conn_id, pace, left, polls)
        return self._drive(course, kie_task_id, report)

    async def attempt(self, call: Call[T]) -> T:
        """Carry out a call once, unless a rate limit pauses the connection."""
        settings = self.settings
        COOLDOWNS.pause(settings, patience=0.0)
        try:
            return call.read(await self._send(call))
        except KieError as error:
            error.conn_id = settings.conn_id
            COOLDOWNS.note(settings, error)
            raise

    async def _send(self, call: Call[T]) -> Response:
        return await self.transport.send(call)

    async def _drive(self, course: Course[T], kie_task_id: str, report: Callable[[Pause], None]) -> T:
        reading: Reading = None
        while True:
            try:
                asked = course.send(reading)
            except StopIteration as end:
                ended: T = end.value
                return ended
            reading = None  # a sleeping wait must not keep the last reading
            if not isinstance(asked, Pause):
                reading = await self._reading(asked, kie_task_id)
                continue
            report(asked)
            seconds = on_tick(asked.seconds, time.monotonic())
            del asked
            await asyncio.sleep(seconds)

    async def _reading(self, row: Family, kie_task_id: str) -> Reading:
        try:
            return await self.attempt(read_job(row, kie_task_id))
        except KieError as error:
            if isinstance(error, KieAuthenticationError) and await _has_changed(self.settings):
                problem = "KIE refused the key, and the connection has changed"
                raise KieError(problem, conn_id=self.settings.conn_id) from None
            # A reading like any other from here on; its traceback would form a reference cycle.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)


_Key: TypeAlias = tuple[asyncio.AbstractEventLoop, KieSettings]


@dataclass
class _Shared:
    key: _Key
    hook: KieAsyncHook
    holders: int = 0


_SHARED: dict[_Key, _Shared] = {}


class _Found(NamedTuple):
    """The result of a look-up: the settings, and how to check the host's certificate."""

    settings: KieSettings
    check: ssl.SSLContext | bool


_Lookup: TypeAlias = asyncio.Task[_Found]
#: Look-ups by loop and connection. A thousand waits that start together share one.
_LOOKUPS: dict[tuple[asyncio.AbstractEventLoop, str], _Lookup] = {}


def _shared_lookup(kie_conn_id: str, older_than: _Lookup | None = None) -> _Lookup:
    """Return the look-up that is running or ended a few seconds ago, or start one."""
    loop = asyncio.get_running_loop()
    key = loop, kie_conn_id
    if _LOOKUPS.get(key) in (None, older_than):
        for ended in [each for each in _LOOKUPS if each[0].is_closed()]:
            del _LOOKUPS[ended]  # its loop closed before call_later could remove it
        _LOOKUPS[key] = loop.create_task(_look_up(kie_conn_id))
        _LOOKUPS[key].add_done_callback(_retrieve_error)
        loop.call_later(times().lookup_reuse, _LOOKUPS.pop, key, None)
    return _LOOKUPS[key]


def _retrieve_error(lookup: _Lookup) -> None:
    """Retrieve the exception, which asyncio would otherwise report if all callers were cancelled."""
    if not lookup.cancelled():
        lookup.exception()


async def _look_up(kie_conn_id: str) -> _Found:
    try:
        found = await get_async_connection(kie_conn_id)
    except AirflowNotFoundException as error:
        raise no_connection(kie_conn_id) from error
    settings = KieSettings.from_connection(kie_conn_id, found, await get_async_extra_dejson(found))
    check = await asyncio.to_thread(ssl_context, settings, settings.base_url)
    if shared := _SHARED.get((asyncio.get_running_loop(), settings)):
        shared.hook.transport.check = check
    return _Found(settings, check)


async def _result_of(lookup: _Lookup, kie_conn_id: str) -> _Found:
    try:
        async with asyncio.timeout(times().longest_lookup):
            # A cancelled caller must not cancel the look-up of the others; besides, cancelling a request of the
            # triggerer to its supervisor breaks their exchange on some Airflow versions.
            return await asyncio.shield(lookup)
    except TimeoutError as error:
        raise no_connection(kie_conn_id) from error


async def _has_changed(settings: KieSettings) -> bool:
    """Return whether a connection has changed, even if a recent look-up shows no change."""
    recent = _LOOKUPS.get((asyncio.get_running_loop(), settings.conn_id))
    if recent and (await _result_of(recent, settings.conn_id)).settings != settings:
        return True
    newest = _shared_lookup(settings.conn_id, older_than=recent)
    return (await _result_of(newest, settings.conn_id)).settings != settings


async def _join(kie_conn_id: str) -> _Shared:
    settings, check = await _result_of(_shared_lookup(kie_conn_id), kie_conn_id)
    key = asyncio.get_running_loop(), settings
    if key not in _SHARED:  # another wait may have created it meanwhile
        _SHARED[key] = _Shared(key, KieAsyncHook(settings, check))
    _SHARED[key].holders += 1
    return _SHARED[key]


async def _leave(shared: _Shared) -> None:
    shared.holders -= 1
    if not shared.holders:
        del _SHARED[shared.key]  # by its own key, because there may be no running loop any more
        await shared.hook.transport.close()
