# SPDX-License-Identifier: Apache-2.0
"""
When a call is sent again and how long to pause before, for both transports alike.

KIE refuses more than 20 new generations in 10 seconds per account ("Getting Started"); what it refuses it does not
queue, and none of 691 recorded answers had a ``Retry-After``. So a rate limit pauses every call of the connection
in this process for about that window. A submit is paid for, so it is sent again only where KIE certainly created
nothing, or once more where the outcome is unknown: KIE's own 409 then tells whether the first one had worked.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Any

from tenacity import RetryCallState, stop_after_attempt

from airflow_provider_kie.api.call import Call
from airflow_provider_kie.exceptions import KieError, KieMaintenanceError, KieRateLimitError

__all__ = ["COOLDOWNS", "Cooldowns", "retry_options"]

#: Seconds of KIE's window for new generations.
RATE_WINDOW = 10.0
#: Seconds over which calls spread when the window is over.
RATE_JITTER = 2.0
#: Seconds before the first repetition after other trouble; each further pause is twice as long.
FIRST_PAUSE = 1.0
#: Seconds before a call under maintenance is sent again.
MAINTENANCE_PAUSE = 30.0
#: Seconds that a pause before a repeated call never exceeds.
LONGEST_PAUSE = 60.0
#: How often a call is sent again, by cause.
MOST_REPEATS: dict[type[KieError], int] = {KieRateLimitError: 10}
MOST_REPEATS_OTHERWISE = 3
MOST_REPEATS_UNDER_GUARD = 1


class Cooldowns:
    """Until when the calls of a connection pause, shared by all threads and event loops of the process."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def note(self, conn_id: str, error: KieError) -> None:
        """
        Start a pause if the error is a rate limit.

        :param conn_id: the connection that met it.
        :param error: any error of a call.
        """
        if isinstance(error, KieRateLimitError):
            pause = RATE_WINDOW if error.retry_after is None else min(error.retry_after, LONGEST_PAUSE)
            with self._lock:
                self._until[conn_id] = max(self._until.get(conn_id, 0.0), time.monotonic() + pause)

    def remaining(self, conn_id: str) -> float:
        """
        Return the seconds to pause before the next call, with jitter; 0 when nothing is to be waited for.

        :param conn_id: the connection about to be used.
        """
        rest = self._until.get(conn_id, 0.0) - time.monotonic()
        return rest + random.uniform(0.0, RATE_JITTER) if rest > 0 else 0.0

    def clear(self) -> None:
        """Forget all pauses."""
        self._until.clear()


COOLDOWNS = Cooldowns()


class _MayRepeat:
    """Decides for one call whether it is sent again; counts its repeats by cause."""

    def __init__(self, call: Call[Any]) -> None:
        self.call = call
        self.repeats: dict[object, int] = {}

    def __call__(self, state: RetryCallState) -> bool:
        error = _error(state)
        if error is None or not error.transient:
            return False
        under_guard = self.call.costs_credits and not error.nothing_created
        cause = "guard" if under_guard else type(error)
        allowed = MOST_REPEATS_UNDER_GUARD if under_guard else MOST_REPEATS.get(type(error), MOST_REPEATS_OTHERWISE)
        self.repeats[cause] = self.repeats.get(cause, 0) + 1
        return self.repeats[cause] <= allowed


def retry_options(call: Call[Any], log: logging.Logger) -> dict[str, Any]:
    """
    Return the arguments of tenacity's ``Retrying`` and ``AsyncRetrying`` for a call.

    :param call: the call about to be carried out.
    :param log: where a repetition is announced.
    """
    return {
        "retry": _MayRepeat(call),
        "wait": _pause,
        "stop": stop_after_attempt(20),
        "before_sleep": lambda state: log.warning("%s Sending it again.", _error(state)),
        "reraise": True,
    }


def _pause(state: RetryCallState) -> float:
    error = _error(state)
    if isinstance(error, KieRateLimitError):
        return 0.0  # the connection's cool-down, which every call waits for, is the pause
    in_maintenance = isinstance(error, KieMaintenanceError)
    nominal = MAINTENANCE_PAUSE if in_maintenance else FIRST_PAUSE * 2.0 ** (state.attempt_number - 1)
    if error is not None and error.retry_after is not None:
        nominal = error.retry_after
    return min(nominal, LONGEST_PAUSE) * random.uniform(1.0, 1.3)


def _error(state: RetryCallState) -> KieError | None:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, KieError) else None
