# SPDX-License-Identifier: Apache-2.0
"""Submits a job once, across all tries of its task, and waits for it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
    XComArg,
    conf,
)

from airflow_provider_kie.api.families import find_family
from airflow_provider_kie.api.job import no_cancel
from airflow_provider_kie.compat import task_state_store
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.exceptions import (
    KieConnectionNotFoundError,
    KieError,
    KieMaybeSubmittedError,
    KieValidationError,
    KieWaitTimeoutError,
    named,
)
from airflow_provider_kie.final_errors import final
from airflow_provider_kie.money import (
    FAIL,
    NEVER,
    RESUBMIT,
    TASK,
    Entry,
    NextTry,
    Outcome,
    Resume,
    State,
    Stop,
    Submit,
    TaskKey,
    has_failed,
    maybe_submitted,
    next_try,
    outcome_of,
    stops_after_unknown,
    worth_a_new_submit,
)
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.tasks import ENDED_BY_AIRFLOW, JobTask, as_rendered, deferral, ended_by_airflow
from airflow_provider_kie.triggers.event import read_event
from airflow_provider_kie.waiting.pace import as_seconds
from airflow_provider_kie.waiting.verdict import Done, Failed, Verdict, conclude

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.api.job import KieJob
    from airflow_provider_kie.durable import StoredEntry
    from airflow_provider_kie.triggers.job import KieJobTrigger

__all__ = ["SubmitOperator"]

#: What the task returns for a finished job.
R = TypeVar("R")


class SubmitOperator(JobTask, Generic[R]):
    """
    The base of the operators that submit a job. Subclasses define what they submit and return.

    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param wait_for_completion: wait for the result; otherwise return after the submit.
    :param deferrable: wait in the triggerer instead of a worker slot.
    :param poll_interval: seconds or a ``timedelta`` between two polls.
    :param timeout: seconds or a ``timedelta`` to wait at most.
    :param durable: remember the job in the task's state store, if there is one.
    :param on_unknown_submit: what to do if a submit may have been accepted: ``"fail"`` or ``"resubmit"``; by default
        ``"fail"`` if a second submit is charged.
    """

    reuse: str = TASK

    def __init__(
        self,
        *,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta = 3600.0,
        durable: bool = True,
        on_unknown_submit: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kie_conn_id = as_rendered(kie_conn_id)
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval: float | timedelta | None = as_seconds("poll_interval", poll_interval)
        self.timeout = as_seconds("timeout", timeout)
        self.durable = durable
        self.on_unknown_submit = on_unknown_submit
        self._kie_task_id: str | None = None

    @property
    @abstractmethod
    def row(self) -> Family:
        """The family of the job."""

    @abstractmethod
    def _check(self) -> None:
        """Raise for invalid arguments, before anything is stored or sent."""

    @abstractmethod
    def _send(self) -> str:
        """Submit the job, and return its KIE task id."""

    @abstractmethod
    def _stored_entry(self, context: Context) -> StoredEntry:
        """Return the stored entry of this task, with the identity of the job."""

    @abstractmethod
    def _trigger(self, kie_task_id: str, poll_interval: float, timeout: float) -> KieJobTrigger:
        """Return the trigger to defer to."""

    @abstractmethod
    def _result(self, context: Context, job: KieJob) -> R:
        """Push what other tasks need of a finished job, and return what the task returns."""

    def _announce_submit(self, kie_task_id: str) -> None:
        self.log.info("%s is submitted.", named(self.row.tag, kie_task_id))

    def execute(self, context: Context) -> R | str:
        """Submit the job, or resume that of an earlier try; push its id; wait unless told otherwise."""
        # Checked now, because an error after the submit would come too late; a cluster policy may have changed them.
        wait: dict[str, Any] = {name: as_seconds(name, value) for name, value in self._times().items()}
        self._check_words("on_unknown_submit", None, FAIL, RESUBMIT)
        self._check_words("reuse", TASK, NEVER)
        self._check()
        self.hook.get_conn()  # refuses an invalid connection before anything is stored
        stored = self._stored_entry(context)
        verdict = self._resume_earlier(context, stored)
        if verdict is None or isinstance(verdict, Failed):
            self._submit(context, stored, verdict)
        kie_task_id = str(self._kie_task_id)
        if not self.wait_for_completion:
            return kie_task_id
        with self._no_retry_without_the_id(context, kie_task_id):
            if isinstance(verdict, Done):
                return self._finish(context, verdict)
            if self.deferrable:
                self.defer(**deferral(self._trigger(kie_task_id, **wait)))
            return self._finish(context, self.hook.wait(self.row, kie_task_id, **wait))

    def _check_words(self, name: str, *allowed: str | None) -> None:
        if getattr(self, name) not in allowed:
            words = " or ".join(repr(word) for word in allowed if word)
            raise KieValidationError(f"{name} is {quoted(getattr(self, name))}, but must be {words}")

    def _times(self) -> dict[str, object]:
        return {"poll_interval": self.poll_interval, "timeout": self.timeout}

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> R:
        """Resume with the trigger's event."""
        end = read_event(event)
        kie_task_id = end.job["kie_task_id"] if isinstance(end, Done) else end.error.kie_task_id
        with self._no_retry_without_the_id(context, kie_task_id):
            return self._finish(context, self._with_whole_job(end))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> R:
        """Resume after the deferral, even if Airflow ended it: Airflow's own error would be retried without the id."""
        if next_method != ENDED_BY_AIRFLOW:
            result: R = super().resume_execution(next_method, next_kwargs, context)
            return result
        ti = context["ti"]
        with self._no_retry_without_the_id(context, None):
            kie_task_id = ti.xcom_pull(task_ids=self.task_id, key="kie_task_id", map_indexes=ti.map_index)
            return self._finish(context, ended_by_airflow(self.row, kie_task_id, self.kie_conn_id, next_kwargs))

    def on_kill(self) -> None:
        """Log that the job continues after a user killed the task."""
        if self._kie_task_id:
            self.log.warning("%s", no_cancel(self.row, self._kie_task_id))

    def _resume_earlier(self, context: Context, stored: StoredEntry) -> Verdict | None:
        """
        Return the verdict on the job of an earlier try, or None without one. Failed means: submit again.

        :raises KieMaybeSubmittedError: a new submit might be charged again.
        """
        entry = stored.load()
        decision = self._next_try(stored, entry)
        if entry is None or isinstance(decision, Submit):
            return None
        if isinstance(decision, Resume):
            stored.mark_resumed(entry)
            self._publish_id(context, decision.kie_task_id)
        verdict = None
        if entry.kie_task_id:
            family = entry.identity.get("family")
            row = find_family(family) if family else self.row
            verdict = self.hook.poll(row, entry.kie_task_id, retry_reads=True)
            if isinstance(verdict, Failed) and has_failed(row, entry, decision, verdict.error):
                decision = self._next_try(stored, replace(entry, state=State.FAILED))
        if isinstance(decision, Stop):
            raise decision.error
        if not isinstance(verdict, Failed):
            what = named(self.row.tag, entry.kie_task_id)
            self.log.info("Going on with %s, which an earlier try submitted.", what)
        elif isinstance(decision, Resume):
            raise verdict.error
        else:
            self.log.warning("%s", self._why_resubmit(verdict))
        return verdict

    def _next_try(self, stored: StoredEntry, entry: Entry | None) -> NextTry:
        return next_try(
            self.row,
            entry,
            stored.identity,
            on_unknown_submit=self.on_unknown_submit,
            reuse=self.reuse,
            cleared=stored.was_cleared_since(entry),
            task=self._task_key(stored),
        )

    def _task_key(self, stored: StoredEntry) -> TaskKey | None:
        conn_id = None if self.kie_conn_id == DEFAULT_CONN_ID else self.kie_conn_id
        return stored.task and replace(stored.task, conn_id=conn_id)

    def _why_resubmit(self, earlier: Failed) -> str:
        return f"The job is submitted again, because that of the earlier try ended: {earlier.error}"

    def _submit(self, context: Context, stored: StoredEntry, earlier: Failed | None) -> None:
        self._warn_where_nothing_is_remembered(stored)
        stored.begin()
        try:
            kie_task_id = self._send()
        except BaseException as error:  # also Airflow's time-out, or the end of the process
            outcome = outcome_of(error)
            if outcome is Outcome.REFUSED:
                stored.mark_refused()
            elif isinstance(error, KieError) and outcome is Outcome.ACCEPTED:
                stored.commit(str(error.existing_kie_task_id))
                if not stored.persistent:
                    raise final(error) from error  # a retry would not have the id, and would submit again
            elif stops_after_unknown(self.row.guarded, self.on_unknown_submit):
                broke_off = f"The submit was broken off ({type(error).__name__})"
                problem = error.problem if isinstance(error, KieError) else broke_off
                raise maybe_submitted(self.row, problem, self._task_key(stored), self.kie_conn_id) from error
            elif isinstance(error, KieMaybeSubmittedError) and isinstance(error.__cause__, KieError):
                raise error.__cause__ from None  # retryable, because the user chose to resubmit
            raise
        stored.commit(kie_task_id)
        with self._no_retry_without_the_id(context, kie_task_id):
            self._publish_id(context, kie_task_id)
        if earlier and earlier.error.kie_task_id == kie_task_id:
            raise earlier.error  # KIE names the failed job again instead of starting another
        self._announce_submit(kie_task_id)

    def _warn_where_nothing_is_remembered(self, stored: StoredEntry) -> None:
        if self.retries and not (stored.persistent or self.row.guarded):
            self.log.warning(
                "Nothing is stored here from one try to the next, so if a worker dies after the submit, the next try "
                "pays again. Set retries=0, or use Airflow 3.3 or later with durable=True."
            )

    def _publish_id(self, context: Context, kie_task_id: str) -> None:
        self._kie_task_id = kie_task_id
        context["ti"].xcom_push(key="kie_task_id", value=kie_task_id)

    def _remembers_nothing(self, context: Context) -> bool:
        # Without the stored entry: its identity is rendered from XCom, which may be empty by now.
        return not self.durable or task_state_store(context) is None

    @contextmanager
    def _no_retry_without_the_id(self, context: Context, kie_task_id: str | None) -> Iterator[None]:
        """
        Make errors final if nothing is remembered and the job has not failed.

        A retry would clear the id from XCom and submit again, which is charged, or refused without naming the job.
        """
        try:
            yield
        except (AirflowFailException, AirflowSkipException, TaskDeferred):
            raise
        except KieError as error:
            if not self._remembers_nothing(context) or worth_a_new_submit(error, guarded=self.row.guarded):
                raise
            if isinstance(error, KieConnectionNotFoundError):  # which final() leaves retryable
                raise self._broken_off(error, kie_task_id) from error
            raise final(error) from error.__cause__
        except (Exception, AirflowTaskTimeout) as error:  # not a termination: somebody may have set the task's state
            if not self._remembers_nothing(context):
                raise
            raise self._broken_off(error, kie_task_id) from error

    def _broken_off(self, error: BaseException, kie_task_id: str | None) -> KieError:
        problem = f"The task was broken off after the submit ({type(error).__name__}: {error})"
        where, family = self.kie_conn_id, self.row.tag
        return final(KieWaitTimeoutError(problem, kie_task_id=kie_task_id, conn_id=where, family=family))

    def _finish(self, context: Context, end: Done | Failed) -> R:
        job = conclude(end)
        if isinstance(end, Done):
            self._log_end(end)
        return self._result(context, job)
