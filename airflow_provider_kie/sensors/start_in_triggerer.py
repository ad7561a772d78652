# SPDX-License-Identifier: Apache-2.0
"""
``start_from_trigger``: let the scheduler start a sensor as a trigger, without a worker that polls first.

A template that Airflow generates makes a request that the triggerer never answers (3.3.2), so the trigger hangs before
its first line. So this module writes a template that the triggerer can render, and leaves all others to a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, XComArg
from airflow.triggers.base import StartTriggerArgs

from airflow_provider_kie.compat import CAN_START_FROM_TRIGGER

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context

__all__ = ["StartInTriggerer"]

#: Why a task starts on a worker although the task itself could start in the triggerer.
MAPPED_OR_TEST = "a mapped task, or dags test, starts on a worker"


class _LazyAttribute(property):
    """
    An attribute of a task that is computed when it is read, to include changes after the constructor.

    Read from the class, as Airflow does for a mapped task, it has the value of any other sensor.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, task: Any, owner: type | None = None) -> Any:
        return getattr(BaseSensorOperator, self._name) if task is None else super().__get__(task, owner)


class StartInTriggerer(BaseSensorOperator):
    """A sensor that can start in the triggerer. Subclasses define how they wait there."""

    deferrable: bool
    kie_task_id: str
    kie_conn_id: str
    _start_from_trigger: bool = False
    _start_trigger_args: StartTriggerArgs | None = None
    _why_before_rendering: str = ""
    #: Fields that the trigger needs when it is created, so they must be literals.
    _literal_fields: tuple[str, ...] = ()

    def _deferral(self) -> dict[str, Any]:
        """Return the arguments of ``BaseOperator.defer``."""
        raise NotImplementedError

    def _polls_like_the_trigger(self) -> bool:
        """Return whether a worker would do the same as the triggerer."""
        raise NotImplementedError

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Render the templates. First note what needs a worker, because afterwards a template looks like a literal."""
        self._why_before_rendering = self._why_on_a_worker()
        super().render_template_fields(context, jinja_env)

    def _log_why_on_a_worker(self) -> None:
        if self._start_from_trigger:
            why = self._why_before_rendering or self._why_on_a_worker() or MAPPED_OR_TEST
            self.log.info("start_from_trigger had no effect: %s.", why)

    def _why_on_a_worker(self) -> str:
        """Return what prevents a start in the triggerer; an empty text if nothing does."""
        arguments = (self.kie_task_id, self.kie_conn_id)
        obstacles = (
            (not CAN_START_FROM_TRIGGER, "it needs Airflow 3.3 or later"),
            (not self.deferrable, "it needs deferrable=True"),
            (
                None in map(_for_the_triggerer, arguments),
                "the triggerer takes only a literal or the .output of another task, not a template",
            ),
            (
                not all(
                    type(getattr(self, name)) is str and "{" not in getattr(self, name) for name in self._literal_fields
                ),
                f"the triggerer takes only a literal as {' and '.join(self._literal_fields)}",
            ),
            (
                not self._polls_like_the_trigger(),
                f"{type(self).__name__} has an execute() or poke() of its own, which only a worker calls",
            ),
            (self.get_needs_expansion(), MAPPED_OR_TEST),
        )
        return next((why for obstructs, why in obstacles if obstructs), "")

    def _get_start_from_trigger(self) -> bool:
        return self._start_from_trigger and not self._why_on_a_worker()

    def _set_start_from_trigger(self, asked: bool) -> None:
        self._start_from_trigger = asked

    start_from_trigger = _LazyAttribute(_get_start_from_trigger, _set_start_from_trigger)

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

    start_trigger_args = _LazyAttribute(_get_start_trigger_args, _set_start_trigger_args)


def _for_the_triggerer(argument: object) -> str | None:
    """
    Return an argument as the triggerer can render it; None where it cannot.

    The triggerer answers only some requests of a template, and hangs on the others (seen on 3.3.2), such as
    ``xcom_pull`` without ``map_indexes``, which is how Airflow renders ``.output``.
    """
    if isinstance(argument, XComArg) and hasattr(argument, "key"):  # not one with .map(), .zip() or the like
        ((source, key),) = argument.iter_references()
        pull = f"ti.xcom_pull(task_ids={source.task_id!r}, key={key!r}, map_indexes=-1)"
        return f"{{% set given = {pull} %}}{{{{ given.kie_task_id if given is mapping else given }}}}"  # or a whole job
    return argument if isinstance(argument, str) and "{" not in argument else None
