# SPDX-License-Identifier: Apache-2.0
"""The table of cases, put to the parser and the judge."""

from __future__ import annotations

import math

import pytest
import requests

from airflow_provider_kie.api import common, wav
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.families import WAV, WAV_ROUTES
from airflow_provider_kie.api.job import read_job
from airflow_provider_kie.emulator.answers import ANSWERS
from airflow_provider_kie.exceptions import KieError, KieUnexpectedCodeError
from airflow_provider_kie.waiting.verdict import Done, Failed, Judge, Wait
from tests.cases import COMMON, KIE_TASK_ID, LEFT_OUT, TABLE, WAV_URL

TRACK = ("music", "track", "https://api.example.com/callback")
SUBMIT = wav.convert_to_wav(*TRACK)
READ = read_job(WAV, KIE_TASK_ID)
CALL_OF_COMMON = {"credit": common.credit(), "download-url": common.download_url(WAV_URL)}

READABLE = [name for name in TABLE if ANSWERS[name].body is not None and not ANSWERS[name].fault]


def as_received(name: str) -> Response:
    answer = ANSWERS[name]
    headers = requests.structures.CaseInsensitiveDict(answer.headers)
    return Response.of(answer.status, headers, answer.render(), secret="canary")


def outcome_of(carry_out, call):
    try:
        return carry_out(call)
    except KieError as error:
        return error


def check_submit(expected, outcome):
    if isinstance(expected, str):
        assert outcome == wav.Submitted(KIE_TASK_ID, reused=expected == "reused")
    else:
        assert type(outcome) is expected


def check_read(expected, outcome):
    if expected == "record":
        assert outcome["kie_task_id"] == KIE_TASK_ID
        assert wav.as_conversion(outcome)["wav_url"] in (None, WAV_URL)
    elif expected == "unknown":
        assert outcome is None
    else:
        assert type(outcome) is expected


def test_every_answer_of_the_emulator_is_in_the_table():
    api_answers = {name for name, answer in ANSWERS.items() if answer.endpoint not in ("upload", "file")}
    assert set(TABLE) | set(COMMON) | set(LEFT_OUT) == api_answers


@pytest.mark.parametrize("name", [name for name in READABLE if TABLE[name].submit is not None])
def test_parser_on_a_submit(name):
    check_submit(TABLE[name].submit, outcome_of(SUBMIT.read, as_received(name)))


@pytest.mark.parametrize("name", [name for name in READABLE if TABLE[name].submit is not None])
def test_parser_on_a_submit_by_the_market(name):
    """The same, but that nobody knows what a 409 means there; an id that it names is kept."""
    outcome = outcome_of(wav.convert_to_wav(*TRACK, WAV_ROUTES["jobs"]).read, as_received(name))
    if not name.startswith("already-converted"):
        check_submit(TABLE[name].submit, outcome)
        return
    assert type(outcome) is KieUnexpectedCodeError
    assert outcome.existing_kie_task_id == (KIE_TASK_ID if TABLE[name].submit == "reused" else None)


@pytest.mark.parametrize("name", [name for name in READABLE if TABLE[name].read is not None])
def test_parser_on_a_read(name):
    check_read(TABLE[name].read, outcome_of(READ.read, as_received(name)))


@pytest.mark.parametrize("route", WAV_ROUTES)
@pytest.mark.parametrize("name", [name for name in READABLE if TABLE[name].wait is not None])
def test_waiting_rule(name, route):
    """
    The first look settles what may settle; the verdict after the grace is the table's.

    By the Market, the records are those that KIE has by the other route alone.
    """
    by_any_route = TABLE[name].submit is not None
    row = WAV_ROUTES[route] if by_any_route else WAV
    reading = outcome_of(read_job(row, KIE_TASK_ID).read, as_received(name))
    judge = Judge(WAV_ROUTES[route], KIE_TASK_ID, "kie_default")
    first, last = judge.judge(reading, 0.0), judge.judge(reading, math.inf)
    expected = TABLE[name].wait
    if expected == "done":
        assert isinstance(first, Done)
        assert wav.as_conversion(first.job)["wav_url"] == WAV_URL
    elif expected == "time-out":
        assert isinstance(first, Wait)
        assert isinstance(last, Wait)
        assert not last.settling
    else:
        assert isinstance(last, Failed)
        assert type(last.error) is expected


@pytest.mark.parametrize("name", COMMON)
def test_common_endpoints(name):
    outcome = outcome_of(CALL_OF_COMMON[ANSWERS[name].endpoint].read, as_received(name))
    assert outcome == COMMON[name] or type(outcome) is COMMON[name]
