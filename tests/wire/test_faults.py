# SPDX-License-Identifier: Apache-2.0
"""200 conversions while three of ten answers of KIE are replaced by trouble: each outcome right, none paid twice."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.triggers.wav import WavConversionTrigger
from tests.modes import only_event

SEED = 20261122
TRIES = 20


def submit(track: tuple[str, str]) -> str:
    """Submit as a task with retries does."""
    for _ in range(TRIES):
        try:
            return KieHook().convert_to_wav(*track)
        except KieError as error:
            if not error.transient:
                raise
    raise AssertionError("the submit never came through")


async def wait_for_all(kie_task_ids):
    deadline = time.time() + 120
    triggers = [WavConversionTrigger(each, "kie_default", 0.2, deadline, 120) for each in kie_task_ids]
    return await asyncio.gather(*map(only_event, triggers))


def test_200_waits_among_faults(kie):
    kie.configure(fault_share=0.3, fault_seed=SEED, conversion_seconds=1.0)
    tracks = [("fail-music" if number % 10 == 0 else "music", f"track-{number}") for number in range(190)]
    with ThreadPoolExecutor(8) as pool:
        kie_task_ids = list(pool.map(submit, tracks))
    unknown = [f"unknown-{number}" for number in range(10)]

    events = asyncio.run(wait_for_all([*kie_task_ids, *unknown]))

    assert len(set(kie_task_ids)) == kie.accepted_submits == len(tracks)
    for (music_task_id, _), kie_task_id, event in zip(tracks, kie_task_ids, events, strict=False):
        if music_task_id == "music":
            assert event["status"] == "success", event
            assert event["conversion"]["kie_task_id"] == kie_task_id
        else:
            assert event["error"]["type"] == "KieConversionFailedError", event
    assert {event["error"]["type"] for event in events[len(tracks) :]} == {"KieNotFoundError"}
    met = [request["answer"] for request in kie.requests() if request["answer"]]
    assert 0.2 < len(met) / len(kie.requests()) < 0.4
