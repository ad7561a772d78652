# SPDX-License-Identifier: Apache-2.0
"""What differs between the supported versions of Airflow, one name for each difference."""

from __future__ import annotations

import math
from datetime import UTC
from typing import TYPE_CHECKING, Any

from airflow import __version__ as airflow_version
from packaging.version import Version

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger

__all__ = ["CAN_START_FROM_TRIGGER", "airflow_version", "deferral_limit", "task_state_store"]

_RELEASE = Version(airflow_version).release

#: Airflow 3.0 to 3.2 have the words for it, but the scheduler does not act on them.
CAN_START_FROM_TRIGGER = _RELEASE >= (3, 3)


def task_state_store(context: Context) -> Any:
    """
    Return the store that outlives the tries of a task instance (3.3 and later), or None.

    :param context: Airflow's context.
    """
    return context.get("task_state_store")


def deferral_limit(trigger: BaseTrigger) -> float:
    """
    Return when Airflow itself ends a deferral, in epoch seconds, or infinity.

    :param trigger: the trigger. Airflow 2.11 keeps the limit in its task instance, without a time zone.
    """
    limit = getattr(trigger, "timeout_after", None) or getattr(trigger.task_instance, "trigger_timeout", None)
    if limit is None:
        return math.inf
    return float((limit if limit.tzinfo else limit.replace(tzinfo=UTC)).timestamp())
