# SPDX-License-Identifier: Apache-2.0
"""How often a job is polled: the interval, its jitter and back-off, and the limits of time."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import timedelta

from airflow_provider_kie.exceptions import KieValidationError
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.times import times

__all__ = ["Pace", "as_seconds", "on_tick"]

#: How often per second the waits on one event loop wake up.
TICKS_PER_SECOND = 10
#: Longest wait in seconds: ten years.
LONGEST_WAIT = 10 * 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Pace:
    """
    How often a wait polls.

    :param interval: seconds between two polls; each is jittered by a tenth, so that waits that started together do not
        poll together.
    :param exponential_backoff: double the interval from poll to poll.
    :param max_wait: upper limit of the doubled interval, in seconds.
    """

    interval: float
    exponential_backoff: bool = False
    max_wait: float | None = None

    def pause(self, polls: int) -> float:
        """Return the seconds to sleep before the next poll."""
        interval = self.interval
        if self.exponential_backoff:
            interval = min(interval * 2.0 ** min(polls - 1, 30), math.inf if self.max_wait is None else self.max_wait)
        return max(interval, times().shortest_poll_pause) * random.uniform(0.9, 1.1)

    def settling_pause(self) -> float:
        """Return the seconds to sleep before an answer that may still settle is read again."""
        return Pace(min(self.interval, times().settling_pause)).pause(1)

    def polls_within(self, seconds: float) -> int:
        """Return how many polls a wait with back-off has made, so that it can continue in another triggerer."""
        return int(math.log2(1 + max(seconds, 0.0) / max(self.interval, times().shortest_poll_pause)))


def on_tick(delay: float, now: float) -> float:
    """
    Return a delay that ends on the next tick, so that the waits on one event loop wake up and read together.

    A read that shares a turn of the loop with others costs less CPU than one for which an idle core wakes up. The reads
    stay spread over the interval. A delay below a second is returned unchanged, because a tick would be a large part of
    it.

    :param now: the time on a clock that the waits share, such as ``time.monotonic``.
    """
    if delay < 1.0:
        return delay
    return math.ceil((now + delay) * TICKS_PER_SECOND) / TICKS_PER_SECOND - now


def as_seconds(name: str, value: object) -> float:
    """
    Read a duration that a user gave.

    :raises KieValidationError: not a number of seconds above 0 and up to ten years.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds <= LONGEST_WAIT:
        return float(seconds)
    raise KieValidationError(
        f"{name} is {quoted(value)}, but must be seconds or a timedelta, above 0 and up to ten years"
    )
