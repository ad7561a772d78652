# SPDX-License-Identifier: Apache-2.0
"""The file host: whole files and parts of them, as a storage service gives them out."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from airflow_provider_kie.emulator.audio import wav_bytes

__all__ = ["LAST_MODIFIED", "Served", "etag", "serve"]

LAST_MODIFIED: Final = "Wed, 01 Jan 2025 00:10:00 GMT"
_RANGE: Final = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))", re.ASCII)


class Served(NamedTuple):
    """What the file host answers."""

    status: int
    headers: dict[str, str]
    body: bytes


@functools.cache
def etag() -> str:
    """The strong validator of the file."""
    return f'"{hashlib.sha256(wav_bytes()).hexdigest()[:32]}"'


def serve(headers: Mapping[str, str]) -> Served:
    """The file, or the part of it that the request headers ask for."""
    content = wav_bytes()
    about = {
        "content-type": "audio/wav",
        "accept-ranges": "bytes",
        "etag": etag(),
        "last-modified": LAST_MODIFIED,
        "server": "cloudflare",
    }
    unchanged = headers.get("if-range", etag()) in (etag(), LAST_MODIFIED)
    # A range that is malformed, or that asks for several parts, is ignored, as RFC 9110 allows.
    asked = _RANGE.fullmatch(headers.get("range", "").strip()) if unchanged else None
    if asked is None:
        return Served(200, about, content)
    part = _part(asked, len(content))
    if part is None:
        return Served(416, {**about, "content-range": f"bytes */{len(content)}"}, b"")
    if not part:
        return Served(200, about, content)
    about["content-range"] = f"bytes {part.start}-{part.stop - 1}/{len(content)}"
    return Served(206, about, content[part.start : part.stop])


def _part(asked: re.Match[str], size: int) -> range | None:
    """The bytes asked for: ``None`` if there are none such, an empty range if the request makes no sense."""
    first, last, suffix = asked.groups()
    if suffix is not None:
        return range(max(0, size - int(suffix)), size) if int(suffix) else None
    start = int(first)
    if last and int(last) < start:
        return range(0)
    return range(start, min(int(last) + 1, size) if last else size) if start < size else None
