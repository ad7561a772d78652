# SPDX-License-Identifier: Apache-2.0
"""
Answers that KIE may give about the jobs of its families, each with its meaning.

They are independent of the emulator's own answers. Each can be played by its name, like those in
:data:`~airflow_provider_kie.emulator.answers.ANSWERS`, which cover the envelope and WAV conversions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from airflow_provider_kie.emulator.scripted import Answer

__all__ = ["CASES", "SINGLES", "Case", "Meaning"]

#: For a submit: accepted, an earlier job is adopted, or refused. For a read: keep waiting, done, failed, or failed if
#: it stays so for the grace.
Meaning = Literal["accepted", "adopted", "refused", "wait", "done", "failed", "grace"]

_OF_A_SUBMIT: Final = ("accepted", "adopted", "refused")
_ID: Final = "<kie_task_id>"
_T: Final = "https://t.example/"


@dataclass(frozen=True, slots=True)
class Case:
    """
    One answer and its meaning.

    :param number: of the case; some cases have several answers
    :param name: what tests call it
    :param family: whose call it answers
    :param meaning: what it means
    :param body: what is sent, with a placeholder for the id
    :param error: the class of the error after a refusal or a failure
    :param links: the files of a job that is done, in their order
    :param warned: whether the client logs a warning
    """

    number: int
    name: str
    family: str
    meaning: Meaning
    body: str
    error: str = ""
    links: tuple[str, ...] = ()
    warned: bool = False

    @property
    def answer(self) -> Answer:
        """The case as an answer that the emulator can play; an accepted submit creates its job."""
        endpoint: Literal["submit", "record-info"] = "submit" if self.meaning in _OF_A_SUBMIT else "record-info"
        return Answer(self.name, self.number, endpoint, self.body, accepts=self.meaning == "accepted")


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _says(code: int, msg: str, data: object = None) -> str:
    return _text({"code": code, "msg": msg, "data": data})


def _accepts(**data: object) -> str:
    return _says(200, "success", data)


def _record(**fields: object) -> str:
    return _says(200, "success", {"taskId": _ID, **fields})


def _market(**result: object) -> str:
    """A finished record of the Market with this result."""
    return _record(state="success", resultJson=_text(result))


def _urls(*names: str) -> tuple[str, ...]:
    return tuple(_T + name for name in names)


def _songs(key: str, *links: str) -> list[dict[str, object]]:
    return [{"id": f"s{number}", key: link} for number, link in enumerate(links, start=1)]


_NOT_CREATED: Final = "Server exception, please try again later"
_VOICE: Final = "This voice is not within the range of allowed options"
_NO_PARENT: Final = "Original music record does not exist"

_SUBMITS: Final = (
    Case(1, "music-accepted", "music", "accepted", _accepts(taskId=_ID)),
    Case(2, "jobs-accepted", "jobs", "accepted", _accepts(taskId=_ID, recordId=_ID)),
    Case(3, "jobs-accepted-without-id", "jobs", "refused", _accepts(), "KieUnreadableAnswerError"),
    Case(
        4, "music-video-code-zero", "music-video", "refused", _says(0, "...", {"taskId": _ID}), "KieUnexpectedCodeError"
    ),
    Case(5, "music-no-callback", "music", "refused", _says(422, "Please enter callBackUrl."), "KieValidationError"),
    Case(
        *(6, "replace-section-blank-field", "replace-section", "refused"),
        *(_says(422, "fullLyrics cannot be blank"), "KieValidationError"),
    ),
    Case(7, "cover-image-no-parent", "cover-image", "refused", _says(422, _NO_PARENT), "KieValidationError"),
    Case(8, "jobs-paused", "jobs", "refused", _says(500, "This interface is temporarily paused"), "KieValidationError"),
    Case(9, "jobs-voice-not-allowed", "jobs", "refused", _says(500, _VOICE), "KieValidationError"),
    Case(10, "jobs-server-exception", "jobs", "refused", _says(500, _NOT_CREATED), "KieServerError"),
    Case(12, "cover-image-made-before", "cover-image", "adopted", _says(400, "...", {"taskId": _ID})),
    Case(13, "jobs-no-credits", "jobs", "refused", _says(402, "Credits insufficient"), "KieInsufficientCreditsError"),
    Case(14, "jobs-key-cap", "jobs", "refused", _says(433, "Sub-key usage exceeds limit"), "KieKeyCapError"),
    Case(15, "jobs-rate-limited", "jobs", "refused", _says(429, "Rate limit exceeded"), "KieRateLimitError"),
)

_FAILED: Final = "KieJobFailedError"
_REFUSED: Final = "KieJobRefusedError"
_UNREADABLE: Final = "KieUnreadableAnswerError"
_NOT_FOUND: Final = "KieNotFoundError"
_AGAIN: Final = "internal error, please try again later"
_VIDEO: Final = {"resultUrls": _urls("1.mp4")}
_PARTIAL: Final = _text({"resultUrls": _urls("1.png")})

_MARKET: Final = (
    Case(17, "jobs-waiting", "jobs", "wait", _record(state="waiting", resultJson="", failCode=None, failMsg=None)),
    Case(18, "jobs-queuing", "jobs", "wait", _record(state="queuing", resultJson=None)),
    Case(
        *(19, "jobs-generating", "jobs", "wait"),
        _record(state="generating", resultJson="", creditsConsumed=4.0, successFlag=0),
    ),
    Case(
        *(20, "jobs-two-images", "jobs", "done"),
        _market(resultUrls=_urls("1.png", "2.png")),
        links=_urls("1.png", "2.png"),
    ),
    Case(
        *(21, "jobs-result-in-response", "jobs", "done"),
        _record(state="success", resultJson="", response=_VIDEO, successFlag=1),
        links=_urls("1.mp4"),
    ),
    Case(
        *(22, "jobs-result-as-object", "jobs", "done"),
        _record(state="success", resultJson=_VIDEO),
        links=_urls("1.mp4"),
    ),
    Case(23, "jobs-not-json", "jobs", "grace", _record(state="success", resultJson="not json"), _UNREADABLE),
    Case(24, "jobs-no-result", "jobs", "grace", _market(resultUrls=[]), _UNREADABLE),
    Case(*(25, "jobs-mask", "jobs", "done"), _market(resultObject={"mask_urls": _urls("m.png")}), links=_urls("m.png")),
    Case(26, "jobs-object", "jobs", "done", _market(resultObject={"subject_status": 1})),
    Case(
        *(27, "jobs-last-frame", "jobs", "done"),
        _market(resultUrls=_urls("v.mp4"), lastFrameUrl=_urls("f.png")),
        links=_urls("v.mp4", "f.png"),
    ),
    Case(
        *(28, "jobs-two-songs", "jobs", "done"),
        _market(data=_songs("audio_url", *_urls("1.mp3", "2.mp3"))),
        links=_urls("1.mp3", "2.mp3"),
    ),
    Case(
        *(29, "jobs-one-song-of-two", "jobs", "done"),
        _market(data=_songs("audio_url", _T + "1.mp3", "")),
        links=_urls("1.mp3"),
    ),
    Case(29, "jobs-no-song-of-two", "jobs", "grace", _market(data=[{"audio_url": ""}] * 2), _UNREADABLE),
    Case(30, "jobs-lyrics", "jobs", "done", _market(resultObject={"lyricsData": [{"title": "R", "text": "..."}]})),
    Case(
        *(31, "jobs-failed", "jobs", "failed"),
        *(_record(state="fail", resultJson="", failCode="500", failMsg=_AGAIN), _FAILED),
    ),
    Case(
        *(32, "jobs-sensitive-word", "jobs", "failed"),
        *(_record(state="fail", failCode="SENSITIVE_WORD_ERROR", failMsg="..."), _REFUSED),
    ),
    Case(33, "jobs-no-cause", "jobs", "failed", _record(state="fail", failCode=None, failMsg=None), _FAILED),
    Case(
        *(34, "jobs-failed-in-part", "jobs", "failed"),
        *(_record(state="fail", resultJson=_PARTIAL, failMsg="partial"), _FAILED),
    ),
    Case(35, "jobs-unknown-word", "jobs", "wait", _record(state="paused"), warned=True),
    Case(35, "jobs-other-word", "jobs", "failed", _record(state="failed"), _FAILED),
    Case(36, "jobs-not-visible", "jobs", "grace", _says(422, "recordInfo is null"), _NOT_FOUND),
    Case(36, "jobs-not-found", "jobs", "grace", _says(404, "Task not found"), _NOT_FOUND),
    Case(37, "jobs-generation-failed", "jobs", "failed", _says(501, "Generation Failed"), _FAILED),
    Case(38, "jobs-upstream-silent", "jobs", "wait", _says(408, "..."), warned=True),
    Case(39, "jobs-of-another", "jobs", "failed", _accepts(taskId="OTHER", state="success"), "KieWrongTaskError"),
    Case(40, "jobs-flag-alone", "jobs", "done", _record(successFlag=1, response=_VIDEO), links=_urls("1.mp4")),
)


def _suno(status: str, *links: str, **errors: object) -> str:
    """A record of the music family."""
    return _record(status=status, response={"sunoData": _songs("audioUrl", *links)}, **errors)


_STREAM: Final = {"id": "s1", "streamAudioUrl": "https://m.example/s1", "audioUrl": ""}
_VARIANT: Final = {"text": "...", "title": "A", "status": "complete", "errorMessage": ""}
_NO_VARIANT: Final = {"text": "", "title": "", "status": "failed", "errorMessage": "x"}
_STEMS: Final = {"vocalUrl": _T + "v.mp3", "instrumentalUrl": _T + "i.mp3", "drumsUrl": None, "originUrl": _T + "in"}
_DRUMS: Final = {"stem_type_group_name": "Drums", "audio_url": _T + "d.mp3"}

_WORDS: Final = (
    Case(41, "music-text-ready", "music", "wait", _suno("TEXT_SUCCESS")),
    Case(42, "music-first-song", "music", "wait", _suno("FIRST_SUCCESS", _T + "1.mp3")),
    Case(43, "music-stream", "music", "wait", _record(status="PENDING", response={"sunoData": [_STREAM]})),
    Case(
        *(44, "music-two-songs", "music", "done"),
        _suno("SUCCESS", *_urls("1.mp3", "2.mp3"), errorCode=None, errorMessage=None),
        links=_urls("1.mp3", "2.mp3"),
    ),
    Case(
        *(45, "music-failed", "music", "failed"),
        *(_suno("GENERATE_AUDIO_FAILED", errorCode=501, errorMessage="x"), _FAILED),
    ),
    Case(
        *(46, "music-sensitive-word", "music", "failed"),
        *(_record(status="SENSITIVE_WORD_ERROR", errorMessage="..."), _REFUSED),
    ),
    Case(
        *(47, "music-callback-exception", "music", "done"),
        _suno("CALLBACK_EXCEPTION", _T + "1.mp3"),
        links=_urls("1.mp3"),
        warned=True,
    ),
    Case(47, "music-callback-exception-empty", "music", "grace", _suno("CALLBACK_EXCEPTION"), _UNREADABLE),
    Case(
        *(48, "lyrics-one-of-two", "lyrics", "done"),
        _record(status="SUCCESS", response={"data": [_VARIANT, _NO_VARIANT]}),
    ),
    Case(
        *(48, "lyrics-none-of-two", "lyrics", "grace"),
        *(_record(status="SUCCESS", response={"data": [_NO_VARIANT] * 2}), _UNREADABLE),
    ),
    Case(
        *(49, "stems-by-name", "stems", "done"),
        _record(successFlag="SUCCESS", response=_STEMS),
        links=_urls("v.mp3", "i.mp3"),
    ),
    Case(
        *(50, "stems-as-list", "stems", "done"),
        _record(successFlag="SUCCESS", response={"originData": [_DRUMS]}),
        links=_urls("d.mp3"),
    ),
    Case(
        *(51, "music-video-suffix", "music-video", "done"),
        _record(successFlag="SUCCESS-Success", response={"videoUrl": _T + "v.mp4"}),
        links=_urls("v.mp4"),
    ),
    Case(52, "music-asked-for-a-wav", "music", "grace", _says(200, "success"), _NOT_FOUND),
)


def _veo(parts: tuple[str, ...], whole: tuple[str, ...] | None) -> str:
    response = {"resultUrls": parts, "originUrls": None, "fullResultUrls": whole, "resolution": "1080p"}
    return _record(successFlag=1, errorCode=None, errorMessage="", response=response)


_TWO: Final = _record(successFlag=2, response=None)
_NO_NOTES: Final = {"state": "complete", "instruments": []}
_EDITED: Final = {"originImageUrl": _T + "in.jpg", "resultImageUrl": _T + "out.jpg"}

_NUMBERS: Final = (
    Case(53, "cover-image-two", "cover-image", "wait", _TWO),
    Case(53, "midi-two", "midi", "failed", _TWO, _FAILED),
    Case(53, "flux-kontext-two", "flux-kontext", "failed", _TWO, _FAILED),
    Case(54, "midi-notes", "midi", "done", _record(successFlag=1, midiData=_NO_NOTES)),
    Case(
        *(55, "aleph-failed", "aleph", "failed"),
        *(_record(response=None, successFlag=3, errorCode=500, errorMessage=_AGAIN), _FAILED),
    ),
    Case(
        *(56, "aleph-pending-but-refused", "aleph", "grace"),
        *(_record(response=None, successFlag=0, errorCode=500, errorMessage="x"), "KieUnexpectedCodeError"),
    ),
    Case(
        *(57, "flux-kontext-done", "flux-kontext", "done"),
        _record(successFlag=1, response=_EDITED),
        links=_urls("out.jpg"),
    ),
    Case(
        *(58, "4o-image-half", "4o-image", "wait"),
        _record(status="GENERATING", successFlag=0, progress="0.50", response=None),
    ),
    Case(
        *(58, "4o-image-flag-decides", "4o-image", "done"),
        _record(status="GENERATING", successFlag=1, response={"result_urls": _urls("1.png")}),
        links=_urls("1.png"),
    ),
    Case(
        *(59, "4o-image-refused", "4o-image", "failed"),
        _record(successFlag=2, errorCode=400, errorMessage="...", response={"result_urls": []}, progress="0.00"),
        _REFUSED,
    ),
    Case(60, "veo-done", "veo", "done", _veo(_urls("v.mp4"), None), links=_urls("v.mp4")),
    Case(60, "veo-no-result", "veo", "grace", _veo((), None), _UNREADABLE),
    Case(60, "veo-extend-whole", "veo-extend", "done", _veo(_urls("v.mp4"), _urls("w.mp4")), links=_urls("w.mp4")),
    Case(60, "veo-extend-part", "veo-extend", "done", _veo(_urls("v.mp4"), ()), links=_urls("v.mp4")),
    Case(61, "veo-not-visible", "veo", "grace", _says(422, f"Record not found for taskId: {_ID}"), _NOT_FOUND),
    Case(61, "veo-null", "veo", "grace", _says(200, "success"), _NOT_FOUND),
)

_RUNWAY: Final = (
    Case(64, "runway-queueing", "runway", "wait", _record(state="queueing", videoInfo=None, expireFlag=0)),
    # The link is dead by then, which only the download shows.
    Case(
        *(65, "runway-expired", "runway", "done"),
        _record(state="success", videoInfo={"videoUrl": _T + "r.mp4"}, expireFlag=1),
        links=_urls("r.mp4"),
    ),
    Case(66, "runway-refused", "runway", "failed", _record(state="fail", failCode=400, failMsg="..."), _REFUSED),
)

CASES: Final[Mapping[str, Case]] = {case.name: case for case in (*_SUBMITS, *_MARKET, *_WORDS, *_NUMBERS, *_RUNWAY)}

_NO_4K: Final = {"taskId": _ID, "resultUrls": None, "imageUrls": None}
_STYLE: Final = {"taskId": "s1", "param": "{}", "result": "Warm strings", "successFlag": "成功", "errorMsg": None}

#: Answers to single calls, which belong to no family. The texts and the 201 are from KIE's pages or a sister site's.
SINGLES: Final[Mapping[str, Answer]] = {
    name: Answer(name, number, "single", body)
    for number, name, body in (
        (11, "recovery-no-parent", _says(500, "The original Suno task does not exist.")),
        (62, "veo-1080p-rendering", _says(500, "...")),
        (62, "veo-1080p-processing", _says(400, "1080P is processing. It should be ready in 1-2 minutes.")),
        (62, "veo-1080p-done", _accepts(resultUrl=_T + "hd.mp4")),
        (63, "veo-4k-begun", _says(200, "success", _NO_4K)),
        (63, "veo-4k-processing", _says(422, "4k is processing. It should be ready in 5-10 minutes.", _NO_4K)),
        (63, "veo-4k-done", _says(422, "...", {**_NO_4K, "resultUrls": _urls("4k.mp4")})),
        (63, "veo-4k-refused", _says(422, "Your request was rejected", _NO_4K)),
        (68, "recovery-not-visible", _says(500, "The music link recovery task does not exist.")),
        (68, "recovery-running", _says(201, "...")),
        (69, "style-boosted", _accepts(**_STYLE)),
        (69, "style-empty", _accepts(**{**_STYLE, "result": None, "errorMsg": "too short"})),
    )
}
