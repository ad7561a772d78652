# SPDX-License-Identifier: Apache-2.0
"""
The hook, over ``requests``; its async twin is :mod:`airflow_provider_kie.hooks.kie_async`.

What a call is, what its answer means, when it is repeated and what a reading means for a wait is decided on the
floors below; here calls are carried out, and courses of waits are driven.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from json import dumps
from typing import Any, TypeVar

import requests
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_kie import connection
from airflow_provider_kie.api import common, wav
from airflow_provider_kie.api.call import Call, Repeat
from airflow_provider_kie.api.envelope import Answer, Json
from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.api.job import Family, KieJob, Submitted, read_job
from airflow_provider_kie.api.wav import WavConversion
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import (
    KieAuthenticationError,
    KieConnectionError,
    KieConnectionNotFoundError,
    KieError,
    KieValidationError,
    named,
)
from airflow_provider_kie.hooks import over_requests
from airflow_provider_kie.hooks.pacing import COOLDOWNS, LONGEST_PAUSE, retrying
from airflow_provider_kie.hooks.transport import no_connection
from airflow_provider_kie.redaction import harmless, quoted
from airflow_provider_kie.waiting.course import Course, Pause, poll, wait
from airflow_provider_kie.waiting.pace import SETTLING_SECONDS, Pace, as_seconds
from airflow_provider_kie.waiting.verdict import Done, Failed, Judge, Reading, Verdict, Wait, conclude, timed_out

__all__ = ["KieHook"]

T = TypeVar("T")

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
        return KieSettings.from_connection(self.kie_conn_id, found, found.extra_dejson)

    @cached_property
    def _session(self) -> requests.Session:
        return over_requests.open_session(self.settings)

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

    def submit_wav_conversion(self, music_task_id: str, audio_id: str, callback_url: str | None = None) -> Submitted:
        """
        Do what :meth:`convert_to_wav` does, and tell whether an earlier conversion is reused.

        :param music_task_id: the music task that made the track.
        :param audio_id: the track.
        :param callback_url: where KIE reports the end; default is the connection's.
        """
        url = callback_url or self.settings.callback_url
        submitted = self.call(wav.convert_to_wav(music_task_id, audio_id, url))
        if submitted.reused:
            what = f"WAV task {submitted.kie_task_id}"
            self.log.warning("KIE has converted track %s before: %s is reused.", audio_id, what)
        return submitted

    def get_wav_conversion(self, kie_task_id: str) -> WavConversion | None:
        """
        Read a WAV conversion; None for an id that KIE does not know.

        :param kie_task_id: the WAV task.
        """
        job = self._get_job(WAV, kie_task_id)
        return wav.as_conversion(job) if job else None

    def _get_job(self, row: Family, kie_task_id: str) -> KieJob | None:
        return self.call(read_job(row, kie_task_id))

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

    def poll(
        self,
        row: Family,
        kie_task_id: str,
        *,
        timeout: float = math.inf,
        poll_interval: float = SETTLING_SECONDS,
        retry_reads: bool = False,
    ) -> Verdict:
        """
        Read a job once, or until an answer that may still settle has settled.

        :param row: the family.
        :param kie_task_id: the job.
        :param timeout: seconds after which nothing settles any more; by default the end of the grace stops it.
        :param poll_interval: seconds between two polls, which the pauses of one poll do not exceed.
        :param retry_reads: repeat a read that met trouble, for callers that poll only once.
        """
        judge = Judge(row, kie_task_id, self.kie_conn_id)
        course = poll(judge, Pace(poll_interval), _countdown(timeout))
        return self._drive(course, row, kie_task_id, retry_reads=retry_reads)

    def wait(
        self,
        row: Family,
        kie_task_id: str,
        *,
        poll_interval: float,
        timeout: float,
        report: Callable[[Pause], None] | None = None,
    ) -> Done | Failed:
        """
        Wait in this process until a job has ended, and return how.

        :param row: the family.
        :param kie_task_id: the job.
        :param poll_interval: seconds between two polls.
        :param timeout: seconds to wait at most.
        :param report: is told of each pause instead of the log.
        """

        def new_judge() -> Judge:
            return Judge(row, kie_task_id, self.kie_conn_id)

        course = wait(new_judge, Pace(poll_interval), _countdown(timeout))
        end = self._drive(course, row, kie_task_id, report=report)
        return timed_out(row, kie_task_id, self.kie_conn_id, timeout, end.reason) if isinstance(end, Wait) else end

    def wait_for_wav_conversion(
        self, kie_task_id: str, *, poll_interval: float | timedelta, timeout: float | timedelta
    ) -> WavConversion:
        """
        Wait in this process until a conversion has its file.

        :param kie_task_id: the WAV task.
        :param poll_interval: seconds or a ``timedelta`` between two polls.
        :param timeout: seconds or a ``timedelta`` to wait at most.
        :raises KieWaitTimeoutError: not finished in time; names the last status or trouble.
        """
        interval, limit = as_seconds("poll_interval", poll_interval), as_seconds("timeout", timeout)
        end = self.wait(WAV, kie_task_id, poll_interval=interval, timeout=limit)
        return wav.as_conversion(conclude(end))

    def call(self, call: Call[T]) -> T:
        """
        Carry out a call, and repeat it where that may help and cannot pay twice.

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

    def _send(self, call: Call[Any]) -> Answer:
        return over_requests.send(self._session, self.settings, call)

    def _takes_up_what_changed(self) -> bool:
        """Look the connection up again, and tell whether it has changed; a poke may use it for hours."""
        found = self._look_up()
        if found == self.settings:
            return False
        self.log.warning("KIE refused the key, and connection %r has changed: going on with it.", self.kie_conn_id)
        self._session.close()
        del self._session
        self.settings = found
        return True

    def _drive(
        self,
        course: Course[T],
        row: Family,
        kie_task_id: str,
        *,
        retry_reads: bool = False,
        report: Callable[[Pause], None] | None = None,
    ) -> T:
        """Give a course the readings that it asks for, and pause when it asks for that, until it returns its end."""
        reading: Reading = None
        while True:
            try:
                pause = course.send(reading)
            except StopIteration as end:
                ended: T = end.value
                return ended
            reading = None
            if pause is None:
                reading = self._reading(row, kie_task_id, retry_reads)
                continue
            if report:
                report(pause)
            else:
                level = logging.WARNING if pause.settling else logging.INFO
                self.log.log(level, "%s: %s", named(row.tag, kie_task_id), pause.text)
            time.sleep(pause.seconds)

    def _reading(self, row: Family, kie_task_id: str, retry_reads: bool) -> Reading:
        reading = self._outcome(row, kie_task_id, retry_reads)
        try:
            if isinstance(reading, KieAuthenticationError) and self._takes_up_what_changed():
                return self._outcome(row, kie_task_id, retry_reads)
        except KieConnectionNotFoundError as error:  # a secrets backend that is away says nothing of the job
            return KieConnectionError(f"KIE refused the key, and the connection is out of reach: {error.problem}")
        except KieError as error:
            return error
        return reading

    def _outcome(self, row: Family, kie_task_id: str, retry_reads: bool) -> Reading:
        try:
            call = read_job(row, kie_task_id)
            return self.call(call) if retry_reads else self.attempt(call, patience=0.0)
        except KieError as error:
            return error


def _countdown(seconds: float) -> Callable[[], float]:
    until = time.monotonic() + seconds
    return lambda: until - time.monotonic()


def _as_it_is(data: Json) -> Json:
    return data
