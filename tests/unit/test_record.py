# SPDX-License-Identifier: Apache-2.0
"""What is read from KIE's record of a job, by the row of its family. The families are made up."""

from __future__ import annotations

import json

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.job import KieJob, read_job
from airflow_provider_kie.waiting.verdict import Failed, Judge, Wait
from tests.rows import ID, POEMS, SCULPTURES, STAMPS, A, B, C, end, job, reading
from tests.tables import each

UNKNOWN = [
    *((200, "success"), (404, "Not Found"), (404, ""), (422, "recordInfo is null"), (422, "Record not found")),
    *((500, "The task does not exist."), (500, "RECORD IS NULL")),
]


@pytest.mark.parametrize("row", [SCULPTURES, POEMS, STAMPS])
@pytest.mark.parametrize(("code", "said"), UNKNOWN)
def test_an_unknown_id_may_still_become_known(row, code, said):
    assert reading(row, None, code, said) is None
    assert Judge(row, ID, "kie_default").judge(None, 0.0).settling
    verdict = end(row, None, code, said)
    assert isinstance(verdict, Failed)
    assert type(verdict.error) is e.KieNotFoundError
    assert verdict.error.kie_task_id == ID
    assert f"KIE does not know this {row.name} job" in verdict.error.problem


@pytest.mark.parametrize(
    ("code", "said", "error"),
    [
        (400, "not found", e.KieValidationError),
        (401, "key does not exist", e.KieAuthenticationError),
        (422, "id is wrong", e.KieValidationError),
        (500, "internal error", e.KieServerError),
        (500, 'Cannot invoke "Task.getId()" because "task" is null', e.KieServerError),
        (422, 'validation failed: "voice" not found', e.KieValidationError),
        (502, "host not found", e.KieServerError),
        (0, "is null", e.KieUnexpectedCodeError),
    ],
)
def test_what_does_not_mean_an_unknown_id(code, said, error):
    found = reading(POEMS, None, code, said)
    assert type(found) is error
    assert said in str(found)


@pytest.mark.parametrize("record", [[], "success", 5, True, ""])
def test_a_record_that_is_no_object_is_waited_out(record):
    verdict = end(POEMS, record)
    assert isinstance(verdict, Wait)
    assert verdict.warning
    assert "Reading the job: the record is not an object but" in verdict.reason


def test_the_record_of_another_job_ends_the_wait():
    verdict = end(SCULPTURES, {"sculptureId": "18", "stage": 1, "response": {"full": [A]}})
    assert isinstance(verdict, Failed)
    assert type(verdict.error) is e.KieWrongTaskError
    assert "sculptures job '18', which is not the one asked for" in str(verdict.error)


@pytest.mark.parametrize("given", [{}, {"sculptureId": None}, {"sculptureId": f" {ID} "}, {"taskId": "18"}])
def test_a_record_that_names_no_other_job_is_used(given):
    assert job(SCULPTURES, **given)["kie_task_id"] == ID


def test_an_empty_record():
    nothing = dict.fromkeys(KieJob.__annotations__)
    assert job(POEMS) == nothing | {"family": "poems", "kie_task_id": ID, "status": "", "files": [], "tracks": []}


def test_a_full_record():
    assert job(
        SCULPTURES,
        sculptureId=ID,
        model=" marble/v2 ",
        stage=1,
        response={"full": [A, B], "preview": C, "weight": 3, "height": None, "origin": "https://x.example/input"},
        progress=100,
        creditsConsumed="12.5",
        createTime=1753782937000,
        completeTime="2025-07-29 09:55:37",
        failCode=0,
        failMsg="",
    ) == {
        "family": "sculptures",
        "model": "marble/v2",
        "kie_task_id": ID,
        "status": "1",
        "files": [
            {"url": A, "name": "result", "index": 0},
            {"url": B, "name": "result", "index": 1},
            {"url": C, "name": "preview", "index": 0},
        ],
        "result": {"weight": 3},
        "tracks": [],
        "progress": 1.0,
        "credits": 12.5,
        "create_time": "2025-07-29T09:55:37+00:00",
        "complete_time": "2025-07-29 09:55:37",
        "error_code": None,
        "error_message": None,
    }


