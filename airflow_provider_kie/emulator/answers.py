# SPDX-License-Identifier: Apache-2.0
"""
Answers that KIE gives or might give, as one table of data; those of its other hosts are rows in ``hosts``.

An answer is queued by its name (see :meth:`KieEmulator.play`) and then sent instead of the emulator's own. Ids and
links in a body are placeholders, replaced for each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from airflow_provider_kie.emulator.hosts import FILES, UPLOADS
from airflow_provider_kie.emulator.scripted import (
    HTML_HEADERS,
    ID,
    JSON_HEADERS,
    KEY,
    PAGE,
    SERVER,
    TEXT_HEADERS,
    WAV,
    Answer,
    as_json,
    says,
)

__all__ = ["ANSWERS", "FAULTS"]


def _record(name: str, case: int, **fields: object) -> Answer:
    return Answer(name, case, "record-info", says(200, data={"taskId": ID, **fields}))


_NO_ERROR: Final[dict[str, object]] = {"errorCode": None, "errorMessage": None}
_WRONG_KEY: Final = (
    "Unauthorized \u2013 Authentication failed. "
    "Please check that your Authorization and Content-Type headers are correctly set."
)
_UNAUTHORIZED: Final = as_json({"code": 401, "msg": _WRONG_KEY})
_RATE: Final = says(429, "Rate limit exceeded")
_SERVER_ERROR: Final = says(500, "Server Error - An unexpected error occurred while processing the request")
_CONFLICT: Final = "WAV record already exists"
_TRY_AGAIN: Final = "Internal Error - Please try again later."
_LINK: Final = {"audioWavUrl": WAV}
_BAD_LINK: Final = {"audioWavUrl": "s3://kie-bucket/s/1.wav?X-Amz-Signature=0123abcd"}
_DONE: Final[dict[str, object]] = {"successFlag": "SUCCESS", "response": _LINK}
_FAILED: Final[dict[str, object]] = {"successFlag": "GENERATE_WAV_FAILED", "response": None, "errorCode": 500}
_STRANGER: Final = {"taskId": "0" * 32, **_DONE, **_NO_ERROR}

_REFUSALS: Final = (
    Answer("wrong-key", 1, "any", _UNAUTHORIZED),
    Answer("wrong-key-http", 1, "any", _UNAUTHORIZED, 401),
    Answer("wrong-key-echoed", 53, "any", as_json({"code": 401, "msg": f"Unauthorized: invalid key {KEY}"})),
    Answer("no-permission", 2, "any", as_json({"code": 401, "msg": "You do not have access permissions"})),
    Answer("insufficient-credits", 3, "any", says(402, "Insufficient Credits")),
    Answer("rate-limited", 4, "any", _RATE),
    Answer("rate-limited-http", 4, "any", _RATE, 429),
    Answer("rate-limited-retry-after", 4, "any", _RATE, 429, {**JSON_HEADERS, "retry-after": "1"}),
    Answer("rate-limited-text", 4, "any", "Too Many Requests", 429, TEXT_HEADERS),
    Answer("key-cap", 5, "any", says(433, "Sub-key usage exceeds limit")),
    Answer(
        "maintenance",
        6,
        "any",
        says(455, "Service Unavailable - System is currently undergoing maintenance"),
    ),
    Answer("server-error", 7, "any", _SERVER_ERROR),
    Answer("server-error-http", 7, "any", _SERVER_ERROR, 500),
    Answer("upstream-silent", 8, "any", says(408, "Upstream is currently experiencing service issues")),
    Answer("generation-failed", 8, "any", says(501, "Generation Failed - Content generation task failed")),
    Answer("feature-disabled", 8, "any", says(505, "Feature Disabled - Currently unavailable")),
    Answer("not-found", 8, "any", says(404, "Not Found - The requested resource does not exist")),
    Answer("source-not-fetchable", 8, "any", says(451, "Failed to fetch the source")),
    Answer("blocked", 9, "any", "error code: 1010", 403, TEXT_HEADERS),
    Answer("blocked-html", 9, "any", PAGE.format("Attention Required!"), 403, HTML_HEADERS),
    Answer("unlisted-531", 11, "any", says(531, "Generation failed, credits were refunded")),
    Answer("unlisted-550", 11, "any", says(550, "Connection denied")),
    Answer("unlisted-524", 11, "any", says(524, "Upstream account not served")),
    Answer("sister-rate-limited-405", 52, "any", says(405, "Rate limit exceeded")),
    Answer("sister-rate-limited-430", 52, "any", says(430, "Call frequency too high")),
)

_UNREADABLE: Final = (
    Answer("html", 10, "any", PAGE.format("One moment"), headers=HTML_HEADERS),
    Answer("bad-gateway", 10, "any", PAGE.format("Bad gateway"), 502, HTML_HEADERS),
    Answer("service-unavailable", 10, "any", PAGE.format("Unavailable"), 503, HTML_HEADERS),
    Answer("origin-timeout", 10, "any", "error code: 524", 524, TEXT_HEADERS),
    Answer("redirect", 10, "any", "", 302, {**TEXT_HEADERS, "location": "https://kie.invalid/login"}),
    Answer("empty", 10, "any", ""),
    Answer("truncated-json", 10, "any", '{"code":200,"msg":"succ'),
    Answer("json-array", 10, "any", "[1,2]"),
    Answer("json-null", 10, "any", "null"),
    Answer("code-missing", 10, "any", as_json({"msg": "success", "data": None})),
    Answer("code-string", 10, "any", says("200")),
    Answer("code-string-refused", 1, "any", says("401", _WRONG_KEY)),
    Answer("code-true", 10, "any", says(True)),
    Answer("code-200-http-500", 10, "any", says(200), 500),
    Answer("no-content-type", 10, "any", says(200), headers=SERVER),
    Answer("not-utf8", 10, "any", b'{"code":200,"msg":"\xff\xfe\xe9","data":null}'),
    Answer("utf8-bom", 10, "any", b'\xef\xbb\xbf{"code":200,"msg":"success","data":null}'),
    Answer("reset", 14, "any", "", fault="reset"),
    Answer("cut-off", 10, "any", '{"code":200,"msg":"suc', fault="truncate"),
    Answer("hang", 36, "any", "", fault="hang"),
    Answer("slow", 36, "any", None, delay=2.0),
)

_SUBMIT: Final = (
    Answer("body-not-json", 12, "submit", says(400, "Format Error - The parameter is not in JSON format")),
    Answer("callback-missing", 12, "submit", says(422, "Please enter callBackUrl.")),
    Answer("track-unknown", 13, "submit", says(422, "Record does not exist")),
    Answer("accepted-then-reset", 14, "submit", "", fault="reset", accepts=True),
    Answer("accepted-then-hang", 14, "submit", "", fault="hang", accepts=True),
    Answer("accepted-then-500", 14, "submit", _SERVER_ERROR, 500, accepts=True),
    Answer("accepted-then-cut-off", 14, "submit", None, fault="truncate"),
    Answer("already-converted", 15, "submit", says(409, _CONFLICT, {"taskId": ID})),
    Answer("already-converted-http", 15, "submit", says(409, _CONFLICT, {"taskId": ID}), 409),
    Answer(
        "already-converted-id-on-top",
        15,
        "submit",
        as_json({"code": 409, "msg": _CONFLICT, "data": None, "taskId": ID}),
    ),
    Answer("already-converted-without-id", 16, "submit", says(409, _CONFLICT)),
    Answer("already-converted-empty-data", 16, "submit", says(409, _CONFLICT, {})),
    Answer("already-converted-blank-id", 16, "submit", says(409, _CONFLICT, {"taskId": ""})),
    Answer("accepted-without-id", 17, "submit", says(200)),
    Answer("accepted-empty-data", 17, "submit", says(200, data={})),
    Answer("accepted-blank-id", 17, "submit", says(200, data={"taskId": ""})),
    Answer("accepted", 18, "submit", says(200, data={"taskId": ID}), accepts=True),
)

_RECORD: Final = (
    Answer("task-unknown", 20, "record-info", says(200)),
    _record(
        "pending",
        21,
        musicId="e231",
        callbackUrl="https://api.example.com/callback",
        musicIndex=0,
        completeTime=None,
        response=None,
        successFlag="PENDING",
        createTime=1753782937000,
        **_NO_ERROR,
    ),
    _record("pending-bare", 21, successFlag="PENDING"),
    _record(
        "pending-refused",
        22,
        successFlag="PENDING",
        response=None,
        errorCode=413,
        errorMessage="Source audio not found",
    ),
    _record("pending-zeros", 23, successFlag="PENDING", response={}, errorCode=0, errorMessage=""),
    _record(
        "success",
        24,
        completeTime="2025-01-01 00:10:00",
        createTime="2025-01-01 00:00:00",
        **_DONE,
        **_NO_ERROR,
    ),
    _record("success-error-code-200", 25, errorCode=200, errorMessage="", **_DONE),
    _record("success-without-url", 26, successFlag="SUCCESS", response={"audioWavUrl": ""}, **_NO_ERROR),
    _record("success-null-url", 26, successFlag="SUCCESS", response={"audioWavUrl": None}, **_NO_ERROR),
    _record("success-null-response", 26, successFlag="SUCCESS", response=None, **_NO_ERROR),
    _record("success-link-no-url", 26, successFlag="SUCCESS", response=_BAD_LINK, **_NO_ERROR),
    _record("callback-exception-with-url", 27, successFlag="CALLBACK_EXCEPTION", response=_LINK, **_NO_ERROR),
    _record(
        "callback-exception-without-url",
        28,
        successFlag="CALLBACK_EXCEPTION",
        response=None,
        errorCode=500,
        errorMessage="callback failed",
    ),
    _record("callback-exception-link-no-url", 28, successFlag="CALLBACK_EXCEPTION", response=_BAD_LINK, **_NO_ERROR),
    _record("wav-failed", 29, errorMessage=_TRY_AGAIN, **_FAILED),
    _record("create-failed", 29, errorMessage=None, **(_FAILED | {"successFlag": "CREATE_TASK_FAILED"})),
    _record("status-unknown", 30, successFlag="QUEUED", response=None),
    _record("status-unknown-failed", 30, successFlag="GENERATE_AUDIO_FAILED", response=None),
    _record("status-unknown-error", 30, successFlag="SENSITIVE_WORD_ERROR", response=None),
    _record("status-missing", 30, response=None),
    _record("dialect-snake-case", 31, status="SUCCESS", response={"audio_wav_url": WAV}),
    _record("flag-zero", 32, successFlag=0, response=None),
    _record("flag-one", 32, successFlag=1, response=_LINK),
    _record("flag-two", 32, successFlag=2, response=None),
    _record(
        "loose-types",
        33,
        musicIndex="0",
        successFlag="GENERATE_WAV_FAILED",
        createTime="2025-01-15T10:35:27.000Z",
        completeTime=1753782937000,
        errorCode="500",
        errorMessage="x",
    ),
    _record(
        "loose-types-success",
        33,
        musicIndex="1",
        createTime=1753782937,
        completeTime="",
        errorCode="",
        **_DONE,
    ),
    Answer("other-task-id", 34, "record-info", says(200, data=_STRANGER)),
    _record("extra-fields", 35, progress="1.00", creditsConsumed=0.4, param={"a": [1]}, **_DONE),
    _record("odd-letter-case", 35, successFlag=" Success ", response=_LINK),
    Answer("data-not-an-object", 10, "record-info", says(200, data="SUCCESS")),
    _record("failed-with-url", 53, errorMessage=f"Cannot read {WAV}", **_FAILED),
    _record(
        "market-success",
        51,
        model="ai-music-api/convert-to-wav-format",
        state="success",
        resultJson=as_json({"resultUrls": [WAV]}),
        failCode=None,
        failMsg=None,
        completeTime=1753782937000,
        createTime=1753782900000,
        costTime=37,
    ),
    _record("market-waiting", 51, state="waiting", resultJson="", failCode="", failMsg=""),
    Answer("market-not-visible", 51, "record-info", says(422, "recordInfo is null")),
)

_COMMON: Final = (
    Answer("url-refused", 48, "download-url", says(422, "url is wrong")),
    Answer("url-given", 49, "download-url", says(200, data=WAV)),
    Answer("url-in-object", 49, "download-url", says(200, data={"url": WAV})),
    Answer("url-null", 49, "download-url", says(200)),
    Answer("credit-fraction", 50, "credit", says(200, data=5916.25)),
    Answer("credit-integer", 50, "credit", says(200, data=100)),
    Answer("credit-zero", 50, "credit", says(200, data=0)),
    Answer("credit-large", 50, "credit", says(200, data=98765432109.75)),
    Answer("credit-string", 50, "credit", says(200, data="100")),
    Answer("credit-null", 50, "credit", says(200)),
)

ANSWERS: Final[Mapping[str, Answer]] = {
    answer.name: answer for answer in (*_REFUSALS, *_UNREADABLE, *_SUBMIT, *_RECORD, *_COMMON, *UPLOADS, *FILES)
}

_BROKEN: Final = ("reset", "slow", "cut-off", "html", "bad-gateway", "truncated-json")
_ANY_FAULT: Final = (*_BROKEN, "server-error", "server-error-http", "rate-limited", "rate-limited-http")

#: What ``fault_share`` puts in place of the emulator's own answers.
FAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "submit": (*_ANY_FAULT, "accepted-then-reset", "accepted-then-500", "accepted-then-cut-off"),
    "record-info": _ANY_FAULT,
    "single": _ANY_FAULT,
    "credit": _ANY_FAULT,
    "download-url": _ANY_FAULT,
    "upload": (*_BROKEN, "upload-server-error", "upload-server-error-http", "upload-kept-then-reset"),
}
