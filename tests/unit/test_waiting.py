# SPDX-License-Identifier: Apache-2.0
"""The waiting rule, to the second and to the word."""

from __future__ import annotations

import math
import random
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.waiting.course import Pause, poll, wait
from airflow_provider_kie.waiting.pace import Pace, as_seconds, on_tick
from airflow_provider_kie.waiting.verdict import (
    Done,
    Failed,
    Judge,
    Wait,
    connection_is_lost,
    finished,
    timed_out,
)
from tests.jobs import URL
from tests.jobs import wav_job as record
from tests.rows import POEMS

TROUBLE = e.KieServerError("It thundered")
BAD_KEY = e.KieAuthenticationError("No key")


JOB = (WAV, "wav-1", "kie_default")


def new_judge() -> Judge:
    return Judge(*JOB)


WAITS = {
    "pending": (record(), "status PENDING", False),
    "no word": (record(""), "status none, ", True),
    "word with failed inside": (record("_FAILED_ONCE"), "status _FAILED_ONCE, ", True),
    "failed without underscore": (record("FAILED"), "status FAILED, ", True),
    "empty message": (record(error_message=""), "status PENDING", False),
}

SETTLES = {
    "unknown": (None, e.KieNotFoundError, "KIE does not know this WAV task", None),
    "success": (record("SUCCESS"), e.KieConversionFailedError, "ended in SUCCESS without a WAV URL", None),
    "callback": (
        record("CALLBACK_EXCEPTION", error_code=500, error_message="dead"),
        e.KieConversionFailedError,
        "ended in CALLBACK_EXCEPTION without a WAV URL: code 500, 'dead'",
        500,
    ),
    "refused": (record("", error_message="no"), e.KieConversionFailedError, "conversion (status none): 'no'", None),
    "no number": (record("QUEUED", error_code="E1"), e.KieConversionFailedError, "(status QUEUED): code E1", None),
    # The parser gives None for it; the rule does not rely on that.
    "code zero": (record(error_code=0), e.KieConversionFailedError, "(status PENDING): code 0", 0),
}


SUCCESSES = {"SUCCESS": False, "GENERATE_WAV_FAILED": True, "": True}


@pytest.mark.parametrize("now", [0.0, 100.0, math.inf])
@pytest.mark.parametrize("name", WAITS)
def test_an_unfinished_conversion_is_waited_for(name, now):
    reading, reason, warning = WAITS[name]
    verdict = new_judge().judge(reading, now)
    assert verdict == Wait(verdict.reason, settling=False, warning=warning, trouble=None)
    assert verdict.reason.startswith(reason)
    assert ("not one of KIE's documented words" in verdict.reason) is warning


@pytest.mark.parametrize("status", SUCCESSES)
@pytest.mark.parametrize("trouble", [{}, {"error_code": 500, "error_message": "dead"}])
def test_a_url_wins_over_the_status(status, trouble):
    reading = record(status, wav_url=URL, **trouble)
    verdict = new_judge().judge(reading, 0.0)
    odd = f"KIE gave a WAV URL together with status {status or 'none'}; the URL counts"
    assert verdict == Done(reading, odd if SUCCESSES[status] else "")


@pytest.mark.parametrize("start", [0.0, 1000.0])
@pytest.mark.parametrize("name", SETTLES)
def test_what_may_settle_is_read_again_for_the_grace(name, start):
    reading, error_class, problem, code = SETTLES[name]
    judge = new_judge()
    for elapsed in (0.0, 30.0, 59.875):
        verdict = judge.judge(reading, start + elapsed)
        assert verdict == Wait(verdict.reason, settling=True, warning=True, trouble=None)
        assert problem in verdict.reason
    error = judge.judge(reading, start + 60.0).error
    assert type(error) is error_class
    assert problem in error.problem
    assert (error.kie_task_id, error.code) == ("wav-1", code)


@pytest.mark.parametrize("first", SETTLES)
@pytest.mark.parametrize("second", ["unknown", "success"])
def test_one_grace_covers_everything_that_may_settle(first, second):
    judge = new_judge()
    judge.judge(SETTLES[first][0], 0.0)
    assert isinstance(judge.judge(SETTLES[second][0], 59.0), Wait)
    assert isinstance(judge.judge(SETTLES[second][0], 60.0), Failed)