#: What a record holds, and the files that are found there.
FILES = {
    "a list": ({"full": [A, B]}, [("result", 0, A), ("result", 1, B)]),
    "a list as text": ({"full": json.dumps([A, B])}, [("result", 0, A), ("result", 1, B)]),
    "the other place": ({"parts": [{"link": A}]}, [("result", 0, A)]),
    "the other place, the first is empty": ({"full": [""], "parts": [{"link": A}]}, [("result", 0, A)]),
    "both places": ({"full": [A], "parts": [{"link": B}]}, [("result", 0, A)]),
    "the first place counts, whatever is there": ({"full": ["s3://a"], "parts": [{"link": B}]}, []),
    "two kinds": ({"preview": C, "full": [A]}, [("result", 0, A), ("preview", 0, C)]),
    "one kind": ({"preview": C}, [("preview", 0, C)]),
    "twice the same": ({"full": [A, B, A]}, [("result", 0, A), ("result", 1, B)]),
    "the same under two names": ({"full": [A], "preview": A}, [("result", 0, A)]),
    "some that are no links": ({"full": [None, "", 5, "ftp://a", {"url": C}, B]}, [("result", 0, B)]),
    "white space and letters": ({"full": [f" {A}?n=größe\n"]}, [("result", 0, f"{A}?n=gr%C3%B6%C3%9Fe")]),
    "inputs are no results": ({"originUrl": A, "input": {"image": [B]}, "full": [C]}, [("result", 0, C)]),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name):
    response, expected = FILES[name]
    found = job(SCULPTURES, stage=0, response=response)["files"]
    assert [(file["name"], file["index"], file["url"]) for file in found] == expected


#: What a record holds besides files, and what is kept of it.
RESULTS = {
    "an object": ({"resultJson": {"title": "Ode"}}, {"title": "Ode"}),
    "an object in a text": ({"resultJson": '{"title": "Ode"}'}, {"title": "Ode"}),
    "without its files": ({"resultJson": {"title": "Ode", "audioUrls": [A]}}, {"title": "Ode"}),
    "in a text, without its files": ({"resultJson": json.dumps({"title": "Ode", "audioUrls": [A]})}, {"title": "Ode"}),
    "nothing but files": ({"resultJson": json.dumps({"audioUrls": [A]})}, None),
    "without what is empty": ({"resultJson": {"title": "Ode", "b": None, "c": [], "d": 0}}, {"title": "Ode", "d": 0}),
    "all is empty": ({"resultJson": {"b": None, "c": [""]}}, None),
    "in a text, all is empty": ({"resultJson": '{"audioUrls": []}', "response": {}}, None),
    "the second place": ({"resultJson": "", "response": {"title": "Ode"}}, {"title": "Ode"}),
    "the second place, the first is empty": ({"resultJson": "{}", "response": {"title": "Ode"}}, {"title": "Ode"}),
    "a list": ({"response": [{"text": "a"}, {"text": "b"}]}, [{"text": "a"}, {"text": "b"}]),
    "a list with one that failed": (
        {"response": [{"text": "a", "status": "complete"}, {"status": "failed"}, "c"]},
        [{"text": "a", "status": "complete"}, "c"],
    ),
    "a list of such that failed": ({"response": [{"text": "a", "status": "failed"}]}, None),
    "a text": ({"resultJson": "Roses are red"}, "Roses are red"),
    "what no database takes": (
        {"resultJson": '{"title": "a\\u0000b", "rate": 1e400, "weight": NaN}'},
        {"title": "a b", "rate": None, "weight": None},
    ),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results(name):
    record, result = RESULTS[name]
    assert job(POEMS, state="wait", **record)["result"] == result


@pytest.mark.parametrize(
    ("songs", "ids"),
    [
        ([{"id": "a", "audio_url": A}, {"id": "b", "audioUrl": B}], ["a", "b"]),
        ([{"id": "a", "audioUrl": ""}, {"id": "b", "audioUrl": B}, {"id": "c"}], ["b"]),
        ([{"id": " a ", "audioUrl": A}, {"audioUrl": A}, {"id": 5, "audioUrl": A}, {}, "x"], ["a"]),
        ({"id": "a", "audioUrl": A}, []),
        (None, []),
    ],
)
def test_tracks(songs, ids):
    found = job(POEMS, response={"songs": songs})["tracks"]
    assert found == [{"music_task_id": ID, "audio_id": each} for each in ids]


@pytest.mark.parametrize(
    ("given", "share"),
    each(
        *(
            (0.015, [1.5]),
            (0.0, [0, -1]),
            (0.25, [0.25, "0.25", 25, "25"]),
            (0.01, [1, "1"]),
            (1.0, [1.0, "1.00", 100, 250]),
        ),
        (None, ["25 %", "", True, None, []]),
    ),
)
def test_progress(given, share):
    assert job(POEMS, progress=given)["progress"] == share


@pytest.mark.parametrize(
    ("given", "cost"), [(12, 12.0), (0.5, 0.5), ("12.5", 12.5), (0, 0.0), ("free", None), ({}, None)]
)
def test_credits(given, cost):
    assert job(POEMS, creditsConsumed=given)["credits"] == cost


@pytest.mark.parametrize("depth", [100, 300, 400, 600, 900, 5000, 100_000])
@pytest.mark.parametrize("key", ["musicId", "resultJson", "response", "state"])
def test_a_record_that_is_nested_too_deeply_is_waited_out(key, depth):
    nested = '{"a":' * depth + "1" + "}" * depth
    body = f'{{"code": 200, "data": {{"taskId": "{ID}", "{key}": {nested}}}}}'
    try:
        found = read_job(POEMS, ID).read(Response(200, body.encode()))
    except e.KieError as error:
        found = error
    assert isinstance(found, dict | e.KieUnreadableAnswerError)
