# SPDX-License-Identifier: Apache-2.0
"""Sends calls over ``aiohttp``, without blocking the event loop."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from functools import cached_property
from typing import Any

import aiohttp

from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.envelope import LONGEST_BODY, Response
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.hooks.environment import proxy_url, ssl_context
from airflow_provider_kie.hooks.transport import (
    BROKE_OFF,
    CONNECT_TIMEOUT,
    COULD_NOT_CONNECT,
    NOT_TRUSTED,
    TIMED_OUT,
    no_answer,
    user_agent,
)

__all__ = ["AiohttpTransport"]

#: Sockets to KIE per connection and event loop; enough for 800 reads a second at KIE's usual 0.6 seconds.
MOST_SOCKETS = 512


class AiohttpTransport:
    """
    Sends calls over one client, which is opened when the first request needs it.

    :param check: how to check the host's certificate; False for not at all. Replaced when the CA bundle has changed.
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

    async def close(self) -> None:
        """Close the client, if a request was ever sent."""
        if "session" in vars(self):
            await self.session.close()

    async def send(self, call: Call[Any]) -> Response:
        """
        Send a call once.

        :raises KieConnectionError: no answer.
        """
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
                return Response.of(response.status, response.headers, bytes(body), secret=settings.api_key)
        except (TimeoutError, aiohttp.ClientError) as error:
            if isinstance(error, aiohttp.ClientSSLError):
                await self._read_certificates()
            # aiohttp's message about a proxy contains its password.
            raise call.explain(no_answer(settings, *_classify(error))) from (None if self._proxy else error)

    async def _read_certificates(self) -> None:
        """Read the CA bundle again if it has changed, once for all requests that fail at the same time."""
        if self._reads_certificates:
            return
        self._reads_certificates = True
        try:
            with suppress(KieError):  # it may be only half written
                self.check = await asyncio.to_thread(ssl_context, self.settings, self.settings.base_url)
        finally:
            self._reads_certificates = False


def _classify(error: aiohttp.ClientError | asyncio.TimeoutError) -> tuple[str, bool]:
    """Return what happened, and whether the request may have reached KIE."""
    if isinstance(error, aiohttp.ClientSSLError):
        return NOT_TRUSTED, True
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.ConnectionTimeoutError)):
        return COULD_NOT_CONNECT, False
    return (TIMED_OUT if isinstance(error, asyncio.TimeoutError) else BROKE_OFF), True