@pytest.mark.parametrize("name", WAITS)
def test_an_ordinary_answer_ends_the_grace(name):
    judge = new_judge()
    judge.judge(None, 0.0)
    assert not judge.judge(WAITS[name][0], 50.0).settling
    assert judge.judge(None, 100.0).settling
    assert judge.judge(None, 159.0).settling
    assert isinstance(judge.judge(None, 160.0), Failed)


def test_trouble_neither_starts_nor_ends_the_grace():
    judge = new_judge()
    judge.judge(TROUBLE, 0.0)
    assert judge.judge(None, 70.0).settling
    assert judge.judge(TROUBLE, 100.0) == Wait("It thundered", settling=True, warning=True, trouble=TROUBLE)
    assert judge.judge(BAD_KEY, 101.0) == Failed(BAD_KEY)
    assert judge.judge(TROUBLE, 129.875).settling
    assert judge.judge(TROUBLE, 130.0) == Wait("It thundered", settling=False, warning=True, trouble=TROUBLE)
    assert isinstance(judge.judge(None, 130.0), Failed)


def test_a_rate_limit_and_the_pause_after_it_have_one_reason():
    reasons = {new_judge().judge(e.KieRateLimitError(text), 0.0).reason for text in ("KIE answered 429", "Not sent")}
    assert len(reasons) == 1
    assert "429" in reasons.pop()


@pytest.mark.parametrize(
    ("arguments", "options", "nominal"),
    [
        *(((30.0, polls), {}, 30.0) for polls in (1, 7)),
        *(((30.0, polls), {"exponential_backoff": True}, nominal) for polls, nominal in ((1, 30), (2, 60), (4, 240))),
        *(((1.0, polls), {"exponential_backoff": True}, 2.0**30) for polls in (31, 32, 10**9)),
        *(((30.0, 4), {"exponential_backoff": True, "max_wait": most}, min(most, 240)) for most in (100, 240, 500)),
        ((30.0, 4), {"exponential_backoff": True, "max_wait": 0.0}, 0.1),
        ((30.0, 1), {"max_wait": 10.0}, 30.0),  # as Airflow's own modes, which look at it only with back-off
        *(((interval, 1), {}, 0.1) for interval in (0.1, 0.09, -5.0)),
    ],
)
@pytest.mark.parametrize(("draw", "factor"), [(min, 0.9), (max, 1.1)])
def test_the_pause_between_two_polls(monkeypatch, arguments, options, nominal, draw, factor):
    monkeypatch.setattr(random, "uniform", draw)
    interval, polls = arguments
    assert Pace(interval, **options).pause(polls) == pytest.approx(nominal * factor, rel=1e-12)


@pytest.mark.parametrize(
    ("waited", "interval", "polls"),
    [(-5.0, 10.0, 0), (0.0, 10.0, 0), (9.0, 10.0, 0), (11.0, 10.0, 1), (29.0, 10.0, 1), (31.0, 10.0, 2), (0.35, 0, 2)],
)
def test_polls_are_counted_from_the_time_waited(waited, interval, polls):
    assert Pace(interval).polls_within(waited) == polls


@given(delay=st.floats(1.0, 86400.0), now=st.floats(0.0, 1e9))
def test_waits_that_share_a_clock_wake_up_on_its_ticks(delay, now):
    pause = on_tick(delay, now)
    ticks = (now + pause) * 10
    assert ticks == pytest.approx(round(ticks), abs=1e-4, rel=0)
    assert delay - 1e-6 <= pause <= delay + 0.1 + 1e-6


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.999])
def test_a_short_delay_is_unchanged(delay):
    assert on_tick(delay, 70.05) == delay


@pytest.mark.parametrize(("interval", "nominal"), [(30.0, 5.0), (5.0, 5.0), (2.0, 2.0), (0.0, 0.1)])
@pytest.mark.parametrize(("draw", "factor"), [(min, 0.9), (max, 1.1)])
def test_the_pause_between_two_reads_of_one_poll(monkeypatch, interval, nominal, draw, factor):
    monkeypatch.setattr(random, "uniform", draw)
    assert Pace(interval).settling_pause() == pytest.approx(nominal * factor, rel=1e-12)


class Drive:
    """Drives a course on a clock of its own, with these readings, of which the last one is given for ever."""

    def __init__(self, monkeypatch, *readings, seconds, elsewhere=None):
        self.now, self.until, self.readings, self.pauses = 1000.0, 1000.0 + seconds, list(readings), []
        self.elsewhere = elsewhere
        monkeypatch.setattr("airflow_provider_kie.waiting.course.time.monotonic", lambda: self.now)

    def left(self):
        return self.until - self.now

    def _next(self):
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    def __call__(self, course):
        answer = None
        try:
            while True:
                step = course.send(answer)
                if isinstance(step, Family):
                    answer = self.elsewhere if step.model else self._next()
                    continue
                assert isinstance(step, Pause)
                self.pauses.append(step)
                self.now += step.seconds
                answer = None
        except StopIteration as end:
            return end.value


