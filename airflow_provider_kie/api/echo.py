# SPDX-License-Identifier: Apache-2.0
"""
The input of a job, as its record repeats it.

The Market repeats it as JSON in a text, whose ``input`` is again JSON in a text (recorded 2026-04 to 2026-10); other
families as JSON in a text or as an object (KIE's pages), and some not at all.
"""

from __future__ import annotations

from airflow_provider_kie.api import fields
from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.envelope import Json
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.job import CALLBACK

__all__ = ["read_input"]

_WRAPPED = ("param.input", "paramJson.input")
_FLAT = ("param", "paramJson", "generateParam")


def read_input(row: Family, kie_task_id: str) -> Call[dict[str, Json] | None]:
    """Return the call that reads the input of a job, which is free; its result is None if KIE does not repeat it."""

    def parse(data: Json) -> dict[str, Json] | None:
        found = fields.first(data, *(_WRAPPED if row.wrapped else _FLAT))
        return {name: each for name, each in found.items() if name != CALLBACK} if isinstance(found, dict) else None

    return Call(
        f"Reading the input of the {row.title}",
        "GET",
        row.query,
        parse,
        params={row.id_key: fields.check_id("kie_task_id", kie_task_id)},
        family=row.tag,
        kie_task_id=kie_task_id,
    )
