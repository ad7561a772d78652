# SPDX-License-Identifier: Apache-2.0
"""A call as a value: how its answer is read, and what it adds to an error."""

from __future__ import annotations

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.fields import check_id
from airflow_provider_kie.final_errors import final
from tests.tables import each

SEVEN = Response(200, b'{"code":200,"data":7}')
REFUSED = Response(200, b'{"code":401,"msg":"no"}')


def make(parse=lambda data: data, **changes):
    return Call("Counting", "GET", "/count", parse, **changes)


def raise_(error):
    raise error


def test_a_long_error_says_the_same_wherever_it_is_rebuilt():
    with pytest.raises(e.KieServerError) as caught:
        make().read(Response(200, b'{"code":500,"msg":"' + b"x" * 600 + b'"}'))
    error = caught.value
    assert str(e.KieError.from_dict(error.to_dict())) == str(final(error)) == str(error)


@pytest.mark.parametrize("recover", [None, raise_])
@pytest.mark.parametrize("about", [None, "wav-1"])
def test_an_error_says_what_was_done_to_which_task(recover, about):
    with pytest.raises(e.KieAuthenticationError) as caught:
        make(recover=recover, kie_task_id=about).read(REFUSED)
    error = caught.value
    assert error.problem == "Counting: KIE answered 401: 'no'"
    assert error.kie_task_id == about
    assert error.code == 401
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_an_error_of_the_parser_is_explained_too():
    with pytest.raises(e.KieNotFoundError, match=r"^Counting: gone \(WAV task 'wav-1'\)\. "):
        make(lambda data: raise_(e.KieNotFoundError("gone")), kie_task_id="wav-1").read(SEVEN)


@pytest.mark.parametrize("answer", [REFUSED, SEVEN])
def test_a_refusal_can_be_a_result(answer):
    seen = []

    def recover(error):
        seen.append(error)
        return "earlier"

    call = make(lambda data: raise_(e.KieAuthenticationError("own")), recover=recover)
    assert call.read(answer) == "earlier"
    assert [type(error) for error in seen] == [e.KieAuthenticationError]


def test_a_refusal_can_become_another_error():
    call = make(recover=lambda error: raise_(e.KieServerError("turned", kie_task_id="wav-9")), kie_task_id="wav-1")
    with pytest.raises(e.KieServerError) as caught:
        call.read(REFUSED)
    assert (caught.value.problem, caught.value.kie_task_id) == ("Counting: turned", "wav-9")


def test_an_answer_that_is_nested_too_deeply_is_unreadable():
    with pytest.raises(e.KieUnreadableAnswerError, match=r"^Counting: KIE's answer is nested too deeply") as caught:
        make(lambda data: raise_(RecursionError()), recover=raise_).read(SEVEN)
    assert isinstance(caught.value.__cause__, RecursionError)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        *((same, same) for same in ("988e00aa", "0", "none", "a.b_c:d-E9", "x" * 128, "NoneX", "aGk_b-w==", "a~b+c")),
        *((7, "7"), (0, "0"), (10**31, "1" + "0" * 31)),  # of native templates
    ],
)
def test_an_id_is_taken_as_a_text(value, read):
    assert check_id("audio_id", value) == read


ODD = ("a b", "a\n", " a", "a/b", "../x", "ä", '{"taskId": "a"}', "x" * 129)


@pytest.mark.parametrize(
    ("value", "problem"),
    each(
        ("is empty; the task that should provide it", [None, "", " ", "\n\t", "None", " None\n"]),
        *((f"is {odd!r}, but an id of KIE has only letters", [odd]) for odd in ODD),
        *((f"is {shown}, but an id", [odd]) for odd, shown in (("a?b", "'a…'"), ("x" * 201, f"'{'x' * 200}…'"))),
        ("is 'https://a.example/x…', a URL and not an id of KIE", ["https://a.example/x?sig=1"]),
        ("is 's3://bucket/x', a URL and not an id of KIE", ["s3://bucket/x"]),
        ("is 'https://a.example/my song…', a URL and not an id of KIE", ["https://a.example/my song?sig=1"]),
        *((f"is the number {odd}: ", [odd]) for odd in (9.88e13, float("inf"), 1.5)),
        *((f"must be a text, not {type(odd).__name__}", [odd]) for odd in (False, ["a"], b"abc", 1j)),
    ),
)
def test_what_is_no_id_is_named_and_shown_in_part(value, problem):
    with pytest.raises(e.KieValidationError) as caught:
        check_id("audio_id", value)
    assert caught.value.problem.startswith(f"audio_id {problem}")


def test_a_result_within_a_refusal_counts():
    def found(data):
        return data["links"] if isinstance(data, dict) and data.get("links") else None

    call = make(found, salvage=found)
    assert call.read(Response(200, b'{"code":422,"msg":"no","data":{"links":[1]}}')) == [1]
    for body in (b'{"code":422,"msg":"no","data":{"links":[]}}', b'{"code":422,"msg":"no"}'):
        with pytest.raises(e.KieValidationError, match="no"):
            call.read(Response(200, body))
    with pytest.raises(e.KieServerError):
        call.read(Response(502, b"<html>"))
