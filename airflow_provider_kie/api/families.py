# SPDX-License-Identifier: Apache-2.0
"""
The families of KIE's jobs, one row each, with the evidence for it.

What the columns mean stands at :class:`~airflow_provider_kie.api.job.Family`; adding a family is a row here, its
answers in the tests, a row of the emulator and one in the docs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from airflow_provider_kie.api.call import Repeat
from airflow_provider_kie.api.job import Family, Words
from airflow_provider_kie.exceptions import KieConversionFailedError, KieValidationError
from airflow_provider_kie.redaction import quoted

__all__ = ["FAMILIES", "WAV", "find_family", "tag_of"]

#: Pages "Convert to WAV" and "Get WAV Details" (2026-04-29). The pages know only words; the numbers, and ``status`` in
#: the place of ``successFlag``, are those of older pages of the same software. Numbers mean something else in each
#: family, so only these two are taken.
WAV = Family(
    name="wav",
    submit="/api/v1/wav/generate",
    query="/api/v1/wav/record-info",
    words=Words(
        running=("PENDING", 0),
        done=("SUCCESS", 1),
        failed=("CREATE_TASK_FAILED", "GENERATE_WAV_FAILED"),
        done_if_result=("CALLBACK_EXCEPTION",),
        only_words=True,
    ),
    status=("successFlag", "status"),
    files=(("result", "response.audioWavUrl"),),
    result=("{musicId,musicIndex}",),
    callback=True,
    interval=30.0,
    repeat=Repeat.UNDER_GUARD,
    adopts=(409,),
    file_decides=True,
    failure=KieConversionFailedError,
    title="WAV conversion",
    short="conversion",
    product="WAV URL",
    unnamed=True,
)

FAMILIES: Mapping[str, Family] = MappingProxyType({row.name: row for row in (WAV,)})


def find_family(name: str | None) -> Family:
    """
    Return the row of a family.

    :param name: its name; None for the one that names none, see :attr:`Family.unnamed`.
    :raises KieValidationError: there is no such family.
    """
    for row in FAMILIES.values():
        if name in (row.name, row.tag):
            return row
    raise KieValidationError(f"family is {quoted(name)}, but must be one of {', '.join(sorted(FAMILIES))}")


def tag_of(name: str) -> str | None:
    """
    Return a family's name as it travels in errors and events; a name that is no family's stays as it is.

    :param name: the family's name.
    """
    row = FAMILIES.get(name)
    return row.tag if row else name
