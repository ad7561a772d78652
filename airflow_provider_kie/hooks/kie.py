# SPDX-License-Identifier: Apache-2.0
"""
The hook, over ``requests``; its async twin is :mod:`airflow_provider_kie.hooks.kie_async`.

What a call is, what its answer means, when it is repeated and what a reading means for a wait is decided on the
floors below; here is only how bytes get to KIE and back.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from json import dumps
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import requests
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError

from airflow_provider_kie import connection
from airflow_provider_kie.api import common, wav
from airflow_provider_kie.api.call import Call, Repeat
from airflow_provider_kie.api.envelope import LONGEST_BODY, Answer, Json
from airflow_provider_kie.api.wav import WavConversion
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import (
    KieError,
    KieValidationError,
)
from airflow_provider_kie.hooks.environment import ca_bundle, proxy_url, ssl_context
from airflow_provider_kie.hooks.pacing import COOLDOWNS, LONGEST_PAUSE, retrying
from airflow_provider_kie.hooks.transport import (
    BROKE_OFF,
    CONNECT_TIMEOUT,
    COULD_NOT_CONNECT,
    NO_CERTIFICATES,
    NOT_TRUSTED,
    TIMED_OUT,
    no_answer,
    no_connection,
    user_agent,
)
from airflow_provider_kie.redaction import harmless, quoted
from airflow_provider_kie.waiting import (
    SETTLING_SECONDS,
    Done,
    Failed,
    Look,
    Reading,
    Verdict,
    Wait,
    as_seconds,
    conclude,
    next_delay,
    refuses_the_key,
    settling_delay,
    timed_out,
)

__all__ = ["KieHook"]

T = TypeVar("T")

#: Is told of a reading after which the wait goes on, and of the seconds that it may still take.
Report: TypeAlias = Callable[[Wait, float], None]

log = logging.getLogger(__name__)


class KieHook(BaseHook):
    """
    Talk to KIE.ai over ``requests``.

    Every method raises a :class:`~airflow_provider_kie.exceptions.KieError` that says what went wrong and what to
    do. Calls that are free are repeated a few times on trouble; a submit only where that can not pay twice.

    :param kie_conn_id: the Airflow connection of type ``kie``.
    """

    conn_name_attr = "kie_conn_id"
    default_conn_name = connection.DEFAULT_CONN_ID
    conn_type = connection.CONN_TYPE
    hook_name = connection.HOOK_NAME

    def __init__(self, kie_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kie_conn_id = kie_conn_id

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields for Airflow 2.11 and 3.1."""
        return connection.build_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the look of the form's standard fields for Airflow 2.11 and 3.1."""
        return connection.build_ui_field_behaviour()

    @cached_property
    def settings(self) -> KieSettings:
        """
        The checked connection.

        :raises KieConnectionNotFoundError: Airflow does not know the connection, or could not read it.
        :raises KieConfigurationError: a field can not work.
        """
        return self._look_up()

    def _look_up(self) -> KieSettings:
        try:
            found = self.get_connection(self.kie_conn_id)
        except AirflowNotFoundException as error:
            raise no_connection(self.kie_conn_id) from error
        settings = KieSettings.from_connection(self.kie_conn_id, found, found.extra_dejson)
        if settings.webhook_hmac_key:
            mask_secret(settings.webhook_hmac_key)  # its name is not among those that Airflow masks by itself
        return settings

    @cached_property
    def _session(self) -> requests.Session:
        settings = self.settings
        session = _Session()
        session.trust_env = False
        session.headers["User-Agent"] = user_agent()
        session.auth = _BearerAuth(settings)
        ssl_context(settings, settings.base_url)  # requests itself would only find out while it connects
        session.verify = ca_bundle(settings)
        if proxy := proxy_url(settings, settings.base_url):
            session.proxies = {"http": proxy, "https": proxy}
        return session

    def get_conn(self) -> requests.Session:
        """Return the session; it sends the key to the connection's host and to no other."""
        return self._session

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> Any:
        """
        Send any request to KIE's API and return the envelope's ``data``: JSON, whose form the caller knows.

        :param method: HTTP method. Everything but GET may cost credits, so after trouble it is sent again only where
            KIE certainly did nothing; whether to repeat it otherwise is for the caller to decide.
        :param path: path below the base URL, such as ``/api/v1/chat/credit``.
        :param params: query parameters.
        :param json: body.
        :raises KieError: the cause, as for every method.
        """
        if not (isinstance(method, str) and method.isalpha()):
            raise KieValidationError(f"method {quoted(method)} is no HTTP method")
        if not (isinstance(path, str) and path.startswith("/")):
            raise KieValidationError(f"path {quoted(path)} does not start with '/'")
        try:
            dumps(json, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise KieValidationError(f"json can not be sent: {error}") from error
        method = method.upper()
        repeat = Repeat.ALWAYS if method == "GET" else Repeat.IF_REFUSED
        purpose = f"{method} {harmless(path)}"
        return self.call(Call(purpose, method, path, _as_it_is, params, json, repeat))

    def convert_to_wav(self, music_task_id: str, audio_id: str, callback_url: str | None = None) -> str:
        """
        Submit a WAV conversion and return its KIE task id; where KIE names an earlier one, that one's.

        :param music_task_id: the music task that made the track.
        :param audio_id: the track.
        :param callback_url: where KIE reports the end; default is the connection's.
        :raises KieAlreadyConvertedError: converted before, and KIE did not say under which id.
        """
        return self.submit_wav_conversion(music_task_id, audio_id, callback_url).kie_task_id

    def submit_wav_conversion(
        self, music_task_id: str, audio_id: str, callback_url: str | None = None
    ) -> wav.Submitted:
        """
        Do what :meth:`convert_to_wav` does, and tell whether an earlier conversion is reused.

        :param music_task_id: the music task that made the track.
        :param audio_id: the track.
        :param callback_url: where KIE reports the end; default is the connection's.
        """
        url = callback_url or self.settings.callback_url
        submitted = self.call(wav.convert_to_wav(music_task_id, audio_id, url))
        if submitted.reused:
            self.log.warning(
                "KIE has converted track %s before: WAV task %s is reused.", audio_id, submitted.kie_task_id
            )
        return submitted

    def get_wav_conversion(self, kie_task_id: str) -> WavConversion | None:
        """
        Read a WAV conversion; None for an id that KIE does not know.

        :param kie_task_id: the WAV task.
        """
        return self.call(wav.record_info(kie_task_id))

    def get_credits(self) -> float:
        """Return the account's remaining credits."""
        return self.call(common.credit())

    def get_download_url(self, url: str) -> str:
        """
        Return a direct link to a file that KIE generated; it works for 20 minutes, so do not store it.

        :param url: the file's URL as KIE gave it.
        :raises KieValidationError: KIE answers that the URL is not one of its files.
        """
        return self.call(common.download_url(url))

    def test_connection(self) -> tuple[bool, str]:
        """Check host and key by reading the credit balance, which is free; never raises."""
        try:
            balance = self.attempt(common.credit())
        except KieError as error:
            error.conn_id = None  # the form tests under a made-up id, which would only puzzle
            return False, str(error)
        except Exception as error:
            self.log.exception("The connection test failed in an unexpected way")
            return False, f"{type(error).__name__}; see the log of the process that ran the test"
        return True, f"{self.settings.base_url} accepts the key; {balance:g} credits are left."

    def look(
        self,
        kie_task_id: str,
        *,
        until: float = math.inf,
        poll_interval: float = SETTLING_SECONDS,
        patient: bool = False,
        report: Report | None = None,
    ) -> Verdict:
        """
        Read a conversion once, or until an answer that may still settle has settled.

        :param kie_task_id: the WAV task.
        :param until: when to stop settling at the latest, in seconds of ``time.monotonic``; by default the end of
            the grace stops it.
        :param poll_interval: seconds between two looks, which the pauses of one look do not exceed.
        :param patient: repeat a read that met trouble, for who takes only one look.
        :param report: is told instead of the log.
        """
        look = Look(kie_task_id, self.kie_conn_id)
        while True:
            verdict = look.judge(self._reading(kie_task_id, patient), time.monotonic())
            if refuses_the_key(verdict) and self._takes_up_what_changed():
                verdict = look.judge(self._reading(kie_task_id, patient), time.monotonic())
            if not isinstance(verdict, Wait):
                return verdict
            pause = settling_delay(verdict, poll_interval, until - time.monotonic())
            if pause is None:
                return verdict
            if report:
                report(verdict, until - time.monotonic())
            else:
                self.log.warning("WAV task %s: %s; reading again.", kie_task_id, verdict.reason)
            time.sleep(pause)

    def wait_for_wav_conversion(
        self, kie_task_id: str, *, poll_interval: float | timedelta, timeout: float | timedelta
    ) -> WavConversion:
        """
        Wait in this process until a conversion has its file.

        :param kie_task_id: the WAV task.
        :param poll_interval: seconds or a ``timedelta`` between two looks.
        :param timeout: seconds or a ``timedelta`` to wait at most.
        :raises KieWaitTimeoutError: not finished in time; names the last status or trouble.
        :raises KieValidationError: a time is not above 0, or is longer than ten years.
        """
        return conclude(self.wait_for_verdict(kie_task_id, poll_interval=poll_interval, timeout=timeout))

    def wait_for_verdict(
        self,
        kie_task_id: str,
        *,
        poll_interval: float | timedelta,
        timeout: float | timedelta,
        report: Report | None = None,
    ) -> Done | Failed:
        """
        Do what :meth:`wait_for_wav_conversion` does, and return the end instead of raising it.

        :param kie_task_id: the WAV task.
        :param poll_interval: seconds or a ``timedelta`` between two looks.
        :param timeout: seconds or a ``timedelta`` to wait at most.
        :param report: is told instead of the log.
        :raises KieValidationError: a time is not above 0, or is longer than ten years.
        """
        poll_interval, timeout = as_seconds("poll_interval", poll_interval), as_seconds("timeout", timeout)
        until = time.monotonic() + timeout
        looks = 0
        while True:
            verdict = self.look(kie_task_id, until=until, poll_interval=poll_interval, report=report)
            looks += 1
            if not isinstance(verdict, Wait):
                return verdict
            rest = until - time.monotonic()
            if rest <= 0:
                return Failed(timed_out(kie_task_id, self.kie_conn_id, timeout, verdict.reason))
            if report:
                report(verdict, rest)
            else:
                self.log.info("WAV task %s: %s; up to %.0f seconds left.", kie_task_id, verdict.reason, rest)
            time.sleep(min(next_delay(poll_interval, looks), rest))

    def call(self, call: Call[T]) -> T:
        """
        Carry out a call, and repeat it where that may help and can not pay twice.

        :param call: what to send and how to read the answer.
        """
        result: T = retrying(call, log)(self.attempt, call)
        return result

    def attempt(self, call: Call[T], patience: float = LONGEST_PAUSE) -> T:
        """
        Carry out a call once.

        :param call: what to send and how to read the answer.
        :param patience: seconds that the call may be held back by a rate limit that another one met.
        """
        settings = self.settings
        time.sleep(COOLDOWNS.pause(settings.conn_id, patience))
        try:
            return call.read(self._send(call))
        except KieError as error:
            error.conn_id = settings.conn_id
            COOLDOWNS.note(settings.conn_id, error)
            raise

    def _takes_up_what_changed(self) -> bool:
        """Look the connection up again, and tell whether it has changed; a poke may use it for hours."""
        try:
            found = self._look_up()
        except KieError as error:
            self.log.warning("The connection could not be looked up again: %s", error)
            return False
        if found == self.settings:
            return False
        self.log.warning("KIE refused the key, and connection %r has changed: going on with it.", self.kie_conn_id)
        self._session.close()
        del self._session
        self.settings = found
        return True

    def _reading(self, kie_task_id: str, patient: bool) -> Reading:
        try:
            call = wav.record_info(kie_task_id)
            return self.call(call) if patient else self.attempt(call, patience=0.0)
        except KieError as error:
            return error

    def _send(self, call: Call[Any]) -> Answer:
        settings, session = self.settings, self._session
        started = time.monotonic()
        try:
            with session.request(
                call.method,
                settings.base_url + call.path,
                params=call.params,
                json=call.json,
                timeout=(min(CONNECT_TIMEOUT, settings.timeout), settings.timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                body = _read_body(response, until=started + settings.timeout)
                return Answer.of(response.status_code, response.headers, body, secret=settings.api_key)
        except (OSError, HTTPError) as error:  # all of requests' errors are an OSError
            raise call.explain(no_answer(settings, *_explain_requests(error))) from error


class _Session(requests.Session):
    """Follows no redirect, not even in thought: requests would parse the target, and some can not be parsed."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Say that there is none."""


class _BearerAuth(AuthBase):
    """Adds the key to requests to the connection's own host."""

    def __init__(self, settings: KieSettings) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        own, asked = urlsplit(self._settings.base_url), urlsplit(request.url or "")
        if (own.scheme, own.netloc) == (asked.scheme, asked.netloc):
            request.headers["Authorization"] = f"Bearer {self._settings.api_key}"
        return request


def _as_it_is(data: Json) -> Json:
    return data


def _read_body(response: requests.Response, until: float) -> bytes:
    """Read as the bytes come, because a server that drips them would keep a plain read busy for ever."""
    body = bytearray()
    while chunk := response.raw.read1(65536, decode_content=True):
        body += chunk
        if len(body) > LONGEST_BODY:
            break
        if time.monotonic() > until:
            raise requests.ReadTimeout("the answer came too slowly")
    return bytes(body)


def _explain_requests(error: OSError | HTTPError) -> tuple[str, bool]:
    """Return what happened, and whether the request may have reached KIE."""
    cause = error.args[0] if error.args else None
    if not isinstance(error, (requests.RequestException, HTTPError)):
        return NO_CERTIFICATES, True  # the only thing of which requests complains in this way
    if isinstance(error, requests.exceptions.SSLError):
        return NOT_TRUSTED, True
    if isinstance(error, (requests.ConnectTimeout, requests.exceptions.ProxyError)):
        return COULD_NOT_CONNECT, False
    if isinstance(getattr(cause, "reason", None), NewConnectionError):
        return COULD_NOT_CONNECT, False
    timed_out = isinstance(error, (requests.Timeout, ReadTimeoutError)) or isinstance(cause, ReadTimeoutError)
    return (TIMED_OUT if timed_out else BROKE_OFF), True
