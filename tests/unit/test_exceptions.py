# SPDX-License-Identifier: Apache-2.0
"""The error tree: what each class means to a wait, a submit and Airflow, and what it says."""

from __future__ import annotations

import copy
import inspect
import json
import pickle

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSensorTimeout

from airflow_provider_kie import exceptions as subject
from airflow_provider_kie.api.envelope import ERROR_BY_CODE, ERROR_BY_STATUS
from airflow_provider_kie.exceptions import (
    KieConnectionError,
    KieConversionFailedError,
    KieError,
    KieNotFoundError,
    KieSensorTimeoutError,
    KieWaitTimeoutError,
)
from airflow_provider_kie.final_errors import final, for_sensor
from airflow_provider_kie.redaction import redact

T, F = True, False

#: For each class: a wait goes on; a submit certainly created nothing; Airflow does not retry; a part of the advice.
TREE = {
    "KieError": (F, F, F, ""),
    "KieConfigurationError": (F, T, T, "Correct this setting; nothing was sent."),
    "KieConnectionNotFoundError": (F, T, F, "Define the connection with type 'kie'"),
    "KieAuthenticationError": (F, T, T, "keys are managed at https://kie.ai/api-key."),
    "KieInsufficientCreditsError": (F, T, T, "Buy credits at https://kie.ai"),
    "KieNotFoundError": (
        F,
        T,
        F,
        "Pass the id that the submit returned (not that of the job's source), its family",
    ),
    "KieValidationError": (F, T, T, "Correct the argument that is named and run the task again."),
    "KieAlreadyConvertedError": (F, T, T, "look up the earlier WAV task at https://kie.ai/logs"),
    "KieRateLimitError": (T, T, F, "Start fewer jobs at a time"),
    "KieKeyCapError": (F, T, T, "Raise the key's limit at https://kie.ai/api-key"),
    "KieSourceError": (F, T, F, "Check that the job's source, such as a music task, is finished"),
    "KieMaintenanceError": (T, T, F, "Retry when the maintenance is over."),
    "KieServerError": (T, F, F, "Retry later."),
    "KieFeatureDisabledError": (F, T, T, "Ask support@kie.ai"),
    "KieBlockedError": (F, T, T, "the right address or proxy"),
    "KieUnexpectedCodeError": (T, F, F, "report it with this message."),
    "KieUnreadableAnswerError": (T, F, F, "Check the connection's host and proxy"),
    "KieConnectionError": (T, F, F, "Check the network, proxy and host of the connection"),
    "KieWrongTaskError": (F, F, F, "Do not use this answer"),
    "KieMaybeSubmittedError": (F, F, T, "If https://kie.ai/logs lists the job, wait for its id"),
    "KieJobFailedError": (F, F, F, "a retry of the submitting task submits the job again."),
    "KieJobRefusedError": (F, F, T, "Correct the input that KIE's text names"),
    "KieConversionFailedError": (F, F, F, "a retry of the submitting task submits the track again."),
    "KieNotReadyError": (F, F, F, "Put a sensor before this task"),
    "KieWaitTimeoutError": (F, F, F, "wait for the same kie_task_id again"),
    "KieSensorTimeoutError": (F, F, F, "wait for the same kie_task_id again"),
    "KieLinkExpiredError": (F, F, T, "KIE deletes files after 14 days"),
    "KieNotAWavError": (F, F, T, "Look at the first bytes"),
    "KieFileTooLargeError": (F, F, T, "Raise the operator's max_bytes"),
    "KieUnsafeUrlError": (F, F, T, "Pass kie_task_id instead of wav_url"),
    "KieDestinationExistsError": (F, F, T, "set overwrite=True"),
    "KieDownloadError": (F, F, F, "Give the task retries"),
    "KieFileCutOffError": (F, F, T, "Report it to support@kie.ai"),
}
CLASSES = {name: getattr(subject, name) for name in TREE}
DETAILS = {
    "code": 409,
    "kie_task_id": "wav-1",
    "conn_id": "kie_other",
    "retry_after": 2.5,
    "existing_kie_task_id": "wav-0",
}