def test_a_poll_reads_again_what_may_settle_until_it_does(monkeypatch):
    drive = Drive(monkeypatch, None, None, record("SUCCESS", wav_url=URL), seconds=3600.0)
    assert isinstance(drive(poll(new_judge(), Pace(30.0), drive.left)), Done)
    assert [pause.settling for pause in drive.pauses] == [True, True]
    assert all(4.5 <= pause.seconds <= 5.5 for pause in drive.pauses)


def test_an_unknown_job_is_looked_for_by_the_other_row(monkeypatch):
    found = record("SUCCESS", wav_url=URL) | {"model": WAV.also.model}
    drive = Drive(monkeypatch, None, seconds=3600.0, elsewhere=found)
    assert drive(poll(new_judge(), Pace(30.0), drive.left)) == Done(found)
    assert drive.pauses == []


def test_a_record_is_judged_by_the_row_that_knew_it(monkeypatch):
    """A success without a file is a failed conversion only where a second submit is not paid for."""
    bare = record("SUCCESS")
    drive = Drive(monkeypatch, bare, seconds=3600.0)
    assert type(drive(poll(new_judge(), Pace(30.0), drive.left)).error) is e.KieConversionFailedError
    drive = Drive(monkeypatch, None, seconds=3600.0, elsewhere=bare | {"model": WAV.also.model})
    assert type(drive(poll(new_judge(), Pace(30.0), drive.left)).error) is e.KieUnreadableAnswerError


def test_trouble_of_the_other_row(monkeypatch):
    """While it may pass, the job may be there, so nobody knows that it is unknown. Other trouble says nothing."""
    drive = Drive(monkeypatch, None, seconds=3600.0, elsewhere=TROUBLE)
    assert drive(poll(new_judge(), Pace(30.0), drive.left)).trouble is TROUBLE
    drive = Drive(monkeypatch, None, seconds=3600.0, elsewhere=BAD_KEY)
    assert type(drive(poll(new_judge(), Pace(30.0), drive.left)).error) is e.KieNotFoundError


def test_a_poll_ends_with_the_grace(monkeypatch):
    drive = Drive(monkeypatch, None, seconds=3600.0)
    assert isinstance(drive(poll(new_judge(), Pace(30.0), drive.left)), Failed)
    assert 60.0 <= sum(pause.seconds for pause in drive.pauses) < 66.0


def test_a_poll_does_not_settle_longer_than_it_has_time(monkeypatch):
    drive = Drive(monkeypatch, None, seconds=12.0)
    assert drive(poll(new_judge(), Pace(30.0), drive.left)).settling
    assert drive.left() >= 0


def test_a_wait_says_why_it_goes_on(monkeypatch):
    drive = Drive(monkeypatch, record(), TROUBLE, record("QUEUED"), record("SUCCESS", wav_url=URL), seconds=3600.0)
    assert isinstance(drive(wait(*JOB, Pace(30.0), drive.left)), Done)
    assert [(pause.reason.partition(",")[0], pause.warning) for pause in drive.pauses] == [
        ("status PENDING", False),
        ("It thundered", True),
        ("status QUEUED", True),
    ]
    assert drive.pauses[0].text == "status PENDING; up to 3600 seconds left."


@pytest.mark.parametrize("seconds", [0.5, 100.0])
def test_a_wait_whose_time_is_up_polls_once_more(monkeypatch, seconds):
    drive = Drive(monkeypatch, record(), seconds=seconds)
    assert drive(wait(*JOB, Pace(30.0), drive.left)) == Wait("status PENDING")
    assert sum(pause.seconds for pause in drive.pauses) == pytest.approx(seconds)


def test_a_wait_for_an_unknown_job_says_so_and_names_it(monkeypatch):
    drive = Drive(monkeypatch, None, seconds=3600.0)
    error = drive(wait(*JOB, Pace(30.0), drive.left)).error
    assert (type(error), error.kie_task_id, error.conn_id) == (e.KieNotFoundError, "wav-1", "kie_default")
    assert {(pause.reason, pause.warning) for pause in drive.pauses} == {("KIE does not know this WAV task", True)}


