# SPDX-License-Identifier: Apache-2.0
"""Runs a sensor to its end in each mode, as Airflow does, without a scheduler between the steps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any

import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
    timezone,
)
from airflow.triggers.base import BaseTrigger

from airflow_provider_kie.compat import CAN_START_FROM_TRIGGER
from airflow_provider_kie.sensors.wav import WavConversionSensor

MODES = ("poke", "reschedule", "deferrable")
#: With the one in which no worker polls first, where this Airflow has it.
ALL_MODES = (*MODES, "start_from_trigger") if CAN_START_FROM_TRIGGER else MODES


@dataclass(frozen=True)
class Ended:
    """How a sensor ended, as far as a user notices."""

    state: str
    xcom: Any = None
    error: str = ""
    message: str = ""
    retried: bool = True
    pushed: dict[str, Any] = field(default_factory=dict)


def run_sensor(
    mode: str, monkeypatch: pytest.MonkeyPatch, of: type[Any] = WavConversionSensor, **arguments: Any
) -> Ended:
    """
    Run a sensor in a mode until it ends.

    :param mode: one of :data:`ALL_MODES`.
    :param of: the sensor's class.
    :param arguments: the sensor's, besides its task id and mode.
    """
    how = {"deferrable": False, "mode": mode}
    if mode in ("deferrable", "start_from_trigger"):
        how = {"deferrable": True, "start_from_trigger": mode == "start_from_trigger"}

    def build() -> Any:
        return of(task_id="wait", **how, **arguments)

    ti = TaskInstance()
    run = {"reschedule": _reschedule, "deferrable": _defer, "start_from_trigger": _start}.get(mode, _poke)
    try:
        return Ended("success", xcom=run(build, ti, monkeypatch), pushed=ti.pushed)
    except AirflowSkipException as skip:
        return Ended("skipped", message=str(skip), pushed=ti.pushed)
    except Exception as error:
        retried = not isinstance(error, (AirflowFailException, AirflowSensorTimeout))
        return Ended("failed", error=type(error).__name__, message=str(error), retried=retried, pushed=ti.pushed)


class TaskInstance:
    """What a sensor asks of its task instance."""

    dag_id, task_id, run_id, map_index, max_tries = "dag", "wait", "run", -1, 0

    def __init__(self) -> None:
        self.first_start = timezone.utcnow()
        self.pushed: dict[str, Any] = {}

    def get_first_reschedule_date(self, context: Any) -> Any:
        return self.first_start

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def _poke(build: Callable[[], Any], ti: TaskInstance, monkeypatch: pytest.MonkeyPatch) -> Any:
    return build().execute({"ti": ti})


def _reschedule(build: Callable[[], Any], ti: TaskInstance, monkeypatch: pytest.MonkeyPatch) -> Any:
    # Airflow 2.11 reads the first start from its database, in which no scheduler has written here.
    with contextlib.suppress(AttributeError):
        monkeypatch.setattr("airflow.sensors.base._orig_start_date", lambda **_: ti.first_start)
    while True:
        try:
            return build().execute({"ti": ti})
        except AirflowRescheduleException as pause:
            time.sleep(max(0.0, (pause.reschedule_date - timezone.utcnow()).total_seconds()))


def _defer(build: Callable[[], Any], ti: TaskInstance, monkeypatch: pytest.MonkeyPatch) -> Any:
    try:
        return build().execute({"ti": ti})
    except TaskDeferred as deferral:
        return _resume(build, ti, *deferral.trigger.serialize(), deferral.method_name)


def _start(build: Callable[[], Any], ti: TaskInstance, monkeypatch: pytest.MonkeyPatch) -> Any:
    start = build().start_trigger_args
    return _resume(build, ti, start.trigger_cls, start.trigger_kwargs, start.next_method)


def _resume(build: Callable[[], Any], ti: TaskInstance, path: str, arguments: dict[str, Any], method: str) -> Any:
    event = asyncio.run(only_event(resolve_name(path)(**json.loads(json.dumps(arguments)))))
    return build().resume_execution(method, {"event": event}, {"ti": ti})


async def only_event(trigger: BaseTrigger) -> Any:
    """Return the payload of the one event of a trigger, as it comes out of the database."""
    events = [event async for event in trigger.run()]
    assert len(events) == 1
    return json.loads(json.dumps(events[0].payload))
