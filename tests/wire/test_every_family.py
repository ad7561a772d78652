# SPDX-License-Identifier: Apache-2.0
"""Every family of the table, submitted and waited for over HTTP until it ends, the same by both hooks."""

from __future__ import annotations

import asyncio
import json
import re
from pkgutil import resolve_name

import pytest

from airflow_provider_kie.api.families import FAMILIES, MUSIC, tag_of
from airflow_provider_kie.exceptions import KieNotFoundError, KieNotReadyError, KieWaitTimeoutError, label
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.times import switched
from airflow_provider_kie.triggers.event import read_event
from airflow_provider_kie.triggers.job import KieJobTrigger
from airflow_provider_kie.waiting.verdict import Done, Failed, finished
from tests.jobs import IMAGE_MODEL, job_of
from tests.modes import only_event

MUSICAL = [name for name, row in FAMILIES.items() if row.query == MUSIC.query]
TWO = [("result", 0), ("result", 1)]
WITH_IMAGE = [("result", 0), ("image", 0)]
#: Name and index of the files of a job, where they are not one main result.
FILES = dict.fromkeys(MUSICAL, TWO) | {
    "lyrics": [],
    "midi": [],
    "stems": [("vocal", 0), ("instrumental", 0)],
    "cover-image": TWO,
    "runway": WITH_IMAGE,
    "runway-extend": WITH_IMAGE,
    "aleph": WITH_IMAGE,
}
#: What a record holds besides, or instead of files.
RESULTS = dict.fromkeys(MUSICAL, lambda record: record["response"]["sunoData"]) | {
    "lyrics": lambda record: record["response"]["data"],
    "midi": lambda record: record["midiData"],
    "wav": lambda record: {"musicId": record["musicId"], "musicIndex": record["musicIndex"]},
}


def over_requests(kie_task_id, family, timeout):
    return KieHook().wait(FAMILIES[family], kie_task_id, poll_interval=0.03, timeout=timeout)


def in_the_triggerer(kie_task_id, family, timeout):
    trigger = KieJobTrigger(kie_task_id, "kie_default", 0.03, None, timeout, family=family)
    path, arguments = json.loads(json.dumps(trigger.serialize()))
    return read_event(asyncio.run(only_event(resolve_name(path)(**arguments))))


@pytest.fixture(params=[over_requests, in_the_triggerer], ids=lambda wait: wait.__name__)
def wait(request, kie):
    def until_it_ends(kie_task_id, family, timeout=20.0):
        return request.param(kie_task_id, family, timeout)

    kie.configure(conversion_seconds=0.05)
    return until_it_ends


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def submit(family, **fields):
    return KieHook().submit_job(**job_of(family, **fields))


def record_of(kie, family, kie_task_id):
    return kie.state.record_info(kie_task_id, family).data


def named(family, kie_task_id):
    return f"{label(tag_of(family))} '{kie_task_id}'"


def test_a_job_brings_all_its_results(kie, wait, family):
    kie_task_id = submit(family, **({"type": "separate_vocal"} if family == "stems" else {}))
    end = wait(kie_task_id, family)
    assert isinstance(end, Done), end
    assert end.warning == ""
    job, record = end.job, record_of(kie, family, kie_task_id)
    model = IMAGE_MODEL if family == "jobs" else None
    assert (job["family"], job["model"], job["kie_task_id"]) == (family, model, kie_task_id)
    assert [(file["name"], file["index"]) for file in job["files"]] == FILES.get(family, [("result", 0)])
    links = [file["url"] for file in job["files"]]
    assert set(links) <= set(re.findall(rf"{kie.url}/s/[^\"\\]+", json.dumps(record)))
    assert len(set(links)) == len(links)
    assert job["result"] == (RESULTS[family](record) if family in RESULTS else None)
    songs = record["response"]["sunoData"] if family in MUSICAL else []
    assert job["tracks"] == [{"music_task_id": kie_task_id, "audio_id": song["id"]} for song in songs]
    assert job["credits"] == record.get("creditsConsumed")
    assert (job["error_code"], job["error_message"]) == (None, None)
    assert (kie.accepted_submits, kie.credits_spent > 0) == (1, True)


def test_a_job_that_fails_is_named_with_kies_reason(kie, wait, family):
    kie_task_id = submit(family, prompt="fail please")
    end = wait(kie_task_id, family)
    assert isinstance(end, Failed), end
    record, error = record_of(kie, family, kie_task_id), end.error
    code, said = next((record[code], record[said]) for code, said in CAUSES if record.get(code))
    assert type(error) is FAMILIES[family].failure
    assert (error.kie_task_id, error.code) == (kie_task_id, int(code))
    assert error.family == (None if family == "wav" else family)
    assert named(family, kie_task_id) in str(error)
    assert f"code {code}, {said!r}" in str(error)


CAUSES = (("errorCode", "errorMessage"), ("failCode", "failMsg"))


def test_a_job_that_goes_on_is_shown_with_its_status(kie, wait, family):
    kie.configure(conversion_seconds=600)
    row, kie_task_id = FAMILIES[family], submit(family)
    record = record_of(kie, family, kie_task_id)
    status = next(record[key] for key in row.status if key in record)
    end = wait(kie_task_id, family, timeout=0.1)
    assert isinstance(end, Failed), end
    assert type(end.error) is KieWaitTimeoutError
    assert f"within 0.1 seconds; last: status {status} ({named(family, kie_task_id)}, " in str(end.error)
    with pytest.raises(KieNotReadyError, match=rf"not finished: status {status} \({named(family, kie_task_id)}"):
        finished(row, kie_task_id, KieHook().poll(row, kie_task_id))


@switched(grace=20.0)  # the fixture's short one is for running out
def test_a_job_that_is_not_visible_yet_is_found(kie, wait, family, monkeypatch):
    kie_task_id = submit(family)
    answer, hidden = kie.state.record_info, iter(range(2))
    monkeypatch.setattr(
        kie.state, "record_info", lambda asked, at: answer(asked if next(hidden, None) is None else "nobodys", at)
    )
    end = wait(kie_task_id, family)
    assert isinstance(end, Done), end
    assert end.job["kie_task_id"] == kie_task_id
    assert len(kie.requests("record-info")) >= 3


def test_an_id_that_stays_unknown_names_its_family(kie, wait, family):
    end = wait("988e00aa", family)
    assert isinstance(end, Failed), end
    assert type(end.error) is KieNotFoundError
    what = named(family, "988e00aa")
    assert str(end.error).startswith(f"KIE does not know this {what.rpartition(' ')[0]} ({what}, ")
    asked = kie.requests("record-info")
    assert len(asked) >= 2
    row = FAMILIES[family]
    assert {read["path"] for read in asked} == {each.query for each in (row, row.also) if each}
