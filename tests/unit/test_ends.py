# SPDX-License-Identifier: Apache-2.0
"""How a wait for a job ends, by the row of its family. The families are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.final_errors import final
from airflow_provider_kie.waiting.verdict import Done, Failed, Judge, Wait
from tests.rows import ID, POEMS, SCULPTURES, STAMPS, A, end, reading

DONE = {"response": {"full": [A]}}
POEM = {"resultJson": '{"title": "Ode"}'}
ODD = "KIE gave a result together with status {}; the result counts"

#: A row, a record, and the class of the error that ends the wait, or what a wait or a success says.
ENDS = {
    # numbers
    "number that runs": (SCULPTURES, {"stage": 0}, "status 0"),
    "other number that runs": (SCULPTURES, {"stage": "2"}, "status 2"),
    "number that is done": (SCULPTURES, DONE | {"stage": 1}, ""),
    "number that is done, as text": (SCULPTURES, DONE | {"stage": " 1 "}, ""),
    "number that failed": (SCULPTURES, DONE | {"stage": 3}, e.KieJobFailedError),
    "number that nobody names": (SCULPTURES, DONE | {"stage": 4}, e.KieUnexpectedCodeError),
    "number below all": (SCULPTURES, {"stage": "-1"}, e.KieUnexpectedCodeError),
    "number that another family knows": (POEMS, {"state": 3}, e.KieUnexpectedCodeError),
    "no status": (SCULPTURES, DONE, "status none, which is not one of KIE's documented words"),
    # words
    "word that runs": (POEMS, {"state": "wait"}, "status wait"),
    "word with a hyphen": (POEMS, {"state": "On-Hold"}, "status on-hold"),
    "word in capitals": (POEMS, POEM | {"state": "SUCCESS"}, ""),
    "word with a text behind it": (POEMS, POEM | {"state": "success-Success"}, ""),
    "word with a space behind it": (POEMS, POEM | {"state": "success now"}, ""),
    "word that failed": (POEMS, POEM | {"state": "Fail"}, e.KieJobFailedError),
    "word that fails by its end": (POEMS, {"state": "render_failed"}, e.KieJobFailedError),
    "word that fails by its other end": (POEMS, {"state": "RENDER_ERROR"}, e.KieJobFailedError),
    "word that is not known": (
        POEMS,
        POEM | {"state": "Baking"},
        "status Baking, which is not one of KIE's documented",
    ),
    "first key of the status": (POEMS, POEM | {"state": "wait", "flag": 1}, "status wait"),
    "second key of the status": (POEMS, POEM | {"state": None, "flag": 1}, ""),
    # results
    "success without a file": (SCULPTURES, {"stage": 1, "response": {"weight": 3}}, e.KieUnreadableAnswerError),
    "success without anything": (POEMS, {"state": "success"}, e.KieUnreadableAnswerError),
    "success with a text that is not JSON": (
        POEMS,
        {"state": "success", "resultJson": "!"},
        e.KieUnreadableAnswerError,
    ),
    "success with a file only": (POEMS, {"state": "success", "resultJson": {"audioUrls": [A]}}, ""),
    "no callback, with a result": (POEMS, POEM | {"state": "CALLBACK_EXCEPTION"}, ODD.format("CALLBACK_EXCEPTION")),
    "no callback, without a result": (POEMS, {"state": "CALLBACK_EXCEPTION"}, e.KieUnreadableAnswerError),
    "a file does not decide": (SCULPTURES, DONE | {"stage": 0}, "status 0"),
    "a file decides, it runs": (STAMPS, DONE | {"stage": 0}, ODD.format("0")),
    "a file decides, it failed": (STAMPS, DONE | {"stage": 3}, ODD.format("3")),
    "guarded success without a file": (STAMPS, {"stage": 1}, e.KieConversionFailedError),
    # errors
    "refused while it runs": (STAMPS, {"stage": 0, "failMsg": "no ink"}, e.KieConversionFailedError),
    "refused while it runs, which confirms nothing": (
        POEMS,
        {"state": "wait", "errorCode": 500},
        e.KieUnexpectedCodeError,
    ),
    "refused for its input while it runs": (POEMS, {"state": "wait", "errorCode": 422}, e.KieJobRefusedError),
    "code of no error": (POEMS, {"state": "wait", "errorCode": "200"}, "status wait"),
    "blank code": (POEMS, {"state": "wait", "errorCode": " "}, "status wait"),
    "failed by its input, as number": (POEMS, {"state": "fail", "errorCode": 422}, e.KieJobRefusedError),
    "failed by its input, as text": (POEMS, {"state": "fail", "errorCode": "400"}, e.KieJobRefusedError),
    "failed by its input, as word": (POEMS, {"state": "SENSITIVE_WORD_ERROR"}, e.KieJobRefusedError),
    "under a guard it may be tried again": (STAMPS, {"stage": 3, "failCode": 422}, e.KieConversionFailedError),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_a_wait(name):
    row, record, expected = ENDS[name]
    verdict = end(row, record)
    if isinstance(expected, type):
        assert isinstance(verdict, Failed), verdict
        assert type(verdict.error) is expected
        assert (verdict.error.kie_task_id, verdict.error.conn_id, verdict.error.family) == (ID, "kie_default", row.name)
    elif expected.startswith("status"):
        assert isinstance(verdict, Wait), verdict
        assert verdict.reason.startswith(expected)
        assert verdict.warning is ("not one of KIE's documented" in expected)
    else:
        assert isinstance(verdict, Done), verdict
        assert verdict.warning == expected


def test_an_unlisted_number_ends_a_wait_at_once():
    assert isinstance(Judge(SCULPTURES, ID, "kie_default").judge(reading(SCULPTURES, {"stage": 7}), 0.0), Failed)


TEXTS = {
    "failed": (
        SCULPTURES,
        {"stage": 3, "failCode": "E7", "failMsg": "no light"},
        "The carving failed with status 3: code E7, 'no light' (sculptures job '17', connection 'kie_default'). ",
    ),
    "a number that nobody names": (SCULPTURES, {"stage": 7, "failMsg": "odd"}, "The carving has status 7, which is"),
    "a text that is not JSON": (
        POEMS,
        {"state": "success", "resultJson": f"see {A}?sig=1"},
        f"The job ended in success without a result, but with 'see {A}…' (",
    ),
    "without a file": (SCULPTURES, {"stage": 1}, "The carving ended in 1 without a result ("),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_of_an_error(name):
    row, record, text = TEXTS[name]
    verdict = end(row, record)
    assert isinstance(verdict, Failed)
    assert str(verdict.error).startswith(text)


NO_LINKS = {
    "another scheme": ({"full": ["s3://bucket/key?sig=1"]}, "'s3://bucket/'"),
    "with a password": ({"full": ["ftp://user:word@files.example/1?sig=1"]}, "'ftp://***@files.example/'"),
    "in the other place": ({"full": [], "parts": [{"link": "/own/1"}]}, "'/'"),
    "in place of the object": ([A], '"[\'https://tempfile.example/"'),
    "a text in place of the object": ("gone", "'gone'"),
}


@pytest.mark.parametrize("name", NO_LINKS)
def test_a_success_whose_link_is_no_url_is_waited_out(name):
    response, shown = NO_LINKS[name]
    verdict = end(SCULPTURES, {"stage": 1, "response": response})
    assert isinstance(verdict, Wait)
    assert verdict.reason == (
        "Reading the carving of a sculpture: the carving ended in 1, but its link is not an http(s) URL: it begins "
        f"with {shown}"
    )


def test_a_link_in_place_of_a_list_is_waited_out():
    row = replace(SCULPTURES, files=(("result", "links[]"),))
    assert isinstance(end(row, {"stage": 1, "links": "s3://bucket/key"}), Wait)


@pytest.mark.parametrize("response", [{"full": []}, '{"full": []}', {"full": ["", None]}, "", None, {}])
def test_a_success_without_a_link_is_over_after_the_grace(response):
    verdict = end(SCULPTURES, {"stage": 1, "response": response})
    assert isinstance(verdict, Failed)
    assert type(verdict.error) is e.KieUnreadableAnswerError
    assert "without a result" in str(verdict.error)


def test_no_link_matters_where_a_result_is_enough():
    assert isinstance(end(POEMS, {"state": "success", "resultJson": {"title": "Ode", "audioUrls": ["s3://a"]}}), Done)


def test_a_final_twin_does_not_take_the_place_of_its_original():
    final(e.KieError("x"))
    assert type(e.KieError.from_dict({"type": "KieError", "problem": "x"})) is e.KieError
