# SPDX-License-Identifier: Apache-2.0
"""Made-up families and KIE's answers about their jobs, for tests of what is made of a row."""

from __future__ import annotations

import json
from dataclasses import replace

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.call import Repeat
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.family import Family, Words
from airflow_provider_kie.api.job import KieJob, read_job
from airflow_provider_kie.waiting.verdict import Done, Failed, Judge, Wait

ID = "17"
A, B, C = (f"https://tempfile.example/{name}" for name in "abc")

#: Numbers for words, several files, another name for the id; a second submit is charged again.
SCULPTURES = Family(
    name="sculptures",
    submit="/api/v1/sculptures/generate",
    query="/api/v1/sculptures/detail",
    words=Words(running=(0, 2), done=(1,), failed=(3,)),
    status=("stage",),
    files=(("result", "response.full[]|response.parts[].link"), ("preview", "response.preview")),
    result=("response.{weight,height}",),
    errors=("failCode", "failMsg"),
    id_key="sculptureId",
    title="carving of a sculpture",
    short="carving",
)
#: Words and numbers, JSON in texts, no need for a file, songs; a second submit is charged again.
POEMS = Family(
    name="poems",
    submit="/api/v1/poems",
    query="/api/v1/poems/record-info",
    words=Words(
        running=("wait", "on-hold", 0),
        done=("success", 1),
        failed=("fail", "SENSITIVE_WORD_ERROR"),
        done_if_result=("CALLBACK_EXCEPTION",),
    ),
    status=("state", "flag"),
    files=(("reading", "resultJson.audioUrls[]|response.audioUrl"),),
    result=("resultJson", "response"),
    needs_file=False,
    tracks=("response.songs[].{id,audioUrl}",),
)
#: Refuses a second identical submit, and then names the first.
STAMPS = replace(
    SCULPTURES,
    name="stamps",
    id_key="taskId",
    repeat=Repeat.GUARDED,
    adopts=(400, 409),
    file_decides=True,
    failure=e.KieConversionFailedError,
)


def answer(data: object, code: int = 200, said: str = "text") -> Response:
    return Response(200, json.dumps({"code": code, "msg": said, "data": data}).encode())


def reading(row: Family, record: object, code: int = 200, said: str = "text") -> KieJob | e.KieError | None:
    try:
        return read_job(row, ID).read(answer(record, code, said))
    except e.KieError as error:
        return error


def job(row: Family, **record: object) -> KieJob:
    found = reading(row, record)
    assert isinstance(found, dict), found
    return found


def end(row: Family, record: object, code: int = 200, said: str = "text") -> Wait | Done | Failed:
    """Return how a wait ends, or stands after the grace, if KIE goes on giving the same answer."""
    judge = Judge(row, ID, "kie_default")
    for now in (0.0, 1e6):
        verdict = judge.judge(reading(row, record, code, said), now)
    return verdict
