# SPDX-License-Identifier: Apache-2.0
"""
The one rule by which a conversion is waited for, in every mode.

A *look* is one or more readings in a row that belong together; it ends in a :data:`Verdict`. The rules that live
here and nowhere else:

* transient trouble never ends a wait, only its deadline does;
* what repeating can not help ends it at once;
* a URL wins over the status;
* what may still settle (an unknown id, a success without a URL, an error on a pending task) is read again for
  :data:`GRACE_SECONDS` before it counts. The grace is measured in time and within one look, because a sensor in
  reschedule mode remembers nothing from one look to the next;
* unknown status words mean "wait", except words that end in ``_FAILED`` or ``_ERROR``;
* how long to sleep before the next reading, and before the first one after a deferral.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, TypeAlias

from airflow_provider_kie.api.wav import WavConversion, WavStatus
from airflow_provider_kie.exceptions import (
    KieAuthenticationError,
    KieConfigurationError,
    KieConnectionNotFoundError,
    KieConversionFailedError,
    KieError,
    KieNotFoundError,
    KieNotReadyError,
    KieRateLimitError,
    KieValidationError,
    KieWaitTimeoutError,
    final,
)
from airflow_provider_kie.redaction import quoted

__all__ = [
    "DEFERRAL_SECONDS",
    "GRACE_SECONDS",
    "WORTH_A_NEW_SUBMIT",
    "Done",
    "Failed",
    "Look",
    "Reading",
    "Verdict",
    "Wait",
    "as_seconds",
    "coalesced",
    "conclude",
    "ends_the_search",
    "finished",
    "looks_within",
    "next_delay",
    "refuses_the_key",
    "settling_delay",
    "timed_out",
]

#: Seconds for which an answer that may still settle is read again before it counts as final.
GRACE_SECONDS = 60.0
#: Seconds between the readings of such an answer.
SETTLING_SECONDS = 5.0
#: Seconds between two readings at the least, whatever interval was asked for.
SHORTEST_DELAY = 0.1
#: Seconds after a worker deferred in which nobody looks. Airflow fails a task whose trigger fires before the scheduler
#: has taken note of the deferral ("finished with state success, but the task instance's state attribute is queued":
#: apache/airflow #66374, #67287, #72716; seen on 3.3.2).
DEFERRAL_SECONDS = 5.0
#: Moments in a second at which the waits on one event loop wake up.
TICKS_PER_SECOND = 10

#: What a wait says while KIE's rate limit holds the connection back.
RATE_LIMITED = "KIE's rate limit (429) holds the connection back"

#: Seconds that a wait may last: ten years.
LONGEST_WAIT = 10 * 365 * 86400.0

#: Ends of a conversion that a new submit may cure. After any other the conversion may go on, and its id is worth more
#: than another try.
WORTH_A_NEW_SUBMIT = (KieConversionFailedError, KieNotFoundError)

#: What one reading brought: the conversion, None for an unknown id, or the error that stood in the way.
Reading: TypeAlias = WavConversion | KieError | None


@dataclass(frozen=True, slots=True)
class Wait:
    """
    The conversion is not finished.

    :param reason: what the last reading said, for the log and for the message of a time-out.
    :param settling: True when the same look should read again soon.
    :param warning: True when the reason is something that a user should see.
    :param trouble: the error that stood in the way of the last reading, if one did.
    """

    reason: str
    settling: bool = False
    warning: bool = False
    trouble: KieError | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """
    The WAV file is there.

    :param conversion: the record; its ``wav_url`` is an http(s) URL.
    :param warning: what was odd about it, or an empty text.
    """

    conversion: WavConversion
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """
    The wait is over without a file.

    :param error: the cause.
    """

    error: KieError


Verdict: TypeAlias = Wait | Done | Failed


class Look:
    """
    One look at a conversion, fed with readings until its verdict no longer asks for another.

    :param kie_task_id: the WAV task.
    :param conn_id: the connection, for the errors.
    """

    def __init__(self, kie_task_id: str, conn_id: str) -> None:
        self.kie_task_id = kie_task_id
        self.conn_id = conn_id
        self._unsettled_since: float | None = None

    def judge(self, reading: Reading, now: float) -> Verdict:
        """
        Say what a reading means.

        :param reading: what the reading brought.
        :param now: seconds on any clock that only goes forward.
        """
        if isinstance(reading, KieError):
            # Trouble says nothing about the conversion, so it neither starts nor ends the grace.
            if not reading.transient:
                return self._failed(reading)
            # Whether a look met the limit itself or only the pause after it is chance, and not worth telling apart.
            reason = RATE_LIMITED if isinstance(reading, KieRateLimitError) else reading.problem
            return Wait(reason, settling=self._in_grace(now), warning=True, trouble=reading)
        if reading is not None and reading["wav_url"]:
            return Done(reading, _oddity(reading["status"]))
        objection = _objection(self.kie_task_id, reading)
        if objection is None:
            self._unsettled_since = None
            return _wait_for(reading["status"] if reading else "")
        if not objection.may_settle:
            return self._failed(objection.error)
        if self._unsettled_since is None:
            self._unsettled_since = now
        if self._in_grace(now):
            return Wait(objection.error.problem, settling=True, warning=True)
        return self._failed(objection.error)

    def _failed(self, error: KieError) -> Failed:
        error.conn_id = self.conn_id
        return Failed(error)

    def _in_grace(self, now: float) -> bool:
        return self._unsettled_since is not None and now - self._unsettled_since < GRACE_SECONDS


def conclude(verdict: Done | Failed) -> WavConversion:
    """
    Return the conversion of a wait that is over, or raise what ended it.

    :param verdict: the last look's.
    :raises KieError: what ended the wait without a file.
    """
    if isinstance(verdict, Failed):
        raise verdict.error
    return verdict.conversion


def finished(kie_task_id: str, verdict: Verdict) -> Done:
    """
    Return the end of a conversion for who looks once and does not wait, or raise what stands in the way.

    :param kie_task_id: the WAV task.
    :param verdict: the look's.
    :raises KieNotReadyError: the conversion still runs.
    :raises KieError: the trouble of the look, or the failure, which is final.
    """
    if isinstance(verdict, Wait):
        raise verdict.trouble or KieNotReadyError(
            f"The WAV conversion is not finished: {verdict.reason}", kie_task_id=kie_task_id
        )
    if isinstance(verdict, Failed):
        raise final(verdict.error)
    return verdict


def refuses_the_key(verdict: Verdict) -> bool:
    """
    Return whether a wait would end because of its key, so that a connection that was changed meanwhile is worth a try.

    :param verdict: the last reading's.
    """
    return isinstance(verdict, Failed) and isinstance(verdict.error, KieAuthenticationError)


def ends_the_search(error: KieError, waited: float, *, was_found: bool) -> bool:
    """
    Return whether trouble with the connection ends a wait, before there was a look.

    :param error: what stood in the way of the connection.
    :param waited: how long the wait has lasted, in seconds.
    :param was_found: whether this wait has found the connection before, on a worker perhaps. That proves that it is
        there; what is away then is the secrets backend.
    """
    if isinstance(error, KieConnectionNotFoundError):
        return not was_found and waited >= GRACE_SECONDS
    return isinstance(error, KieConfigurationError)


def next_delay(
    poll_interval: float, looks: int, *, exponential_backoff: bool = False, max_wait: float | None = None
) -> float:
    """
    Return the seconds to sleep before the next look, up to a tenth shorter or longer than nominal.

    The jitter keeps a thousand waits that started together from reading together.

    :param poll_interval: seconds between two looks.
    :param looks: looks already taken, 1 or more.
    :param exponential_backoff: double the interval from look to look.
    :param max_wait: seconds that the doubled interval does not exceed.
    """
    interval = poll_interval
    if exponential_backoff:
        interval = min(poll_interval * 2.0 ** min(looks - 1, 30), math.inf if max_wait is None else max_wait)
    return max(interval, SHORTEST_DELAY) * random.uniform(0.9, 1.1)


def coalesced(delay: float, now: float) -> float:
    """
    Return a delay that ends on the next tick, so that the waits on one event loop wake up and read together.

    A read that shares a turn of the loop with others costs less CPU than one for which an idle core wakes up. Over the
    interval the reads stay spread. A delay below a second stays as it is: a tick would be much of it.

    :param delay: seconds to sleep at the least.
    :param now: seconds of the clock that the waits share, such as ``time.monotonic``.
    """
    if delay < 1.0:
        return delay
    return math.ceil((now + delay) * TICKS_PER_SECOND) / TICKS_PER_SECOND - now


def looks_within(seconds: float, poll_interval: float) -> int:
    """
    Return how many looks a wait with back-off has taken, so that one that moves on does not begin anew.

    :param seconds: how long the wait has lasted.
    :param poll_interval: seconds between the first two looks.
    """
    return int(math.log2(1 + max(seconds, 0.0) / max(poll_interval, SHORTEST_DELAY)))


def settling_delay(verdict: Wait, poll_interval: float, left: float) -> float | None:
    """
    Return the seconds to sleep before the next reading of the same look; None when the look is over.

    :param verdict: the last reading's.
    :param poll_interval: seconds between two looks, which a settling look does not exceed.
    :param left: seconds that the look may still take.
    """
    if not verdict.settling:
        return None
    pause = next_delay(min(poll_interval, SETTLING_SECONDS), 1)
    return pause if pause <= left else None


def timed_out(kie_task_id: str, kie_conn_id: str, timeout: float, last: str) -> KieWaitTimeoutError:
    """
    Return the error of a wait that reached its deadline.

    :param kie_task_id: the WAV task.
    :param kie_conn_id: the connection.
    :param timeout: seconds that the wait was given.
    :param last: the reason of the last :class:`Wait`.
    """
    return KieWaitTimeoutError(
        f"The WAV conversion was not finished within {timeout:g} seconds; last: {last}",
        kie_task_id=kie_task_id,
        conn_id=kie_conn_id,
    )


def as_seconds(name: str, value: object) -> float:
    """
    Read a length of time that a user gave.

    :param name: the argument's name.
    :param value: seconds, or a ``timedelta``.
    :raises KieValidationError: not a number of seconds above 0 and up to ten years.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds <= LONGEST_WAIT:
        return float(seconds)
    raise KieValidationError(
        f"{name} is {quoted(value)}, but must be seconds or a timedelta, above 0 and up to ten years"
    )