def full(name: str) -> KieError:
    return CLASSES[name]("It broke at https://a.example/x?sig=1", **DETAILS)


def test_the_table_has_every_class_that_users_can_import():
    exported = {name for name in subject.__all__ if inspect.isclass(getattr(subject, name))}
    assert exported == set(TREE)
    assert set(subject.__all__) - exported == {"label", "named"}


@pytest.mark.parametrize("name", TREE)
def test_what_a_class_means(name):
    transient, nothing_created, not_retried, advice = TREE[name]
    error = CLASSES[name]("It broke")
    assert isinstance(error, KieError)
    assert isinstance(error, AirflowException)
    assert error.transient is transient
    assert error.nothing_created is nothing_created
    assert isinstance(error, AirflowFailException) is not_retried
    assert isinstance(error, AirflowSensorTimeout) is (name == "KieSensorTimeoutError")
    assert advice in error.next_step
    assert not (transient and not_retried)


@pytest.mark.parametrize("name", TREE)
def test_every_class_explains_itself(name):
    cause = inspect.cleandoc(CLASSES[name].__dict__["__doc__"] or "").splitlines()[0]
    assert cause.endswith(".")
    assert len(cause) > 20
    if name != "KieError":
        assert CLASSES[name].next_step.endswith(".")


@pytest.mark.parametrize("name", TREE)
def test_a_new_error_has_no_details(name):
    error = CLASSES[name]("It broke")
    assert error.problem == "It broke"
    assert error.details() == dict.fromkeys(DETAILS)


@pytest.mark.parametrize(
    ("details", "about"),
    [
        ({}, ""),
        ({"kie_task_id": "wav-1"}, " (WAV task 'wav-1')"),
        ({"conn_id": "kie_other"}, " (connection 'kie_other')"),
        ({"kie_task_id": "wav-1", "conn_id": "kie_other"}, " (WAV task 'wav-1', connection 'kie_other')"),
        ({"kie_task_id": "", "conn_id": ""}, ""),
        ({"code": 500, "retry_after": 3.0, "existing_kie_task_id": "x"}, ""),
    ],
)
@pytest.mark.parametrize("end", ["", "."])
def test_the_message_says_what_where_and_what_next(details, about, end):
    assert str(KieError(f"It broke{end}", **details)) == f"It broke{about}."
    timed_out = KieWaitTimeoutError(f"It broke{end}", **details)
    advice = "Nothing is lost: wait for the same kie_task_id again, or look it up at https://kie.ai/logs."
    assert str(timed_out) == f"It broke{about}. {advice}"
    assert repr(timed_out) == f"KieWaitTimeoutError({str(timed_out)!r})"


@pytest.mark.parametrize(("problem", "said"), [("See X", "See X."), ("See X..", "See X."), ("Wait…", "Wait….")])
def test_a_message_ends_with_one_full_stop(problem, said):
    assert str(KieError(problem)) == said


@pytest.mark.parametrize("name", TREE)
def test_no_message_shows_a_query_string(name):
    error = full(name)
    for shown in (str(error), repr(error), error.problem, json.dumps(error.to_dict())):
        assert "https://a.example/x?…" in shown.replace("\\u2026", "…")
        assert "sig=1" not in shown


