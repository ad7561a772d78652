# SPDX-License-Identifier: Apache-2.0
"""
When a submit may be sent, when a call is repeated, and after which pause.

KIE refuses more than 20 new generations in 10 seconds per account ("Getting Started"). It does not queue what it
refuses, and none of 691 recorded answers had a ``Retry-After``. So submits are held back before that happens, and a
rate limit pauses every call of the connection in this process for about that window. A charged call is repeated only
if KIE certainly created nothing; a guarded submit also once after an unknown outcome, because KIE's 409 then shows
whether the first one had worked.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenacity import RetryCallState, Retrying, stop_after_attempt

from airflow_provider_kie.api.call import Call, Repeat
from airflow_provider_kie.exceptions import (
    KieError,
    KieMaintenanceError,
    KieRateLimitError,
    KieUnexpectedCodeError,
)
from airflow_provider_kie.hooks.shared_pacing import await_turn
from airflow_provider_kie.times import times

if TYPE_CHECKING:
    from airflow_provider_kie.connection import KieSettings

__all__ = ["COOLDOWNS", "PACER", "Cooldowns", "Pacer", "Turn", "retrying"]

#: Longest sleep in seconds before a submit that is held back looks again whether it still may be sent.
LONGEST_LOOK = 1.0
#: How often a call is repeated, by cause.
MOST_REPEATS: dict[type[KieError], int] = {KieRateLimitError: 10}
MOST_REPEATS_OTHERWISE = 3
MOST_REPEATS_GUARDED = 1


class Cooldowns:
    """
    When the pause of each connection ends, for all threads and event loops of the process.

    The key is all of a connection's settings, because a limit does not apply to another API key or host.
    """

    def __init__(self) -> None:
        self._until: dict[KieSettings, float] = {}
        self._lock = threading.Lock()

    def note(self, settings: KieSettings, error: KieError) -> None:
        """Start a pause if the error is a rate limit."""
        if isinstance(error, KieRateLimitError):
            asked = times().rate_window if error.retry_after is None else error.retry_after
            until = time.monotonic() + max(asked, times().shortest_rate_pause)
            with self._lock:
                self._until[settings] = max(self._until.get(settings, 0.0), until)

    def pause(self, settings: KieSettings, patience: float) -> float:
        """
        Return the seconds to pause before the next call, with jitter; 0 for no pause.

        :param patience: longest pause that the caller accepts, in seconds.
        :raises KieRateLimitError: the pause would be longer; nothing was sent.
        """
        rest = self._until.get(settings, 0.0) - time.monotonic()
        if rest <= 0:
            return 0.0
        if rest > patience:
            raise KieRateLimitError(
                f"Not sent: the connection pauses for another {rest:.0f} seconds after KIE's rate limit",
                code=429,
                conn_id=settings.conn_id,
                retry_after=rest,
            )
        return rest + random.uniform(0.0, times().rate_jitter)

    def is_on(self, settings: KieSettings) -> bool:
        """Whether a connection pauses now."""
        return self._until.get(settings, 0.0) > time.monotonic()

    def clear(self) -> None:
        """Forget all pauses."""
        self._until.clear()


COOLDOWNS = Cooldowns()


@dataclass(slots=True)
class Turn:
    """
    One submit that may be sent.

    :param is_sent: set once it is; a turn that was not used frees its place at once.
    """

    is_sent: bool = False


@dataclass(slots=True)
class _Window:
    """
    What counts against the limit of one account.

    :param under_way: submits that may be on their way.
    :param answered: when the others were answered, oldest first.
    """

    under_way: int = 0
    answered: deque[float] = field(default_factory=deque)


class Pacer:
    """
    Holds submits back so that an account does not meet its rate limit, for all threads of the process.

    A submit counts from before it is sent until the window has passed since its answer. KIE's own clock saw it
    somewhere in between, so no delay on the way can put one too many into a window of KIE's. Where the connection has a
    shared bucket, that is asked first.
    """

    def __init__(self) -> None:
        self._windows: defaultdict[tuple[str, str], _Window] = defaultdict(_Window)
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, settings: KieSettings, patience: float, hold: Callable[[], object] | None = None) -> Iterator[Turn]:
        """
        Wait until another submit of the account may be sent, and yield it.

        :param settings: name the account and the host, which have the limit together.
        :param patience: see :meth:`Cooldowns.pause`.
        :param hold: called before each part of the wait; what it raises ends the wait.
        """
        with self._lock:
            window = self._windows[settings.payer, settings.base_url]
        while True:
            _wait(COOLDOWNS.pause(settings, patience), hold)
            if settings.pacing:
                await_turn(settings, times().rate_limit, times().rate_window, hold)
            while rest := self._enter(window):
                _wait(min(rest, LONGEST_LOOK), hold)
            if not COOLDOWNS.is_on(settings):
                break
            with self._lock:  # a pause has begun meanwhile
                window.under_way -= 1
        turn = Turn()
        try:
            yield turn
        finally:
            with self._lock:
                window.under_way -= 1
                if turn.is_sent:
                    window.answered.append(time.monotonic())

    def _enter(self, window: _Window) -> float:
        """Take a place, or return the seconds until there may be one."""
        with self._lock:
            now = time.monotonic()
            while window.answered and now - window.answered[0] > times().rate_window:
                window.answered.popleft()
            if window.under_way + len(window.answered) < times().rate_limit:
                window.under_way += 1
                return 0.0
            oldest = window.answered[0] if window.answered else now
            return max(oldest + times().rate_window - now, 0.0) + 0.001

    def clear(self) -> None:
        """Forget all earlier submits."""
        self._windows.clear()


PACER = Pacer()


def _wait(seconds: float, hold: Callable[[], object] | None) -> None:
    while seconds > 0:
        if hold:
            hold()
        time.sleep(min(seconds, LONGEST_LOOK))
        seconds -= LONGEST_LOOK


class _MayRepeat:
    """Decides whether one call is repeated, and counts its repeats by cause."""

    def __init__(self, call: Call[Any]) -> None:
        self.call = call
        self.repeats: dict[object, int] = {}

    def __call__(self, state: RetryCallState) -> bool:
        error = _error(state)
        if error is None or not error.transient:
            return False
        if self.call.repeat is not Repeat.ALWAYS and error.existing_kie_task_id:
            return False  # it names a job, which is paid for
        if isinstance(error, KieRateLimitError) and (error.retry_after or 0.0) > times().longest_repeat_pause:
            return False  # attempt() does not pause for that long
        cause: object = type(error)
        allowed = MOST_REPEATS.get(type(error), MOST_REPEATS_OTHERWISE)
        if self.call.repeat is not Repeat.ALWAYS and not error.nothing_created:
            if self.call.repeat is Repeat.NEVER_TWICE or isinstance(error, KieUnexpectedCodeError):
                return False
            cause, allowed = "guard", MOST_REPEATS_GUARDED
        self.repeats[cause] = self.repeats.get(cause, 0) + 1
        return self.repeats[cause] <= allowed


def retrying(call: Call[Any], log: logging.Logger) -> Retrying:
    """Return the retry loop of a call, which repeats it if that may help and cannot be charged twice."""
    return Retrying(
        retry=_MayRepeat(call),
        wait=_pause,
        stop=stop_after_attempt(20),
        before_sleep=lambda state: log.warning("%s Sending it again.", _error(state)),
        reraise=True,
    )


def _pause(state: RetryCallState) -> float:
    error = _error(state)
    if isinstance(error, KieRateLimitError):
        return 0.0  # every call waits for the connection's cool-down anyway
    nominal = times().first_repeat_pause * 2.0 ** (state.attempt_number - 1)
    if isinstance(error, KieMaintenanceError):
        nominal = times().maintenance_pause
    if error is not None and error.retry_after is not None:
        nominal = error.retry_after
    return min(nominal, times().longest_repeat_pause) * random.uniform(1.0, 1.3)


def _error(state: RetryCallState) -> KieError | None:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, KieError) else None
