# SPDX-License-Identifier: Apache-2.0
"""
The files that the emulator serves, one for each kind: the smallest that players and viewers accept.

All but WAV hold a mark, in the place that their format has for a comment, so that no two files of a job are the same.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from airflow_provider_kie.emulator.audio import wav_bytes

__all__ = ["KINDS", "Kind", "mp3_bytes", "mp4_bytes", "png_bytes"]


def mp3_bytes(mark: str) -> bytes:
    """A quarter of a second of silence: ten frames of 128 kbit/s at 44.1 kHz, after an ID3 comment."""
    comment = b"\0eng\0" + mark.encode()
    frame = b"COMM" + struct.pack(">IH", len(comment), 0) + comment
    # In the length of the tag, only seven bits of each byte count.
    tag = b"ID3\3\0\0" + bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0)) + frame
    return tag + (b"\xff\xfb\x90\x00" + bytes(413)) * 10


def png_bytes(mark: str) -> bytes:
    """One grey pixel."""
    header = struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0)
    pixel = zlib.compress(b"\x00\x80")
    parts = ((b"IHDR", header), (b"tEXt", b"Comment\0" + mark.encode()), (b"IDAT", pixel), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def mp4_bytes(mark: str) -> bytes:
    """A video without tracks: only its type and its header."""
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    version_and_times = struct.pack(">5I", 0, 0, 0, 1000, 0)
    rate_and_volume = struct.pack(">IH10x", 0x10000, 0x100)
    header = version_and_times + rate_and_volume + matrix + bytes(24) + struct.pack(">I", 1)
    kind = _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")
    return kind + _box(b"free", mark.encode()) + _box(b"moov", _box(b"mvhd", header)) + _box(b"mdat", b"")


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


class Kind(NamedTuple):
    """A kind of file: its media type, and its content by the mark."""

    media_type: str
    content: Callable[[str], bytes]


#: By extension.
KINDS: Final[Mapping[str, Kind]] = {
    "wav": Kind("audio/wav", lambda mark: wav_bytes()),
    "mp3": Kind("audio/mpeg", mp3_bytes),
    "mp4": Kind("video/mp4", mp4_bytes),
    "png": Kind("image/png", png_bytes),
}
