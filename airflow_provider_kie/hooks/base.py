# SPDX-License-Identifier: Apache-2.0
"""
The base of the hook over ``requests``: looks up the connection, carries out calls, drives the courses of waits.

The floors below decide what an answer means, when a call is repeated and what a reading means for a wait.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol, TypeVar

import requests
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_kie import connection
from airflow_provider_kie.api.call import Call, Repeat
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.job import read_job
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import (
    KieAuthenticationError,
    KieConnectionError,
    KieConnectionNotFoundError,
    KieError,
    named,
)
from airflow_provider_kie.hooks import over_requests
from airflow_provider_kie.hooks.pacing import COOLDOWNS, PACER, retrying
from airflow_provider_kie.hooks.transport import no_connection
from airflow_provider_kie.times import times
from airflow_provider_kie.waiting.course import Course, Pause, poll, wait
from airflow_provider_kie.waiting.pace import Pace
from airflow_provider_kie.waiting.verdict import Done, Failed, Judge, Reading, Verdict, Wait, timed_out

__all__ = ["KieBaseHook", "SubmitGuard"]

T = TypeVar("T")

log = logging.getLogger(__name__)


class SubmitGuard(Protocol):
    """What must allow a request that may be charged."""

    def before_send(self) -> None:
        """Return if the request may be sent now; raise otherwise."""

    def after_error(self, error: KieError) -> None:
        """Take note of an error of such a request."""

    def hold(self) -> None:
        """Give back what was claimed for the request, which is held back; called again and again meanwhile."""


class KieBaseHook(BaseHook):
    """Carries out calls and drives waits, over ``requests``."""

    default_conn_name = connection.DEFAULT_CONN_ID
    _guard: SubmitGuard | None = None

    def __init__(self, kie_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kie_conn_id = kie_conn_id

    @cached_property
    def settings(self) -> KieSettings:
        """
        The checked connection.

        :raises KieConnectionNotFoundError: the connection is not defined or could not be read.
        :raises KieConfigurationError: a field is invalid.
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
        return over_requests.open_session(self.settings, self.settings.base_url)

    @cached_property
    def _upload_session(self) -> requests.Session:
        return over_requests.open_session(self.settings, self.settings.upload_host)

    def poll(
        self,
        row: Family,
        kie_task_id: str,
        *,
        timeout: float = math.inf,
        poll_interval: float = math.inf,
        retry_reads: bool = False,
    ) -> Verdict:
        """
        Read a job once, or until an answer that may still settle has settled.

        :param timeout: seconds for the poll to settle; by default only the grace limits it.
        :param poll_interval: seconds between two polls, and the longest pause within one.
        :param retry_reads: repeat a failed read, for callers that poll only once.
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

        :param report: called with each pause, instead of logging it.
        """
        course = wait(row, kie_task_id, self.kie_conn_id, Pace(poll_interval), _countdown(timeout))
        end = self._drive(course, row, kie_task_id, report=report)
        return timed_out(row, kie_task_id, self.kie_conn_id, timeout, end.reason) if isinstance(end, Wait) else end

    def call(self, call: Call[T]) -> T:
        """Carry out a call, and repeat it if that may help and cannot be charged twice."""
        result: T = retrying(call, log)(self.attempt, call)
        return result

    def attempt(self, call: Call[T], patience: float | None = None) -> T:
        """
        Carry out a call once.

        :param patience: longest pause in seconds for a rate limit that another call ran into; by default the longest
            before a repeat.
        """
        if patience is None:
            patience = times().longest_repeat_pause
        if call.repeat is Repeat.ALWAYS:
            time.sleep(COOLDOWNS.pause(self.settings, patience))
            return self._read_answer(call)
        guard = self._guard
        with PACER.turn(self.settings, patience, guard.hold if guard else None) as turn:
            if guard:
                guard.before_send()
            turn.is_sent = True
            try:
                return self._read_answer(call)
            except KieError as error:
                if guard:
                    guard.after_error(error)
                raise

    def _read_answer(self, call: Call[T]) -> T:
        try:
            return call.read(self._send(call))
        except KieError as error:
            error.conn_id = self.settings.conn_id
            COOLDOWNS.note(self.settings, error)
            raise

    @contextmanager
    def submits_by(self, guard: SubmitGuard) -> Iterator[None]:
        """Let a guard allow each request that may be charged, and hear of each error of one, within this context."""
        self._guard = guard
        try:
            yield
        finally:
            self._guard = None

    def _send(self, call: Call[Any]) -> Response:
        session = self._upload_session if call.upload else self._session
        return over_requests.send(session, self.settings, call)

    def _refresh_connection(self) -> bool:
        """Look up the connection again and return whether it has changed; poke mode may use it for hours."""
        found = self._look_up()
        if found == self.settings:
            return False
        self.log.warning("KIE refused the key, and connection %r has changed: using the new one.", self.kie_conn_id)
        for name in ("_session", "_upload_session"):
            if (session := self.__dict__.pop(name, None)) is not None:
                session.close()
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
        """Run a course: read and pause as it asks, and return its result."""
        reading: Reading = None
        while True:
            try:
                asked = course.send(reading)
            except StopIteration as end:
                ended: T = end.value
                return ended
            reading = None
            if not isinstance(asked, Pause):
                reading = self._reading(asked, kie_task_id, retry_reads)
                continue
            if report:
                report(asked)
            else:
                level = logging.WARNING if asked.settling else logging.INFO
                self.log.log(level, "%s: %s", named(row.tag, kie_task_id), asked.text)
            time.sleep(asked.seconds)

    def _reading(self, row: Family, kie_task_id: str, retry_reads: bool) -> Reading:
        reading = self._read(row, kie_task_id, retry_reads)
        try:
            if isinstance(reading, KieAuthenticationError) and self._refresh_connection():
                return self._read(row, kie_task_id, retry_reads)
        except KieConnectionNotFoundError as error:  # which an unreachable secrets backend causes too
            return KieConnectionError(f"KIE refused the key, and the connection is out of reach: {error.problem}")
        except KieError as error:
            return error
        return reading

    def _read(self, row: Family, kie_task_id: str, retry_reads: bool) -> Reading:
        try:
            call = read_job(row, kie_task_id)
            return self.call(call) if retry_reads else self.attempt(call, patience=0.0)
        except KieError as error:
            return error


def _countdown(seconds: float) -> Callable[[], float]:
    until = time.monotonic() + seconds
    return lambda: until - time.monotonic()
