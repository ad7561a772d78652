# SPDX-License-Identifier: Apache-2.0
"""The envelope: what counts as a success, and which error stands for what else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import count

import pytest
from requests.structures import CaseInsensitiveDict

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.envelope import Response, decode
from tests.tables import each


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def refusal(answer: Response) -> e.KieError:
    with pytest.raises(e.KieError) as caught:
        decode(answer)
    return caught.value


@pytest.mark.parametrize("data", [None, 0, 5916.25, "x", [], {}, {"taskId": "a"}, [None], True])
@pytest.mark.parametrize("status", [200, 201, 203, 299])
def test_a_success_gives_its_data(status, data):
    assert decode(Response(status, body(code=200, msg="success", data=data))) == data


def assert_error(answer: Response, error_class: type[e.KieError], problem: str, code: int | None) -> None:
    error = refusal(answer)
    assert type(error) is error_class
    assert (error.problem, error.code) == (problem, code)
    assert error.retry_after is None
    assert error.existing_kie_task_id is None


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        *((code, e.KieUnexpectedCodeError) for code in (0, -1, 199, 201, 520, 531)),
        *((code, e.KieServerError) for code in (408, 500, 502, 503, 504)),
        *((401, e.KieAuthenticationError), ("401", e.KieAuthenticationError), (403, e.KieBlockedError)),
        *((422, e.KieValidationError), (" 422 ", e.KieValidationError)),
    ],
)
@pytest.mark.parametrize("status", [200, 300, 404, 500, 520])
def test_the_number_of_the_body_counts(status, code, error_class):
    assert_error(Response(status, body(code=code)), error_class, f"KIE answered {int(code)}", int(code))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        *((said, "") for said in ("", " \n", None, ["x"])),
        *((" a b\n", ": 'a b'"), ("a\nb\x1b", ": 'a\\nb\\x1b'")),
        ("at https://a.example/x?sig=1", ": 'at https://a.example/x?…"),
    ],
)
def test_what_kie_says_is_shown(said, shown):
    assert_error(Response(200, body(code=500, msg=said)), e.KieServerError, f"KIE answered 500{shown}", 500)


@pytest.mark.parametrize(
    ("status", "content", "error_class"),
    [
        # What HTTP says is not covered up by a 200 in the body.
        *((status, '{"code": 200}', e.KieUnreadableAnswerError) for status in (199, 404)),
        *((500, '{"code": 200}', e.KieServerError), (500, '{"code": "200"}', e.KieServerError)),
        # Without a number of KIE's, HTTP's counts as far as it can be KIE's.
        (401, '{"code": "four"}', e.KieAuthenticationError),
        *((status, "{}", e.KieUnreadableAnswerError) for status in (199, 400, 404, 409, 499)),
        *((403, "error code: 1010", e.KieBlockedError), (408, "x", e.KieServerError), (429, "x", e.KieRateLimitError)),
        *((status, content, e.KieServerError) for status, content in ((500, "[]"), (505, "x"), (524, ""), (599, "{}"))),
    ],
)
def test_without_a_number_of_kie_the_status_counts(status, content, error_class):
    shown = repr(content) if content else "an empty body"
    problem = f"KIE's host answered HTTP {status} without a result number: {shown}"
    assert_error(Response(status, content.encode()), error_class, problem, status)


@pytest.mark.parametrize(
    "content", ["{}", '{"code":"-1"}', '{"code":true}', '{"code":200.0}', "[]", "null", "", "<p>", '{"code":NaN}']
)
@pytest.mark.parametrize("status", [200, 299])
def test_a_success_without_a_number_is_unreadable(status, content):
    problem = f"KIE's answer has no result number: {repr(content) if content else 'an empty body'}"
    assert_error(Response(status, content.encode()), e.KieUnreadableAnswerError, problem, None)


@pytest.mark.parametrize(
    "content",
    [b'{"code":200,"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"code":' + b"9" * 5000 + b"}", b"\xff"],
    ids=["deep", "long number", "no UTF-8"],
)
def test_what_python_cannot_read_is_unreadable(content):
    error = refusal(Response(200, content))
    assert type(error) is e.KieUnreadableAnswerError
    assert error.problem.startswith("KIE's answer has no result number: '")
    assert len(error.problem) < 150


@pytest.mark.parametrize(("length", "shown"), [(79, 79), (80, 80), (81, 80), (5000, 80)])
def test_only_the_start_of_a_body_is_shown(length, shown):
    mark = "…" if length > shown else ""
    assert refusal(Response(200, b"x" * length)).problem == f"KIE's answer has no result number: '{'x' * shown}{mark}'"


@pytest.mark.parametrize("status", [300, 399])
@pytest.mark.parametrize("content", [b"", body(code=200)])
@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://kie.invalid/login?from=1", "'https://kie.invalid/login…'"),
        *((f"/login{tail}", "'/login…'") for tail in ("?from=1?2", "#token=1")),
        *(("/login", "'/login'"), ("", "''"), (None, "''")),
    ],
)
def test_a_redirect_says_where_to_but_not_with_what(status, content, location, shown):
    error = refusal(Response(status, content, location=location))
    assert type(error) is e.KieUnreadableAnswerError
    assert error.code == status
    assert error.problem.startswith(f"KIE's host redirects to {shown} (HTTP {status}); redirects are not followed")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"data": {"taskId": " wav-0\n"}}, "wav-0"),
        ({"data": {"taskId": "wav-0"}, "taskId": "wav-9"}, "wav-0"),
        *(({"data": data, "taskId": "wav-0"}, "wav-0") for data in (None, {"taskId": " "}, {"taskId": 5}, ["wav-9"])),
        *(({"data": {"taskId": odd}, "taskId": odd}, None) for odd in ("", None, 5, "wav\ud800", "wav\x00")),
        *(({"data": data}, None) for data in ("wav-0", {"id": "wav-0"}, None)),
    ],
)
@pytest.mark.parametrize("status", [200, 409])
def test_a_refusal_may_name_a_conversion(status, fields, found):
    error = refusal(Response(status, body(code=409, msg="WAV record already exists", **fields)))
    assert type(error) is e.KieAlreadyConvertedError
    assert error.existing_kie_task_id == found
    named = f", naming task {found!r}" if found else ""
    assert error.problem == f"KIE answered 409: 'WAV record already exists'{named}"


@pytest.mark.parametrize("code", [408, 410, 500])
def test_also_another_refusal_may_name_it(code):
    error = refusal(Response(200, body(code=code, data={"taskId": "wav-0"})))
    assert error.existing_kie_task_id == "wav-0"
    assert error.problem == f"KIE answered {code}, naming task 'wav-0'"


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("key", ["taskId", "task_id"])
def test_an_answer_without_a_number_may_name_it_too(status, key):
    assert refusal(Response(status, body(data={key: "wav-0"}))).existing_kie_task_id == "wav-0"


PAST = datetime.now(UTC) - timedelta(days=3)
FUTURE = datetime.now(UTC) + timedelta(minutes=30)
FUTURE_ELSEWHERE = FUTURE.astimezone(timezone(timedelta(hours=-9)))


@pytest.mark.parametrize(
    ("header", "seconds"),
    each(
        (None, [None, "", "9" * 5000, "nan", "inf", "-inf", "soon", "Wed, 99 Foo 2099 07:28:00 GMT"]),
        (None, ["Wed, 21 Oct 2015 07:28:00 +9999", "99999999999999999999 Oct 2015 07:28:00 GMT"]),
        *((0.0, ["0", "-1", "-1e300", format_datetime(PAST, usegmt=True)]), (2.5, ["2.5"]), (7.0, [" 7 "])),
        *((3599.0, ["3599"]), (3600.0, ["3600", "3601", "1e300", "Fri, 31 Dec 2199 23:59:59 GMT"])),
        (pytest.approx(1800, abs=900), [format_datetime(FUTURE, usegmt=True), format_datetime(FUTURE_ELSEWHERE)]),
        (pytest.approx(3540, abs=900), [format_datetime(FUTURE + timedelta(minutes=29), usegmt=True)]),
        (3600.0, [format_datetime(FUTURE + timedelta(hours=10), usegmt=True)]),
        (None, ["Fri, 31 Dec 9999 23:59:59 -0100"]),
    ),
    ids=map(str, count()),  # dates of today would give each process of pytest-xdist tests of its own
)
@pytest.mark.parametrize("content", [body(code=429, msg="slow"), b"slow"])
def test_retry_after_is_read_as_seconds_from_now(header, seconds, content):
    error = refusal(Response(429, content, header))
    assert type(error) is e.KieRateLimitError
    assert error.retry_after == seconds


class TestOf:
    """What a transport hands over is kept, but never the key."""

    def test_headers_are_found_in_any_letter_case(self):
        headers = CaseInsensitiveDict({"retry-after": "5", "LOCATION": "https://kie.invalid/"})
        assert Response.of(302, headers, b"x", secret="sk-1") == Response(302, b"x", "5", "https://kie.invalid/")
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
