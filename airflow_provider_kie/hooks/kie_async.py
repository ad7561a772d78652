# SPDX-License-Identifier: Apache-2.0
"""The hook's async twin, over ``aiohttp``: what a triggerer needs, and nothing that blocks its event loop."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, TypeVar

import aiohttp
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_kie.api import wav
from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.envelope import LONGEST_BODY, Answer
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.hooks.environment import proxy_url, ssl_context
from airflow_provider_kie.hooks.pacing import COOLDOWNS
from airflow_provider_kie.hooks.transport import (
    BROKE_OFF,
    CONNECT_TIMEOUT,
    COULD_NOT_CONNECT,
    NOT_TRUSTED,
    TIMED_OUT,
    no_answer,
    no_connection,
    user_agent,
)
from airflow_provider_kie.waiting import Look, Reading, Verdict, Wait, refuses_the_key, settling_delay

__all__ = ["KieAsyncHook"]

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Sockets to KIE per connection and event loop; at KIE's usual 0.6 seconds enough for 800 reads a second.
MOST_SOCKETS = 512
#: Seconds for which a connection that was looked up serves all who start to wait on it.
FRESH_SECONDS = 5.0
#: Seconds after which one who waits for such a search takes it for hung. The next attempt starts another one.
LONGEST_SEARCH = 30.0


class KieAsyncHook:
    """
    The async twin of :class:`KieHook`, over ``aiohttp``: what a triggerer needs, and nothing that blocks its loop.

    Get one from :meth:`connect`; all who wait on the same connection and event loop get the same.

    :param settings: the checked connection.
    :param check: how to check the host's certificate; False for not at all. Replaced where the CA bundle has changed.
    """

    def __init__(self, settings: KieSettings, check: ssl.SSLContext | bool) -> None:
        self.settings = settings
        self.check = check
        self._reads_certificates = False
        self._proxy = proxy_url(settings, settings.base_url)
        self._timeout = aiohttp.ClientTimeout(
            total=settings.timeout, sock_connect=min(CONNECT_TIMEOUT, settings.timeout)
        )
        self._headers = {"Authorization": f"Bearer {settings.api_key}"}

    @cached_property
    def session(self) -> aiohttp.ClientSession:
        """The client, opened when the first request needs it."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MOST_SOCKETS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent()},
        )

    @classmethod
    @asynccontextmanager
    async def connect(cls, kie_conn_id: str) -> AsyncIterator[KieAsyncHook]:
        """
        Look the connection up once, without blocking, and hold the hook that is shared by all who wait on it.

        The first who comes makes the hook, the last who leaves closes its client.

        :param kie_conn_id: the Airflow connection of type ``kie``.
        :raises KieConnectionNotFoundError: Airflow does not know the connection, or could not read it.
        :raises KieConfigurationError: a field can not work.
        """
        shared = await _join(kie_conn_id)
        try:
            yield shared.hook
        finally:
            await _leave(shared)

    async def look(self, kie_task_id: str, *, until: float, poll_interval: float) -> Verdict:
        """
        Do what :meth:`KieHook.look` does.

        :param kie_task_id: the WAV task.
        :param until: when to stop settling at the latest, in seconds of ``time.monotonic``.
        :param poll_interval: seconds between two looks.
        :raises KieError: KIE refused the key, and the connection has changed: :meth:`connect` again.
        """
        look = Look(kie_task_id, self.settings.conn_id)
        while True:
            verdict = look.judge(await self._reading(kie_task_id), time.monotonic())
            if refuses_the_key(verdict) and await _has_changed(self.settings):
                raise KieError("KIE refused the key, and the connection has changed", conn_id=self.settings.conn_id)
            if not isinstance(verdict, Wait):
                return verdict
            pause = settling_delay(verdict, poll_interval, until - time.monotonic())
            if pause is None:
                return verdict
            log.warning("WAV task %s: %s; reading again.", kie_task_id, verdict.reason)
            await asyncio.sleep(pause)

    async def attempt(self, call: Call[T]) -> T:
        """
        Carry out a call once, unless a rate limit that another one met holds the connection back.

        :param call: what to send and how to read the answer.
        """
        settings = self.settings
        COOLDOWNS.pause(settings.conn_id, patience=0.0)
        try:
            return call.read(await self._send(call))
        except KieError as error:
            error.conn_id = settings.conn_id
            COOLDOWNS.note(settings.conn_id, error)
            raise

    async def _reading(self, kie_task_id: str) -> Reading:
        try:
            return await self.attempt(wav.record_info(kie_task_id))
        except KieError as error:
            # A reading like any other from here on; with its past it would be a cycle for the garbage collector.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)

    async def _send(self, call: Call[Any]) -> Answer:
        settings = self.settings
        try:
            async with self.session.request(
                call.method,
                settings.base_url + call.path,
                params=call.params,
                json=call.json,
                headers=self._headers,
                timeout=self._timeout,
                proxy=self._proxy,
                ssl=self.check,
                allow_redirects=False,
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > LONGEST_BODY:
                        break
                return Answer.of(response.status, response.headers, bytes(body), secret=settings.api_key)
        except (TimeoutError, aiohttp.ClientError) as error:
            if isinstance(error, aiohttp.ClientSSLError):
                await self._read_certificates()
            # What aiohttp says of a proxy holds the proxy's password.
            raise call.explain(no_answer(settings, *_explain_aiohttp(error))) from (None if self._proxy else error)

    async def _read_certificates(self) -> None:
        """Read the CA bundle again where it has changed; of thousands who meet the same trouble, one does."""
        if self._reads_certificates:
            return
        self._reads_certificates = True
        try:
            with suppress(KieError):  # it may be only half written
                self.check = await asyncio.to_thread(ssl_context, self.settings, self.settings.base_url)
        finally:
            self._reads_certificates = False


_Key: TypeAlias = tuple[asyncio.AbstractEventLoop, KieSettings]


@dataclass
class _Shared:
    key: _Key
    hook: KieAsyncHook
    holders: int = 0


_SHARED: dict[_Key, _Shared] = {}


class _Found(NamedTuple):
    """What a search brought: the connection, and how to check its host's certificate as of now."""

    settings: KieSettings
    check: ssl.SSLContext | bool


_Search: TypeAlias = asyncio.Task[_Found]
#: Searches for a connection, by loop and connection. A thousand waits that start together share one.
_SEARCHES: dict[tuple[asyncio.AbstractEventLoop, str], _Search] = {}


def _search(kie_conn_id: str, older_than: _Search | None = None) -> _Search:
    """
    Return the search that is under way or ended a few seconds ago, or start one.

    :param kie_conn_id: the connection.
    :param older_than: a search whose result is not new enough.
    """
    loop = asyncio.get_running_loop()
    key = loop, kie_conn_id
    if _SEARCHES.get(key) in (None, older_than):
        for ended in [each for each in _SEARCHES if each[0].is_closed()]:
            del _SEARCHES[ended]  # a loop that ended soon could not do it
        _SEARCHES[key] = loop.create_task(_look_up(kie_conn_id))
        _SEARCHES[key].add_done_callback(_take_note)
        loop.call_later(FRESH_SECONDS, _SEARCHES.pop, key, None)
    return _SEARCHES[key]


def _take_note(search: _Search) -> None:
    """Look at how a search ended, so that asyncio does not complain where all who waited for it are gone."""
    if not search.cancelled():
        search.exception()


async def _look_up(kie_conn_id: str) -> _Found:
    try:
        found = await get_async_connection(kie_conn_id)
    except AirflowNotFoundException as error:
        raise no_connection(kie_conn_id) from error
    settings = KieSettings.from_connection(kie_conn_id, found, await get_async_extra_dejson(found))
    check = await asyncio.to_thread(ssl_context, settings, settings.base_url)
    if shared := _SHARED.get((asyncio.get_running_loop(), settings)):
        shared.hook.check = check
    return _Found(settings, check)


async def _end_of(search: _Search, kie_conn_id: str) -> _Found:
    try:
        async with asyncio.timeout(LONGEST_SEARCH):
            # One who is cancelled does not end the search of the others, and to break off what is under way between
            # the triggerer and its supervisor would upset it on some Airflows.
            return await asyncio.shield(search)
    except TimeoutError as error:
        raise no_connection(kie_conn_id) from error


async def _has_changed(settings: KieSettings) -> bool:
    """Tell whether a connection has other settings by now, whatever was found a few seconds ago."""
    recent = _SEARCHES.get((asyncio.get_running_loop(), settings.conn_id))
    if recent and (await _end_of(recent, settings.conn_id)).settings != settings:
        return True
    newest = _search(settings.conn_id, older_than=recent)
    return (await _end_of(newest, settings.conn_id)).settings != settings


async def _join(kie_conn_id: str) -> _Shared:
    settings, check = await _end_of(_search(kie_conn_id), kie_conn_id)
    key = asyncio.get_running_loop(), settings
    if key not in _SHARED:  # a thousand may have come here meanwhile
        _SHARED[key] = _Shared(key, KieAsyncHook(settings, check))
    _SHARED[key].holders += 1
    return _SHARED[key]


async def _leave(shared: _Shared) -> None:
    shared.holders -= 1
    if not shared.holders:
        del _SHARED[shared.key]  # not by the running loop, which there is none of where a loop ended too soon
        if "session" in vars(shared.hook):  # else no request was ever sent
            await shared.hook.session.close()


def _explain_aiohttp(error: aiohttp.ClientError | asyncio.TimeoutError) -> tuple[str, bool]:
    """Return what happened, and whether the request may have reached KIE."""
    if isinstance(error, aiohttp.ClientSSLError):
        return NOT_TRUSTED, True
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.ConnectionTimeoutError)):
        return COULD_NOT_CONNECT, False
    return (TIMED_OUT if isinstance(error, asyncio.TimeoutError) else BROKE_OFF), True
