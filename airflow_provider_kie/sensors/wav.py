# SPDX-License-Identifier: Apache-2.0
"""The sensor that waits for a WAV conversion."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    XComArg,
    conf,
)
from airflow.triggers.base import StartTriggerArgs
from packaging.version import Version

from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.exceptions import KieError, for_sensor
from airflow_provider_kie.links.kie import KieLogsLink, WavFileLink
from airflow_provider_kie.templates import as_rendered
from airflow_provider_kie.triggers.wav import ENDED_BY_AIRFLOW, deferral, ended_by_airflow, verdict_of
from airflow_provider_kie.waiting import Done, Failed, Wait, timed_out

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.wav import WavConversion
    from airflow_provider_kie.hooks.kie import KieHook

__all__ = ["WavConversionSensor"]

#: Airflow 3.0 to 3.2 have the words for it, but the scheduler does not act on them.
CAN_START_FROM_TRIGGER = Version(airflow_version).release >= (3, 3)
#: Why a task is on a worker although nothing about the task itself stands against a start in the triggerer.
MAPPED_OR_TEST = "a mapped task, or dags test, starts on a worker"


class _WhenAsked(property):
    """
    An attribute of a task that is worked out when it is read, so that nothing set after the constructor is missed.

    Read from the class, as Airflow does for a mapped task, it is what any other sensor has.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, task: Any, owner: type | None = None) -> Any:
        return getattr(BaseSensorOperator, self._name) if task is None else super().__get__(task, owner)


