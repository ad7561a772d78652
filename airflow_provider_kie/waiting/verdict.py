# SPDX-License-Identifier: Apache-2.0
"""
What a reading of a job means for a wait, in every mode and for every family.

The rules that live here and nowhere else:

* a transient error never ends a wait, only its deadline does;
* an error for which repeating cannot help ends it at once;
* an answer that may still settle (an unknown id, a success without a result, an error on a running job) is read again
  for the ``grace`` of :class:`~airflow_provider_kie.times.Times` before it counts;
* unknown status words mean "wait", except words that end in ``_FAILED`` or ``_ERROR``;
* whether a file decides, and what the words mean, is in the family's row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from airflow_provider_kie.api.family import Family, Means
from airflow_provider_kie.api.job import KieJob, has_main_file
from airflow_provider_kie.exceptions import (
    KieConfigurationError,
    KieConnectionNotFoundError,
    KieError,
    KieJobRefusedError,
    KieNotFoundError,
    KieNotReadyError,
    KieRateLimitError,
    KieUnexpectedCodeError,
    KieUnreadableAnswerError,
    KieWaitTimeoutError,
    label,
)
from airflow_provider_kie.final_errors import final
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.times import times

__all__ = [
    "Done",
    "Failed",
    "Judge",
    "Reading",
    "Verdict",
    "Wait",
    "conclude",
    "connection_is_lost",
    "finished",
    "timed_out",
]

#: The reason of a wait while a rate limit pauses the connection.
RATE_LIMITED = "KIE's rate limit (429) pauses the connection"

#: A job that failed with one of these was refused for its input, and would fail again.
_INPUT_ERRORS = (400, 413, 422, 451, "SENSITIVE_WORD_ERROR")

#: The result of one read: the job, None for an unknown id, or the error.
Reading: TypeAlias = KieJob | KieError | None


@dataclass(frozen=True, slots=True)
class Wait:
    """
    The job is not finished.

    :param reason: why, for the log and for the message of a time-out.
    :param settling: True when the same poll should read again soon.
    :param warning: True when the reason is something that a user should see.
    :param trouble: the error of the last read, if it failed.
    """

    reason: str
    settling: bool = False
    warning: bool = False
    trouble: KieError | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """
    The job has succeeded, and its result is there.

    :param job: the record.
    :param warning: what was odd about the record, or an empty text.
    :param cut: True if the event left out the result, which was too large.
    """

    job: KieJob
    warning: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """
    The wait is over without a result.

    :param error: the cause.
    """

    error: KieError


Verdict: TypeAlias = Wait | Done | Failed


class Judge:
    """Judges the readings of one poll, which ends with the first verdict that is not ``settling``."""

    __slots__ = ("_conn_id", "_kie_task_id", "_unsettled_since", "row")

    def __init__(self, row: Family, kie_task_id: str, conn_id: str) -> None:
        self.row = row
        self._kie_task_id = kie_task_id
        self._conn_id = conn_id
        self._unsettled_since: float | None = None

    def judge(self, reading: Reading, now: float) -> Verdict:
        """
        Return what a reading means.

        :param now: seconds on any clock that only goes forward.
        """
        if isinstance(reading, KieError):
            # An error of the read says nothing about the job, so it neither starts nor ends the grace.
            if not reading.transient:
                return self._failed(reading)
            # One text for the limit itself and for the pause after it: which of them a poll sees is chance.
            reason = RATE_LIMITED if isinstance(reading, KieRateLimitError) else reading.problem
            return Wait(reason, settling=self._in_grace(now), warning=True, trouble=reading)
        judged = _judge(self.row, self._kie_task_id, reading)
        if not isinstance(judged, _Objection):
            if isinstance(judged, Wait):
                self._unsettled_since = None
            return judged
        if not judged.may_settle:
            return self._failed(judged.error)
        if self._unsettled_since is None:
            self._unsettled_since = now
        if self._in_grace(now):
            return Wait(judged.error.problem, settling=True, warning=True)
        return self._failed(judged.error)

    def _failed(self, error: KieError) -> Failed:
        error.conn_id = self._conn_id
        return Failed(error)

    def _in_grace(self, now: float) -> bool:
        return self._unsettled_since is not None and now - self._unsettled_since < times().grace


class _Objection(NamedTuple):
    """A reason to end the wait without a result, and whether it may still settle."""

    error: KieError
    may_settle: bool


def _judge(row: Family, kie_task_id: str, job: KieJob | None) -> Wait | Done | _Objection:
    if job is None:
        problem = f"KIE does not know this {label(row.tag)}"
        return _Objection(KieNotFoundError(problem, kie_task_id=kie_task_id, family=row.tag), True)
    if row.also and row.also.model == job["model"]:
        row = row.also
    status = job["status"] or "none"
    means = row.words.meaning(job["status"])
    is_done = means is Means.DONE or means is Means.DONE_IF_RESULT
    if (is_done or (row.file_decides and job["files"])) and _has_result(row, job):
        if means is Means.DONE:
            return Done(job)
        odd = f"KIE gave a {row.product} together with status {status}; the {row.product.split()[-1]} counts"
        return Done(job, odd)
    if is_done:
        return _Objection(_without_result(row, job, f"The {row.short} ended in {status} without a {row.product}"), True)
    if means is Means.FAILED:
        return _Objection(_failure(row, job, f"The {row.short} failed with status {status}"), False)
    if row.words.is_unlisted_number(job["status"]):
        problem = f"The {row.short} has status {status}, which is none of KIE's documented numbers"
        return _Objection(KieUnexpectedCodeError(_with_details(problem, job), **_about(row, job)), False)
    if job["error_code"] is not None or job["error_message"]:
        return _Objection(_refusal(row, job, f"KIE refused the {row.short} (status {status})"), True)
    if means is Means.RUNNING:
        return Wait(f"status {status}")
    return Wait(f"status {status}, which is not one of KIE's documented words", warning=True)


def _has_result(row: Family, job: KieJob) -> bool:
    return has_main_file(row, job) if row.needs_file else bool(job["files"] or isinstance(job["result"], (dict, list)))


def _failure(row: Family, job: KieJob, problem: str, error_class: type[KieError] | None = None) -> KieError:
    input_is_wrong = job["error_code"] in _INPUT_ERRORS or job["status"] in _INPUT_ERRORS
    error_class = KieJobRefusedError if input_is_wrong and not row.guarded else error_class or row.failure
    return error_class(_with_details(problem, job), **_about(row, job))


def _refusal(row: Family, job: KieJob, problem: str) -> KieError:
    """Return the error of a running job that reports one: a confirmed failure only in a guarded family."""
    return _failure(row, job, problem, row.failure if row.guarded else KieUnexpectedCodeError)


def _without_result(row: Family, job: KieJob, problem: str) -> KieError:
    """Return the error of a success without a result: a confirmed failure only in a guarded family."""
    error_class = row.failure if row.guarded else KieUnreadableAnswerError
    if isinstance(job["result"], str):
        problem = f"{problem}, but with {quoted(job['result'])}"
    return error_class(_with_details(problem, job), **_about(row, job))


def _with_details(problem: str, job: KieJob) -> str:
    code, message = job["error_code"], job["error_message"]
    said = [f"code {code}" if code is not None else "", repr(message) if message else ""]
    details = ", ".join(filter(None, said))
    return f"{problem}: {details}" if details else problem


def _about(row: Family, job: KieJob) -> dict[str, Any]:
    code = job["error_code"]
    return {
        "code": code if isinstance(code, int) else None,
        "kie_task_id": job["kie_task_id"],
        "family": row.tag,
    }


def conclude(verdict: Done | Failed) -> KieJob:
    """
    Return the job of a wait that is over, or raise what ended it.

    :raises KieError: what ended the wait without a result.
    """
    if isinstance(verdict, Failed):
        raise verdict.error
    return verdict.job


def finished(row: Family, kie_task_id: str, verdict: Verdict) -> Done:
    """
    Return the finished job, or raise. For callers that poll once.

    :raises KieNotReadyError: the job still runs.
    :raises KieError: the error of the poll, or the failure, which is final.
    """
    if isinstance(verdict, Wait):
        problem = f"The {row.title} is not finished: {verdict.reason}"
        raise verdict.trouble or KieNotReadyError(problem, kie_task_id=kie_task_id, family=row.tag)
    if isinstance(verdict, Failed):
        raise final(verdict.error)
    return verdict


def connection_is_lost(error: KieError, waited: float, *, was_found: bool) -> bool:
    """
    Return whether an error of the connection ends a wait.

    :param was_found: whether this wait has found the connection before, perhaps on a worker. Then it exists, and it is
        the secrets backend that is unreachable.
    """
    if isinstance(error, KieConnectionNotFoundError):
        return not was_found and waited >= times().grace
    return isinstance(error, KieConfigurationError)


def timed_out(row: Family, kie_task_id: str, conn_id: str, timeout: float, last: str) -> Failed:
    """Return the end of a wait that reached its deadline."""
    problem = f"The {row.title} was not finished within {timeout:g} seconds; last: {last}"
    return Failed(KieWaitTimeoutError(problem, kie_task_id=kie_task_id, conn_id=conn_id, family=row.tag))
