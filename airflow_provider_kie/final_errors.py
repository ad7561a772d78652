# SPDX-License-Identifier: Apache-2.0
"""
Variants of errors that Airflow does not retry.

A failed job is final for a sensor, but not for an operator that can submit again. Airflow and users both decide by
class, so the final error must belong to the original class and to ``AirflowFailException``. Such classes, the *twins*,
are created here when needed. They have the name and the message of the original class, and can be pickled.
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
    """Return the error as one that Airflow does not retry; a connection that cannot be found stays retryable."""
    if isinstance(error, (AirflowFailException, AirflowSensorTimeout, KieConnectionNotFoundError)):
        return error
    twin = _twin_of(type(error))(error.problem, **error.details())
    twin.__cause__ = error.__cause__
    return twin


def for_sensor(error: KieError) -> KieError:
    """Return the error as a sensor raises it: a time-out as Airflow's own kind, anything else as final."""
    if isinstance(error, KieWaitTimeoutError):
        return KieSensorTimeoutError(error.problem, **error.details())
    return final(error)