class WavConversionSensor(BaseSensorOperator):
    """
    Wait until a WAV conversion of KIE has its file, and push the conversion to XCom.

    Poke, reschedule and deferrable mode give the same XCom, the same errors and the same time-out. Reading is
    free, so the sensor can be cleared and run again at any time. Trouble that may pass (network, rate limit,
    maintenance) never ends the wait before its ``timeout``; a failed conversion, a refused key or an id that stays
    unknown for a minute ends it at once and is not retried.

    :param kie_task_id: the WAV task: the id that KIE's ``/wav/generate`` gave, not the music task's. (templated)
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param deferrable: wait in the triggerer instead of a worker slot. A conversion that is already finished costs
        no deferral.
    :param start_from_trigger: with ``deferrable``, start in the triggerer at once, without a worker to look first.
        Only on Airflow 3.3 and later, with an id that is a literal or the output of another task, and neither for a
        mapped task nor for a subclass with a ``poke`` or ``execute`` of its own; elsewhere it has no effect, and the
        task's log says why.
    """

    template_fields: Sequence[str] = ("kie_task_id", "kie_conn_id")
    operator_extra_links = (KieLogsLink(), WavFileLink())
    #: For the link, once this run of the task has it.
    wav_url: str = ""

    _start_from_trigger: bool = False
    _start_trigger_args: StartTriggerArgs | None = None

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
        self._last_reason = "no look at KIE"
        self._until = 0.0
        self._why_before_rendering = ""
        self.start_from_trigger = start_from_trigger

    @cached_property
    def hook(self) -> KieHook:
        """The hook, imported when it is needed, to keep the parsing of DAG files fast."""
        from airflow_provider_kie.hooks.kie import KieHook

        return KieHook(self.kie_conn_id)

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """
        Render the templates, after which nobody can tell a template from a literal.

        :param context: Airflow's context.
        :param jinja_env: Airflow's environment for templates.
        """
        self._why_before_rendering = self._why_on_a_worker()
        super().render_template_fields(context, jinja_env)

    def execute(self, context: Context) -> WavConversion:
        """
        Wait in the chosen mode.

        :param context: Airflow's context.
        """
        if self._start_from_trigger:
            why = self._why_before_rendering or self._why_on_a_worker() or MAPPED_OR_TEST
            self.log.info("start_from_trigger had no effect: %s.", why)
        self._until = time.monotonic() + (0.0 if self.deferrable else self.timeout)
        try:
            conversion: WavConversion = super().execute(context)
            return conversion
        except (AirflowSensorTimeout, AirflowSkipException) as end:
            if not _is_the_loops_own(end):
                raise
            self._fail(timed_out(self.kie_task_id, self.kie_conn_id, self.timeout, self._last_reason))

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """
        Look once; in deferrable mode, defer unless the conversion is finished.

        :param context: Airflow's context.
        """
        verdict = self.hook.look(self.kie_task_id, until=self._until, poll_interval=self.poke_interval)
        if isinstance(verdict, Wait):
            self._last_reason = verdict.reason
            tell = self.log.warning if verdict.warning else self.log.info
            tell("WAV task %s: %s", self.kie_task_id, verdict.reason)
            if self.deferrable:
                self.log.info("WAV task %s: deferring.", self.kie_task_id)
                self.defer(**self._deferral())
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._conclude(verdict))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> WavConversion:
        """
        Go on after the trigger's event.

        :param context: Airflow's context.
        :param event: the trigger's event.
        """
        return self._conclude(verdict_of(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> WavConversion:
        """
        Go on after the deferral, also where Airflow ended it.

        :param next_method: what to call.
        :param next_kwargs: with what.
        :param context: Airflow's context.
        """
        if next_method == ENDED_BY_AIRFLOW:
            self._fail(ended_by_airflow(self.kie_task_id, self.kie_conn_id, next_kwargs).error)
        conversion: WavConversion = super().resume_execution(next_method, next_kwargs, context)
        return conversion

    def _deferral(self) -> dict[str, Any]:
        return deferral(
            kie_task_id=self.kie_task_id,
            kie_conn_id=self.kie_conn_id,
            poll_interval=self.poke_interval,
            timeout=self.timeout,
            exponential_backoff=bool(self.exponential_backoff),
            max_wait=self.max_wait.total_seconds() if self.max_wait else None,
        )

    def _why_on_a_worker(self) -> str:
        """Return what keeps the scheduler from starting this task as a trigger; an empty text for nothing."""
        arguments = (self.kie_task_id, self.kie_conn_id)
        sensor, own = WavConversionSensor, type(self)
        obstacles = (
            (not CAN_START_FROM_TRIGGER, "it needs Airflow 3.3 or later"),
            (not self.deferrable, "it needs deferrable=True"),
            (
                None in map(_for_the_triggerer, arguments),
                "the triggerer takes only a literal or the .output of another task, and no template",
            ),
            (
                (own.execute, own.poke) != (sensor.execute, sensor.poke),
                f"{own.__name__} has an execute() or poke() of its own, which only a worker calls",
            ),
            (self.get_needs_expansion(), MAPPED_OR_TEST),
        )
        return next((why for obstructs, why in obstacles if obstructs), "")

    def _get_start_from_trigger(self) -> bool:
        return self._start_from_trigger and not self._why_on_a_worker()

    def _set_start_from_trigger(self, asked: bool) -> None:
        self._start_from_trigger = asked

    start_from_trigger = _WhenAsked(_get_start_from_trigger, _set_start_from_trigger)

    def _get_start_trigger_args(self) -> StartTriggerArgs | None:
        if self._start_trigger_args or not self.start_from_trigger:
            return self._start_trigger_args
        wait = self._deferral()
        path, arguments = wait["trigger"].serialize()
        rendered_there = {name: _for_the_triggerer(arguments[name]) for name in ("kie_task_id", "kie_conn_id")}
        return StartTriggerArgs(
            trigger_cls=path,
            trigger_kwargs=arguments | rendered_there | {"deadline": None},
            next_method=wait["method_name"],
            timeout=wait["timeout"],
        )

    def _set_start_trigger_args(self, own: StartTriggerArgs | None) -> None:
        self._start_trigger_args = own

    start_trigger_args = _WhenAsked(_get_start_trigger_args, _set_start_trigger_args)

    def _conclude(self, verdict: Done | Failed) -> WavConversion:
        if isinstance(verdict, Failed):
            self._fail(verdict.error)
        if verdict.warning:
            self.log.warning("WAV task %s: %s", self.kie_task_id, verdict.warning)
        self.log.info("WAV task %s is finished.", self.kie_task_id)
        self.wav_url = str(verdict.conversion["wav_url"])
        return verdict.conversion

    def _fail(self, error: KieError) -> NoReturn:
        # Airflow itself treats the two flags differently when poking, resuming and timing out; this does not.
        flag = "soft_fail" if self.soft_fail else "never_fail" if self.never_fail else None
        if flag:
            self.log.warning("%s", error)
            raise AirflowSkipException(f"Skipping due to {flag} is set to True.") from error
        raise for_sensor(error)


def _is_the_loops_own(end: Exception) -> bool:
    """
    Return whether Airflow's loop made up this time-out, which is a skip under ``soft_fail``.

    What a ``poke()`` raised, the loop lets through, or names as the cause of a skip.
    """
    *_, (frame, _) = traceback.walk_tb(end.__traceback__)
    return end.__cause__ is None and frame.f_globals["__name__"] == BaseSensorOperator.__module__


def _for_the_triggerer(argument: object) -> str | None:
    """
    Return an argument as the triggerer can render it; None where it can not.

    It answers only some of what a template may ask for, and never returns from the rest (seen on 3.3.2), such as
    ``xcom_pull`` without ``map_indexes``, which is what Airflow makes of ``.output``.
    """
    if isinstance(argument, XComArg) and hasattr(argument, "key"):  # else it is one with .map(), .zip() or the like
        ((source, key),) = argument.iter_references()
        return f"{{{{ ti.xcom_pull(task_ids={source.task_id!r}, key={key!r}, map_indexes=-1) }}}}"
    return argument if isinstance(argument, str) and "{" not in argument else None
