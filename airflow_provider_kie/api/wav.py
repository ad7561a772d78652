# SPDX-License-Identifier: Apache-2.0
"""
KIE's WAV endpoints: each once, as a value, with the words and fields that their answers use.

Sources: the pages "Convert to WAV" and "Get WAV Details" (2026-04-29), and the recorded answers of
``/wav/generate`` (2026-04-28) and ``/wav/record-info`` (2026-08-05) for unknown ids. No recorded answer of a
finished conversion was found, and dialects of the same software differ, so the parser is lenient in everything
but three things: a link must be one that can be written as an http(s) URL, the answer must be about the task that was
asked for, and a record must be a JSON object.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, TypedDict

from airflow_provider_kie.api.call import Call, Repeat, check_id
from airflow_provider_kie.api.common import http_url
from airflow_provider_kie.api.envelope import Json
from airflow_provider_kie.exceptions import (
    KieAlreadyConvertedError,
    KieError,
    KieNotFoundError,
    KieUnreadableAnswerError,
    KieValidationError,
    KieWrongTaskError,
)
from airflow_provider_kie.redaction import harmless, printable, quoted, redact

__all__ = ["Submitted", "WavConversion", "WavStatus", "convert_to_wav", "record_info"]


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
    the music task, 0 or 1. ``status``: a :class:`WavStatus` value, or KIE's own word in capitals where it is not
    known. ``wav_url``: an http(s) URL, percent-encoded, or None; KIE deletes the file 14 days after success.
    ``create_time``, ``complete_time``: ISO 8601 where KIE sent a number, else KIE's text, whose time zone is not
    documented. ``error_code``, ``error_message``: None where KIE reports no error (null, 0, 200 or an empty text).
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


class Submitted(NamedTuple):
    """
    An accepted submit.

    :param kie_task_id: the WAV task to wait for.
    :param reused: True when KIE named the earlier conversion of the same track, and made no new one.
    """

    kie_task_id: str
    reused: bool


def convert_to_wav(music_task_id: str, audio_id: str, callback_url: str) -> Call[Submitted]:
    """
    Submit a conversion; costs about 0.4 credits when it is accepted.

    A second submit for the same track is answered with 409. That a 409 names the earlier task is not documented;
    where it does, that task is the result.

    :param music_task_id: the music task that made the track (KIE's ``taskId``).
    :param audio_id: the track (KIE's ``audioId``, ``response.sunoData[].id`` of the music task).
    :param callback_url: where KIE reports the end; KIE demands one also from clients that poll.
    :raises KieValidationError: an argument can not be right.
    """
    url = http_url(callback_url)
    if url is None:
        raise KieValidationError("callback_url is not an http(s) URL")
    music, track = check_id("music_task_id", music_task_id), check_id("audio_id", audio_id)
    return Call(
        f"Submitting the WAV conversion of track {quoted(track)} of music task {quoted(music)}",
        "POST",
        "/api/v1/wav/generate",
        _parse_submit,
        json={"taskId": music, "audioId": track, "callBackUrl": url},
        repeat=Repeat.UNDER_GUARD,
        recover=_adopt_earlier_task,
    )


def record_info(kie_task_id: str) -> Call[WavConversion | None]:
    """
    Read a conversion; None for an id that KIE does not know (or does not know yet).

    :param kie_task_id: the id that :func:`convert_to_wav` gave.
    :raises KieValidationError: the id can not be one of KIE.
    """
    if isinstance(kie_task_id, str) and "://" in kie_task_id:
        raise KieValidationError(
            "kie_task_id is a URL; ConvertToWavOperator pushes the id to XCom under the key 'kie_task_id', and returns "
            "it only with wait_for_completion=False"
        )
    asked = check_id("kie_task_id", kie_task_id)
    return Call(
        "Reading the WAV conversion",
        "GET",
        "/api/v1/wav/record-info",
        lambda data: _parse_record(data, asked),
        params={"taskId": asked},
        kie_task_id=asked,
        recover=_unknown_is_none,
    )


def _parse_submit(data: Json) -> Submitted:
    given = data.get("taskId") if isinstance(data, dict) else None
    kie_task_id = str(given) if type(given) is int else _text(given)
    if kie_task_id is None:
        raise KieUnreadableAnswerError("KIE accepted the submit but gave no task id")
    try:
        return Submitted(check_id("taskId", kie_task_id), reused=False)
    except KieValidationError as error:
        raise KieUnreadableAnswerError(f"KIE accepted the submit, but {error.problem}") from error


def _adopt_earlier_task(error: KieError) -> Submitted:
    if isinstance(error, KieAlreadyConvertedError) and error.existing_kie_task_id:
        with suppress(KieValidationError):  # an id that cannot be asked for is left to the user
            return Submitted(check_id("taskId", error.existing_kie_task_id), reused=True)
    raise error


def _unknown_is_none(error: KieError) -> None:
    # KIE documents 404 here and answers null; sister sites do answer 404.
    if not isinstance(error, KieNotFoundError):
        raise error


def _parse_record(data: Json, asked: str) -> WavConversion | None:
    if data is None:
        return None
    if not isinstance(data, dict):
        raise KieUnreadableAnswerError(f"the record is not an object but {type(data).__name__}")
    answered = _text(data.get("taskId")) or asked
    if answered != asked:
        raise KieWrongTaskError(f"KIE answered for WAV task {quoted(answered)}, which is not the one asked for")
    status = _status(data)
    return WavConversion(
        kie_task_id=asked,
        music_id=_text(data.get("musicId")),
        music_index=_whole(data.get("musicIndex")),
        status=status,
        wav_url=_wav_url(data.get("response"), status),
        create_time=_time(data.get("createTime")),
        complete_time=_time(data.get("completeTime")),
        error_code=_error_code(data.get("errorCode")),
        error_message=_message(data.get("errorMessage")),
    )


_WORDS = frozenset(word.value for word in WavStatus)
#: With these a file is there.
_WITH_FILE = (WavStatus.SUCCESS, WavStatus.CALLBACK_EXCEPTION)


def _status(data: dict[str, Json]) -> str:
    flag = data.get("successFlag")
    if isinstance(flag, str) and flag in _WORDS:
        return flag
    if flag is None:
        flag = data.get("status")  # older pages of the same software
    # Other families of KIE use numbers; 2 means something else in each of them, so only 0 and 1 are taken.
    if type(flag) is int and flag in (0, 1):
        return (WavStatus.PENDING, WavStatus.SUCCESS)[flag].value
    return redact(str(flag)).strip().upper()[:80] if flag is not None else ""


def _wav_url(response: Json, status: str) -> str | None:
    links = [response.get(name) for name in ("audioWavUrl", "audio_wav_url")] if isinstance(response, dict) else []
    for link in links:
        if url := http_url(link):
            return url
    given = [each for each in links or [response] if (each.strip() if isinstance(each, str) else each)]
    if given and status in _WITH_FILE:
        # Not a failed conversion, which a retry would submit and pay for again.
        raise KieUnreadableAnswerError(
            f"the conversion ended in {status}, but its link is not an http(s) URL: it begins with {_begin(given[0])}"
        )
    return None


def _begin(link: Json) -> str:
    """Return scheme and host of a link, or the first letters of what is none."""
    found = re.match(r"(?:[^/]{0,40}//)?[^/]{0,40}/?", harmless(link).strip())
    return quoted(found[0] if found else "")


def _text(value: Json) -> str | None:
    return printable(value).strip() or None if isinstance(value, str) else None


def _message(value: Json) -> str | None:
    text = _text(value)
    return redact(text) if text else None


def _whole(value: Json) -> int | None:
    """Read an int, or a float or text that stands for one, within 64 bits."""
    number: object = value
    if (isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value.strip())) or (
        isinstance(value, float) and value.is_integer()
    ):
        number = int(value)
    return number if type(number) is int and abs(number) < 2**63 else None


def _error_code(value: Json) -> int | str | None:
    if value is None or isinstance(value, bool) or value == "":
        return None
    number = _whole(value)
    if number is not None:
        return None if number in (0, 200) else number
    return redact(str(value))


def _time(value: Json) -> str | None:
    """Read epoch seconds or milliseconds as ISO 8601 in UTC; keep a text as it is."""
    number = _whole(value) if not isinstance(value, bool) else None
    if number is None:
        return _text(value)
    seconds = number / 1000 if abs(number) >= 10**11 else number
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None
