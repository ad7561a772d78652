# SPDX-License-Identifier: Apache-2.0
"""
The calls that belong to no family and whose answers can be mistaken, and any request of the user's.

Sources: the pages "Get 1080P Video" and "Get 4K Video", "Get Recovery Audio Details" of a sister site, and measurements
of others: Veo upscales by the client kie-mcp (4.0.2, before 2026-06-11); the boost of a style and the refusals of a
recovery were recorded (2026). No recording of a finished upscale or recovery was found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from json import dumps
from typing import Any

from airflow_provider_kie.api import fields
from airflow_provider_kie.api.call import Call, Repeat
from airflow_provider_kie.api.envelope import Json, final_refusal, says_unknown
from airflow_provider_kie.api.families import MUSIC, VEO
from airflow_provider_kie.exceptions import KieError, KieJobFailedError, KieUnreadableAnswerError, KieValidationError
from airflow_provider_kie.redaction import harmless, quoted

__all__ = ["boost_style", "recover_songs", "recovered_songs", "request", "upscale_veo"]

#: The call for each resolution, and the result number that means still rendering, whatever its text (measured).
_UPSCALES = {"1080p": ("GET", "/api/v1/veo/get-1080p-video", 500), "4k": ("POST", "/api/v1/veo/get-4k-video", None)}
_PAID_GETS = [path for method, path, _ in _UPSCALES.values() if method == "GET"]
#: Texts of a 400 or 422 that mean still rendering (KIE's pages, and two clients).
_RENDERING = re.compile(r"is processing|being generated|check back|\byet\b", re.IGNORECASE)
#: The result number of a running recovery, as a sister site documents it.
_RUNNING = 201


def request(method: str, path: str, params: Mapping[str, str] | None, json: Mapping[str, Any] | None) -> Call[Json]:
    """
    Return a call with any method, path and fields, whose result is the envelope's ``data``.

    :raises KieValidationError: it cannot be sent.
    """
    if not (isinstance(method, str) and method.isalpha()):
        raise KieValidationError(f"method {quoted(method)} is not an HTTP method")
    if not (isinstance(path, str) and path.startswith("/")):
        raise KieValidationError(f"path {quoted(path)} does not start with '/'")
    try:
        dumps(json, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise KieValidationError(f"json cannot be sent: {error}") from error
    method = method.upper()
    spelled = re.sub("/+", "/", re.split("[?#]", path)[0]).rstrip("/").lower()
    free = method == "GET" and spelled not in _PAID_GETS
    repeat = Repeat.ALWAYS if free else Repeat.NEVER_TWICE
    return Call(f"{method} {harmless(path)}", method, path, lambda data: data, params, json, repeat)


def upscale_veo(kie_task_id: str, resolution: str, index: int = 0) -> Call[str | None]:
    """
    Request a Veo video in a higher resolution: charged, and never repeated; None while KIE is rendering.

    :raises KieValidationError: no such resolution, or no id or index.
    """
    if resolution not in _UPSCALES:
        raise KieValidationError(f"resolution is {quoted(resolution)}, but there are only {' and '.join(_UPSCALES)}")
    if (number := fields.whole(index)) is None or number < 0:
        raise KieValidationError(f"index is {quoted(index)}, but videos are counted from 0")
    asked = fields.check_id("kie_task_id", kie_task_id)
    method, path, rendering = _UPSCALES[resolution]
    by_query, parse = method == "GET", partial(_parse_upscale, number)
    return Call(
        f"Asking for the Veo video in {resolution}",
        method,
        path,
        parse,
        params={"taskId": asked, "index": str(number)} if by_query else None,
        json=None if by_query else {"taskId": asked, "index": number},
        repeat=Repeat.NEVER_TWICE,
        kie_task_id=asked,
        family=VEO.tag,
        salvage=parse,
        recover=lambda error: _none_while_rendering(error, rendering),
    )


def boost_style(content: str) -> Call[str]:
    """
    Let KIE elaborate a style, which is charged each time (0.4 credits, recorded).

    :raises KieValidationError: no text.
    """
    if fields.is_blank(content):
        raise fields.pushed_nothing("content")
    if not isinstance(content, str):
        raise KieValidationError(f"content must be a text, not {type(content).__name__}")
    path = "/api/v1/style/generate"
    return Call("Boosting the style", "POST", path, _parse_style, json={"content": content}, repeat=Repeat.NEVER_TWICE)


def recover_songs(music_task_id: str) -> Call[str]:
    """
    Start to recreate the links of a finished music job's songs; the price is not known.

    :raises KieValidationError: the id cannot be one of KIE.
    """
    asked = fields.check_id("music_task_id", music_task_id)
    return Call(
        "Recovering the songs",
        "POST",
        "/api/v1/suno/recovery",
        _parse_recovery,
        json={"task_id": asked},
        repeat=Repeat.NEVER_TWICE,
        kie_task_id=asked,
        family=MUSIC.tag,
        recover=_refused_with_a_reason,
    )


def recovered_songs(recovery_task_id: str) -> Call[list[dict[str, str | None]] | None]:
    """
    Read a recovery, which is free; None while it runs, and for an id that is unknown or not visible yet.

    :raises KieValidationError: the id cannot be one of KIE.
    """
    asked = fields.check_id("recovery_task_id", recovery_task_id)
    return Call(
        "Reading the recovered songs",
        "GET",
        "/api/v1/suno/recovery/record-info",
        _parse_recovered,
        params={"task_id": asked},
        kie_task_id=asked,
        family="recovery",
        recover=_none_while_recovering,
    )


def _parse_upscale(index: int, data: Json) -> str | None:
    links = fields.dig(data, "resultUrl") or fields.dig(data, "resultUrls[]")
    if not links:
        return None
    link = links[index if index < len(links) else 0]
    url = fields.http_url(link)
    if url is None:
        raise KieUnreadableAnswerError(f"the link is not an http(s) URL: it begins with {fields.start_of_link(link)}")
    return url


def _none_while_rendering(error: KieError, rendering: int | None) -> None:
    if _RENDERING.search(error.said):
        return
    if refusal := final_refusal(error):
        raise refusal
    # Without a text the answer comes from a proxy and not from KIE.
    if not (error.said and error.code == rendering):
        raise error


def _parse_style(data: Json) -> str:
    # The flag is not read: it is a Chinese word (recorded), although numbers are documented.
    record = data if isinstance(data, dict) else {}
    style = fields.text(record.get("result"))
    if style is None:
        said = fields.message(record.get("errorMsg")) or "no reason"
        raise KieJobFailedError(f"KIE answered without a style, and with {said}")
    return style


def _parse_recovery(data: Json) -> str:
    found = fields.text(fields.first(data, "taskId"))
    if found is None:
        raise KieUnreadableAnswerError("KIE accepted the recovery but gave no task id")
    return found


def _refused_with_a_reason(error: KieError) -> str:
    raise final_refusal(error) or error


def _parse_recovered(data: Json) -> list[dict[str, str | None]] | None:
    found = data if isinstance(data, list) else fields.dig(data, "data[]")
    return [
        {
            "audio_id": fields.text(song.get("id")),
            "url": fields.http_url(fields.first(song, "audioUrl")),
            "error": fields.message(song.get("error")),
        }
        for song in found
        if isinstance(song, dict)
    ] or None


def _none_while_recovering(error: KieError) -> None:
    if not (error.code == _RUNNING or says_unknown(error)):
        raise error
