# SPDX-License-Identifier: Apache-2.0
"""The file host: whole files and ranges, served as by a storage service."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from airflow_provider_kie.emulator.media import KINDS

__all__ = ["LAST_MODIFIED", "File", "Served", "made_file", "serve"]

LAST_MODIFIED: Final = "Wed, 01 Jan 2025 00:10:00 GMT"
_RANGE: Final = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))", re.ASCII)


@dataclass(frozen=True, slots=True)
class File:
    """A file and what the host says about it."""

    content: bytes
    media_type: str
    sha256: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Self:
        """The file with this content."""
        return cls(content, media_type, hashlib.sha256(content).hexdigest())

    @property
    def etag(self) -> str:
        """Its strong validator."""
        return f'"{self.sha256[:32]}"'


@functools.lru_cache(maxsize=1024)
def made_file(extension: str, mark: str) -> File | None:
    """The file of a job with this extension and mark; None for an extension that no job has."""
    kind = KINDS.get(extension)
    return File.of(kind.content(mark), kind.media_type) if kind else None


class Served(NamedTuple):
    """What the file host answers."""

    status: int
    headers: dict[str, str]
    body: bytes


def serve(headers: Mapping[str, str], file: File) -> Served:
    """The file, or the part of it that the request headers ask for."""
    content = file.content
    about = {
        "content-type": file.media_type,
        "accept-ranges": "bytes",
        "etag": file.etag,
        "last-modified": LAST_MODIFIED,
        "server": "cloudflare",
    }
    unchanged = headers.get("if-range", file.etag) in (file.etag, LAST_MODIFIED)
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
