# SPDX-License-Identifier: Apache-2.0
"""What the emulator says by itself has the shape of KIE's answers, which the schemas here write down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator

from airflow_provider_kie.emulator import KieEmulator

Schema = dict[str, Any]

STATUSES = ["PENDING", "SUCCESS", "CREATE_TASK_FAILED", "GENERATE_WAV_FAILED", "CALLBACK_EXCEPTION"]
CODES = [200, 400, 401, 402, 404, 408, 409, 422, 429, 451, 455, 500, 501, 505]

TEXT = {"type": ["string", "null"]}
TIME = {"type": ["string", "integer", "null"]}
RESULT = {"type": ["object", "null"], "properties": {"audioWavUrl": TEXT}}

RECORD: Schema = {
    "type": ["object", "null"],
    "required": ["taskId", "successFlag"],
    "properties": {
        "taskId": {"type": "string", "minLength": 1},
        "musicId": TEXT,
        "callbackUrl": TEXT,
        "musicIndex": {"type": ["integer", "null"]},
        "completeTime": TIME,
        "response": RESULT,
        "successFlag": {"enum": STATUSES},
        "createTime": TIME,
        "errorCode": {"type": ["number", "null"]},
        "errorMessage": TEXT,
    },
}
SUBMITTED: Schema = {"type": ["object", "null"], "properties": {"taskId": TEXT}}


def envelope(data: Schema) -> Schema:
    """The wrapper around an endpoint's data; a refused key comes without any data."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["code", "msg"],
        "properties": {"code": {"enum": CODES}, "msg": TEXT, "data": data},
        "if": {"properties": {"code": {"const": 401}}},
        "then": {"not": {"required": ["data"]}},
        "else": {"required": ["data"]},
    }


SCHEMAS = {
    "submit": envelope(SUBMITTED),
    "record-info": envelope(RECORD),
    "credit": envelope({"type": ["number", "null"]}),
    "download-url": envelope({"type": ["string", "null"], "format": "uri"}),
}

PATHS = {
    "submit": ("POST", "/api/v1/wav/generate"),
    "record-info": ("GET", "/api/v1/wav/record-info"),
    "credit": ("GET", "/api/v1/chat/credit"),
    "download-url": ("POST", "/api/v1/common/download-url"),
}
TRACK = {"taskId": "music-1", "audioId": "audio-1", "callBackUrl": "https://example.com/cb"}


def errors(endpoint: str, body: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMAS[endpoint]).iter_errors(body)]


@pytest.fixture(scope="module")
def kie() -> Iterator[KieEmulator]:
    with KieEmulator(submits_per_window=None) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def _fresh(kie: KieEmulator) -> None:
    kie.reset()


def call(kie: KieEmulator, endpoint: str, *, key: str | None = None, **request: Any) -> Any:
    method, path = PATHS[endpoint]
    headers = {"Authorization": f"Bearer {key or kie.api_key}", "User-Agent": "kie-tests"}
    answer = requests.request(method, kie.url + path, headers=headers, timeout=10, **request)
    assert answer.headers["content-type"] == "application/json;charset=UTF-8"
    assert answer.headers["server"] == "cloudflare"
    body = answer.json()
    assert errors(endpoint, body) == []
    return body


def test_the_emulators_own_answers_match_the_pages(kie: KieEmulator) -> None:
    for endpoint in PATHS:
        assert call(kie, endpoint, key="wrong")["code"] == 401
    assert call(kie, "submit", data=b"{")["code"] == 400
    assert call(kie, "submit", json={**TRACK, "callBackUrl": ""})["code"] == 422
    assert call(kie, "submit", json=TRACK)["code"] == 200
    assert call(kie, "submit", json=TRACK)["code"] == 409
    kie.configure(credits=0, submits_per_window=0)
    assert call(kie, "submit", json={**TRACK, "audioId": "2"})["code"] == 429
    kie.configure(submits_per_window=None)
    assert call(kie, "submit", json={**TRACK, "audioId": "2"})["code"] == 402
    assert call(kie, "record-info", params={"taskId": "988e"})["data"] is None
    assert call(kie, "record-info")["code"] == 422
    assert call(kie, "credit")["data"] == 0.0
    assert call(kie, "download-url", json={"url": "https://example.com"})["code"] == 422


@pytest.mark.parametrize(
    ("music_task_id", "finished", "flag"),
    [("music-1", False, "PENDING"), ("music-1", True, "SUCCESS"), ("fail-1", True, "GENERATE_WAV_FAILED")],
)
def test_records(kie: KieEmulator, music_task_id: str, finished: bool, flag: str) -> None:
    kie_task_id = kie.create_conversion(music_task_id, finished=finished)
    record = call(kie, "record-info", params={"taskId": kie_task_id})["data"]
    assert record["successFlag"] == flag
    if flag == "SUCCESS":
        link = call(kie, "download-url", json={"url": record["response"]["audioWavUrl"]})["data"]
        assert link.startswith(kie.url)
