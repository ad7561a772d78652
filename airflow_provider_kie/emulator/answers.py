# SPDX-License-Identifier: Apache-2.0
"""
Answers that KIE gives or might give, as one table of data.

An answer is queued by its name (see :meth:`KieEmulator.play`) and then sent instead of the emulator's own. Ids and
links in a body are placeholders, replaced for each request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

__all__ = ["ANSWERS", "ENDPOINTS", "FAULTS", "JSON_HEADERS", "Answer", "Endpoint", "Fault"]

Endpoint = Literal["submit", "record-info", "single", "credit", "download-url", "file", "any"]
Fault = Literal["reset", "truncate", "hang"]

ENDPOINTS: Final[tuple[str, ...]] = get_args(Endpoint)

_SERVER: Final = {"server": "cloudflare"}
JSON_HEADERS: Final[Mapping[str, str]] = {"content-type": "application/json;charset=UTF-8", **_SERVER}
_HTML: Final[Mapping[str, str]] = {"content-type": "text/html; charset=UTF-8", **_SERVER}
_TEXT: Final[Mapping[str, str]] = {"content-type": "text/plain; charset=UTF-8", **_SERVER}

_ID: Final = "<kie_task_id>"
_WAV: Final = "<wav_url>"
_KEY: Final = "<client_key>"


@dataclass(frozen=True, slots=True)
class Answer:
    """
    One answer of KIE.

    :param name: its name in tests and control routes
    :param case: the number of the case that it shows
    :param endpoint: the endpoint that gives it; ``any`` is every API endpoint, but not the file host
    :param body: what is sent, with placeholders; ``None`` sends the emulator's own answer
    :param status: HTTP status
    :param headers: HTTP headers, besides the date and the length
    :param fault: ``reset`` closes the connection without an answer, ``truncate`` in the middle of the body;
        ``hang`` never answers
    :param delay: seconds to wait before answering
    :param accepts: carry out the request first (a submit starts its job), then send this answer
    """

    name: str
    case: int
    endpoint: Endpoint
    body: str | bytes | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_HEADERS)
    fault: Fault | None = None
    delay: float = 0.0
    accepts: bool = False

    @property
    def names_job(self) -> bool:
        """Whether the body holds the id of a job, which should then exist."""
        return isinstance(self.body, str) and _ID in self.body

    def render(
        self,
        kie_task_id: str = "988e00aa",
        wav_url: str = "https://tempfile.example/s/1.wav",
        client_key: str = "",
    ) -> bytes:
        """
        Fill in the placeholders.

        :param kie_task_id: the id that a read asks for, or that a submit gets
        :param wav_url: link to the finished file
        :param client_key: the key that the client sent, for answers that echo it
        """
        if not isinstance(self.body, str):
            return self.body or b""
        text = self.body
        for placeholder, value in ((_ID, kie_task_id), (_WAV, wav_url), (_KEY, client_key)):
            text = text.replace(placeholder, json.dumps(value)[1:-1])
        return text.encode()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _says(code: object, msg: str = "success", data: object = None) -> str:
    return _json({"code": code, "msg": msg, "data": data})


def _record(name: str, case: int, **fields: object) -> Answer:
    return Answer(name, case, "record-info", _says(200, data={"taskId": _ID, **fields}))


_NO_ERROR: Final[dict[str, object]] = {"errorCode": None, "errorMessage": None}
_WRONG_KEY: Final = (
    "Unauthorized \u2013 Authentication failed. "
    "Please check that your Authorization and Content-Type headers are correctly set."
)
_UNAUTHORIZED: Final = _json({"code": 401, "msg": _WRONG_KEY})
_RATE: Final = _says(429, "Rate limit exceeded")
_SERVER_ERROR: Final = _says(500, "Server Error - An unexpected error occurred while processing the request")
_PAGE: Final = "<!DOCTYPE html><html><head><title>api.kie.ai</title></head><body>{}</body></html>"
_CONFLICT: Final = "WAV record already exists"
_TRY_AGAIN: Final = "Internal Error - Please try again later."
_LINK: Final = {"audioWavUrl": _WAV}
_BAD_LINK: Final = {"audioWavUrl": "s3://kie-bucket/s/1.wav?X-Amz-Signature=0123abcd"}
_DONE: Final[dict[str, object]] = {"successFlag": "SUCCESS", "response": _LINK}
_FAILED: Final[dict[str, object]] = {"successFlag": "GENERATE_WAV_FAILED", "response": None, "errorCode": 500}
_STRANGER: Final = {"taskId": "0" * 32, **_DONE, **_NO_ERROR}

_REFUSALS: Final = (
    Answer("wrong-key", 1, "any", _UNAUTHORIZED),
    Answer("wrong-key-http", 1, "any", _UNAUTHORIZED, 401),
    Answer("wrong-key-echoed", 53, "any", _json({"code": 401, "msg": f"Unauthorized: invalid key {_KEY}"})),
    Answer("no-permission", 2, "any", _json({"code": 401, "msg": "You do not have access permissions"})),
    Answer("insufficient-credits", 3, "any", _says(402, "Insufficient Credits")),
    Answer("rate-limited", 4, "any", _RATE),
    Answer("rate-limited-http", 4, "any", _RATE, 429),
    Answer("rate-limited-retry-after", 4, "any", _RATE, 429, {**JSON_HEADERS, "retry-after": "1"}),
    Answer("rate-limited-text", 4, "any", "Too Many Requests", 429, _TEXT),
    Answer("key-cap", 5, "any", _says(433, "Sub-key usage exceeds limit")),
    Answer(
        "maintenance",
        6,
        "any",
        _says(455, "Service Unavailable - System is currently undergoing maintenance"),
    ),
    Answer("server-error", 7, "any", _SERVER_ERROR),
    Answer("server-error-http", 7, "any", _SERVER_ERROR, 500),
    Answer("upstream-silent", 8, "any", _says(408, "Upstream is currently experiencing service issues")),
    Answer("generation-failed", 8, "any", _says(501, "Generation Failed - Content generation task failed")),
    Answer("feature-disabled", 8, "any", _says(505, "Feature Disabled - Currently unavailable")),
    Answer("not-found", 8, "any", _says(404, "Not Found - The requested resource does not exist")),
    Answer("source-not-fetchable", 8, "any", _says(451, "Failed to fetch the source")),
    Answer("blocked", 9, "any", "error code: 1010", 403, _TEXT),
    Answer("blocked-html", 9, "any", _PAGE.format("Attention Required!"), 403, _HTML),
    Answer("unlisted-531", 11, "any", _says(531, "Generation failed, credits were refunded")),
    Answer("unlisted-550", 11, "any", _says(550, "Connection denied")),
    Answer("unlisted-524", 11, "any", _says(524, "Upstream account not served")),
    Answer("sister-rate-limited-405", 52, "any", _says(405, "Rate limit exceeded")),
    Answer("sister-rate-limited-430", 52, "any", _says(430, "Call frequency too high")),
)

_UNREADABLE: Final = (
    Answer("html", 10, "any", _PAGE.format("One moment"), headers=_HTML),
    Answer("bad-gateway", 10, "any", _PAGE.format("Bad gateway"), 502, _HTML),
    Answer("service-unavailable", 10, "any", _PAGE.format("Unavailable"), 503, _HTML),
    Answer("origin-timeout", 10, "any", "error code: 524", 524, _TEXT),
    Answer("redirect", 10, "any", "", 302, {**_TEXT, "location": "https://kie.invalid/login"}),
    Answer("empty", 10, "any", ""),
    Answer("truncated-json", 10, "any", '{"code":200,"msg":"succ'),
    Answer("json-array", 10, "any", "[1,2]"),
    Answer("json-null", 10, "any", "null"),
    Answer("code-missing", 10, "any", _json({"msg": "success", "data": None})),
    Answer("code-string", 10, "any", _says("200")),
    Answer("code-string-refused", 1, "any", _says("401", _WRONG_KEY)),
    Answer("code-true", 10, "any", _says(True)),
    Answer("code-200-http-500", 10, "any", _says(200), 500),
    Answer("no-content-type", 10, "any", _says(200), headers=_SERVER),
    Answer("not-utf8", 10, "any", b'{"code":200,"msg":"\xff\xfe\xe9","data":null}'),
    Answer("utf8-bom", 10, "any", b'\xef\xbb\xbf{"code":200,"msg":"success","data":null}'),
    Answer("reset", 14, "any", "", fault="reset"),
    Answer("cut-off", 10, "any", '{"code":200,"msg":"suc', fault="truncate"),
    Answer("hang", 36, "any", "", fault="hang"),
    Answer("slow", 36, "any", None, delay=2.0),
)

_SUBMIT: Final = (
    Answer("body-not-json", 12, "submit", _says(400, "Format Error - The parameter is not in JSON format")),
    Answer("callback-missing", 12, "submit", _says(422, "Please enter callBackUrl.")),
    Answer("track-unknown", 13, "submit", _says(422, "Record does not exist")),
    Answer("accepted-then-reset", 14, "submit", "", fault="reset", accepts=True),
    Answer("accepted-then-hang", 14, "submit", "", fault="hang", accepts=True),
    Answer("accepted-then-500", 14, "submit", _SERVER_ERROR, 500, accepts=True),
    Answer("accepted-then-cut-off", 14, "submit", None, fault="truncate"),
    Answer("already-converted", 15, "submit", _says(409, _CONFLICT, {"taskId": _ID})),
    Answer("already-converted-http", 15, "submit", _says(409, _CONFLICT, {"taskId": _ID}), 409),
    Answer(
        "already-converted-id-on-top",
        15,
        "submit",
        _json({"code": 409, "msg": _CONFLICT, "data": None, "taskId": _ID}),
    ),
    Answer("already-converted-without-id", 16, "submit", _says(409, _CONFLICT)),
    Answer("already-converted-empty-data", 16, "submit", _says(409, _CONFLICT, {})),
    Answer("already-converted-blank-id", 16, "submit", _says(409, _CONFLICT, {"taskId": ""})),
    Answer("accepted-without-id", 17, "submit", _says(200)),
    Answer("accepted-empty-data", 17, "submit", _says(200, data={})),
    Answer("accepted-blank-id", 17, "submit", _says(200, data={"taskId": ""})),
    Answer("accepted", 18, "submit", _says(200, data={"taskId": _ID}), accepts=True),
)

_RECORD: Final = (
    Answer("task-unknown", 20, "record-info", _says(200)),
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
    _record("dialect-snake-case", 31, status="SUCCESS", response={"audio_wav_url": _WAV}),
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
    Answer("other-task-id", 34, "record-info", _says(200, data=_STRANGER)),
    _record("extra-fields", 35, progress="1.00", creditsConsumed=0.4, param={"a": [1]}, **_DONE),
    _record("odd-letter-case", 35, successFlag=" Success ", response=_LINK),
    Answer("data-not-an-object", 10, "record-info", _says(200, data="SUCCESS")),
    _record("failed-with-url", 53, errorMessage=f"Cannot read {_WAV}", **_FAILED),
    _record(
        "market-success",
        51,
        model="ai-music-api/convert-to-wav-format",
        state="success",
        resultJson=_json({"resultUrls": [_WAV]}),
        failCode=None,
        failMsg=None,
        completeTime=1753782937000,
        createTime=1753782900000,
        costTime=37,
    ),
    _record("market-waiting", 51, state="waiting", resultJson="", failCode="", failMsg=""),
    Answer("market-not-visible", 51, "record-info", _says(422, "recordInfo is null")),
)

_COMMON: Final = (
    Answer("url-refused", 48, "download-url", _says(422, "url is wrong")),
    Answer("url-given", 49, "download-url", _says(200, data=_WAV)),
    Answer("url-in-object", 49, "download-url", _says(200, data={"url": _WAV})),
    Answer("url-null", 49, "download-url", _says(200)),
    Answer("credit-fraction", 50, "credit", _says(200, data=5916.25)),
    Answer("credit-integer", 50, "credit", _says(200, data=100)),
    Answer("credit-zero", 50, "credit", _says(200, data=0)),
    Answer("credit-large", 50, "credit", _says(200, data=98765432109.75)),
    Answer("credit-string", 50, "credit", _says(200, data="100")),
    Answer("credit-null", 50, "credit", _says(200)),
)

_FILE: Final = (
    Answer("file-forbidden", 45, "file", "error code: 1010", 403, _TEXT),
    Answer("file-not-found", 45, "file", "Not Found", 404, _TEXT),
    Answer("file-gone", 45, "file", "Gone", 410, _TEXT),
    Answer("file-html", 46, "file", _PAGE.format("This file has expired"), headers=_HTML),
    Answer("file-json-error", 46, "file", _says(404, "file does not exist")),
    Answer("file-empty", 46, "file", "", headers={"content-type": "audio/wav", **_SERVER}),
    Answer("file-cut-off", 46, "file", None, fault="truncate"),
    Answer("file-reset", 46, "file", "", fault="reset"),
    Answer("file-server-error", 46, "file", "error code: 520", 520, _TEXT),
    Answer("file-redirect-plain", 47, "file", "", 302, {**_TEXT, "location": "http://kie.invalid/1.wav"}),
)

ANSWERS: Final[Mapping[str, Answer]] = {
    answer.name: answer for answer in (*_REFUSALS, *_UNREADABLE, *_SUBMIT, *_RECORD, *_COMMON, *_FILE)
}

_ANY_FAULT: Final = (
    "reset",
    "slow",
    "cut-off",
    "html",
    "bad-gateway",
    "truncated-json",
    "server-error",
    "server-error-http",
    "rate-limited",
    "rate-limited-http",
)

#: What ``fault_share`` puts in place of the emulator's own answers.
FAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "submit": (*_ANY_FAULT, "accepted-then-reset", "accepted-then-500", "accepted-then-cut-off"),
    "record-info": _ANY_FAULT,
    "single": _ANY_FAULT,
    "credit": _ANY_FAULT,
    "download-url": _ANY_FAULT,
}
