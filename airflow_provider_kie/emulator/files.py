# SPDX-License-Identifier: Apache-2.0
"""The file host: whole files and ranges, served as by a storage service."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from airflow_provider_kie.emulator.media import KINDS

__all__ = ["LAST_MODIFIED", "Served", "etag", "extension_of", "serve"]

LAST_MODIFIED: Final = "Wed, 01 Jan 2025 00:10:00 GMT"
_RANGE: Final = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))", re.ASCII)


class Served(NamedTuple):
    """What the file host answers."""

    status: int
    headers: dict[str, str]
    body: bytes


@functools.cache
def etag(extension: str = "wav") -> str:
    """The strong validator of the file with this extension."""
    return f'"{hashlib.sha256(KINDS[extension].content()).hexdigest()[:32]}"'


def extension_of(path: str) -> str:
    """The extension in a path, or an empty text if there is no such file."""
    extension = path.rpartition(".")[2]
    return extension if extension in KINDS else ""


def serve(headers: Mapping[str, str], extension: str = "wav") -> Served:
    """The file, or the part of it that the request headers ask for."""
    content = KINDS[extension].content()
    about = {
        "content-type": KINDS[extension].media_type,
        "accept-ranges": "bytes",
        "etag": etag(extension),
        "last-modified": LAST_MODIFIED,
        "server": "cloudflare",
    }
    unchanged = headers.get("if-range", etag(extension)) in (etag(extension), LAST_MODIFIED)
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
    """The requested bytes: ``None`` if the file has none of them, an empty range if the request is invalid."""
    first, last, suffix = asked.groups()
    if suffix is not None:
        return range(max(0, size - int(suffix)), size) if int(suffix) else None
    start = int(first)
    if last and int(last) < start:
        return range(0)
    return range(start, min(int(last) + 1, size) if last else size) if start < size else None
