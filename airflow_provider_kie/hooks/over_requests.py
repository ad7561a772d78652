# SPDX-License-Identifier: Apache-2.0
"""Sends calls over ``requests``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

import requests
from requests.auth import AuthBase
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError, ReadTimeoutError

from airflow_provider_kie.api.call import Call, UploadBody
from airflow_provider_kie.api.envelope import LONGEST_BODY, Response
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.hooks.environment import ca_bundle, proxy_url, ssl_context
from airflow_provider_kie.hooks.transport import (
    BROKE_OFF,
    CONNECT_TIMEOUT,
    COULD_NOT_CONNECT,
    NO_CERTIFICATES,
    NOT_TRUSTED,
    TIMED_OUT,
    no_answer,
    user_agent,
)

__all__ = ["open_session", "send"]

_DISPOSITION = "Content-Disposition: form-data"


def open_session(settings: KieSettings, base_url: str) -> requests.Session:
    """
    Return a session that sends the key to one host and to no other.

    :param base_url: the host.
    :raises KieConfigurationError: the proxy or the CA certificates are invalid.
    """
    session = _Session()
    session.trust_env = False
    session.headers["User-Agent"] = user_agent()
    session.auth = _BearerAuth(settings, base_url)
    ssl_context(settings, base_url)  # fails now, where requests would fail only while connecting
    session.verify = ca_bundle(settings)
    if proxy := proxy_url(settings, base_url):
        session.proxies = {"http": proxy, "https": proxy}
    return session


def send(session: requests.Session, settings: KieSettings, call: Call[Any]) -> Response:
    """
    Send a call once.

    :param session: for the host of the call.
    :raises KieConnectionError: no answer.
    """
    started = time.monotonic()
    base_url = settings.upload_host if call.upload else settings.base_url
    form = _Form(call.upload) if call.upload else None
    try:
        with session.request(
            call.method,
            base_url + call.path,
            params=call.params,
            json=call.json,
            data=cast("Any", form),  # its types leave out iterables that have a length
            headers={"Content-Type": form.content_type} if form else {},
            timeout=(min(CONNECT_TIMEOUT, settings.timeout), settings.timeout),
            allow_redirects=False,
            stream=True,
        ) as response:
            if call.upload:
                started = time.monotonic()  # sending the file took its own time
            body = _read_body(response, until=started + settings.timeout)
            return Response.of(response.status_code, response.headers, body, secret=settings.api_key)
    except (OSError, HTTPError) as error:  # all of requests' errors are an OSError
        raise call.explain(no_answer(settings, *_classify(error), base_url)) from error


class _Session(requests.Session):
    """Never follows or parses a redirect; some targets cannot be parsed."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None."""


class _BearerAuth(AuthBase):
    """Adds the key to requests to one host."""

    def __init__(self, settings: KieSettings, base_url: str) -> None:
        self._settings = settings
        self._own = urlsplit(base_url)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        own, asked = self._own, urlsplit(request.url or "")
        if (own.scheme, own.netloc) == (asked.scheme, asked.netloc):
            request.headers["Authorization"] = f"Bearer {self._settings.api_key}"
        return request


class _Form:
    """A file and its names as multipart/form-data (RFC 7578), read while it is sent; requests would hold all of it."""

    def __init__(self, upload: UploadBody) -> None:
        self._upload = upload
        boundary = uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        fields = {"uploadPath": upload.upload_path, "fileName": upload.file_name}
        parts = [f'--{boundary}\r\n{_DISPOSITION}; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
        # The part has a name in ASCII, which needs no rule about other letters; the field beside it counts.
        named = f'{_DISPOSITION}; name="file"; filename="{upload.sha256[:16]}"'
        parts.append(f"--{boundary}\r\n{named}\r\nContent-Type: {upload.media_type}\r\n\r\n")
        self._start = "".join(parts).encode()
        self._end = f"\r\n--{boundary}--\r\n".encode()

    def __len__(self) -> int:
        return len(self._start) + self._upload.size + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        yield self._start
        yield from self._upload.read()
        yield self._end


def _read_body(response: requests.Response, until: float) -> bytes:
    """Read in pieces, because a server that sends slowly enough would keep a plain read busy for ever."""
    body = bytearray()
    while chunk := response.raw.read1(65536, decode_content=True):
        body += chunk
        if len(body) > LONGEST_BODY:
            break
        if time.monotonic() > until:
            raise requests.ReadTimeout("the answer came too slowly")
    return bytes(body)


def _classify(error: OSError | HTTPError) -> tuple[str, bool]:
    """Return what happened, and whether the request may have reached KIE."""
    cause = error.args[0] if error.args else None
    if not isinstance(error, (requests.RequestException, HTTPError)):
        return NO_CERTIFICATES, True  # requests raises a plain OSError for nothing else
    if isinstance(error, requests.exceptions.SSLError):
        return NOT_TRUSTED, True
    if isinstance(error, requests.ConnectTimeout) or _never_connected(getattr(cause, "reason", None)):
        return COULD_NOT_CONNECT, False
    timed_out = isinstance(error, (requests.Timeout, ReadTimeoutError)) or isinstance(cause, ReadTimeoutError)
    return (TIMED_OUT if timed_out else BROKE_OFF), True


def _never_connected(reason: object) -> bool:
    """Return whether no connection to KIE came about; urllib3 also blames a proxy that breaks off after the request."""
    if isinstance(reason, ProxyError):
        reason = reason.original_error
    refused = type(reason) is OSError and str(reason).startswith("Tunnel connection failed")  # by http.client
    return refused or isinstance(reason, (ConnectTimeoutError, NewConnectionError))
