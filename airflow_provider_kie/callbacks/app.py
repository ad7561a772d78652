# SPDX-License-Identifier: Apache-2.0
"""
The receiver over HTTP: one path for each connection, and an answer that says nothing but its status.

What was refused and why is in the log; neither there nor in an answer is anything of the path beyond the connection, of
the headers or of the body, except an id.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_kie.api.callback import LARGEST_BODY, CallbackRefusedError, parse, signature_is_valid
from airflow_provider_kie.api.families import FAMILIES
from airflow_provider_kie.callbacks.airflow_api import AirflowApi
from airflow_provider_kie.callbacks.receiver import Receiver
from airflow_provider_kie.callbacks.refusal import NotYetError, RefusedError
from airflow_provider_kie.callbacks.settings import CallbackSettings
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.redaction import redact
from airflow_provider_kie.times import times

__all__ = ["create_app"]

log = logging.getLogger(__name__)

_RECEIVED: Final = {"status": "received"}
#: With a refusal, after which there may be a rest of the body on the connection.
_CLOSING: Final = {"Connection": "close"}


def create_app(settings: CallbackSettings) -> Starlette:
    """
    Return the receiver as an ASGI application.

    :param settings: the checked environment.
    """
    airflow = AirflowApi(settings)
    receiver = Receiver(airflow)

    async def receive(request: Request) -> Response:
        conn_id = str(request.path_params["conn_id"])
        served = conn_id in settings.connections
        try:
            if not served:
                raise RefusedError(HTTPStatus.NOT_FOUND, "no such path")
            try:
                async with asyncio.timeout(times().callback_answer):
                    about = await _receive(request, receiver, conn_id)
            except TimeoutError:
                raise NotYetError("it is still being dealt with") from None
        except (RefusedError, KieError) as error:
            refusal = error if isinstance(error, RefusedError) else NotYetError(redact(str(error)))
            log.warning("%s: answered %d: %s", conn_id if served else "?", refusal.status, refusal.reason)
            return Response(status_code=refusal.status, headers=_CLOSING)
        except ClientDisconnect:
            log.warning("%s: the connection broke off", conn_id)
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except Exception:
            log.exception("%s: answered 503: an unexpected error", conn_id)
            return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE)
        log.debug("%s, %s: answered 200", conn_id, about)
        return JSONResponse(_RECEIVED)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        receiver.take_over(settings.connections)
        yield
        await receiver.close()
        await airflow.close()

    paths = ("/kie/{conn_id}", "/kie/{conn_id}/{secret}")
    served = Starlette(
        routes=[Route(path, receive, methods=["POST"]) for path in paths],
        exception_handlers={HTTPException: _refuse},
        lifespan=lifespan,
    )
    served.router.redirect_slashes = False  # its answer would repeat the path, and so the secret
    return served


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer a request that fits no path, or has another method."""
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
    log.warning("?: answered %d: no such path or method", status)
    return Response(status_code=status, headers=_CLOSING)


async def _receive(request: Request, receiver: Receiver, conn_id: str) -> str:
    """
    Deal with a callback, and return the id of its job.

    :raises RefusedError: it is none that counts, or not yet.
    :raises KieError: the connection cannot be used.
    """
    connection = await receiver.settings(conn_id)
    _check_path(request, connection)
    family = request.query_params.get("family")
    if family is not None and family not in FAMILIES:
        raise RefusedError(HTTPStatus.NOT_FOUND, "the URL names an unknown family")
    body = await _body(request)
    try:
        callback = parse(family, body)
    except CallbackRefusedError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body is no callback: {error}") from None
    kie_task_id = _signed_id(request, connection, callback.kie_task_ids)
    await receiver.act(conn_id, kie_task_id, callback)
    return kie_task_id


def _check_path(request: Request, connection: KieSettings) -> None:
    """Check that the path ends in the secret of the connection, if that has one."""
    given, secret = str(request.path_params.get("secret", "")), connection.callback_secret or ""
    if not hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode()):
        raise RefusedError(HTTPStatus.NOT_FOUND, "the path does not end in the connection's callback_secret")
    if not secret and not connection.webhook_hmac_keys:
        raise RefusedError(HTTPStatus.NOT_FOUND, "the connection has neither webhook_hmac_key nor callback_secret")


async def _body(request: Request) -> bytes:
    announced = request.headers.get("content-length", "0")
    too_large = RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {LARGEST_BODY} bytes")
    if not announced.isdecimal() or int(announced) > LARGEST_BODY:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(times().callback_body):
            async for piece in request.stream():
                body += piece
                if len(body) > LARGEST_BODY:
                    raise too_large
    except TimeoutError:
        raise RefusedError(
            HTTPStatus.REQUEST_TIMEOUT, f"the body took more than {times().callback_body:g} seconds"
        ) from None
    return bytes(body)


def _signed_id(request: Request, connection: KieSettings, kie_task_ids: tuple[str, ...]) -> str:
    """Return the id that is signed, or the likeliest one if the connection has no key."""
    if not connection.webhook_hmac_keys:
        return kie_task_ids[0]
    timestamp, signature = (request.headers.get(f"x-webhook-{name}") for name in ("timestamp", "signature"))
    if not timestamp or not signature:
        raise RefusedError(HTTPStatus.UNAUTHORIZED, "there is no signature; the connection has a webhook_hmac_key")
    for kie_task_id in kie_task_ids:
        if signature_is_valid(connection.webhook_hmac_keys, kie_task_id, timestamp, signature, time.time()):
            return kie_task_id
    raise RefusedError(HTTPStatus.UNAUTHORIZED, "the signature is wrong, or its time is not the present")
