# SPDX-License-Identifier: Apache-2.0
"""
What a file is, by its first bytes.

KIE's links have been seen to return web pages and error documents, and an extension in a link promises nothing. So the
bytes decide.
"""

from __future__ import annotations

import mimetypes
import re
from typing import NamedTuple

__all__ = ["ENOUGH", "WAV", "Media", "find_media", "media_of", "no_file"]

#: How many bytes are enough to tell what a file is.
ENOUGH = 512


class Media(NamedTuple):
    """
    The kind of a file.

    :param media_type: such as ``video/mp4``.
    :param extension: such as ``mp4``, without a dot.
    """

    media_type: str
    extension: str


#: The first match counts. Sources: the formats' specifications, as collected by the WHATWG's "MIME Sniffing" and in
#: IANA's registry of media types.
_STARTS = tuple(
    (re.compile(pattern, re.DOTALL), Media(media_type, extension))
    for pattern, media_type, extension in (
        (rb"(RIFF|RF64|BW64).{4}WAVE", "audio/wav", "wav"),
        (rb"RIFF.{4}WEBP", "image/webp", "webp"),
        (rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "audio/mpeg", "mp3"),
        (rb"fLaC", "audio/flac", "flac"),
        (rb"OggS", "audio/ogg", "ogg"),
        (rb".{4}ftyp(avif|avis)", "image/avif", "avif"),
        (rb".{4}ftyp(heic|heix|mif1)", "image/heic", "heic"),
        (rb".{4}ftypM4A ", "audio/mp4", "m4a"),
        (rb".{4}ftypqt  ", "video/quicktime", "mov"),
        (rb".{4}ftyp", "video/mp4", "mp4"),
        (rb"\x1a\x45\xdf\xa3.{0,60}webm", "video/webm", "webm"),
        (rb"\x89PNG\r\n\x1a\n", "image/png", "png"),
        (rb"\xff\xd8\xff", "image/jpeg", "jpg"),
        (rb"GIF8[79]a", "image/gif", "gif"),
        (rb"MThd\0\0\0\x06", "audio/midi", "mid"),
        (rb"\s*(\{\s*[\"}]|\[\s*([\[{\"\]]|-?\d[\d.eE+-]*\s*[,\]]))", "application/json", "json"),
    )
)
WAV = _STARTS[0][1]
#: The tags of the same specification, also in XHTML, and ``<meta>``.
_WEB_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--((?!-->).)*-->\s*)*"
    rb"<(!doctype html|html|head|meta|title|style|script|iframe|body|h1|div|table|font|p|a|b|br)[\s/>]",
    re.IGNORECASE | re.DOTALL,
)
#: An error of a storage service, and one of an API.
_ERROR = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*<error\b"
    rb"|\{\s*\"(errors?|code|status|status_?code|success|msg|message|detail)\"\s*:)",
    re.IGNORECASE,
)
#: Without the tables of the machine, so that a file has the same name everywhere.
_TYPES = mimetypes.MimeTypes()
#: The media type of which nothing is known.
_ANY = "application/octet-stream"
_EXTENSION = re.compile(r"[a-z0-9]{1,8}")


def no_file(start: bytes, media_type: str = "") -> str | None:
    """
    Return what a file is if it is certainly no result, or None.

    :param start: its first :data:`ENOUGH` bytes.
    :param media_type: what the host calls it.
    """
    if not start:
        return "is no file"
    called_so = media_type.lower().startswith("text/html") and find_media(start) is None
    if called_so or _WEB_PAGE.match(start):
        return "is a web page"
    return "is an error and no file" if _ERROR.match(start) else None


def find_media(start: bytes) -> Media | None:
    """Return what a file is by its first :data:`ENOUGH` bytes, or None if they are of no known kind."""
    return next((media for pattern, media in _STARTS if pattern.match(start)), None)


def media_of(start: bytes, media_type: str = "", name: str = "") -> Media:
    """
    Return what a file is.

    :param start: its first :data:`ENOUGH` bytes, or all of a shorter file.
    :param media_type: what it is called, which counts where the bytes do not tell.
    :param name: its name, whose extension counts where the media type has none.
    """
    if found := find_media(start):
        return found
    last = name.rpartition(".")[2].lower() if "." in name else ""
    named = media_type.partition(";")[0].strip().lower()
    if named in ("", _ANY):
        named = _TYPES.guess_type(f"a.{last}")[0] or _ANY
    guessed = "" if named == _ANY else (_TYPES.guess_extension(named) or "").removeprefix(".")
    return Media(named, next(filter(_EXTENSION.fullmatch, (guessed, last)), "bin"))
