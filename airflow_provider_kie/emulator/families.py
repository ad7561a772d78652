# SPDX-License-Identifier: Apache-2.0
"""
The families of KIE's jobs in the emulator, one row each.

They are not derived from the client's rows, so that neither repeats a mistake of the other; a test compares the paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from airflow_provider_kie.emulator import results
from airflow_provider_kie.emulator.records import Record, as_runway, flags, market, numbers, words

__all__ = ["FAMILIES", "Row", "family_named"]

_API: Final = "/api/v1/"
_ABSENT: Final = "Record does not exist"


@dataclass(frozen=True, slots=True)
class Row:
    """
    One family.

    :param name: its name, the same as the client's
    :param submit: path of the submit, which is charged
    :param query: path of the read; the music families share one
    :param record: builds a job's record in the family's dialect
    :param price: credits for a job; on the Market it depends on the model
    :param required: fields without which a submit is refused, in KIE's order
    :param refusals: KIE's texts for a missing field, if not "Please enter …."
    :param unknown_parent: the text for an unknown music task; None if the submit does not check it
    :param once: the fields that may be submitted only once; if empty, a second submit is charged again
    :param conflict: result number and text for a second submit
    :param unknown: the text of a 422 for an unknown id; None if the answer is a success with null
    :param id_key: the name of the id
    :param on_market: the fields are in ``input``, beside a ``model``
    """

    name: str
    submit: str
    query: str
    record: Record
    price: float = 0.0
    required: tuple[str, ...] = ()
    refusals: Mapping[str, str] | None = None
    unknown_parent: str | None = None
    once: tuple[str, ...] = ()
    conflict: tuple[int, str] = (409, "")
    unknown: str | None = None
    id_key: str = "taskId"
    on_market: bool = False

    def refusal(self, field: str) -> str:
        """The text for a missing field."""
        return (self.refusals or {}).get(field, f"Please enter {field}.")


_JOBS: Final = Row(
    name="jobs",
    submit=_API + "jobs/createTask",
    query=_API + "jobs/recordInfo",
    record=market(results.by_model),
    required=("model",),
    unknown="recordInfo is null",
    on_market=True,
)

# 17 of Suno's operations require a callback URL (measured 2026-06), even if KIE's pages call it optional. Prices: WAV,
# lyrics, music video and generations as measured on the Market (2026-10-06); stems, MIDI and covers are guesses.
_MUSIC: Final = Row(
    name="music",
    submit=_API + "generate",
    query=_API + "generate/record-info",
    record=words(
        results.songs,
        "GENERATE_AUDIO_FAILED",
        error_code=501,
        failed_response={"sunoData": [], "errorMessage": "internal error, please try again later."},
    ),
    price=12.0,
    required=("callBackUrl", "customMode", "instrumental", "model"),
)

_SONG: Final = ("callBackUrl", "taskId", "audioId")


def _like_music(name: str, *required: str, refusals: Mapping[str, str] | None = None) -> Row:
    path = name.removeprefix("music-")
    return replace(
        _MUSIC, name=name, submit=f"{_MUSIC.submit}/{path}", required=("callBackUrl", *required), refusals=refusals
    )


# KIE's pages require more fields than KIE itself (mashup was accepted without style and title); the rows follow the
# recordings.
_SUNO: Final = (
    _MUSIC,
    _like_music("music-extend", "defaultParamFlag", "audioId", "model"),
    _like_music("upload-cover", "uploadUrl", "prompt", "customMode", "instrumental", "model"),
    _like_music("upload-extend", "uploadUrl", "defaultParamFlag", "continueAt", "model"),
    _like_music("add-vocals", "uploadUrl", "prompt", "title", "style", "negativeTags"),
    _like_music("add-instrumental", "uploadUrl", "title", "tags", "negativeTags"),
    _like_music(
        "replace-section",
        *("prompt", "tags", "title", "infillStartS", "infillEndS", "fullLyrics"),
        refusals={"fullLyrics": "fullLyrics cannot be blank"},
    ),
    _like_music("mashup", "uploadUrlList", "customMode", "model"),
    _like_music("sounds", "prompt", "model"),
    Row(
        name="lyrics",
        submit=_API + "lyrics",
        query=_API + "lyrics/record-info",
        record=words(results.lyrics, "GENERATE_LYRICS_FAILED"),
        price=0.4,
        required=("callBackUrl", "prompt"),
    ),
    Row(
        name="wav",
        submit=_API + "wav/generate",
        query=_API + "wav/record-info",
        record=flags(results.one("audioWavUrl", "wav"), "GENERATE_WAV_FAILED"),
        price=0.4,
        required=_SONG,
        unknown_parent=_ABSENT,
        once=("taskId", "audioId"),
        conflict=(409, "WAV record already exists"),
    ),
    Row(
        name="stems",
        submit=_API + "vocal-removal/generate",
        query=_API + "vocal-removal/record-info",
        record=flags(results.stems, "GENERATE_AUDIO_FAILED"),
        price=10.0,
        required=("callBackUrl", "type"),
        unknown_parent=_ABSENT,
    ),
    Row(
        name="midi",
        submit=_API + "midi/generate",
        query=_API + "midi/record-info",
        record=numbers(results.midi, failed=3, key="midiData", error_code="500"),
        price=1.0,
        required=("callBackUrl", "taskId"),
        unknown_parent=_ABSENT,
    ),
    Row(
        name="music-video",
        submit=_API + "mp4/generate",
        query=_API + "mp4/record-info",
        record=flags(results.one("videoUrl", "mp4"), "GENERATE_MP4_FAILED"),
        price=2.0,
        required=_SONG,
        unknown_parent=_ABSENT,
    ),
    Row(
        # Here 2 means running. A second submit is documented only on a sister site, which names the first one.
        name="cover-image",
        submit=_API + "suno/cover/generate",
        query=_API + "suno/cover/record-info",
        record=numbers(results.cover, failed=3, pending=2),
        price=1.0,
        required=("callBackUrl", "taskId"),
        unknown_parent="Original music record does not exist",
        once=("taskId",),
        conflict=(400, "The cover of this music task already exists"),
    ),
)

_NOT_THERE: Final = "The record does not exist"

# Prices of images and videos are guesses, about as high as in KIE's price list; only those of single calls (1080p, 4K)
# were measured.
_IMAGES: Final = (
    Row(
        name="4o-image",
        submit=_API + "gpt4o-image/generate",
        query=_API + "gpt4o-image/record-info",
        record=numbers(
            results.files("resultUrls", "png"),
            failed=2,
            stages={
                "pending": {"status": "GENERATING", "progress": "0.50"},
                "done": {"status": "SUCCESS", "progress": "1.00"},
                "failed": {"status": "GENERATE_FAILED", "progress": "0.00"},
            },
        ),
        price=6.0,
        required=("size",),
        unknown=_NOT_THERE,
    ),
    Row(
        # The link of the original is an input.
        name="flux-kontext",
        submit=_API + "flux/kontext/generate",
        query=_API + "flux/kontext/record-info",
        record=numbers(
            lambda job, link: {"originImageUrl": job.first_text("inputImage"), "resultImageUrl": link("png", 0)},
            failed=3,
        ),
        price=4.0,
        required=("prompt",),
        unknown=_NOT_THERE,
    ),
)

_VEO: Final = Row(
    name="veo",
    submit=_API + "veo/generate",
    query=_API + "veo/record-info",
    record=numbers(
        results.files("resultUrls", "mp4", originUrls=None, fullResultUrls=None, resolution="720p"),
        failed=3,
        no_error="",
    ),
    price=60.0,
    required=("prompt",),
    unknown="Record not found for taskId: {}",
)
_RUNWAY: Final = Row(
    name="runway",
    submit=_API + "runway/generate",
    query=_API + "runway/record-detail",
    record=as_runway,
    price=12.0,
    required=("prompt", "duration", "quality"),
)
_VIDEOS: Final = (
    _VEO,
    replace(
        # The new part, and the whole.
        _VEO,
        name="veo-extend",
        submit=_API + "veo/extend",
        record=numbers(
            lambda job, link: {
                "resultUrls": [link("mp4", 0)],
                "originUrls": None,
                "fullResultUrls": [link("mp4", 1)],
                "resolution": "720p",
            },
            failed=3,
            no_error="",
        ),
        required=("taskId", "prompt"),
    ),
    _RUNWAY,
    # Accepted with any parent (recorded).
    replace(_RUNWAY, name="runway-extend", submit=_API + "runway/extend", required=("taskId", "prompt", "quality")),
    Row(
        name="aleph",
        submit=_API + "aleph/generate",
        query=_API + "aleph/record-info",
        record=numbers(
            lambda job, link: {"resultVideoUrl": link("mp4", 0), "resultImageUrl": link("png", 0)}, failed=3
        ),
        price=60.0,
        required=("prompt", "videoUrl"),
    ),
)

FAMILIES: Final[Mapping[str, Row]] = {row.name: row for row in (_JOBS, *_SUNO, *_IMAGES, *_VIDEOS)}


def family_named(name: str) -> Row:
    """Return the row of a family; for an unknown name, raise a ``LookupError`` that lists all names."""
    if row := FAMILIES.get(name):
        return row
    raise LookupError(f"no family is called {name!r}; there are {', '.join(FAMILIES)}")
