# SPDX-License-Identifier: Apache-2.0
"""Submits a job once, across all tries of its task, and waits for it."""

from __future__ import annotations

from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow.providers.common.compat.sdk import (
    XComArg,
    conf,
)

from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.exceptions import (
    KieValidationError,
)
from airflow_provider_kie.money import (
    FAIL,
    INPUT,
    NEVER,
    RESUBMIT,
    TASK,
)
from airflow_provider_kie.operators.once import SubmitOnce
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.tasks import ENDED_BY_AIRFLOW, as_rendered, deferral, ended_by_airflow
from airflow_provider_kie.triggers.event import read_event
from airflow_provider_kie.waiting.pace import as_seconds
from airflow_provider_kie.waiting.verdict import Done, Failed, conclude

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.job import KieJob
    from airflow_provider_kie.triggers.job import KieJobTrigger

__all__ = ["SubmitOperator"]

#: What the task returns for a finished job.
R = TypeVar("R")


class SubmitOperator(SubmitOnce, Generic[R]):
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
    :param ledger: a folder that remembers jobs, see :mod:`airflow_provider_kie.ledger`; by default the connection's;
        False for none. (templated)
    """

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
        ledger: str | bool | XComArg | None = None,
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
        self.ledger = ledger

    @abstractmethod
    def _check(self) -> None:
        """Raise for invalid arguments, before anything is stored or sent."""

    @abstractmethod
    def _trigger(self, kie_task_id: str, poll_interval: float, timeout: float) -> KieJobTrigger:
        """Return the trigger to defer to."""

    @abstractmethod
    def _result(self, context: Context, job: KieJob) -> R:
        """Push what other tasks need of a finished job, and return what the task returns."""

    def execute(self, context: Context) -> R | str:
        """Submit the job, or resume that of an earlier try; push its id; wait unless told otherwise."""
        # Checked now, because an error after the submit would come too late; a cluster policy may have changed them.
        wait: dict[str, Any] = {name: as_seconds(name, value) for name, value in self._times().items()}
        self._check_words("on_unknown_submit", None, FAIL, RESUBMIT)
        self._check_words("reuse", TASK, INPUT, NEVER)
        self._check()
        self.hook.get_conn()  # refuses an invalid connection before anything is stored
        verdict = self._obtain(context)
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

    def _finish(self, context: Context, end: Done | Failed) -> R:
        self._note_end(context, end)
        job = conclude(end)
        if isinstance(end, Done):
            self._log_end(end)
        return self._result(context, job)