class _Objection(NamedTuple):
    """What speaks against going on to wait, and whether it may still settle."""

    error: KieError
    may_settle: bool


def _objection(kie_task_id: str, reading: WavConversion | None) -> _Objection | None:
    if reading is None:
        return _Objection(KieNotFoundError("KIE does not know this WAV task", kie_task_id=kie_task_id), True)
    status = reading["status"]
    if status in (WavStatus.SUCCESS, WavStatus.CALLBACK_EXCEPTION):
        return _Objection(_failure(reading, f"The conversion ended in {status} without a WAV URL"), True)
    if status.endswith(("_FAILED", "_ERROR")):
        return _Objection(_failure(reading, f"The conversion failed with status {status}"), False)
    if reading["error_code"] is not None or reading["error_message"]:
        return _Objection(_failure(reading, f"KIE refused the conversion (status {status or 'none'})"), True)
    return None


def _failure(conversion: WavConversion, problem: str) -> KieConversionFailedError:
    code, message = conversion["error_code"], conversion["error_message"]
    said = [f"code {code}" if code is not None else "", repr(message) if message else ""]
    details = ", ".join(filter(None, said))
    return KieConversionFailedError(
        f"{problem}: {details}" if details else problem,
        code=code if isinstance(code, int) else None,
        kie_task_id=conversion["kie_task_id"],
    )


def _oddity(status: str) -> str:
    if status == WavStatus.SUCCESS:
        return ""
    return f"KIE gave a WAV URL together with status {status or 'none'}; the URL counts"


def _wait_for(status: str) -> Wait:
    if status == WavStatus.PENDING:
        return Wait("status PENDING")
    return Wait(f"status {status or 'none'}, which is not one of KIE's documented words", warning=True)
