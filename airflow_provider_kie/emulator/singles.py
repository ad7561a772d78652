# SPDX-License-Identifier: Apache-2.0
"""
KIE's single calls in the emulator, one row each: calls that belong to no family of jobs.

Refusals and the answer of a boosted style were recorded (2026-04 to 2026-09). The other answers follow KIE's pages, a
sister site's, or the code of clients.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from airflow_provider_kie.emulator.envelope import Envelope
from airflow_provider_kie.emulator.state import EmulatorState

__all__ = ["SINGLE_CALLS", "Single", "answer_to"]

_API: Final = "/api/v1/"
Asked: TypeAlias = Mapping[str, object]
Answering: TypeAlias = "Callable[[EmulatorState, Single, Asked], Envelope]"


@dataclass(frozen=True, slots=True)
class Single:
    """
    One call.

    :param method: its HTTP method
    :param path: its path
    :param reply: answers a valid call
    :param price: credits for each call, or for the rendering that it starts
    :param required: fields without which it is refused
    :param absent: result number and text for an unknown id, which here begins with ``unknown``
    """

    method: str
    path: str
    reply: Answering
    price: float = 0.0
    required: tuple[str, ...] = ()
    absent: tuple[int, str] = (200, "success")

    def id_of(self, asked: Asked) -> str:
        """The id that the call is about."""
        return str(asked.get("taskId", asked.get("task_id")))


def answer_to(single: Single, kie: EmulatorState, asked: Asked | None) -> Envelope:
    """The answer to a call."""
    if asked is None:
        return Envelope(400, "Format Error - The parameter is not in JSON format")
    for name in single.required:
        if asked.get(name) in (None, ""):
            return Envelope(422, f"Please enter {name}.")
    if single.id_of(asked).startswith("unknown"):
        return Envelope(*single.absent)
    return single.reply(kie, single, asked)


# --- Kinds of calls


def _at_once(**data: object) -> Answering:
    """Answer with this data; charged each time."""
    return lambda kie, single, asked: kie.charge(single.price) or Envelope(data=data)


def _begins(read: str, id_key: str = "taskId") -> Answering:
    """Start something that is read at another path; charged each time."""

    def reply(kie: EmulatorState, single: Single, asked: Asked) -> Envelope:
        if refused := kie.charge(single.price):
            return refused
        new = secrets.token_hex(16)
        kie.start(_API + read, new)
        return Envelope(data={id_key: new})

    return reply


def _voice(name: str, made: str, done: str) -> Answering:
    """Read a record, which at the end has ``made`` in the field ``name``, and the status ``done``."""

    def reply(kie: EmulatorState, single: Single, asked: Asked) -> Envelope:
        what = (single.path, single.id_of(asked))
        if what not in kie.started:
            return Envelope(*single.absent)
        ready = kie.is_ready(*what)
        record = {"taskId": what[1], name: made if ready else None, "status": done if ready else "pending"}
        return Envelope(data={**record, "errorCode": None, "errorMessage": None})

    return reply


def _recovered(kie: EmulatorState, single: Single, asked: Asked) -> Envelope:
    what = (single.path, single.id_of(asked))
    if what not in kie.started:
        return Envelope(*single.absent)
    if not kie.is_ready(*what):
        return Envelope(201, "processing")
    songs = [
        {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{what[1]}/{number}")),
            "audio_url": kie.file_url(what[1], "mp3", number),
            "title": "Emulated song",
            "status": "success",
            "error": "",
        }
        for number in range(2)
    ]
    return Envelope(data=songs)


def _upscale(kie: EmulatorState, single: Single, asked: Asked) -> tuple[bool, str | None] | Envelope:
    """Whether this call started the rendering, which is charged; and the link once it is done."""
    kie_task_id, index = single.id_of(asked), str(asked.get("index") or 0)
    what = (single.path, kie_task_id, index)
    new = what not in kie.started
    if new and (refused := kie.charge(single.price)):
        return refused
    kie.start(*what)
    return new, kie.file_url("/".join(what), "mp4") if kie.is_ready(*what) else None


def _in_1080p(kie: EmulatorState, single: Single, asked: Asked) -> Envelope:
    """A 500 while it runs, as measured."""
    upscale = _upscale(kie, single, asked)
    if isinstance(upscale, Envelope):
        return upscale
    link = upscale[1]
    return Envelope(data={"resultUrl": link}) if link else Envelope(500, "Server exception, please try again later")


def _in_4k(kie: EmulatorState, single: Single, asked: Asked) -> Envelope:
    """At first a success without links; a 422 while it runs, and also with the links."""
    upscale = _upscale(kie, single, asked)
    if isinstance(upscale, Envelope):
        return upscale
    new, link = upscale
    data = {"taskId": single.id_of(asked), "resultUrls": [link] if link else None, "imageUrls": None}
    if link:
        return Envelope(422, "The video has been generated successfully", data)
    return Envelope(data=data) if new else Envelope(422, "4k is processing. Please check back shortly.", data)


def _style(kie: EmulatorState, single: Single, asked: Asked) -> Envelope:
    data: dict[str, object] = {
        "taskId": secrets.token_hex(16),
        "param": "{}",
        "result": f"{asked['content']}, warm strings, slow tempo",
        "creditsConsumed": single.price,
        "successFlag": "成功",
        "errorCode": None,
        "errorMsg": None,
    }
    return kie.charge(single.price) or Envelope(data={**data, "creditsRemaining": kie.settings.credits})


_WORDS: Final = [{"word": "[Verse]\nA song", "success": True, "startS": 1.2, "endS": 1.9, "palign": 0}]
_ID: Final = ("taskId",)
_SNAKE_ID: Final = ("task_id",)
_SONG: Final = ("taskId", "audioId")
_NO_VIDEO: Final = (422, "Record does not exist")

#: The prices of a style and of 1080p and 4K (before 2026-06-11) were measured. The price of timestamped lyrics, and the
#: free persona, are from a copy of KIE's price list; the others are guesses.
SINGLE_CALLS: Final = (
    Single(
        "POST",
        _API + "generate/generate-persona",
        _at_once(personaId="persona-1", name="Persona", description="Emulated"),
        required=(*_SONG, "name", "description"),
        absent=(422, "Music does not exist"),
    ),
    Single(
        "POST",
        _API + "generate/get-timestamped-lyrics",
        _at_once(alignedWords=_WORDS, waveformData=[0.1], hootCer=0.3, isStreamed=False),
        price=0.5,
        required=_SONG,
        absent=(422, "The corresponding record does not exist"),
    ),
    Single("POST", _API + "style/generate", _style, price=0.4, required=("content",)),
    Single(
        "POST",
        _API + "voice/validate",
        _begins("voice/validate-info"),
        price=1.0,
        required=("voiceUrl", "vocalStartS", "vocalEndS"),
    ),
    Single(
        "POST",
        _API + "voice/regenerate",
        _begins("voice/validate-info"),
        price=1.0,
        required=_ID,
        absent=(422, "Validate record not found or no retry needed"),
    ),
    Single("GET", _API + "voice/validate-info", _voice("validateInfo", "La la la", "wait_validating"), required=_ID),
    Single(
        "POST",
        _API + "voice/generate",
        _begins("voice/record-info"),
        price=1.0,
        required=("taskId", "verifyUrl"),
        absent=(422, "Validate record not found"),
    ),
    Single("GET", _API + "voice/record-info", _voice("voiceId", "voice-1", "success"), required=_ID),
    Single(
        "POST",
        _API + "voice/check-voice",
        _at_once(isAvailable=True),
        required=_SNAKE_ID,
        absent=(422, "Voice record not found"),
    ),
    Single(
        "POST",
        _API + "suno/recovery",
        _begins("suno/recovery/record-info", "task_id"),
        price=1.0,
        required=_SNAKE_ID,
        absent=(500, "The original Suno task does not exist."),
    ),
    Single(
        "GET",
        _API + "suno/recovery/record-info",
        _recovered,
        required=_SNAKE_ID,
        absent=(500, "The music link recovery task does not exist."),
    ),
    Single("GET", _API + "veo/get-1080p-video", _in_1080p, price=5.0, required=_ID, absent=_NO_VIDEO),
    Single("POST", _API + "veo/get-4k-video", _in_4k, price=120.0, required=_ID, absent=_NO_VIDEO),
    Single(
        "POST",
        _API + "gpt4o-image/download-url",
        lambda kie, single, asked: kie.download_url(asked),
        required=("taskId", "url"),
        absent=(422, "record is null"),
    ),
)
