# SPDX-License-Identifier: Apache-2.0
"""Wait for a job of any family, in poke, reschedule and deferrable mode, with the same result."""

from __future__ import annotations

import time
import traceback
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    XComArg,
    conf,
)

from airflow_provider_kie.api.families import JOBS, find_family
from airflow_provider_kie.api.fields import is_blank, pushed_nothing
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.exceptions import KieError, named
from airflow_provider_kie.final_errors import for_sensor
from airflow_provider_kie.sensors.start_in_triggerer import StartInTriggerer
from airflow_provider_kie.tasks import ENDED_BY_AIRFLOW, JobTask, as_rendered, deferral, ended_by_airflow
from airflow_provider_kie.triggers.event import read_event
from airflow_provider_kie.triggers.job import KieJobTrigger
from airflow_provider_kie.waiting.verdict import Done, Failed, Wait, timed_out

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.api.job import KieJob

__all__ = ["KieJobSensor", "WaitSensor"]


class WaitSensor(JobTask, StartInTriggerer):
    """
    The base of the sensors. Subclasses define the family of the job and what the sensor returns.

    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param deferrable: wait in the triggerer instead of a worker slot.
    :param start_from_trigger: with ``deferrable``, start in the triggerer at once.
    """

    def __init__(
        self,
        *,
        kie_task_id: str | XComArg,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kie_task_id = as_rendered(kie_task_id)
        self.kie_conn_id = as_rendered(kie_conn_id)
        self.deferrable = deferrable
        self._last_reason = "KIE was not polled"
        self._deadline = 0.0
        self.start_from_trigger = start_from_trigger

    @property
    @abstractmethod
    def row(self) -> Family:
        """The family of the job."""

    def _row_to_read(self) -> Family:
        """Return the row to read by, which may depend on the connection."""
        return self.row

    @abstractmethod
    def _trigger(self, **arguments: Any) -> KieJobTrigger:
        """Return the trigger to defer to."""

    @abstractmethod
    def _result(self, context: Context, job: KieJob) -> Mapping[str, Any]:
        """Return what the sensor returns for a finished job."""

    def execute(self, context: Context) -> Any:
        """Wait in the chosen mode."""
        self._unpack_job()
        self._log_why_on_a_worker()
        self._deadline = time.monotonic() + (0.0 if self.deferrable else self.timeout)
        try:
            return super().execute(context)
        except (AirflowSensorTimeout, AirflowSkipException) as end:
            if not _raised_by_loop(end):
                raise
            self._fail(timed_out(self.row, self.kie_task_id, self.kie_conn_id, self.timeout, self._last_reason).error)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Poll once; in deferrable mode, defer unless the job is finished."""
        left = self._deadline - time.monotonic()
        verdict = self.hook.poll(self._row_to_read(), self.kie_task_id, timeout=left, poll_interval=self.poke_interval)
        if isinstance(verdict, Wait):
            self._last_reason = verdict.reason
            tell = self.log.warning if verdict.warning else self.log.info
            tell("%s: %s", named(self.row.tag, self.kie_task_id), verdict.reason)
            if self.deferrable:
                self.log.info("%s: deferring.", named(self.row.tag, self.kie_task_id))
                self.defer(**self._deferral())
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, verdict))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Resume with the trigger's event."""
        self._unpack_job()
        return self._conclude(context, self._with_whole_job(read_event(event)))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after the deferral, even if Airflow ended it."""
        if next_method == ENDED_BY_AIRFLOW:
            self._unpack_job()
            self._fail(ended_by_airflow(self.row, self.kie_task_id, self.kie_conn_id, next_kwargs).error)
        return super().resume_execution(next_method, next_kwargs, context)

    def _unpack_job(self) -> None:
        """Replace a whole job, as another task returns it, with its id."""
        given: Any = self.kie_task_id
        if isinstance(given, Mapping):
            self._accept_family(given)
            self.kie_task_id = given.get("kie_task_id", "")

    def _accept_family(self, job: Mapping[str, Any]) -> None:
        """Use the family of a whole job, or refuse it."""

    def _deferral(self) -> dict[str, Any]:
        return deferral(
            self._trigger(
                kie_task_id=self.kie_task_id,
                kie_conn_id=self.kie_conn_id,
                poll_interval=self.poke_interval,
                deadline=None,
                timeout=self.timeout,
                exponential_backoff=bool(self.exponential_backoff),
                max_wait=self.max_wait.total_seconds() if self.max_wait else None,
            )
        )

    def _polls_like_the_trigger(self) -> bool:
        own = type(self)
        return own.execute is WaitSensor.execute and own.poke is WaitSensor.poke

    def _conclude(self, context: Context, end: Done | Failed) -> Any:
        if isinstance(end, Failed):
            self._fail(end.error)
        self._log_end(end)
        return self._result(context, end.job)

    def _fail(self, error: KieError) -> NoReturn:
        # Airflow itself treats the two flags differently when poking, resuming and timing out; this does not.
        flag = "soft_fail" if self.soft_fail else "never_fail" if self.never_fail else None
        if flag:
            self.log.warning("%s", error)
            raise AirflowSkipException(f"Skipping due to {flag} is set to True.") from error
        raise for_sensor(error)


class KieJobSensor(WaitSensor):
    """
    Wait until a job of any family has its result, and push the job to XCom; also ``url``, the link of its first file.

    :param kie_task_id: the job: its id at KIE, or the whole :class:`~airflow_provider_kie.api.job.KieJob`, which also
        says its family. (templated)
    :param family: its family; no other family's path finds the id. (templated)
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param deferrable: wait in the triggerer instead of a worker slot. A job that is already finished costs no deferral.
    :param start_from_trigger: with ``deferrable``, start in the triggerer at once, without a worker that polls first;
        the family is then the argument's, also where ``kie_task_id`` is a whole job.
    """

    template_fields: Sequence[str] = ("kie_task_id", "family", "kie_conn_id")
    _literal_fields = ("family",)

    def __init__(self, *, family: str | XComArg = JOBS.name, **kwargs: Any) -> None:
        self.family = as_rendered(family)  # before Airflow's constructor, which reads start_trigger_args
        super().__init__(**kwargs)

    @property
    def row(self) -> Family:
        """The family of the job."""
        if is_blank(self.family):
            raise pushed_nothing("family")
        return find_family(self.family)

    def _trigger(self, **arguments: Any) -> KieJobTrigger:
        return KieJobTrigger(**arguments, family=self.family)

    def _accept_family(self, job: Mapping[str, Any]) -> None:
        self.family = job.get("family", self.family)

    def _result(self, context: Context, job: KieJob) -> KieJob:
        self._push_url(context, job)
        return job


def _raised_by_loop(end: Exception) -> bool:
    """
    Return whether Airflow's loop itself raised this time-out, or the skip that replaces it under ``soft_fail``.

    An error that ``poke()`` raised either passes through the loop, or is the cause of a skip.
    """
    *_, (frame, _) = traceback.walk_tb(end.__traceback__)
    return end.__cause__ is None and frame.f_globals["__name__"] == BaseSensorOperator.__module__
