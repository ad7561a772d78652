# SPDX-License-Identifier: Apache-2.0
"""
Asset events by Airflow's REST API: of 3.1 and later, with a token, and of 2.11, where assets are called datasets.

An event that Airflow has surely not made is a :class:`NotYetError`; one that it may have made an
:class:`UnsureError`, after which :meth:`AirflowApi.has_event` tells.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

import aiohttp

from airflow_provider_kie.callbacks.refusal import NotYetError, UnsureError
from airflow_provider_kie.callbacks.settings import CallbackSettings
from airflow_provider_kie.exceptions import KieConfigurationError
from airflow_provider_kie.times import times

__all__ = ["AirflowApi"]

#: How many of an asset's newest events are looked through for one job.
PAGE: Final = 100
PAGES: Final = 10


class _Dialect(NamedTuple):
    """How a version of the API calls things."""

    base: str
    things: str
    id_key: str
    by_uri: bool


_DIALECTS: Final = (
    _Dialect("/api/v2", "assets", "asset_id", by_uri=False),
    _Dialect("/api/v1", "datasets", "dataset_id", by_uri=True),
)


class _Answer(NamedTuple):
    status: int
    body: Any


class AirflowApi:
    """
    Airflow, as far as asset events go.

    :param settings: where it is, and a user's name and password.
    """

    def __init__(self, settings: CallbackSettings) -> None:
        self._settings = settings
        self._dialect: _Dialect | None = None
        self._token: str | None = None
        self._ids: dict[str, int] = {}

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        # Neither proxies nor cookies: the password goes to this address only.
        return aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=times().airflow_request),
        )

    async def close(self) -> None:
        """Close the client."""
        if "_session" in vars(self):
            await self._session.close()

    async def check(self) -> str:
        """
        Return the version of Airflow, after the user has been seen to be accepted.

        :raises KieConfigurationError: it is not Airflow, or it refuses the user.
        :raises NotYetError: it does not answer.
        """
        dialect = await self._spoken()
        version = await self._send("GET", f"{dialect.base}/version", authorized=False)
        seen = await self._call("GET", f"/{dialect.things}", params={"limit": "1"})
        if seen.status in (401, 403):
            raise self._refused_user(seen.status)
        if seen.status != 200:
            raise NotYetError(f"Airflow answered {seen.status} to a list of its {dialect.things}")
        return str(version.body.get("version") if isinstance(version.body, dict) else "unknown")

    async def make_event(self, uri: str, extra: Mapping[str, Any]) -> bool:
        """
        Make an event.

        :param uri: the asset.
        :param extra: what the event says, as JSON values.
        :return: False if no DAG names such an asset.
        :raises UnsureError: it may have been made.
        :raises NotYetError: it was surely not made.
        """
        dialect = await self._spoken()
        known = uri in self._ids
        body: dict[str, Any] = {"extra": dict(extra)}
        if dialect.by_uri:
            body["dataset_uri"] = uri
        else:
            asset = await self._find(uri)
            if asset is None:
                return False
            body[dialect.id_key] = asset
        answer = await self._call("POST", f"/{dialect.things}/events", lost=UnsureError, json=body)
        if answer.status in (200, 201):
            return True
        if answer.status == 404:
            self._ids.pop(uri, None)
            return await self.make_event(uri, extra) if known else False
        reason = f"Airflow answered {answer.status} to an event of {uri}"
        raise (UnsureError if answer.status >= 500 else NotYetError)(reason)

    async def has_event(self, uri: str, kie_task_id: str) -> bool:
        """
        Return whether an event about a job is among the newest ones of an asset.

        :raises NotYetError: Airflow does not say.
        """
        dialect = await self._spoken()
        asset = await self._find(uri)
        if asset is None:
            return False
        seen = 0
        for _ in range(PAGES):
            asked = {"limit": PAGE, "offset": seen, "order_by": "-timestamp", dialect.id_key: asset}
            answer = await self._read(f"/{dialect.things}/events", {name: str(value) for name, value in asked.items()})
            events = answer.get(f"{dialect.things[:-1]}_events") or []
            if any((event.get("extra") or {}).get("kie_task_id") == kie_task_id for event in events):
                return True
            if not events:
                break
            seen += len(events)
        return False

    async def _find(self, uri: str) -> int | None:
        if uri not in self._ids:
            dialect = await self._spoken()
            # A pattern, in which "_" is any character.
            answer = await self._read(f"/{dialect.things}", {"uri_pattern": uri, "limit": str(PAGE)})
            found = [each["id"] for each in answer.get(dialect.things) or [] if each.get("uri") == uri]
            if not found:
                return None
            self._ids[uri] = found[0]
        return self._ids[uri]

    async def _read(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        answer = await self._call("GET", path, params=params)
        if answer.status != 200 or not isinstance(answer.body, dict):
            raise NotYetError(f"Airflow answered {answer.status} to GET {path}")
        return answer.body

    async def _spoken(self) -> _Dialect:
        """Return the dialect of this Airflow, which its first answer tells."""
        if self._dialect is None:
            for dialect in _DIALECTS:
                answer = await self._send("GET", f"{dialect.base}/version", authorized=False)
                if answer.status >= 500:
                    raise NotYetError(f"Airflow answered {answer.status}")
                if answer.status == 200 and isinstance(answer.body, dict) and "version" in answer.body:
                    self._dialect = dialect
                    return dialect
            raise KieConfigurationError("KIE_CALLBACKS_AIRFLOW_URL is not the address of an Airflow's REST API")
        return self._dialect

    async def _call(self, method: str, path: str, **content: Any) -> _Answer:
        """Send a request as the user, once more with a new token if the old one is not accepted any longer."""
        dialect = await self._spoken()
        if dialect.by_uri:
            return await self._send(method, dialect.base + path, **content)
        token = self._token = self._token or await self._new_token()
        answer = await self._send(method, dialect.base + path, **content)
        if answer.status in (401, 403):  # 403 if Airflow has got another key for its tokens, as by a restart
            if self._token == token:  # another request may have renewed it meanwhile
                self._token = await self._new_token()
            answer = await self._send(method, dialect.base + path, **content)
        return answer

    async def _new_token(self) -> str:
        user = {"username": self._settings.username, "password": self._settings.password}
        answer = await self._send("POST", "/auth/token", authorized=False, json=user)
        if answer.status in (400, 401, 403, 404, 405, 422):
            raise self._refused_user(answer.status)
        token = answer.body.get("access_token") if isinstance(answer.body, dict) else None
        if answer.status not in (200, 201) or not isinstance(token, str):
            raise NotYetError(f"Airflow answered {answer.status} to the request for a token")
        return token

    async def _send(
        self,
        method: str,
        path: str,
        *,
        authorized: bool = True,
        lost: type[NotYetError] = NotYetError,
        **content: Any,
    ) -> _Answer:
        """
        Send a request.

        :param lost: raised if no answer comes to what may have arrived.
        """
        headers = {"Accept": "application/json"}
        if authorized:
            user = b64encode(f"{self._settings.username}:{self._settings.password}".encode()).decode()
            headers["Authorization"] = f"Bearer {self._token}" if self._token else f"Basic {user}"
        url = self._settings.airflow_url + path
        try:
            async with self._session.request(method, url, headers=headers, allow_redirects=False, **content) as answer:
                try:
                    return _Answer(answer.status, await answer.json(content_type=None))
                except ValueError:
                    return _Answer(answer.status, None)
        except (TimeoutError, aiohttp.ClientError) as error:
            unsent = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
            raise (NotYetError if unsent else lost)(f"Airflow does not answer ({type(error).__name__})") from None

    def _refused_user(self, status: int) -> KieConfigurationError:
        return KieConfigurationError(
            f"Airflow answered {status}: check KIE_CALLBACKS_AIRFLOW_USERNAME and _PASSWORD, and the user's role; "
            "Airflow 2.11 needs airflow.api.auth.backend.basic_auth in [api] auth_backends"
        )
