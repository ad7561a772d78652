# SPDX-License-Identifier: Apache-2.0
"""One answer that is sent instead of the emulator's own, and what the tables of them share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

__all__ = [
    "ENDPOINTS",
    "HTML_HEADERS",
    "ID",
    "JSON_HEADERS",
    "KEY",
    "PAGE",
    "SERVER",
    "TEXT_HEADERS",
    "WAV",
    "Answer",
    "Endpoint",
    "Fault",
    "as_json",
    "says",
]

Endpoint = Literal["submit", "record-info", "single", "credit", "download-url", "upload", "file", "any"]
Fault = Literal["reset", "truncate", "hang"]

ENDPOINTS: Final[tuple[str, ...]] = get_args(Endpoint)

SERVER: Final = {"server": "cloudflare"}
JSON_HEADERS: Final[Mapping[str, str]] = {"content-type": "application/json;charset=UTF-8", **SERVER}
HTML_HEADERS: Final[Mapping[str, str]] = {"content-type": "text/html; charset=UTF-8", **SERVER}
TEXT_HEADERS: Final[Mapping[str, str]] = {"content-type": "text/plain; charset=UTF-8", **SERVER}

ID: Final = "<kie_task_id>"
WAV: Final = "<wav_url>"
KEY: Final = "<client_key>"

PAGE: Final = "<!DOCTYPE html><html><head><title>api.kie.ai</title></head><body>{}</body></html>"


@dataclass(frozen=True, slots=True)
class Answer:
    """
    One answer of KIE.

    :param name: its name in tests and control routes
    :param case: the number of the case that it shows
    :param endpoint: the endpoint that gives it; ``any`` is every endpoint of the API, but neither the upload host nor
        the file host
    :param body: what is sent, with placeholders; ``None`` sends the emulator's own answer
    :param status: HTTP status
    :param headers: HTTP headers, besides the date and the length
    :param fault: ``reset`` closes the connection without an answer, ``truncate`` in the middle of the body;
        ``hang`` never answers
    :param delay: seconds to wait before answering
    :param accepts: carry out the request first (a submit starts its job, an upload is kept), then send this answer
    """

    name: str
    case: int
    endpoint: Endpoint
    body: str | bytes | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_HEADERS)
    fault: Fault | None = None
    delay: float = 0.0
    accepts: bool = False

    @property
    def names_job(self) -> bool:
        """Whether the body holds the id of a job, which should then exist."""
        return isinstance(self.body, str) and ID in self.body

    def render(
        self,
        kie_task_id: str = "988e00aa",
        wav_url: str = "https://tempfile.example/s/1.wav",
        client_key: str = "",
    ) -> bytes:
        """
        Fill in the placeholders.

        :param kie_task_id: the id that a read asks for, or that a submit gets
        :param wav_url: link to the finished file
        :param client_key: the key that the client sent, for answers that echo it
        """
        if not isinstance(self.body, str):
            return self.body or b""
        text = self.body
        for placeholder, value in ((ID, kie_task_id), (WAV, wav_url), (KEY, client_key)):
            text = text.replace(placeholder, json.dumps(value)[1:-1])
        return text.encode()


def as_json(value: object) -> str:
    """A body as KIE writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def says(code: object, msg: str = "success", data: object = None) -> str:
    """KIE's envelope."""
    return as_json({"code": code, "msg": msg, "data": data})