def test_no_query_string_is_left_in_the_arguments():
    assert "sig=1" not in str(KieError("It broke at https://a.example/x?sig=1").args)


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("", ""),
        ("Really? #1 of 2", "Really? #1 of 2"),
        ("https://a.example/x", "https://a.example/x"),
        ("https://a.example/x?sig=1", "https://a.example/x?…"),
        ("https://a.example/x#sig=1", "https://a.example/x?…"),
        ("https://a.example/x?sig=1#part", "https://a.example/x?…"),
        ("https://a.example?sig=1", "https://a.example?…"),
        ("https://a.example/x?", "https://a.example/x?…"),
        ("http://a.example/x?sig=1", "http://a.example/x?…"),
        ("HTTPS://A.EXAMPLE/X?SIG=1", "HTTPS://A.EXAMPLE/X?…"),
        ("see https://a.example/x?sig=1 or http://b.example/y#z.", "see https://a.example/x?… or http://b.example/y?…"),
        ('see "https://a.example/x?sig=1", ok', 'see "https://a.example/x?… ok'),
        ("see 'https://a.example/it's?sig=1', ok", "see 'https://a.example/it's?… ok"),
        ("https://a.example/x?name='sig=1", "https://a.example/x?…"),
        ("https://user:word@a.example/x?sig=1", "https://***@a.example/x?…"),
        (repr(r"https:\/\/user:word@a.example\/x?sig=1"), r"'https:\\/\\/***@a.example\\/x?…"),
        ("https://user@a.example", "https://***@a.example"),
        ("HTTP://USER:WORD@A.EXAMPLE", "HTTP://***@A.EXAMPLE"),
        ("https://a.example/x@y", "https://a.example/x@y"),
        ("write to me@a.example", "write to me@a.example"),
        (r"https:\/\/a.example\/x?sig=secret", r"https:\/\/a.example\/x?…"),
        ("see <https://a.example/x?sig=1>, ok", "see <https://a.example/x?… ok"),
        ("https://a.example/x?sig=1\nnext", "https://a.example/x?… next"),
        ("two\nlines,\ta tab\x00and\ud800more", "two lines, a tab and more"),
        ("https://a.example/x?u=https://b.example/?sig=1", "https://a.example/x?…"),
    ],
)
def test_redact_cuts_query_strings(text, fit):
    assert redact(text) == fit


@pytest.mark.parametrize(("length", "kept", "mark"), [(499, 499, ""), (500, 500, ""), (501, 500, "…")])
def test_redact_limits_the_length(length, kept, mark):
    assert redact("x" * length) == "x" * kept + mark


def test_redact_measures_after_the_cut():
    assert redact("https://a.example/x?" + "s" * 600) == "https://a.example/x?…"


def test_redact_reads_no_more_than_the_start():
    assert redact("x" * 1_990 + " https://a.example/x?sig=1") == "x" * 500 + "…"


@pytest.mark.parametrize("piece", ["http://", "http://a@", "http://a", "https:", "\\/"])
def test_redact_is_done_with_any_text_in_no_time(piece):
    assert len(redact(piece * 20_000)) == 501


@pytest.mark.parametrize("name", TREE)
def test_an_error_travels_as_json(name):
    error = full(name)
    described = error.to_dict()
    assert described == {"type": name, "problem": "It broke at https://a.example/x?…", **DETAILS}
    rebuilt = KieError.from_dict(json.loads(json.dumps(described)))
    assert type(rebuilt) is type(error)
    assert str(rebuilt) == str(error)
    assert rebuilt.to_dict() == described


def test_what_a_later_version_wrote_besides_is_left_out():
    given = {"type": "KieServerError", "problem": "It broke", "code": 500, "family": "poems", "weather": "fine"}
    rebuilt = KieError.from_dict(given)
    assert (type(rebuilt).__name__, rebuilt.code, rebuilt.family) == ("KieServerError", 500, "poems")


@pytest.mark.parametrize("name", TREE)
def test_from_dict_leaves_its_argument_alone(name):
    described = full(name).to_dict()
    before = dict(described)
    KieError.from_dict(described)
    assert described == before


@pytest.mark.parametrize("kind", ["Nonsense", "", "redact", "AirflowFailException", "label", None, 5])
def test_an_unknown_type_is_a_plain_error(kind):
    rebuilt = KieError.from_dict({"type": kind, "problem": "It broke"})
    assert type(rebuilt) is KieError
    assert str(rebuilt) == "It broke."


