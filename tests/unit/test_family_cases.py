# SPDX-License-Identifier: Apache-2.0
"""The cases of all families, put to the client's reader and to its judge."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_provider_kie import exceptions
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.families import FAMILIES
from airflow_provider_kie.api.job import KieJob, Submitted, read_job, submit_job
from airflow_provider_kie.emulator.answers import ANSWERS
from airflow_provider_kie.emulator.cases import CASES, SINGLES, Case
from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.waiting.verdict import Done, Failed, Judge, Reading, Verdict, Wait

KIE_TASK_ID = "a1"
SUBMITS = [name for name, case in CASES.items() if case.answer.endpoint == "submit"]
READS = [name for name in CASES if name not in SUBMITS]


def outcome_of(call: Any, case: Case) -> Any:
    try:
        return call.read(Response(200, case.answer.render(KIE_TASK_ID)))
    except KieError as error:
        return error


def read(case: Case) -> Reading:
    outcome: Reading = outcome_of(read_job(FAMILIES[case.family], KIE_TASK_ID), case)
    return outcome


def judge(case: Case) -> tuple[Verdict, Verdict]:
    """Return what the answer means at first, and what it means if KIE goes on giving it."""
    judge = Judge(FAMILIES[case.family], KIE_TASK_ID, "kie_default")
    return judge.judge(read(case), 0.0), judge.judge(read(case), math.inf)


def job_of(name: str) -> KieJob:
    job = read(CASES[name])
    assert isinstance(job, dict)
    return job


def test_names_of_cases_are_unique() -> None:
    assert all(name == case.name for name, case in CASES.items())
    assert len({*CASES, *SINGLES, *ANSWERS}) == len(CASES) + len(SINGLES) + len(ANSWERS)


@pytest.mark.parametrize("name", SUBMITS)
def test_a_submit(name: str) -> None:
    case = CASES[name]
    model = "m/x" if case.family == "jobs" else None
    outcome = outcome_of(submit_job(FAMILIES[case.family], {"prompt": "a"}, model=model), case)
    if case.meaning == "refused":
        assert type(outcome) is getattr(exceptions, case.error)
        return
    assert outcome == Submitted(KIE_TASK_ID, reused=case.meaning == "adopted")


@pytest.mark.parametrize("name", READS)
def test_a_read_and_a_wait(name: str) -> None:
    case = CASES[name]
    first, last = judge(case)
    if case.meaning == "done":
        assert isinstance(first, Done)
        assert tuple(file["url"] for file in first.job["files"]) == case.links
        assert case.links or first.job["result"]
        assert bool(first.warning) is case.warned
    elif case.meaning == "wait":
        assert isinstance(first, Wait)
        assert isinstance(last, Wait)
        assert first.warning is case.warned
    else:
        assert isinstance(first, Wait if case.meaning == "grace" else Failed)
        assert isinstance(last, Failed)
        assert type(last.error) is getattr(exceptions, case.error)
        assert last.error.family == FAMILIES[case.family].tag
        assert KIE_TASK_ID in str(last.error)


def test_results_that_are_no_files() -> None:
    assert job_of("jobs-object")["result"] == {"resultObject": {"subject_status": 1}}
    assert job_of("jobs-lyrics")["result"] == {"resultObject": {"lyricsData": [{"title": "R", "text": "..."}]}}
    assert job_of("midi-notes")["result"] == {"state": "complete"}
    assert [variant["title"] for variant in job_of("lyrics-one-of-two")["result"]] == ["A"]
    assert job_of("jobs-mask")["result"] == {"resultObject": {"mask_urls": ["https://t.example/m.png"]}}


def test_files_have_names() -> None:
    names = {name: [file["name"] for file in job_of(name)["files"]] for name in ("jobs-last-frame", "stems-by-name")}
    assert names == {"jobs-last-frame": ["result", "last_frame"], "stems-by-name": ["vocal", "instrumental"]}


@pytest.mark.parametrize("name", ["jobs-two-songs", "jobs-one-song-of-two", "music-two-songs"])
def test_songs_that_have_a_file_keep_their_ids(name: str) -> None:
    job = job_of(name)
    assert {track["music_task_id"] for track in job["tracks"]} == {KIE_TASK_ID}
    assert [track["audio_id"] for track in job["tracks"]] == ["s1", "s2"][: len(job["files"])]


def test_progress_and_credits_are_read() -> None:
    assert job_of("4o-image-half")["progress"] == 0.5
    assert job_of("jobs-generating")["credits"] == 4.0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("jobs-not-json", "not json"),
        ("music-asked-for-a-wav", "music job 'a1'"),
        ("aleph-pending-but-refused", "'x'"),
    ],
)
def test_messages_name_the_cause(name: str, says: str) -> None:
    verdict = judge(CASES[name])[1]
    assert isinstance(verdict, Failed)
    assert says in str(verdict.error)
