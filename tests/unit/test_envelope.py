# SPDX-License-Identifier: Apache-2.0
"""The envelope: what counts as a success, and which error stands for what else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import count

import pytest
from requests.structures import CaseInsensitiveDict

from airflow_provider_kie.api.envelope import ERROR_BY_CODE, LONGEST_BODY, Response, decode
from airflow_provider_kie.exceptions import (
    KieAlreadyConvertedError,
    KieAuthenticationError,
    KieBlockedError,
    KieError,
    KieRateLimitError,
    KieServerError,
    KieUnexpectedCodeError,
    KieUnreadableAnswerError,
    KieValidationError,
)

HOST, WITHOUT = "KIE's host answered HTTP", "without a result number"


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def refusal(answer: Response) -> KieError:
    with pytest.raises(KieError) as caught:
        decode(answer)
    return caught.value


@pytest.mark.parametrize("data", [None, 0, 5916.25, "x", [], {}, {"taskId": "a"}, [None], True])
@pytest.mark.parametrize("status", [200, 201, 203, 299])
def test_a_success_gives_its_data(status, data):
    assert decode(Response(status, body(code=200, msg="success", data=data))) == data


@pytest.mark.parametrize("code", ["200", " 200\n"])
def test_a_number_may_come_as_text(code):
    assert decode(Response(200, body(code=code, data=7))) == 7


def test_a_success_needs_no_data():
    assert decode(Response(200, body(code=200))) is None


@pytest.mark.parametrize(
    ("status", "content", "error_class", "problem", "code"),
    [
        # the number of the body counts
        (200, body(code=401, msg="no"), KieAuthenticationError, "KIE answered 401: 'no'", 401),
        (401, body(code=401, msg="no"), KieAuthenticationError, "KIE answered 401: 'no'", 401),
        (500, body(code=422, msg="no"), KieValidationError, "KIE answered 422: 'no'", 422),
        (200, body(code=0), KieUnexpectedCodeError, "KIE answered 0", 0),
        (200, body(code=-1), KieUnexpectedCodeError, "KIE answered -1", -1),
        (200, body(code=201), KieUnexpectedCodeError, "KIE answered 201", 201),
        (200, body(code=199), KieUnexpectedCodeError, "KIE answered 199", 199),
        (200, body(code=520), KieUnexpectedCodeError, "KIE answered 520", 520),
        (520, body(code=520), KieUnexpectedCodeError, "KIE answered 520", 520),
        (500, body(code=531), KieUnexpectedCodeError, "KIE answered 531", 531),
        # also as text
        (200, body(code="401", msg="no"), KieAuthenticationError, "KIE answered 401: 'no'", 401),
        (500, body(code=" 422 "), KieValidationError, "KIE answered 422", 422),
        (500, body(code="200"), KieServerError, f'{HOST} 500 {WITHOUT}: \'{{"code": "200"}}\'', 500),
        # what HTTP says is not covered up by a 200 in the body
        (199, body(code=200), KieUnreadableAnswerError, f"{HOST} 199 {WITHOUT}: '{{\"code\": 200}}'", 199),
        (404, body(code=200), KieUnreadableAnswerError, f"{HOST} 404 {WITHOUT}: '{{\"code\": 200}}'", 404),
        (500, body(code=200), KieServerError, f"{HOST} 500 {WITHOUT}: '{{\"code\": 200}}'", 500),
        # without a number of KIE's, HTTP's counts as far as it can be KIE's
        (401, body(code="four"), KieAuthenticationError, f'{HOST} 401 {WITHOUT}: \'{{"code": "four"}}\'', 401),
        (404, b"{}", KieUnreadableAnswerError, f"{HOST} 404 {WITHOUT}: '{{}}'", 404),
        (409, b"{}", KieUnreadableAnswerError, f"{HOST} 409 {WITHOUT}: '{{}}'", 409),
        (199, b"{}", KieUnreadableAnswerError, f"{HOST} 199 {WITHOUT}: '{{}}'", 199),
        (599, b"{}", KieServerError, f"{HOST} 599 {WITHOUT}: '{{}}'", 599),
        # the text, as far as there is one
        (200, body(code=500, msg=""), KieServerError, "KIE answered 500", 500),
        (200, body(code=500, msg=" \n"), KieServerError, "KIE answered 500", 500),
        (200, body(code=500, msg=" a b\n"), KieServerError, "KIE answered 500: 'a b'", 500),
        (200, body(code=500, msg=None), KieServerError, "KIE answered 500", 500),
        (200, body(code=500, msg=["x"]), KieServerError, "KIE answered 500", 500),
        (200, body(code=500, msg="a\nb\x1b"), KieServerError, "KIE answered 500: 'a\\nb\\x1b'", 500),
        (
            200,
            body(code=500, msg="at https://a.example/x?sig=1"),
            KieServerError,
            "KIE answered 500: 'at https://a.example/x?…",
            500,
        ),
        # JSON that is no answer of KIE
        (200, b"{}", KieUnreadableAnswerError, "KIE's answer has no result number: '{}'", None),
        (
            200,
            b'{"code":"-1"}',
            KieUnreadableAnswerError,
            'KIE\'s answer has no result number: \'{"code":"-1"}\'',
            None,
        ),
        (200, b'{"code":true}', KieUnreadableAnswerError, "KIE's answer has no result number: '{\"code\":true}'", None),
        (
            299,
            b'{"code":200.0}',
            KieUnreadableAnswerError,
            "KIE's answer has no result number: '{\"code\":200.0}'",
            None,
        ),
        (200, b"[]", KieUnreadableAnswerError, "KIE's answer has no result number: '[]'", None),
        (200, b"null", KieUnreadableAnswerError, "KIE's answer has no result number: 'null'", None),
        (200, b"", KieUnreadableAnswerError, "KIE's answer has no result number: an empty body", None),
        (299, b"<p>", KieUnreadableAnswerError, "KIE's answer has no result number: '<p>'", None),
        (200, b"\xff", KieUnreadableAnswerError, "KIE's answer has no result number: '\ufffd'", None),
        (200, b'{"code":NaN}', KieUnreadableAnswerError, "KIE's answer has no result number: '{\"code\":NaN}'", None),
        # no JSON
        (403, b"error code: 1010", KieBlockedError, f"{HOST} 403 {WITHOUT}: 'error code: 1010'", 403),
        (408, b"", KieServerError, f"{HOST} 408 {WITHOUT}: an empty body", 408),
        (429, b"x", KieRateLimitError, f"{HOST} 429 {WITHOUT}: 'x'", 429),
        (400, b"", KieUnreadableAnswerError, f"{HOST} 400 {WITHOUT}: an empty body", 400),
        (199, b"", KieUnreadableAnswerError, f"{HOST} 199 {WITHOUT}: an empty body", 199),
        (499, b"x", KieUnreadableAnswerError, f"{HOST} 499 {WITHOUT}: 'x'", 499),
        (500, b"[]", KieServerError, f"{HOST} 500 {WITHOUT}: '[]'", 500),
        (505, b"x", KieServerError, f"{HOST} 505 {WITHOUT}: 'x'", 505),
        (524, b"x", KieServerError, f"{HOST} 524 {WITHOUT}: 'x'", 524),
    ],
)
def test_anything_else_is_an_error(status, content, error_class, problem, code):
    error = refusal(Response(status, content))
    assert type(error) is error_class
    assert (error.problem, error.code) == (problem, code)
    assert error.retry_after is None
    assert error.existing_kie_task_id is None


@pytest.mark.parametrize("code", ERROR_BY_CODE)
@pytest.mark.parametrize("status", [200, 300, 404, 500])
def test_every_number_of_kie_has_its_class_whatever_http_says(code, status):
    error = refusal(Response(status, body(code=code)))
    assert type(error) is ERROR_BY_CODE[code]
    assert (error.problem, error.code) == (f"KIE answered {code}", code)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_words_that_are_no_json_are_refused(constant):
    error = refusal(Response(200, f'{{"code":200,"data":{constant}}}'.encode()))
    assert type(error) is KieUnreadableAnswerError


@pytest.mark.parametrize(
    "content",
    [b'{"code":200,"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"code":' + b"9" * 5000 + b"}"],
    ids=["deep", "long number"],
)
def test_what_python_cannot_read_is_unreadable(content):
    error = refusal(Response(200, content))
    assert type(error) is KieUnreadableAnswerError
    assert error.problem.startswith("KIE's answer has no result number: '")
    assert len(error.problem) < 150


@pytest.mark.parametrize(("length", "shown"), [(79, 79), (80, 80), (81, 80), (5000, 80)])
def test_only_the_start_of_a_body_is_shown(length, shown):
    mark = "…" if length > shown else ""
    assert refusal(Response(200, b"x" * length)).problem == f"KIE's answer has no result number: '{'x' * shown}{mark}'"


@pytest.mark.parametrize("status", [300, 302, 307, 399])
@pytest.mark.parametrize("content", [b"", b"{}", body(code=200)])
def test_a_redirect_says_where_to_but_not_with_what(status, content):
    error = refusal(Response(status, content, location="https://kie.invalid/login?from=1"))
    assert type(error) is KieUnreadableAnswerError
    assert error.code == status
    assert error.problem == (
        f"KIE's host redirects to 'https://kie.invalid/login…' (HTTP {status}); redirects are not followed, so that "
        "the key stays with the host of the connection"
    )


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/login?from=1", "'/login…'"),
        ("/login?from=1?2", "'/login…'"),
        ("/login", "'/login'"),
        ("", "''"),
        (None, "''"),
    ],
)
def test_a_redirect_may_be_relative_or_lead_nowhere(location, shown):
    problem = refusal(Response(302, b"", location=location)).problem
    assert problem.startswith(f"KIE's host redirects to {shown} (HTTP 302); ")


def test_a_redirect_does_not_show_its_fragment():
    assert "token" not in refusal(Response(302, b"", location="/login#token=1")).problem


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"data": {"taskId": "wav-0"}}, "wav-0"),
        ({"data": {"taskId": " wav-0\n"}}, "wav-0"),
        ({"data": None, "taskId": "wav-0"}, "wav-0"),
        ({"data": {"taskId": "wav-0"}, "taskId": "wav-9"}, "wav-0"),
        ({"data": {"taskId": " "}, "taskId": "wav-0"}, "wav-0"),
        ({"data": {"taskId": 5}, "taskId": "wav-0"}, "wav-0"),
        ({"data": ["wav-0"], "taskId": "wav-0"}, "wav-0"),
        ({"data": {"taskId": ""}}, None),
        ({"data": {"taskId": None}, "taskId": None}, None),
        ({"data": {"taskId": 5}}, None),
        ({"data": {"taskId": "wav\ud800"}}, None),
        ({"data": {"taskId": "wav\x00"}}, None),
        ({"data": "wav-0"}, None),
        ({"data": {"id": "wav-0"}}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [200, 409])
def test_a_refusal_may_name_a_conversion(status, fields, found):
    error = refusal(Response(status, body(code=409, msg="WAV record already exists", **fields)))
    assert type(error) is KieAlreadyConvertedError
    assert error.existing_kie_task_id == found
    named = f", naming task {found!r}" if found else ""
    assert error.problem == f"KIE answered 409: 'WAV record already exists'{named}"


@pytest.mark.parametrize("code", [408, 410, 500])
def test_also_another_refusal_may_name_it(code):
    error = refusal(Response(200, body(code=code, data={"taskId": "wav-0"})))
    assert error.existing_kie_task_id == "wav-0"
    assert error.problem == f"KIE answered {code}, naming task 'wav-0'"


PAST = datetime.now(UTC) - timedelta(days=3)
FUTURE = datetime.now(UTC) + timedelta(minutes=30)
ELSEWHERE = timezone(timedelta(hours=-9))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("1", 1.0),
        ("2.5", 2.5),
        (" 7 ", 7.0),
        ("3599", 3599.0),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("1e300", 3600.0),
        ("9" * 5000, None),
        ("-1", 0.0),
        ("-1e300", 0.0),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("soon", None),
        ("Wed, 99 Foo 2099 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 +9999", None),
        (format_datetime(PAST, usegmt=True), 0.0),
        (format_datetime(FUTURE, usegmt=True), pytest.approx(1800, abs=900)),
        (format_datetime(FUTURE.astimezone(ELSEWHERE)), pytest.approx(1800, abs=900)),
        (format_datetime(FUTURE + timedelta(minutes=29), usegmt=True), pytest.approx(3540, abs=900)),
        (format_datetime(FUTURE + timedelta(hours=10), usegmt=True), 3600.0),
        ("Fri, 31 Dec 2199 23:59:59 GMT", 3600.0),
    ],
    ids=map(str, count()),  # dates of today would give each process of pytest-xdist tests of its own
)
@pytest.mark.parametrize("content", [body(code=429, msg="slow"), b"slow"])
def test_retry_after_is_read_as_seconds_from_now(header, seconds, content):
    error = refusal(Response(429, content, header))
    assert type(error) is KieRateLimitError
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    "header",
    [
        "Fri, 31 Dec 9999 23:59:59 -0100",
        "99999999999999999999 Oct 2015 07:28:00 GMT",
        "Wed, 21 Oct 2015 07:28:00 +99999999999999999999",
    ],
)
def test_a_date_beyond_the_calendar_is_no_retry_after(header):
    assert refusal(Response(429, b"slow", header)).retry_after in (None, 3600.0)


def test_a_retry_after_of_a_success_is_of_no_account():
    assert decode(Response(200, body(code=200, data=1), "soon")) == 1


class TestOf:
    """What a transport hands over is kept, but never the key."""

    def test_headers_are_found_in_any_letter_case(self):
        headers = CaseInsensitiveDict({"retry-after": "5", "LOCATION": "https://kie.invalid/"})
        assert Response.of(302, headers, b"x", secret="sk-1") == Response(302, b"x", "5", "https://kie.invalid/")

    def test_headers_may_be_missing(self):
        assert Response.of(200, {}, b"", secret="sk-1") == Response(200, b"", None, None)

    @pytest.mark.parametrize(
        ("content", "hidden"),
        [
            (b"no sk/1 here, sk/1!", b"no *** here, ***!"),
            (rb'{"msg":"sk\/1"}', b'{"msg":"***"}'),
            (rb"sk/1 sk\/1", b"*** ***"),
            (b"SK/1 sk/2", b"SK/1 sk/2"),
        ],
    )
    def test_the_key_is_hidden_in_the_body(self, content, hidden):
        assert Response.of(200, {}, content, secret="sk/1").body == hidden

    def test_the_key_is_hidden_in_a_redirect(self):
        headers = {"Location": "https://kie.invalid/sk-1/?key=sk-1", "Retry-After": "5"}
        assert Response.of(302, headers, b"", secret="sk-1") == Response(
            302, b"", "5", "https://kie.invalid/***/?key=***"
        )


def test_a_body_is_read_up_to_a_mebibyte():
    assert LONGEST_BODY == 1_048_576