@pytest.mark.parametrize(("before", "pauses"), [({}, (10, 20, 40)), ({"polls": 3}, (80, 160, 320))])
def test_a_wait_backs_off_from_where_it_was(monkeypatch, before, pauses):
    drive = Drive(monkeypatch, *[record()] * 3, record("SUCCESS", wav_url=URL), seconds=3600.0)
    drive(wait(*JOB, Pace(10.0, exponential_backoff=True), drive.left, **before))
    assert [pause.seconds for pause in drive.pauses] == [pytest.approx(nominal, rel=0.11) for nominal in pauses]


@pytest.mark.parametrize(("timeout", "shown"), [(3600, "3600"), (3600.0, "3600"), (0.5, "0.5"), (0, "0")])
def test_a_time_out_says_how_long_and_what_was_last(timeout, shown):
    error = timed_out(WAV, "wav-1", "kie_other", timeout, "status PENDING").error
    assert type(error) is e.KieWaitTimeoutError
    assert (error.kie_task_id, error.conn_id) == ("wav-1", "kie_other")
    assert timed_out(POEMS, "p-1", "kie_other", timeout, "status wait").error.family == "poems"
    assert f"not finished within {shown} seconds; last: status PENDING" in error.problem


TEN_YEARS = 315_360_000


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *((30, 30.0), (0.5, 0.5), (1e-9, 1e-9), (TEN_YEARS, 315_360_000.0)),
        *((timedelta(minutes=2), 120.0), (timedelta(days=3650), 315_360_000.0)),
    ],
)
def test_a_length_of_time(value, seconds):
    found = as_seconds("timeout", value)
    assert found == seconds
    assert type(found) is float


@pytest.mark.parametrize(
    "value",
    [0, -1, 0.0, TEN_YEARS + 1, timedelta(0), timedelta(seconds=-1), math.nan, math.inf, -math.inf, True, None, "30"],
)
def test_no_length_of_time(value):
    with pytest.raises(e.KieValidationError) as caught:
        as_seconds("poll_interval", value)
    assert caught.value.problem.startswith(f"poll_interval is {value!r}, but must be seconds or a timedelta, above 0")


def test_a_single_poll_gives_the_job_or_the_reason():
    done = Done(record("SUCCESS", wav_url=URL))
    assert finished(WAV, "wav-1", done) is done
    with pytest.raises(e.KieNotReadyError, match="not finished: status PENDING") as early:
        finished(WAV, "wav-1", Wait("status PENDING"))
    assert early.value.kie_task_id == "wav-1"
    with pytest.raises(e.KieNotReadyError, match="poems job 'p-1'"):
        finished(POEMS, "p-1", Wait("status wait"))
    with pytest.raises(e.KieServerError) as trouble:
        finished(WAV, "wav-1", Wait("It thundered", trouble=TROUBLE))
    assert trouble.value is TROUBLE
    with pytest.raises(AirflowFailException, match="It failed"):
        finished(WAV, "wav-1", Failed(e.KieConversionFailedError("It failed")))


@pytest.mark.parametrize(
    ("error", "waited", "was_found", "ends"),
    [
        (e.KieConnectionNotFoundError("None"), 59.9, False, False),
        (e.KieConnectionNotFoundError("None"), 60.0, False, True),
        (e.KieConnectionNotFoundError("None"), 86400.0, True, False),
        (e.KieConfigurationError("Wrong host"), 0.0, True, True),
        (e.KieServerError("It thundered"), 86400.0, False, False),
    ],
)
def test_which_connection_errors_end_a_wait(error, waited, was_found, ends):
    assert connection_is_lost(error, waited, was_found=was_found) is ends


def test_a_job_that_the_other_row_knows_is_read_by_that_one_from_then_on(monkeypatch):
    """Otherwise each poll of a long wait would read twice."""
    known = record() | {"model": WAV.also.model}
    found = record("SUCCESS", wav_url=URL) | {"model": WAV.also.model}
    drive = Drive(monkeypatch, None, seconds=3600.0, elsewhere=known)
    course = wait(*JOB, Pace(30.0), drive.left)
    asked = [next(course)]
    for reading in (None, known, None, known, None):
        asked.append(course.send(reading))
    rows = [step for step in asked if isinstance(step, Family)]
    assert rows == [WAV, WAV.also, WAV.also, WAV.also]
    drive.elsewhere = found
    assert drive(wait(*JOB, Pace(30.0), drive.left)) == Done(found)
