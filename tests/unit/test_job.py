# SPDX-License-Identifier: Apache-2.0
"""A family's row: which ones are refused, and how its jobs are submitted and asked for. The families are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.call import Repeat
from airflow_provider_kie.api.family import Family, Words
from airflow_provider_kie.api.job import Submitted, first_url, no_cancel, read_job, submit_job
from airflow_provider_kie.money import Outcome, outcome_of
from airflow_provider_kie.waiting.verdict import Failed
from tests.rows import ID, POEMS, SCULPTURES, STAMPS, A, answer, end

CALLBACK = "https://api.example.com/callback"


def submit(row: Family, data: object, code: int = 200, said: str = "text") -> Submitted:
    return submit_job(row, {"prompt": "x"}).read(answer(data, code, said))


def refusal(row: Family, data: object, code: int = 200, said: str = "text") -> e.KieError:
    with pytest.raises(e.KieError) as caught:
        submit(row, data, code, said)
    return caught.value


# --- Rows that are refused when they are built, so that a mistake is found before anything is paid

WRONG_WORDS = {
    "a word twice": {"running": ("wait", "wait")},
    "a word with two meanings": {"failed": ("fail", "success")},
    "a word with two meanings, in another letter case": {"failed": ("fail", "SUCCESS")},
    "a number twice, once as text": {"running": (0, "0")},
    "a word that is done and done if there is a result": {"done_if_result": ("success",)},
    "none that runs": {"running": ()},
    "none that is done": {"done": ()},
    "none that failed": {"failed": ()},
}


@pytest.mark.parametrize("name", WRONG_WORDS)
def test_words_that_are_refused(name):
    right = {"running": ("wait",), "done": ("success",), "failed": ("fail",)}
    Words(**right)
    with pytest.raises(ValueError, match="status words stand twice, or are missing"):
        Words(**right | WRONG_WORDS[name])


WRONG_ROWS = {
    "submit is no path": ({"submit": "api/v1/poems"}, "the paths of family 'poems' do not start with '/'"),
    "query is no path": ({"query": "https://api.kie.ai/x"}, "the paths of family 'poems' do not start with '/'"),
    "no status": ({"status": ()}, "family 'poems' has no key for its status"),
    "needs a file, has no path": ({"needs_file": True, "files": ()}, "'poems' has no path that leads to its result"),
    "neither files nor result": ({"files": (), "result": ()}, "'poems' has no path that leads to its result"),
}


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_rows_that_are_refused(name):
    changes, problem = WRONG_ROWS[name]
    with pytest.raises(ValueError, match=problem):
        replace(POEMS, **changes)


def test_a_row_needs_no_more_than_one_place_of_results():
    assert replace(POEMS, files=()).result
    assert replace(SCULPTURES, result=()).files


# --- The submit


@pytest.mark.parametrize(
    ("row", "repeat"),
    [(SCULPTURES, Repeat.NEVER_TWICE), (POEMS, Repeat.NEVER_TWICE), (STAMPS, Repeat.GUARDED)],
)
def test_a_submit_is_sent_to_the_path_of_the_row(row, repeat):
    call = submit_job(row, {"prompt": "x"})
    assert (call.method, call.path, call.params, call.json) == ("POST", row.submit, None, {"prompt": "x"})
    assert call.repeat is repeat
    assert call.purpose == f"Submitting the {row.title}"


def test_a_callback_is_sent_under_kies_name_for_it():
    given = {"prompt": "x"}
    assert submit_job(POEMS, given, callback_url=CALLBACK).json == {"prompt": "x", "callBackUrl": CALLBACK}
    assert given == {"prompt": "x"}
    assert submit_job(POEMS, given, callback_url="").json == given


MARKET = replace(POEMS, wrapped=True)


def test_a_family_with_models_takes_an_input():
    call = submit_job(MARKET, {"prompt": "x", "callBackUrl": CALLBACK}, model="a/b")
    assert call.json == {"model": "a/b", "input": {"prompt": "x"}, "callBackUrl": CALLBACK}


WRONG_SUBMITS = {
    "no model": (MARKET, {}, None, "family 'poems' needs a model"),
    "a model too many": (POEMS, {}, "a/b", "family 'poems' takes no model"),
    "no dict": (POEMS, ["x"], None, "input must be a dict"),
    "a key that is no text": (POEMS, {1: "x"}, None, "input must be a dict"),
    "no JSON": (POEMS, {"x": {1, 2}}, None, "input cannot be sent"),
    "keys of two kinds": (POEMS, {"x": {1: "a", "b": 2}}, None, "input cannot be sent"),
    "not finite": (POEMS, {"x": float("inf")}, None, "input cannot be sent"),
    "no URL": (POEMS, {"callBackUrl": "here"}, None, "callback_url is not an http"),
}


@pytest.mark.parametrize("name", WRONG_SUBMITS)
def test_what_cannot_be_submitted_is_named(name):
    row, given, model, says = WRONG_SUBMITS[name]
    with pytest.raises(e.KieValidationError, match=says):
        submit_job(row, given, model=model)


@pytest.mark.parametrize(
    ("row", "data", "kie_task_id"),
    [
        *((POEMS, data, "p-1") for data in ({"taskId": " p-1\n"}, {"task_id": "p-1"})),
        (POEMS, {"task_id": "p-2", "taskId": "p-1"}, "p-1"),
        *((POEMS, {"taskId": 17}, "17"), (SCULPTURES, {"sculptureId": "s-1", "taskId": "t-1"}, "s-1")),
    ],
)
def test_the_id_of_an_accepted_submit(row, data, kie_task_id):
    assert submit(row, data) == Submitted(kie_task_id, reused=False)


@pytest.mark.parametrize("data", [None, "s-1", [], {}, {"taskId": "t-1"}, {"sculptureId": " "}, {"sculptureId": "a b"}])
def test_an_accepted_submit_without_an_id_is_unknown(data):
    error = refusal(SCULPTURES, data)
    assert type(error) is e.KieUnreadableAnswerError
    assert error.problem.startswith("Submitting the carving of a sculpture: KIE accepted the submit")
    assert outcome_of(error) is Outcome.UNKNOWN


#: A row, a result number, the id that the refusal names, and what it is for the memory; None: the job is adopted.
ADOPTED = {
    "a number of the row": (STAMPS, 409, "s-0", None),
    "another number of the row": (STAMPS, 400, "s-0", None),
    "a number that the row does not name": (STAMPS, 422, "s-0", Outcome.ACCEPTED),
    "an unlisted number": (STAMPS, 0, "s-0", Outcome.ACCEPTED),
    "a family that adopts nothing": (POEMS, 409, "p-0", Outcome.ACCEPTED),
    "an id that cannot be asked for": (STAMPS, 409, "a/b", Outcome.REFUSED),
    "such an id, where nothing guards": (POEMS, 409, "a/b", Outcome.UNKNOWN),
}


@pytest.mark.parametrize("name", ADOPTED)
def test_a_refusal_that_names_a_job(name):
    row, code, kie_task_id, outcome = ADOPTED[name]
    if outcome is None:
        assert submit(row, {"taskId": kie_task_id}, code) == Submitted(kie_task_id, reused=True)
    else:  # the id is not lost, because it may be paid for
        error = refusal(row, {"taskId": kie_task_id}, code)
        assert (error.code, error.existing_kie_task_id) == (code, kie_task_id)
        assert kie_task_id in str(error)
        assert outcome_of(error) is outcome


def test_a_conflict_without_id_is_a_refusal_if_guarded():
    guarded, charged = refusal(STAMPS, None, 409), refusal(POEMS, None, 409)
    assert (type(guarded), outcome_of(guarded)) == (e.KieAlreadyConvertedError, Outcome.REFUSED)
    assert (type(charged), outcome_of(charged)) == (e.KieUnexpectedCodeError, Outcome.UNKNOWN)


#: What KIE says under 500, and whether that is a reason, so that nothing was created and a repetition cannot help.
SAID = {
    "The feature is paused": True,
    "Duration is not within the range of allowed options": True,
    "The task does not exist": True,
    "prompt must not be empty": True,
    "PROMPT MUST NOT BE EMPTY": True,
    "internal error, please try again later": False,
    "": False,
}


@pytest.mark.parametrize("said", SAID)
def test_a_server_error_of_a_submit(said):
    error = refusal(POEMS, None, 500, said)
    final = isinstance(error, AirflowFailException)
    assert type(error) is (e.KieValidationError if SAID[said] else e.KieServerError)
    assert (final, outcome_of(error)) == ((True, Outcome.REFUSED) if SAID[said] else (False, Outcome.UNKNOWN))
    assert said in str(error)
    assert error.code == 500


def test_no_reason_is_final_under_the_guard_or_another_number():
    assert type(refusal(STAMPS, None, 500, "The server must restart")) is e.KieServerError
    assert type(refusal(POEMS, None, 502, "Upstream must be restarted")) is e.KieServerError


@pytest.mark.parametrize("code", [402, 409, 422])
def test_an_echo_of_what_was_sent_is_no_job(code):
    with pytest.raises(e.KieError) as caught:
        submit_job(STAMPS, {"taskId": "music-1"}).read(answer({"taskId": "music-1"}, code))
    assert caught.value.existing_kie_task_id is None
    assert outcome_of(caught.value) is Outcome.REFUSED


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 422, 429, 433, 451, 455, 505])
@pytest.mark.parametrize("row", [POEMS, STAMPS], ids=["charged", "guarded"])
def test_these_numbers_say_that_nothing_was_created(row, code):
    assert outcome_of(refusal(row, None, code)) is Outcome.REFUSED


@pytest.mark.parametrize("code", [0, 100, 405, 408, 430, 500, 502, 503, 504, 524, 531])
def test_after_any_other_number_nobody_knows(code):
    assert outcome_of(refusal(POEMS, None, code)) is Outcome.UNKNOWN


@pytest.mark.parametrize("row", [POEMS, STAMPS])
def test_a_failure_is_of_the_class_of_the_family(row):
    refused = refusal(row, None, 501)
    assert (type(refused), refused.code) == (row.failure, 501)
    assert outcome_of(refused) is Outcome.REFUSED
    verdict = end(row, None, 501)
    assert isinstance(verdict, Failed)
    assert type(verdict.error) is row.failure


@pytest.mark.parametrize(("row", "tag"), [(POEMS, "poems"), (replace(POEMS, unnamed=True), None)])
def test_errors_name_the_family_by_its_tag(row, tag):
    assert refusal(row, None, 401).family == tag
    verdict = end(row, {"state": "fail"})
    assert isinstance(verdict, Failed)
    assert verdict.error.family == tag


# --- The read


@pytest.mark.parametrize(("given", "problem"), [(A, "is a URL; "), ("None", "is empty"), ("a b", "is 'a b'")])
def test_what_cannot_be_an_id_is_not_asked_for(given, problem):
    with pytest.raises(e.KieValidationError, match=f"kie_task_id {problem}"):
        read_job(SCULPTURES, given)


def test_what_goes_on_after_a_task_was_killed():
    said = no_cancel(SCULPTURES, ID)
    assert "no call that cancels a carving" in said
    assert "sculptures job 17 goes on" in said


def test_the_first_link_of_a_job():
    assert first_url({"files": [{"url": A}, {"url": f"{A}/2"}]}) == A
    assert first_url({"files": []}) is None
