# SPDX-License-Identifier: Apache-2.0
"""
The record of a job in each of the five dialects of KIE's families.

The keys of a record were recorded for the Market and Aleph; the others follow KIE's pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from airflow_provider_kie.emulator.traffic import Json

__all__ = ["Job", "Link", "Record", "Result", "Stage", "as_runway", "as_text", "flags", "market", "numbers", "words"]

#: The stages of a job; KIE's steps in between are not distinguished.
Stage = Literal["pending", "done", "failed"]
#: Returns the link to a file of the job, by its extension and its number.
Link: TypeAlias = Callable[[str, int], str]

# The fields of a submit with which a test can request a failure.
_NAMES: Final = ("taskId", "task_id", "prompt", "title", "name", "text")
_TRY_AGAIN: Final = "internal error, please try again later."


@dataclass(frozen=True, slots=True)
class Job:
    """
    One accepted job.

    :param kie_task_id: its id
    :param family: the name of its family
    :param input: what was submitted; for KIE's Market what was in ``input``
    :param model: the Market model, or an empty text
    :param callback_url: where KIE would report the end
    :param price: what it costs, in credits
    :param created_at: seconds since the epoch
    :param ready_at: when it ends
    """

    kie_task_id: str
    family: str
    input: Mapping[str, object]
    model: str
    callback_url: str
    price: float
    created_at: float
    ready_at: float

    @property
    def fails(self) -> bool:
        """Whether it ends in failure: one of its names begins with ``fail``, or its model always fails."""
        names = (self.input.get(name) for name in _NAMES)
        return self.model in _ALWAYS_FAILING or any(isinstance(name, str) and name.startswith("fail") for name in names)

    def first_text(self, *names: str) -> str:
        """The first of these fields that has a text."""
        given = (self.input.get(name) for name in names)
        return next((value for value in given if isinstance(value, str) and value), "")


# Accepted since 2026-06, but every job fails (measured).
_ALWAYS_FAILING: Final = ("elevenlabs/sound-effect-v2",)

#: Builds the result of a finished job.
Result: TypeAlias = Callable[[Job, Link], Json]
Record: TypeAlias = Callable[[Job, Stage, Link], Json]


def as_text(value: object) -> str:
    """JSON as a text, as in several of KIE's fields."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def market(result: Result) -> Record:
    """KIE's Market since 2026-09: the result as JSON in a text, and again as an object."""

    def record(job: Job, stage: Stage, link: Link) -> Json:
        made = result(job, link) if stage == "done" else None
        echo = as_text({"input": as_text(job.input), "model": job.model})
        return {
            "taskId": job.kie_task_id,
            "model": job.model,
            "state": {"pending": "generating", "done": "success", "failed": "fail"}[stage],
            "param": echo,
            "resultJson": as_text(made) if made else "",
            "failCode": "500" if stage == "failed" else None,
            "failMsg": _TRY_AGAIN if stage == "failed" else None,
            "costTime": None if stage == "pending" else round(job.ready_at - job.created_at),
            **_times(job, stage),
            # Measured: nothing for a job that failed.
            "creditsConsumed": 0.0 if stage == "failed" else job.price,
            "operationType": job.model,
            **({"response": made} if made else {}),
            # No failed record was ever recorded; Aleph has 3.
            "successFlag": {"pending": 0, "done": 1, "failed": 3}[stage],
            "paramJson": echo,
        }

    return record


def words(result: Result, failed: str, *, error_code: int = 500, failed_response: Json | None = None) -> Record:
    """Music and lyrics: a word in ``status``."""

    def record(job: Job, stage: Stage, link: Link) -> Json:
        return {
            "taskId": job.kie_task_id,
            "param": as_text(job.input),
            "response": result(job, link) if stage == "done" else failed_response if stage == "failed" else None,
            "status": {"pending": "PENDING", "done": "SUCCESS", "failed": failed}[stage],
            **_times(job, stage),
            **_errors(stage, error_code),
        }

    return record


def flags(result: Result, failed: str) -> Record:
    """Conversions of a song: a word in ``successFlag``."""

    def record(job: Job, stage: Stage, link: Link) -> Json:
        return {
            "taskId": job.kie_task_id,
            "musicId": job.input.get("audioId"),
            "callbackUrl": job.callback_url,
            "musicIndex": 0,
            "response": result(job, link) if stage == "done" else None,
            "successFlag": {"pending": "PENDING", "done": "SUCCESS", "failed": failed}[stage],
            **_times(job, stage),
            "errorCode": 500 if stage == "failed" else None,
            "errorMessage": "Internal Error - Please try again later." if stage == "failed" else None,
        }

    return record


def numbers(
    result: Result,
    *,
    failed: int,
    pending: int = 0,
    key: str = "response",
    error_code: int | str = 500,
    no_error: str | None = None,
    stages: Mapping[Stage, Json] | None = None,
) -> Record:
    """
    Images and videos: a number in ``successFlag``, whose meaning depends on the family.

    :param error_code: the code of a failure, a text for MIDI
    :param no_error: the message without an error, an empty text for Veo
    :param stages: further fields of the record at each stage
    """

    def record(job: Job, stage: Stage, link: Link) -> Json:
        return {
            "taskId": job.kie_task_id,
            "paramJson": as_text(job.input),
            key: result(job, link) if stage == "done" else None,
            **_times(job, stage),
            "successFlag": {"pending": pending, "done": 1, "failed": failed}[stage],
            **_errors(stage, error_code, no_error),
            **(stages[stage] if stages else {}),
        }

    return record


def as_runway(job: Job, stage: Stage, link: Link) -> Json:
    """Runway: a word in ``state``, times without a zone, and a link within ``videoInfo``."""
    video = {"videoId": f"video-{job.kie_task_id}", "taskId": job.kie_task_id}
    links = {"videoUrl": link("mp4", 0), "imageUrl": link("png", 0)}
    created = datetime.fromtimestamp(job.created_at, UTC)
    return {
        "taskId": job.kie_task_id,
        "parentTaskId": job.first_text("taskId"),
        "generateParam": dict(job.input),
        "state": {"pending": "queueing", "done": "success", "failed": "fail"}[stage],
        "generateTime": created.strftime("%Y-%m-%d %H:%M:%S"),
        "videoInfo": video | links if stage == "done" else None,
        "failCode": 500 if stage == "failed" else 0,
        "failMsg": _TRY_AGAIN if stage == "failed" else "",
        "expireFlag": 0,
    }


def _times(job: Job, stage: Stage) -> Json:
    ended = None if stage == "pending" else int(job.ready_at * 1000)
    return {"completeTime": ended, "createTime": int(job.created_at * 1000)}


def _errors(stage: Stage, code: int | str, no_error: str | None = None) -> Json:
    failed = stage == "failed"
    return {"errorCode": code if failed else None, "errorMessage": _TRY_AGAIN if failed else no_error}
