# SPDX-License-Identifier: Apache-2.0
"""The results of the emulator's jobs: songs, stems, texts, notes, images and videos, by Market model."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Final, NamedTuple

from airflow_provider_kie.emulator.records import Job, Link, Result
from airflow_provider_kie.emulator.traffic import Json

__all__ = [
    "MODELS",
    "PAUSED",
    "Model",
    "by_model",
    "cover",
    "files",
    "lyrics",
    "midi",
    "model_named",
    "one",
    "songs",
    "stems",
]

_SONGS_OF_A_JOB: Final = 2
_STEMS: Final[Mapping[str, tuple[str, ...]]] = {
    "separate_vocal": ("vocal", "instrumental"),
    "split_stem": (
        *("vocal", "backingVocals", "drums", "bass", "guitar", "piano", "keyboard", "percussion", "strings", "synth"),
        *("fx", "brass", "woodwinds"),
    ),
}
_TEXT: Final = "[Verse]\nA song that nobody sings"


def one(key: str, extension: str) -> Result:
    """One link under this name."""
    return lambda job, link: {key: link(extension, 0)}


def files(key: str, extension: str, count: int = 1, **others: object) -> Result:
    """A list of links under this name, and other fields beside it."""
    return lambda job, link: {key: [link(extension, number) for number in range(count)], **others}


def _songs(job: Job, link: Link) -> list[Json]:
    return [
        {
            # Derived from the job's id, so that each read names the same songs.
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{job.kie_task_id}/{number}")),
            "audioUrl": link("mp3", number),
            "streamAudioUrl": link("mp3", number),
            "imageUrl": link("png", number),
            "prompt": job.first_text("prompt", "lyrics") or _TEXT,
            "modelName": job.first_text("model") or "chirp",
            "title": job.first_text("title") or "Emulated song",
            "tags": job.first_text("style", "tags"),
            "createTime": int(job.created_at * 1000),
            "duration": 198.44,
        }
        for number in range(_SONGS_OF_A_JOB)
    ]


def songs(job: Job, link: Link) -> Json:
    """Two songs."""
    return {"taskId": job.kie_task_id, "sunoData": _songs(job, link)}


def lyrics(job: Job, link: Link) -> Json:
    """Two variants of a text, and no file."""
    return {"taskId": job.kie_task_id, "data": _variants()}


def _variants() -> list[Json]:
    return [{"text": _TEXT, "title": title, "status": "complete", "errorMessage": ""} for title in ("One", "Another")]


def stems(job: Job, link: Link) -> Json:
    """Links by the name of the stem, null for those not requested; the original is an input."""
    asked = _STEMS.get(job.first_text("type"))
    if asked is None:
        name = job.first_text("stemName") or "Drums"
        return {"originUrl": None, "originData": [{"stem_type_group_name": name, "audio_url": link("mp3", 0)}]}
    names = dict.fromkeys(f"{stem}Url" for stem in _STEMS["split_stem"] + _STEMS["separate_vocal"])
    given = {f"{stem}Url": link("mp3", number) for number, stem in enumerate(asked)}
    return {"originUrl": job.first_text("audioUrl") or None, **names, **given}


def midi(job: Job, link: Link) -> Json:
    """Notes, with times as numbers or as texts, as at KIE."""
    notes = [{"pitch": 60, "start": 0.0, "end": "0.5", "velocity": 0.8}]
    return {"state": "complete", "instruments": [{"name": "Piano", "notes": notes}]}


def cover(job: Job, link: Link) -> Json:
    """Two images."""
    return {"images": [link("png", number) for number in range(2)]}


# The Market: the result of a job depends on its model.


def _market_songs(job: Job, link: Link) -> Json:
    return {"data": [{_in_snake_case(key): value for key, value in song.items()} for song in _songs(job, link)]}


def _in_snake_case(key: str) -> str:
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", key)


def _market_lyrics(job: Job, link: Link) -> Json:
    return {"resultObject": {"lyricsData": _variants()}}


def _with_last_frame(job: Job, link: Link) -> Json:
    frames = {"lastFrameUrl": [link("png", 0)]} if job.input.get("return_last_frame") else {}
    return {"resultUrls": [link("mp4", 0)], **frames}


def _object(**values: object) -> Result:
    return lambda job, link: {"resultObject": values}


def _masks(job: Job, link: Link) -> Json:
    return {"resultObject": {"mask_urls": [link("png", 0)]}}


_IMAGE: Final = files("resultUrls", "png")
_VIDEO: Final = files("resultUrls", "mp4")
_SPEECH: Final = files("resultUrls", "wav")


class Model(NamedTuple):
    """
    Market models of one kind.

    :param pattern: regular expression of their names
    :param result: builds their result
    :param price: credits for a job
    :param measured: whether the price was measured; otherwise it is a guess, about as high as KIE's usual prices
    """

    pattern: str
    result: Result
    price: float
    measured: bool = False


#: The first match counts. The results of these models were recorded 2026-03 to 2026-10, or follow KIE's pages on their
#: kind; the result of stems, MIDI, persona and speech-to-text on the Market is a guess.
MODELS: Final = (
    Model("ai-music-api/convert-to-wav-format", _SPEECH, 0.4, measured=True),
    Model("ai-music-api/generate-lyrics", _market_lyrics, 0.4, measured=True),
    Model("ai-music-api/create-music-video", _VIDEO, 2.0, measured=True),
    Model("ai-music-api/(generate|extend|upload-and-.*|add-.*)", _market_songs, 12.0, measured=True),
    Model("ai-music-api/(replace-section|mashup|sounds)", _market_songs, 12.0),
    Model("ai-music-api/cover-generate", files("resultUrls", "png", 2), 1.0),
    Model("ai-music-api/separate-vocals", files("resultUrls", "mp3", 2), 10.0),
    Model("ai-music-api/generate-midi-from-audio", lambda job, link: {"resultObject": midi(job, link)}, 1.0),
    Model("ai-music-api/.*", _object(result="a text"), 0.4),
    Model("omnihuman-1-5/subject-detection", _masks, 0.0, measured=True),
    Model("omnihuman-1-5/human-identification", _object(subject_status=1), 0.0),
    Model("grok-imagine/text-to-image", files("resultUrls", "png", 6), 4.0, measured=True),
    Model("grok-imagine/image-to-image", files("resultUrls", "png", 2), 4.0),
    Model(".*(segment-map|speech-to-text).*", _object(text="what was heard or seen"), 1.0),
    Model("google/gemini-.*-tts", _SPEECH, 0.19, measured=True),
    Model("elevenlabs/.*", files("resultUrls", "mp3"), 6.0),
    Model("bytedance/seedance-.*", _with_last_frame, 60.0),
    Model(
        "(kling|veo|runway|hailuo|happyhorse|minimax|pixverse|infinitalk|omnihuman|volcengine|sora-).*"
        "|wan/(?!.*-image).*|.*(-video|video-|omni-flash).*|grok-imagine/(upscale|extend)",
        _VIDEO,
        60.0,
    ),
    Model(".*", _IMAGE, 4.0),
)

#: Models whose submits KIE has refused since 2026-06 (measured until 2026-08).
PAUSED: Final = re.compile("sora-.*")


def model_named(name: str) -> Model:
    """The row of a Market model."""
    return next(model for model in MODELS if re.fullmatch(model.pattern, name, re.DOTALL))


def by_model(job: Job, link: Link) -> Json:
    """The result of the job's model."""
    return model_named(job.model).result(job, link)
