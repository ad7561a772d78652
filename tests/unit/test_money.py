# SPDX-License-Identifier: Apache-2.0
"""What is paid for, line by line as docs/design.md says it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.compat import COMMAND
from airflow_provider_kie.money import (
    Entry,
    Outcome,
    Resume,
    State,
    Stop,
    Submit,
    TaskKey,
    digest,
    has_failed,
    identity_of,
    maybe_submitted,
    next_try,
    outcome_of,
    worth_a_new_submit,
)
from tests.rows import POEMS

ROWS = {"guarded": WAV, "charged": POEMS}
SAME = {"account": "kie_default", "digest": "1234"}
OTHER = SAME | {"digest": "5678"}

ACCEPTED, REFUSED, UNKNOWN = Outcome.ACCEPTED, Outcome.REFUSED, Outcome.UNKNOWN

OUTCOMES = {
    "an id, whatever the number": (e.KieValidationError("x", code=400, existing_kie_task_id="a1"), ACCEPTED),
    "an id under an unlisted number": (e.KieUnexpectedCodeError("x", code=0, existing_kie_task_id="a1"), ACCEPTED),
    "wrong key": (e.KieAuthenticationError("x"), REFUSED),
    "no credits": (e.KieInsufficientCreditsError("x"), REFUSED),
    "rate limit": (e.KieRateLimitError("x"), REFUSED),
    "wrong input": (e.KieValidationError("x"), REFUSED),
    "maintenance": (e.KieMaintenanceError("x"), REFUSED),
    "never sent": (e.KieConnectionError("x", sent=False), REFUSED),
    "broke off": (e.KieConnectionError("x"), UNKNOWN),
    "server error": (e.KieServerError("x", code=500), UNKNOWN),
    "unlisted number": (e.KieUnexpectedCodeError("x", code=531), UNKNOWN),
    "unreadable": (e.KieUnreadableAnswerError("x"), UNKNOWN),
    "Airflow's time-out": (TimeoutError(), UNKNOWN),
    "the process ends": (SystemExit(), UNKNOWN),
    "any other mistake": (ValueError(), UNKNOWN),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcome_of_a_submit(name):
    error, outcome = OUTCOMES[name]
    assert outcome_of(error) is outcome


def entry(state: State, kie_task_id: str | None = None, identity: dict[str, str] = SAME) -> Entry:
    return Entry(state, identity, kie_task_id)


#: What an earlier try left, what the user asked for, and what the next try does with and without KIE's guard.
NEXT = {
    "nothing": (None, {}, Submit(), Submit()),
    "refused": (entry(State.REFUSED), {}, Submit(), Submit()),
    "refused, of another input": (entry(State.REFUSED, identity=OTHER), {}, Submit(), Submit()),
    "an id": (entry(State.SUBMITTED, "a1"), {}, Resume("a1"), Resume("a1")),
    "an id after a clear": (entry(State.SUBMITTED, "a1"), {"cleared": True}, Resume("a1"), Resume("a1")),
    "an id, never reused": (entry(State.SUBMITTED, "a1"), {"reuse": "never"}, Resume("a1"), Resume("a1")),
    "the same after a clear": (
        entry(State.SUBMITTED, "a1"),
        {"reuse": "never", "cleared": True},
        Submit(),
        Submit(),
    ),
    "confirmed failure": (entry(State.FAILED, "a1"), {}, Submit(), Submit()),
    "unknown": (entry(State.CLAIMED), {}, Submit(), Stop),
    "unknown, by a route without a guard": (replace(entry(State.CLAIMED), guarded=False), {}, Stop, Stop),
    "another input by such a route": (replace(entry(State.SUBMITTED, "a1", OTHER), guarded=False), {}, Stop, Stop),
    "unknown, resubmit": (entry(State.CLAIMED), {"on_unknown_submit": "resubmit"}, Submit(), Submit()),
    "unknown, fail": (entry(State.CLAIMED), {"on_unknown_submit": "fail"}, Stop, Stop),
    "unknown, fail, after a clear": (entry(State.CLAIMED), {"on_unknown_submit": "fail", "cleared": True}, Stop, Stop),
    "unknown, resubmit, after a clear": (
        entry(State.CLAIMED),
        {"on_unknown_submit": "resubmit", "cleared": True},
        Submit(),
        Submit(),
    ),
    "unknown after a clear": (entry(State.CLAIMED), {"cleared": True}, Submit(), Stop),
    "another input runs": (entry(State.SUBMITTED, "a1", OTHER), {}, Submit(), Stop),
    "another input failed": (entry(State.FAILED, "a1", OTHER), {}, Submit(), Submit()),
    "another input unknown": (entry(State.CLAIMED, identity=OTHER), {}, Submit(), Stop),
    "another input after a clear": (entry(State.SUBMITTED, "a1", OTHER), {"cleared": True}, Submit(), Submit()),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", NEXT)
def test_next_try(name, row):
    left, asked, guarded, charged = NEXT[name]
    decision = next_try(ROWS[row], left, SAME, **asked)
    expected = guarded if row == "guarded" else charged
    if expected is Stop:
        assert isinstance(decision.error, e.KieMaybeSubmittedError)
        assert isinstance(decision.error, AirflowFailException)  # no retry of Airflow's may pay either
        assert decision.error.kie_task_id == left.kie_task_id
    else:
        assert decision == expected


def test_a_stop_names_what_differs():
    decision = next_try(POEMS, entry(State.SUBMITTED, "a1", SAME | {"account": "studio", "digest": "5"}), SAME)
    assert "another account, digest" in str(decision.error)
    assert "poems job 'a1'" in str(decision.error)


#: Ends of a job, and whether a new submit may cure them with and without KIE's guard.
ENDS = {
    "confirmed failure": (e.KieJobFailedError("x"), True, True),
    "failed conversion": (e.KieConversionFailedError("x"), True, True),
    "the input was refused": (e.KieJobRefusedError("x"), True, False),
    "unknown id": (e.KieNotFoundError("x"), True, False),
    "success without a readable result": (e.KieUnreadableAnswerError("x"), False, False),
    "a number that nobody names": (e.KieUnexpectedCodeError("x"), False, False),
    "a foreign record": (e.KieWrongTaskError("x"), False, False),
    "time-out": (e.KieWaitTimeoutError("x"), False, False),
    "wrong key": (e.KieAuthenticationError("x"), False, False),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_new_submit_is_worth_it(name):
    error, guarded, charged = ENDS[name]
    assert worth_a_new_submit(error, guarded=True) is guarded
    assert worth_a_new_submit(error, guarded=False) is charged


# --- What is the same job

SAME_INPUTS = [
    ({"a": 1, "b": 2}, {"b": 2, "a": 1.0}),
    ({"urls": ["https://a.example/1.wav?sig=x"]}, {"urls": ("https://a.example/1.wav?sig=y",)}),
]
OTHER_INPUTS = [
    ({"a": 1}, {"a": "1"}),
    ({"a": 1}, {"a": 1.5}),
    ({"a": [1, 2]}, {"a": [2, 1]}),
    ({"url": "https://a.example/1.wav"}, {"url": "https://a.example/2.wav"}),
    ({"prompt": "what?"}, {"prompt": "what"}),
]


@pytest.mark.parametrize(("one", "other"), SAME_INPUTS)
def test_inputs_that_are_the_same(one, other):
    assert digest(one) == digest(other)


def test_a_digest_is_what_stored_entries_hold():
    """An entry of an earlier version must not look like one of another input, for which a task stops."""
    assert (
        digest({"prompt": "größe", "n": [1, 2.0], "x": "\ud800"})
        == "3c9eb7ad244c2828037c344a4603de57d7ea3f932b17c3985727b0904d54fb2f"
    )


@pytest.mark.parametrize(("one", "other"), OTHER_INPUTS)
def test_inputs_that_differ(one, other):
    assert digest(one) != digest(other)


def test_the_identity_of_a_job_has_no_callback():
    given = {"prompt": "x"}
    identity = identity_of("team", "https://api.kie.ai", POEMS, None, given)
    assert identity == identity_of(
        "team", "https://api.kie.ai", POEMS, None, given | {"callBackUrl": "https://b.example"}
    )
    assert identity == {
        "account": "team",
        "base_url": "https://api.kie.ai",
        "family": "poems",
        "model": "",
        "digest": digest(given),
    }


def test_the_error_names_the_commands_that_settle_it():
    task = TaskKey("my dag", "manual__2026-01-01T00:00:00+00:00", "make")
    told = str(next_try(POEMS, entry(State.CLAIMED), SAME, task=task).error)
    of = "'my dag' manual__2026-01-01T00:00:00+00:00 make"
    assert f"`{COMMAND} jobs adopt {of} KIE_TASK_ID`" in told
    assert f"`{COMMAND} jobs forget {of}`" in told


def test_the_error_of_another_input_names_a_command():
    told = str(next_try(POEMS, entry(State.SUBMITTED, "a1", OTHER), SAME, task=TaskKey("dag", "run", "make")).error)
    assert "undo the change" in told
    assert f"`{COMMAND} jobs forget dag run make`" in told
    assert "adopt" not in told


def test_the_error_is_about_the_family_and_the_connection():
    error = maybe_submitted(POEMS, "It broke off", None, "kie_other")
    assert (error.family, error.conn_id, error.problem) == ("poems", "kie_other", "It broke off")
    assert COMMAND not in str(error)


def test_a_text_with_a_url_in_it_is_no_url():
    one, other = ({"prompt": f"https://a.example/x?style={style} please"} for style in ("oil", "ink"))
    assert digest(one) != digest(other)
    assert digest({"url": " https://a.example/x?1"}) == digest({"url": " https://a.example/x?2"})


def test_a_command_names_what_is_not_the_default():
    task = TaskKey("dag", "run", "make", 0, "kie_other", "s3://a/ledger")
    options = "--map-index 0 --conn-id kie_other --ledger s3://a/ledger"
    assert task.command("forget") == f"{COMMAND} jobs forget dag run make {options}"
    assert TaskKey("dag", "run", "make").command("adopt") == f"{COMMAND} jobs adopt dag run make"
    of_item = TaskKey("dag", "run", "make", entry="ab12").command("show")
    assert of_item == f"{COMMAND} jobs show dag run make --entry ab12"


@pytest.mark.parametrize(
    ("row", "guarded", "decision", "failed"),
    [
        (WAV, True, Resume("a1"), True),
        (WAV, True, Stop(e.KieMaybeSubmittedError("another account")), False),
        (WAV, False, Resume("a1"), False),
        (POEMS, True, Resume("a1"), False),
    ],
)
def test_an_unknown_id_is_a_failure_only_to_the_account_that_the_guard_covers(row, guarded, decision, failed):
    left = replace(entry(State.SUBMITTED, "a1"), guarded=guarded)
    assert has_failed(row, left, decision, e.KieNotFoundError("x")) is failed
    assert has_failed(row, left, decision, e.KieJobFailedError("x"))
