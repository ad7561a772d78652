# SPDX-License-Identifier: Apache-2.0
"""Submits a job once across all tries of its task, and, with a ledger, across tasks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_kie.api.families import find_family
from airflow_provider_kie.api.fields import is_blank
from airflow_provider_kie.api.job import no_cancel
from airflow_provider_kie.compat import task_state_store
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.durable import key_of
from airflow_provider_kie.exceptions import (
    KieConnectionNotFoundError,
    KieError,
    KieMaybeSubmittedError,
    KieValidationError,
    KieWaitTimeoutError,
    named,
)
from airflow_provider_kie.final_errors import final
from airflow_provider_kie.ledger.entry import AlreadySubmittedError
from airflow_provider_kie.memory import ledger_of, open_memory
from airflow_provider_kie.money import (
    INPUT,
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
from airflow_provider_kie.tasks import JobTask
from airflow_provider_kie.waiting.verdict import Done, Failed, Verdict

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.durable import StoredEntry
    from airflow_provider_kie.memory import Memory

__all__ = ["SubmitOnce"]


class SubmitOnce(JobTask):
    """An operator that pays for a job once, and resumes it wherever it is remembered."""

    reuse: str = TASK
    durable: bool
    on_unknown_submit: str | None
    ledger: Any
    _kie_task_id: str | None = None

    @property
    @abstractmethod
    def row(self) -> Family:
        """The family of the job."""

    @abstractmethod
    def _send(self) -> str:
        """Submit the job, and return its KIE task id."""

    @abstractmethod
    def _stored_entry(self, context: Context) -> StoredEntry:
        """Return the stored entry of this task, with the identity of the job."""

    def _announce_submit(self, kie_task_id: str) -> None:
        self.log.info("%s is submitted.", named(self.row.tag, kie_task_id))

    @property
    def _ledger_url(self) -> str | None:
        return None if self.ledger is False else ledger_of(self.ledger, self.hook.settings)

    def _memory(self, context: Context) -> Memory:
        url = self._ledger_url
        if url is None and self.reuse == INPUT:
            problem = "reuse is 'input', which needs a ledger: set one here or on the connection"
            raise KieValidationError(problem, conn_id=self.kie_conn_id)
        return open_memory(
            self.row,
            self._stored_entry(context),
            key_of(context),
            url,
            max_tries=getattr(context.get("ti"), "max_tries", None),
            reuse=self.reuse,
            on_unknown_submit=self.on_unknown_submit,
            timeout=self.hook.settings.timeout,
        )

    def _obtain(self, context: Context) -> Verdict | None:
        """Submit the job, or resume it; return the verdict on a job that was submitted before."""
        memory = self._memory(context)
        try:
            verdict = self._resume_earlier(context, memory)
            if verdict is None or isinstance(verdict, Failed):
                self._submit(context, memory, verdict)
        finally:
            memory.release()
        return verdict

    def _resume_earlier(self, context: Context, memory: Memory) -> Verdict | None:
        """
        Return the verdict on the job of an earlier try, or None without one. Failed means: submit again.

        :raises KieMaybeSubmittedError: a new submit might be charged again.
        """
        entry = memory.load()
        decision = self._next_try(memory, entry)
        if entry is None or isinstance(decision, Submit):
            return None
        if isinstance(decision, Resume):
            memory.mark_resumed(entry)
            self._publish_id(context, decision.kie_task_id)
        verdict = None
        if entry.kie_task_id:
            family = entry.identity.get("family")
            row = find_family(family) if family else self.row
            verdict = self.hook.poll(row, entry.kie_task_id, retry_reads=True)
            if isinstance(verdict, Failed) and has_failed(row, entry, decision, verdict.error):
                decision = self._next_try(memory, replace(entry, state=State.FAILED))
        if isinstance(decision, Stop):
            raise decision.error
        if isinstance(verdict, Failed) and not isinstance(decision, Resume):
            self.log.warning("%s", self._why_resubmit(verdict))
            return verdict
        memory.refuse_deleted(verdict)  # before the store knows the job, which a clear would then go on with
        memory.share(str(entry.kie_task_id))
        if isinstance(verdict, Failed):
            raise verdict.error
        self.log.info("Going on with %s, which was submitted before.", named(self.row.tag, entry.kie_task_id))
        return verdict

    def _next_try(self, memory: Memory, entry: Entry | None) -> NextTry:
        return next_try(
            self.row,
            entry,
            memory.identity,
            on_unknown_submit=self.on_unknown_submit,
            reuse=self.reuse,
            cleared=memory.was_cleared_since(entry),
            task=self._task_key(memory),
        )

    def _task_key(self, memory: Memory) -> TaskKey | None:
        """Return whose entry it is, for the commands that settle it."""
        conn_id = None if self.kie_conn_id == DEFAULT_CONN_ID else self.kie_conn_id
        ledger = None if self.ledger is False or is_blank(self.ledger) else str(self.ledger)
        return memory.owner and replace(memory.owner, conn_id=conn_id, ledger=ledger)

    def _why_resubmit(self, earlier: Failed) -> str:
        return f"The job is submitted again, because that of the earlier try ended: {earlier.error}"

    def _submit(self, context: Context, memory: Memory, earlier: Failed | None) -> None:
        self._warn_where_nothing_is_remembered(memory)
        try:
            memory.begin(earlier)
            with self.hook.submits_by(memory):
                kie_task_id = self._send_once(memory)
        except AlreadySubmittedError as other:
            self._join(context, memory, other.entry)
            return
        memory.commit(kie_task_id)
        with self._no_retry_without_the_id(context, kie_task_id):
            self._publish_id(context, kie_task_id)
        if earlier and earlier.error.kie_task_id == kie_task_id:
            raise earlier.error  # KIE names the failed job again instead of starting another
        self._announce_submit(kie_task_id)

    def _send_once(self, memory: Memory) -> str:
        try:
            return self._send()
        except AlreadySubmittedError:
            memory.mark_not_sent()
            raise
        except BaseException as error:  # also Airflow's time-out, or the end of the process
            outcome = outcome_of(error)
            if memory.is_held_back:
                raise
            if outcome is Outcome.REFUSED:  # by a hook that does not tell
                memory.mark_not_sent()
                raise
            memory.mark_sent()
            if isinstance(error, KieError) and outcome is Outcome.ACCEPTED:
                memory.commit(str(error.existing_kie_task_id))
                if not memory.persistent:
                    raise final(error) from error  # a retry would not have the id, and would submit again
            elif stops_after_unknown(self.row.guarded, self.on_unknown_submit):
                broke_off = f"The submit was broken off ({type(error).__name__})"
                problem = error.problem if isinstance(error, KieError) else broke_off
                raise maybe_submitted(self.row, problem, self._task_key(memory), self.kie_conn_id) from error
            elif isinstance(error, KieMaybeSubmittedError) and isinstance(error.__cause__, KieError):
                raise error.__cause__ from None  # retryable, because the user chose to resubmit
            raise

    def _join(self, context: Context, memory: Memory, entry: Entry) -> None:
        """Go on with the job of another task or try, which has claimed it first."""
        decision = self._next_try(memory, entry)
        if not isinstance(decision, Resume):
            problem = "Another task or try is submitting the job, and its id is not known"
            unknown = maybe_submitted(self.row, problem, self._task_key(memory), self.kie_conn_id)
            raise decision.error if isinstance(decision, Stop) else unknown
        memory.share(decision.kie_task_id)
        self._publish_id(context, decision.kie_task_id)
        what = named(self.row.tag, decision.kie_task_id)
        self.log.info("Going on with %s, which another task or try has submitted at the same time.", what)

    def _warn_where_nothing_is_remembered(self, memory: Memory) -> None:
        if self.retries and not (memory.persistent or self.row.guarded):
            self.log.warning(
                "Nothing is stored here from one try to the next, so if a worker dies after the submit, the next try "
                "pays again. Set retries=0, configure a ledger, or use Airflow 3.3 or later with durable=True."
            )

    def _note_end(self, context: Context, end: Done | Failed) -> None:
        job = end.job if isinstance(end, Done) else None
        if isinstance(end, Failed) and not worth_a_new_submit(end.error, guarded=False):
            return
        kie_task_id = end.error.kie_task_id if isinstance(end, Failed) else end.job["kie_task_id"]
        try:
            if self._ledger_url and kie_task_id:
                self._memory(context).end(kie_task_id, job)
        except Exception as error:
            self.log.warning("The end of the job could not be written into the ledger: %r", error)

    def _publish_id(self, context: Context, kie_task_id: str) -> None:
        self._kie_task_id = kie_task_id
        context["ti"].xcom_push(key="kie_task_id", value=kie_task_id)

    def on_kill(self) -> None:
        """Log that the job continues after a user killed the task."""
        if self._kie_task_id:
            self.log.warning("%s", no_cancel(self.row, self._kie_task_id))

    def _remembers_nothing(self, context: Context) -> bool:
        # Without the stored entry: its identity is rendered from XCom, which may be empty by now.
        try:
            ledger = self._ledger_url
        except KieError:  # the connection, which may name one, is out of reach
            ledger = None
        return not ledger and (not self.durable or task_state_store(context) is None)

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
