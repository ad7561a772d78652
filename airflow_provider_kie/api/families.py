# SPDX-License-Identifier: Apache-2.0
"""
The families of KIE's jobs, one row each, with the evidence for it.

:class:`~airflow_provider_kie.api.family.Family` explains the columns; docs/design.md shows how to add a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from airflow_provider_kie.api.call import Repeat
from airflow_provider_kie.api.family import Family, Words
from airflow_provider_kie.exceptions import KieConversionFailedError, KieValidationError
from airflow_provider_kie.redaction import quoted

__all__ = ["FAMILIES", "JOBS", "MUSIC", "VEO", "WAV", "WAV_ROUTES", "find_family", "tag_of"]

#: Pages "Convert to WAV" and "Get WAV Details" (2026-04-29). The pages list only words. The numbers, and ``status`` in
#: place of ``successFlag``, come from older pages of the same software. Numbers mean something else in each family, so
#: only these two are accepted.
_WAV = Family(
    name="wav",
    submit="/api/v1/wav/generate",
    query="/api/v1/wav/record-info",
    words=Words(
        running=("PENDING", 0),
        done=("SUCCESS", 1),
        failed=("CREATE_TASK_FAILED", "GENERATE_WAV_FAILED"),
        done_if_result=("CALLBACK_EXCEPTION",),
        only_words=True,
    ),
    status=("successFlag", "status"),
    files=(("result", "response.audioWavUrl"),),
    result=("{musicId,musicIndex}",),
    callback=True,
    interval=30.0,
    repeat=Repeat.GUARDED,
    adopts=(409,),
    file_decides=True,
    failure=KieConversionFailedError,
    title="WAV conversion",
    short="conversion",
    product="WAV URL",
    unnamed=True,
    callback_keys=("audioWavUrl",),
)

#: KIE's Market: ``createTask`` and ``recordInfo`` serve any model (page copies of 2026-09-24 and 2026-10-07; recorded
#: 2026-03 to 2026-10 with 25 models). No failed record was ever recorded. Since 2026-09 records also have
#: ``successFlag`` and ``response``; ``state`` takes precedence.
JOBS = Family(
    name="jobs",
    submit="/api/v1/jobs/createTask",
    query="/api/v1/jobs/recordInfo",
    words=Words(running=("waiting", "queuing", "generating", 0), done=("success", 1), failed=("fail", "failed", 2, 3)),
    status=("state", "successFlag"),
    files=(
        ("result", "resultJson.resultUrls[]|response.resultUrls[]"),
        ("result", "resultJson.data[].audioUrl|resultJson.sunoData[].audioUrl|response.data[].audioUrl"),
        ("first_frame", "resultJson.firstFrameUrl[]|response.firstFrameUrl[]"),
        ("last_frame", "resultJson.lastFrameUrl[]|response.lastFrameUrl[]"),
        ("mask", "resultJson.resultObject.maskUrls[]|response.resultObject.maskUrls[]"),
    ),
    result=("resultJson", "response"),
    needs_file=False,
    tracks=(
        "resultJson.data[].{id,audioUrl}",
        "resultJson.sunoData[].{id,audioUrl}",
        "response.data[].{id,audioUrl}",
    ),
    errors=("failCode", "failMsg"),
    wrapped=True,
    callback_keys=("model", "param", "resultJson"),
)

#: WAV conversion as a model of the Market, with the status words of its own page (2026-10-07, and one client's finished
#: job of 2026-10-06). It is unknown whether a second submit is refused there, and whether one route finds jobs of the
#: other, so a job is read by both.
_WAV_AS_MODEL = replace(
    JOBS,
    name=_WAV.name,
    model="ai-music-api/convert-to-wav-format",
    words=Words(
        running=("PENDING", "waiting", "queuing", "generating", 0),
        done=("SUCCESS", 1),
        failed=("GENERATE_WAV_FAILED", "fail", "failed", 2, 3),
        spelled_as_first=True,
    ),
    result=("param.input.{task_id,audio_id}",),
    needs_file=True,
    tracks=(),
    interval=_WAV.interval,
    failure=_WAV.failure,
    title=_WAV.title,
    short=_WAV.short,
    product=_WAV.product,
    unnamed=True,
)
WAV = replace(_WAV, also=_WAV_AS_MODEL)
#: The rows of WAV conversion by the name of the route.
WAV_ROUTES: Mapping[str, Family] = MappingProxyType({WAV.name: WAV, JOBS.name: replace(_WAV_AS_MODEL, also=_WAV)})


def _suno(*failed: str, running: tuple[str, ...] = ("PENDING",)) -> Words:
    """Return the words that all families of Suno's pages share, plus one family's own."""
    return Words(
        running=running,
        done=("SUCCESS",),
        failed=("CREATE_TASK_FAILED", *failed),
        done_if_result=("CALLBACK_EXCEPTION",),
    )


#: Suno's generations (pages of 2026-04-29; submits and unknown ids recorded 2026-04-28). No finished job was recorded.
#: TEXT_SUCCESS and FIRST_SUCCESS come before the second song is ready.
MUSIC = Family(
    name="music",
    submit="/api/v1/generate",
    query="/api/v1/generate/record-info",
    words=_suno("GENERATE_AUDIO_FAILED", "SENSITIVE_WORD_ERROR", running=("PENDING", "TEXT_SUCCESS", "FIRST_SUCCESS")),
    status=("status",),
    files=(("result", "response.sunoData[].audioUrl"),),
    result=("response.sunoData",),
    tracks=("response.sunoData[].{id,audioUrl}",),
    callback=True,
    callback_keys=("callbackType",),
)
#: Their variants, which are read with the same call.
_LIKE_MUSIC = tuple(
    replace(MUSIC, name=name, submit=f"/api/v1/generate/{name.removeprefix('music-')}")
    for name in (
        *("music-extend", "upload-cover", "upload-extend", "add-vocals"),
        *("add-instrumental", "replace-section", "mashup", "sounds"),
    )
)

#: Text, no file; a success may contain one failed variant (pages of 2026-04-29).
LYRICS = Family(
    name="lyrics",
    submit="/api/v1/lyrics",
    query="/api/v1/lyrics/record-info",
    words=_suno("GENERATE_LYRICS_FAILED", "SENSITIVE_WORD_ERROR"),
    status=("status",),
    result=("response.data",),
    needs_file=False,
    callback=True,
    callback_keys=("callbackType",),
)

#: Named links, null where unused, or a list (pages of 2026-04-29; the list from clients). The link of the original is
#: an input. KIE says that every submit is charged.
STEMS = Family(
    name="stems",
    submit="/api/v1/vocal-removal/generate",
    query="/api/v1/vocal-removal/record-info",
    words=_suno("GENERATE_AUDIO_FAILED"),
    status=("successFlag", "status"),
    files=(
        ("vocal", "response.vocalUrl"),
        ("instrumental", "response.instrumentalUrl"),
        ("backing_vocals", "response.backingVocalsUrl"),
        ("drums", "response.drumsUrl"),
        ("bass", "response.bassUrl"),
        ("guitar", "response.guitarUrl"),
        ("piano", "response.pianoUrl"),
        ("keyboard", "response.keyboardUrl"),
        ("percussion", "response.percussionUrl"),
        ("strings", "response.stringsUrl"),
        ("synth", "response.synthUrl"),
        ("fx", "response.fxUrl"),
        ("brass", "response.brassUrl"),
        ("woodwinds", "response.woodwindsUrl"),
        ("stem", "response.originData[].audioUrl"),
    ),
    result=("response.originData",),
    callback=True,
    callback_keys=("vocalSeparationInfo", "vocalRemovalInfo"),
)

#: Notes, no file (pages of 2026-04-29).
MIDI = Family(
    name="midi",
    submit="/api/v1/midi/generate",
    query="/api/v1/midi/record-info",
    words=Words(running=(0,), done=(1,), failed=(2, 3)),
    status=("successFlag",),
    result=("midiData",),
    needs_file=False,
    callback=True,
    callback_keys=("instruments",),
)

#: Pages of 2026-04-29. One client saw status words followed by text.
MUSIC_VIDEO = Family(
    name="music-video",
    submit="/api/v1/mp4/generate",
    query="/api/v1/mp4/record-info",
    words=_suno("GENERATE_MP4_FAILED"),
    status=("successFlag", "status"),
    files=(("result", "response.videoUrl"),),
    callback=True,
    callback_keys=("videoUrl",),
)

#: Pages of 2026-04-29: here 2 means running. One job for each music task: a sister site names the earlier one with 400.
COVER_IMAGE = Family(
    name="cover-image",
    submit="/api/v1/suno/cover/generate",
    query="/api/v1/suno/cover/record-info",
    words=Words(running=(0, 2), done=(1,), failed=(3,)),
    status=("successFlag",),
    files=(("result", "response.images[]"),),
    callback=True,
    adopts=(400, 409),
    callback_keys=("images",),
)

#: Pages of 2026-04-29 and 2026-09-24; an unknown id recorded. If flag and word disagree, the flag decides.
IMAGE_4O = Family(
    name="4o-image",
    submit="/api/v1/gpt4o-image/generate",
    query="/api/v1/gpt4o-image/record-info",
    words=Words(running=(0, "GENERATING"), done=(1, "SUCCESS"), failed=(2, "CREATE_TASK_FAILED", "GENERATE_FAILED")),
    status=("successFlag", "status"),
    files=(("result", "response.resultUrls[]"),),
    callback_keys=("resultUrls",),
)

#: Aleph: a running and a failed record were recorded (2026-08-18), with the undocumented 3. The others: pages of
#: 2026-08-19 and 2026-09-24, unknown ids recorded. Links whose names contain ``origin`` are inputs.
ALEPH = Family(
    name="aleph",
    submit="/api/v1/aleph/generate",
    query="/api/v1/aleph/record-info",
    words=Words(running=(0,), done=(1,), failed=(2, 3)),
    status=("successFlag",),
    files=(("result", "response.resultVideoUrl"), ("image", "response.resultImageUrl")),
    callback_keys=("resultVideoUrl", "resultImageUrl"),
)
FLUX_KONTEXT = replace(
    ALEPH,
    name="flux-kontext",
    submit="/api/v1/flux/kontext/generate",
    query="/api/v1/flux/kontext/record-info",
    files=(("result", "response.resultImageUrl"),),
    callback_keys=("resultImageUrl", "originImageUrl"),
)
VEO = replace(
    ALEPH,
    name="veo",
    submit="/api/v1/veo/generate",
    query="/api/v1/veo/record-info",
    files=(("result", "response.resultUrls[]"),),
    callback_keys=("resultUrls", "originUrls", "resolution", "promptJson", "fallbackFlag"),
)
#: The whole video where KIE gives it, else the new part.
VEO_EXTEND = replace(
    VEO,
    name="veo-extend",
    submit="/api/v1/veo/extend",
    files=(("result", "response.fullResultUrls[]|response.resultUrls[]"),),
)

#: Pages of 2026-04-29 and 2026-09-24; submits and an unknown id recorded. "queueing" is spelled "queuing" on the
#: Market.
RUNWAY = Family(
    name="runway",
    submit="/api/v1/runway/generate",
    query="/api/v1/runway/record-detail",
    words=Words(running=("wait", "queueing", "generating"), done=("success",), failed=("fail",)),
    status=("state",),
    files=(("result", "videoInfo.videoUrl"), ("image", "videoInfo.imageUrl")),
    errors=("failCode", "failMsg"),
    callback_keys=("videoUrl", "videoId", "imageUrl"),
)
RUNWAY_EXTEND = replace(RUNWAY, name="runway-extend", submit="/api/v1/runway/extend")

_ROWS = (
    *(JOBS, WAV, MUSIC, *_LIKE_MUSIC, LYRICS, STEMS, MIDI, MUSIC_VIDEO, COVER_IMAGE),
    *(IMAGE_4O, FLUX_KONTEXT, VEO, VEO_EXTEND, RUNWAY, RUNWAY_EXTEND, ALEPH),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({row.name: row for row in _ROWS})


def find_family(name: str | None) -> Family:
    """
    Return the row of a family.

    :raises KieValidationError: there is no such family.
    """
    for row in FAMILIES.values():
        if name in (row.name, row.tag):
            return row
    raise KieValidationError(f"family is {quoted(name)}, but must be one of {', '.join(sorted(FAMILIES))}")


def tag_of(name: str) -> str | None:
    """Return a family's tag, see :attr:`Family.tag`; an unknown name is returned unchanged."""
    row = FAMILIES.get(name)
    return row.tag if row else name
