# SPDX-License-Identifier: Apache-2.0
"""
WAV conversion in the terms of the public WAV classes: a view of the family ``wav``.

Sources: the pages "Convert to WAV" and "Get WAV Details" (2026-04-29), and the recorded answers of ``/wav/generate``
(2026-04-28) and ``/wav/record-info`` (2026-08-05) for unknown ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypedDict, cast

from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.families import WAV, WAV_ROUTES
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.fields import check_id, check_url, text, whole
from airflow_provider_kie.api.job import KieFile, KieJob, Submitted, submit_job
from airflow_provider_kie.exceptions import KieValidationError
from airflow_provider_kie.redaction import quoted

__all__ = [
    "Submitted",
    "WavConversion",
    "WavStatus",
    "as_conversion",
    "as_job",
    "check_route",
    "convert_to_wav",
    "id_in",
    "row_of",
]


class WavStatus(StrEnum):
    """The values of ``successFlag`` on the page "Get WAV Details"; there is no separate word for running."""

    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    CREATE_TASK_FAILED = "CREATE_TASK_FAILED"
    GENERATE_WAV_FAILED = "GENERATE_WAV_FAILED"
    #: KIE could not deliver its callback; the audio is usually there.
    CALLBACK_EXCEPTION = "CALLBACK_EXCEPTION"


class WavConversion(TypedDict):
    """
    One WAV conversion as KIE describes it, in JSON scalars, fit for XCom.

    ``kie_task_id``: the WAV task. ``music_id``: the track (KIE's ``audioId``). ``music_index``: its position in
    the music task, 0 or 1. ``status``: a :class:`WavStatus` value, or an undocumented word of KIE's in capitals.
    ``wav_url``: an http(s) URL or None; KIE deletes the file 14 days after success. ``create_time``, ``complete_time``:
    ISO 8601 where KIE sent a number, else KIE's text, whose time zone is not documented. ``error_code``,
    ``error_message``: None where KIE reports no error (null, 0, 200 or an empty text).
    """

    kie_task_id: str
    music_id: str | None
    music_index: int | None
    status: str
    wav_url: str | None
    create_time: str | None
    complete_time: str | None
    error_code: int | str | None
    error_message: str | None


def row_of(route: str) -> Family:
    """
    Return the row of a WAV route.

    :param route: ``"wav"``: ``/wav/generate``, where KIE's documentation says that a second submit is refused.
        ``"jobs"``: the model of KIE's Market, where it may be charged again.
    :raises KieValidationError: there is no such route.
    """
    row = WAV_ROUTES.get(route) if isinstance(route, str) else None
    if row is None:
        raise KieValidationError(f"route is {quoted(route)}, but must be {' or '.join(map(repr, WAV_ROUTES))}")
    return row


def check_route(route: str | None) -> str | None:
    """
    Return the route that a task was given; None stands for the connection's.

    :param route: see :func:`row_of`.
    :raises KieValidationError: there is no such route.
    """
    if route is not None:
        row_of(route)
    return route


def id_in(given: object) -> str:
    """
    Return the id of a conversion, unchecked; its type may still be wrong.

    :param given: the id, a :class:`WavConversion`, or a :class:`~airflow_provider_kie.api.job.KieJob`.
    :raises KieValidationError: it is a job of another family.
    """
    if not isinstance(given, Mapping):
        return cast("str", given)
    if (family := given.get("family", WAV.name)) not in WAV_ROUTES:
        raise KieValidationError(f"kie_task_id is a job of family {quoted(family)}, not a WAV conversion")
    return cast("str", given.get("kie_task_id", ""))


def convert_to_wav(
    music_task_id: str, audio_id: str, callback_url: str | None = None, row: Family = WAV
) -> Call[Submitted]:
    """
    Submit a conversion; costs about 0.4 credits when it is accepted.

    By ``/wav/generate`` a second submit for the same track is answered with 409. That a 409 names the earlier task is
    not documented; where it does, that task is the result. What a second submit does on the Market is unknown.

    :param music_task_id: the music task that made the track (KIE's ``taskId``).
    :param audio_id: the track (KIE's ``audioId``, ``response.sunoData[].id`` of the music task).
    :param callback_url: where KIE reports the end; required even from clients that poll, except on the Market.
    :param row: the row of the route, see :func:`row_of`.
    :raises KieValidationError: an argument cannot be right.
    """
    music, track = check_id("music_task_id", music_task_id), check_id("audio_id", audio_id)
    body = {"task_id": music, "audio_id": track} if row.wrapped else {"taskId": music, "audioId": track}
    purpose = f"Submitting the WAV conversion of track {quoted(track)} of music task {quoted(music)}"
    url = check_url("callback_url", callback_url) if row.callback or callback_url else None
    return submit_job(row, body, callback_url=url, purpose=purpose)


def as_conversion(job: KieJob) -> WavConversion:
    """Return a job of the family as a :class:`WavConversion`."""
    track = job["result"] if isinstance(job["result"], dict) else {}
    return WavConversion(
        kie_task_id=job["kie_task_id"],
        music_id=text(track.get("musicId") or track.get("audio_id")),
        music_index=whole(track.get("musicIndex")),
        status=job["status"].upper(),
        wav_url=job["files"][0]["url"] if job["files"] else None,
        create_time=job["create_time"],
        complete_time=job["complete_time"],
        error_code=job["error_code"],
        error_message=job["error_message"],
    )


def as_job(conversion: WavConversion) -> KieJob:
    """Return the job that a conversion describes, such as one from an event of an earlier version."""
    url = conversion["wav_url"]
    return KieJob(
        family=WAV.name,
        model=None,
        kie_task_id=conversion["kie_task_id"],
        status=conversion["status"],
        files=[KieFile(url=url, name="result", index=0)] if url else [],
        result={"musicId": conversion["music_id"], "musicIndex": conversion["music_index"]},
        tracks=[],
        progress=None,
        credits=None,
        create_time=conversion["create_time"],
        complete_time=conversion["complete_time"],
        error_code=conversion["error_code"],
        error_message=conversion["error_message"],
    )
