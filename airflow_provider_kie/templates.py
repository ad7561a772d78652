# SPDX-License-Identifier: Apache-2.0
"""The two types of a template field: what a DAG passes to the constructor, and what ``execute`` finds."""

from __future__ import annotations

from typing import TypeVar, cast

from airflow.providers.common.compat.sdk import XComArg

__all__ = ["as_rendered"]

T = TypeVar("T", bound="str | None")


def as_rendered(argument: T | XComArg) -> T:
    """
    Return the argument as it is, under the type that it has once Airflow has rendered it.

    Before that it may be an ``XComArg``, whatever its type says. Code that runs in the constructor, or when Airflow
    reads the DAG, has to be ready for one.

    :param argument: what the DAG passed for a template field.
    """
    return cast("T", argument)
