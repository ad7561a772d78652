# SPDX-License-Identifier: Apache-2.0
"""Sends an answer, complete or broken."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_provider_kie.emulator.envelope import Envelope
from airflow_provider_kie.emulator.scripted import JSON_HEADERS, Fault

__all__ = ["HANG_SECONDS", "Reply", "expose_transport", "reply_with"]

HANG_SECONDS: Final = 120.0
_TRANSPORT: Final = "kie_emulator.transport"
_POLL_SECONDS: Final = 0.1


def expose_transport(app: ASGIApp) -> ASGIApp:
    """
    Give replies access to the socket.

    ASGI cannot cut a connection. The outermost ``send``, from uvicorn, is a method of its request cycle, which has the
    transport; Starlette wraps it, so the transport is stored before that.
    """

    async def outermost(scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        await app({**scope, _TRANSPORT: getattr(cycle, "transport", None)}, receive, send)

    return outermost


@dataclass(frozen=True, slots=True)
class Reply:
    """
    One HTTP answer, and the fault that breaks it.

    :param stopping: set when the emulator stops, so that a hanging answer does not delay it
    :param accepted: whether the call started a job
    """

    stopping: threading.Event
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] | None = None
    fault: Fault | None = None
    delay: float = 0.0
    accepted: bool = False

    @property
    def code(self) -> int | None:
        """The ``code`` of the envelope, if the body is one."""
        try:
            code = json.loads(self.body).get("code")
        except (ValueError, AttributeError):
            return None
        return code if type(code) is int else None

    async def send(self, request: Request, send: Send) -> None:
        """Send the answer, or break the connection as the fault demands."""
        await asyncio.sleep(self.delay)
        transport = request.scope[_TRANSPORT]
        if self.fault == "hang":
            await self._wait_for_disconnect(request.receive, HANG_SECONDS)
        if self.fault in ("hang", "reset"):
            transport.abort()
        else:
            await self._send_body(send)
        if self.fault == "truncate":
            transport.close()
        if self.fault:
            # If the application returned before the client disconnects, uvicorn would send an answer of its own.
            await self._wait_for_disconnect(request.receive, 5.0)

    async def _send_body(self, send: Send) -> None:
        cut = self.fault == "truncate"
        body = self.body[: len(self.body) // 2 + 1] if cut else self.body
        headers = {**(JSON_HEADERS if self.headers is None else self.headers)}
        headers["content-length"] = str(len(self.body) + cut)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        await send({"type": "http.response.body", "body": body, "more_body": cut})

    async def _wait_for_disconnect(self, receive: Receive, seconds: float) -> None:
        until = time.monotonic() + seconds
        message = None
        while not message or message["type"] != "http.disconnect":
            try:
                message = await asyncio.wait_for(receive(), _POLL_SECONDS)
            except TimeoutError:
                if time.monotonic() > until or self.stopping.is_set():
                    return


def reply_with(stopping: threading.Event, envelope: Envelope) -> Reply:
    """The reply with an envelope."""
    body = json.dumps(envelope.body(), separators=(",", ":")).encode()
    return Reply(stopping, body, envelope.http_status, accepted=envelope.accepted)
