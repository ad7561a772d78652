# SPDX-License-Identifier: Apache-2.0
"""What a rendered argument says: whether the task that should provide it has pushed anything."""

from __future__ import annotations

from airflow_provider_kie.exceptions import KieValidationError

__all__ = ["is_empty", "pushed_nothing"]


def is_empty(value: object) -> bool:
    """
    Tell whether a rendered argument has no value.

    :param value: None, a blank text, the word None, as a template renders it, or what Jinja makes of an unknown name.
    """
    return str(value).strip() in ("", "None")


def pushed_nothing(*names: str) -> KieValidationError:
    """
    Return the error for arguments that the DAG passed, but that have no value.

    :param names: the arguments' names.
    """
    empty = " and ".join(f"{name} is empty" for name in names)
    return KieValidationError(f"{empty}; the task that should provide it pushed nothing")
