# SPDX-License-Identifier: Apache-2.0
"""The error tree: what each class means to a wait, a submit and Airflow, and what it says."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowSensorTimeout

from airflow_provider_kie import exceptions as subject
from airflow_provider_kie import final_errors
from airflow_provider_kie.exceptions import (
    KieConnectionError,
    KieConnectionNotFoundError,
    KieError,
    KieNotFoundError,
    KieSensorTimeoutError,
    KieWaitTimeoutError,
    label,
)
from airflow_provider_kie.final_errors import final, for_sensor
from airflow_provider_kie.redaction import redact

CLASSES = [found for found in vars(subject).values() if isinstance(found, type) and issubclass(found, KieError)]
# Whether money may be spent twice, and whether a user waits or retries in vain, hangs on these.
TRANSIENT = {"RateLimit", "Maintenance", "Server", "UnexpectedCode", "UnreadableAnswer", "Connection"}
NOTHING_CREATED = {
    *("Configuration", "ConnectionNotFound", "Authentication", "InsufficientCredits", "NotFound", "Validation"),
    *("AlreadyConverted", "RateLimit", "KeyCap", "Source", "Maintenance", "FeatureDisabled", "Blocked"),
    "Ledger",
}
RETRIED = {
    *("", "ConnectionNotFound", "NotFound", "Source", "WrongTask", "JobFailed", "ConversionFailed", "NotReady"),
    "BatchFailed",
    *("WaitTimeout", "SensorTimeout", "Download", "Ledger", *TRANSIENT),
}
DETAILS = {
    "code": 409,
    "kie_task_id": "wav-1",
    "conn_id": "kie_other",
    "retry_after": 2.5,
    "existing_kie_task_id": "wav-0",
}


def full(error_class: type[KieError]) -> KieError:
    return error_class("It broke at https://a.example/x?sig=1", **DETAILS)


def names(of: Callable[[KieError], object]) -> set[str]:
    found = {each.__name__ for each in CLASSES if of(each("It broke"))}
    return {name.removeprefix("Kie").removesuffix("Error") for name in found}


every_class = pytest.mark.parametrize("error_class", CLASSES)


def test_what_the_classes_mean():
    assert {error.__name__ for error in CLASSES} | {"label", "named"} == set(subject.__all__)
    assert names(lambda error: error.transient) == TRANSIENT
    assert names(lambda error: error.nothing_created) == NOTHING_CREATED
    assert names(lambda error: not isinstance(error, AirflowFailException)) == RETRIED
    assert names(lambda error: isinstance(error, AirflowSensorTimeout)) == {"SensorTimeout"}
    assert all(issubclass(error_class, AirflowException) for error_class in CLASSES)


@pytest.mark.parametrize(
    ("details", "about"),
    [
        ({"kie_task_id": "", "conn_id": "", "code": 500, "retry_after": 3.0, "existing_kie_task_id": "x"}, ""),
        ({"kie_task_id": "wav-1"}, " (WAV task 'wav-1')"),
        ({"conn_id": "kie_other"}, " (connection 'kie_other')"),
        ({"kie_task_id": "wav-1", "conn_id": "kie_other"}, " (WAV task 'wav-1', connection 'kie_other')"),
    ],
)
@pytest.mark.parametrize("end", ["", "."])
def test_the_message_says_what_where_and_what_next(details, about, end):
    assert str(KieError(f"It broke{end}", **details)) == f"It broke{about}."
    timed_out = KieWaitTimeoutError(f"It broke{end}", **details)
    assert str(timed_out) == f"It broke{about}. {timed_out.next_step}"
    assert repr(timed_out) == f"KieWaitTimeoutError({str(timed_out)!r})"


@every_class
def test_no_message_shows_a_query_string(error_class):
    error = full(error_class)
    for shown in (str(error), repr(error), error.problem, json.dumps(error.to_dict()), str(error.args)):
        assert "https://a.example/x?…" in shown.replace("\\u2026", "…")
        assert "sig=1" not in shown


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        *((same, same) for same in ("", "Really? #1 of 2", "https://a.example/x@y", "write to me@a.example")),
        *((f"https://a.example/x{tail}", "https://a.example/x?…") for tail in ("?sig=1", "#sig=1", "?sig=1#part", "?")),
        ("https://a.example?sig=1", "https://a.example?…"),
        ("HTTPS://A.EXAMPLE/X?SIG=1", "HTTPS://A.EXAMPLE/X?…"),
        ("see https://a.example/x?sig=1 or http://b.example/y#z.", "see https://a.example/x?… or http://b.example/y?…"),
        ('see "https://a.example/x?sig=1", ok', 'see "https://a.example/x?… ok'),
        ("see 'https://a.example/it's?sig=1', ok", "see 'https://a.example/it's?… ok"),
        ("https://a.example/x?name='sig=1", "https://a.example/x?…"),
        ("https://user:word@a.example/x?sig=1", "https://***@a.example/x?…"),
        (repr(r"https:\/\/user:word@a.example\/x?sig=1"), r"'https:\\/\\/***@a.example\\/x?…"),
        ("HTTP://USER:WORD@A.EXAMPLE", "HTTP://***@A.EXAMPLE"),
        (r"https:\/\/a.example\/x?sig=secret", r"https:\/\/a.example\/x?…"),
        ("https://a.example/x?sig=1\nnext", "https://a.example/x?… next"),
        ("two\nlines,\ta tab\x00and\ud800more", "two lines, a tab and more"),
        ("https://a.example/x?u=https://b.example/?sig=1", "https://a.example/x?…"),
        # the length
        ("x" * 499, "x" * 499),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 500 + "…"),
        ("https://a.example/x?" + "s" * 600, "https://a.example/x?…"),
        ("x" * 1_990 + " https://a.example/x?sig=1", "x" * 500 + "…"),
    ],
)
def test_redact(text, fit):
    assert redact(text) == fit


@pytest.mark.parametrize("piece", ["http://", "http://a@", "http://a", "https:", "\\/"])
def test_any_text_is_redacted_quickly(piece):
    assert len(redact(piece * 20_000)) == 501


@every_class
def test_an_error_survives_json(error_class):
    error = full(error_class)
    described = error.to_dict()
    assert described == {"type": error_class.__name__, "problem": "It broke at https://a.example/x?…", **DETAILS}
    rebuilt = KieError.from_dict(described)
    assert described == error.to_dict() == rebuilt.to_dict() == json.loads(json.dumps(described))
    assert type(rebuilt) is type(error)
    assert str(rebuilt) == str(error)


def test_what_a_later_version_wrote_besides_is_left_out():
    given = {"type": "KieServerError", "problem": "It broke", "code": 500, "family": "poems", "weather": "fine"}
    rebuilt = KieError.from_dict(given)
    assert (type(rebuilt).__name__, rebuilt.code, rebuilt.family) == ("KieServerError", 500, "poems")
    assert rebuilt.to_dict()["family"] == "poems"


@pytest.mark.parametrize(
    ("family", "noun"), [(None, "WAV task"), ("music", "music job"), ("jobs", "job of family jobs")]
)
def test_a_job_has_a_noun(family, noun):
    assert label(family) == noun


@pytest.mark.parametrize("kind", ["Nonsense", "", "redact", "AirflowFailException", "label", None, 5])
def test_an_unknown_type_is_a_plain_error(kind):
    rebuilt = KieError.from_dict({"type": kind, "problem": "It broke"})
    assert type(rebuilt) is type(KieError.from_dict({"problem": "It broke"})) is KieError
    assert str(rebuilt) == "It broke."


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("make", [full, lambda error_class: final(full(error_class))], ids=["", "final"])
@every_class
def test_an_error_can_be_copied_and_pickled(error_class, make, again):
    error = make(error_class)
    error.problem = f"Reading: {error.problem}"
    twin = again(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.to_dict() == error.to_dict()


@pytest.mark.parametrize(("given", "created_nothing"), [({"sent": True}, False), ({"sent": False}, True), ({}, False)])
def test_what_was_never_sent_created_nothing(given, created_nothing):
    error = KieConnectionError("No answer", **given, kie_task_id="wav-1", code=5)
    assert error.nothing_created is pickle.loads(pickle.dumps(error)).nothing_created is created_nothing
    assert (error.problem, error.kie_task_id, error.code) == ("No answer", "wav-1", 5)


@every_class
def test_final_is_the_same_error_that_is_not_retried(error_class):
    error = full(error_class)
    error.__cause__ = ValueError("below")
    ended = final(error)
    if error_class is KieConnectionNotFoundError:  # repeating may help there, for every caller
        assert ended is error
        return
    assert isinstance(ended, (AirflowSensorTimeout, AirflowFailException))
    assert isinstance(ended, error_class)
    for name in ("__name__", "__module__", "__doc__"):
        assert getattr(type(ended), name) == getattr(error_class, name)
    assert str(ended) == str(error)
    assert ended.to_dict() == error.to_dict()
    assert ended.__cause__ is error.__cause__
    assert (ended is error) is isinstance(error, (AirflowSensorTimeout, AirflowFailException))
    assert final(ended) is ended


@every_class
def test_a_sensor_ends_for_good(error_class):
    error = full(error_class)
    ended = for_sensor(error)
    assert str(ended) == str(error)
    assert ended.details() == error.details()
    timed_out = isinstance(error, KieWaitTimeoutError)
    assert type(ended) is (KieSensorTimeoutError if timed_out else type(final(error)))


def test_an_error_is_rebuilt_as_its_original_class(monkeypatch):
    monkeypatch.setattr(KieError, "_classes", dict(KieError._classes))
    somebodys, ours = (type("KieNewError", (KieError,), {"__module__": room}) for room in ("dags", KieError.__module__))
    for error in (ours("x"), somebodys("x"), final(ours("x"))):
        assert type(KieError.from_dict(error.to_dict())) is ours


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_final_twin_is_made_as_its_original_is(again, monkeypatch):
    monkeypatch.setattr(final_errors, "_TWINS", {})  # as in a process that has made none
    ended = again(final(full(KieNotFoundError)))
    assert isinstance(ended, KieNotFoundError)
    assert isinstance(ended, AirflowFailException)
    assert (type(ended).__name__, type(ended).__module__) == ("KieNotFoundError", KieNotFoundError.__module__)
    assert type(ended).__doc__ == KieNotFoundError.__doc__
    assert ended.to_dict() == full(KieNotFoundError).to_dict()
