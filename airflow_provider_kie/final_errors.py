# SPDX-License-Identifier: Apache-2.0
"""
Errors that Airflow does not retry, made of errors that it would.

Whether repeating can help depends on what waits: for a sensor a failed job is final, for the operator that can submit
it again it is not. Airflow decides by class, and users catch by class, so a final error has to be of the same class as
the other one and an ``AirflowFailException`` too. Such classes, the *twins*, are made here when they are needed; they
have the name and the message of the class they stand for, and can be pickled like it.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_kie.exceptions import (
    KieConnectionNotFoundError,
    KieError,
    KieSensorTimeoutError,
    KieWaitTimeoutError,
)

__all__ = ["final", "for_sensor"]


_TWINS: dict[type[KieError], type[KieError]] = {}


def _twin_of(error_class: type[KieError]) -> type[KieError]:
    if error_class in _TWINS:
        return _TWINS[error_class]
    namespace = {
        "__module__": error_class.__module__,
        "__doc__": error_class.__doc__,
        "__reduce__": lambda error: (_rebuild, (error_class, error.problem), error.__dict__),
    }
    _TWINS[error_class] = type(error_class.__name__, (error_class, AirflowFailException), namespace)
    return _TWINS[error_class]


def _rebuild(error_class: type[KieError], problem: str) -> KieError:
    return _twin_of(error_class)(problem)


def final(error: KieError) -> KieError:
    """Return the same error as one that Airflow does not retry, for where repeating cannot help."""
    if isinstance(error, (AirflowFailException, AirflowSensorTimeout, KieConnectionNotFoundError)):
        return error
    twin = _twin_of(type(error))(error.problem, **error.details())
    twin.__cause__ = error.__cause__
    return twin


def for_sensor(error: KieError) -> KieError:
    """Return the error as a sensor raises it: a time-out as Airflow's sensors do, anything else final."""
    if isinstance(error, KieWaitTimeoutError):
        return KieSensorTimeoutError(error.problem, **error.details())
    return final(error)