def test_a_missing_type_is_a_plain_error():
    assert type(KieError.from_dict({"problem": "It broke"})) is KieError


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("name", TREE)
def test_an_error_can_be_copied_and_pickled(name, again):
    error = full(name)
    error.problem = f"Reading: {error.problem}"
    twin = again(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.to_dict() == error.to_dict()


@pytest.mark.parametrize("sent", [True, False])
def test_whether_a_request_left_decides_whether_something_was_created(sent):
    error = KieConnectionError("No answer", sent=sent, kie_task_id="wav-1", code=5)
    assert error.nothing_created is not sent
    assert pickle.loads(pickle.dumps(error)).nothing_created is not sent
    assert (error.problem, error.kie_task_id, error.code) == ("No answer", "wav-1", 5)


def test_without_a_word_a_request_counts_as_sent():
    assert KieConnectionError("No answer").nothing_created is False


def test_what_each_number_of_kie_means():
    assert {code: found.__name__ for code, found in ERROR_BY_CODE.items()} == {
        400: "KieValidationError",
        401: "KieAuthenticationError",
        402: "KieInsufficientCreditsError",
        403: "KieBlockedError",
        404: "KieNotFoundError",
        408: "KieServerError",
        409: "KieAlreadyConvertedError",
        422: "KieValidationError",
        429: "KieRateLimitError",
        433: "KieKeyCapError",
        451: "KieSourceError",
        455: "KieMaintenanceError",
        500: "KieServerError",
        501: "KieJobFailedError",
        502: "KieServerError",
        503: "KieServerError",
        504: "KieServerError",
        505: "KieFeatureDisabledError",
    }


def test_what_an_http_status_means_without_a_number_of_kie():
    assert {status: found.__name__ for status, found in ERROR_BY_STATUS.items()} == {
        401: "KieAuthenticationError",
        403: "KieBlockedError",
        408: "KieServerError",
        429: "KieRateLimitError",
    }


@pytest.mark.parametrize("name", TREE)
def test_final_is_the_same_error_that_airflow_does_not_retry(name):
    error = full(name)
    error.__cause__ = ValueError("below")
    ended = final(error)
    if name == "KieConnectionNotFoundError":  # repeating may help there, for every caller
        assert ended is error
        return
    is_sensor_timeout = name == "KieSensorTimeoutError"
    assert isinstance(ended, AirflowSensorTimeout if is_sensor_timeout else AirflowFailException)
    assert isinstance(ended, type(error))
    assert type(ended).__name__ == name
    assert type(ended).__module__ == "airflow_provider_kie.exceptions"
    assert type(ended).__doc__ == type(error).__doc__
    assert str(ended) == str(error)
    assert ended.details() == error.details()
    assert ended.__cause__ is error.__cause__
    assert (ended is error) is (TREE[name][2] or is_sensor_timeout)
    assert final(ended) is ended


@pytest.mark.parametrize("name", TREE)
def test_a_sensor_ends_for_good_except_where_looking_again_may_help(name):
    error = full(name)
    ended = for_sensor(error)
    assert str(ended) == str(error)
    assert ended.details() == error.details()
    if isinstance(error, KieWaitTimeoutError):
        assert type(ended) is KieSensorTimeoutError
    elif name == "KieConnectionNotFoundError":
        assert ended is error
    else:
        assert type(ended) is type(final(error))


def test_final_of_a_kind_is_one_class():
    assert type(final(KieNotFoundError("a"))) is type(final(KieNotFoundError("b")))
    assert type(final(KieNotFoundError("a"))) is not type(final(KieConversionFailedError("a")))


def test_a_final_error_travels_as_the_class_it_stands_for():
    rebuilt = KieError.from_dict(final(KieConversionFailedError("It broke", code=500)).to_dict())
    assert type(rebuilt) is KieConversionFailedError
    assert rebuilt.code == 500


def test_a_final_error_can_be_copied():
    error = final(KieNotFoundError("It broke", kie_task_id="wav-1"))
    twin = copy.copy(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)


@pytest.mark.parametrize("name", TREE)
def test_a_final_error_can_be_pickled(name):
    error = final(full(name))
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)


def test_a_sensor_time_out_is_a_time_out():
    assert isinstance(KieSensorTimeoutError("late"), KieWaitTimeoutError)
