# SPDX-License-Identifier: Apache-2.0
"""What is known of KIE's answers, as JSON schemas of this project's own."""

from __future__ import annotations

from typing import Any

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
