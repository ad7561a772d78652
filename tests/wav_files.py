# SPDX-License-Identifier: Apache-2.0
"""WAV files of any shape, for the tests of the archive."""

from __future__ import annotations

import random
import struct

UNKNOWN = 0xFFFFFFFF


def chunk(name: bytes, body: bytes) -> bytes:
    """Return a RIFF chunk, padded to an even length."""
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def fmt(
    channels: int = 2,
    rate: int = 48_000,
    bits: int = 16,
    *,
    tag: int = 1,
    frame: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """
    Return the chunk that says what the audio is.

    :param frame: bytes of a frame in place of the usual.
    """
    frame = channels * ((bits + 7) // 8) if frame is None else frame
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame & UNKNOWN, frame, bits) + extra)


def wav(
    frames: int = 1000,
    channels: int = 2,
    rate: int = 48_000,
    bits: int = 16,
    *,
    tag: int = 1,
    frame: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    riff_size: int | None = None,
    data_size: int | None = None,
    seed: int = 1,
) -> bytes:
    """
    Return a WAV file of noise.

    :param frame: what the format says of a frame's bytes in place of the truth.
    :param before: whole chunks between the format and the audio.
    :param after: whole chunks behind the audio.
    :param riff_size: what the header says in place of the truth.
    :param data_size: what the audio's chunk says in place of the truth.
    """
    audio = random.Random(seed).randbytes(frames * channels * ((bits + 7) // 8))
    head = b"WAVE" + fmt(channels, rate, bits, tag=tag, frame=frame) + before
    size = len(audio) if data_size is None else data_size
    body = head + b"data" + struct.pack("<I", size) + audio + b"\0" * (len(audio) % 2) + after
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def long_wav(frames: int = 1000, *, magic: bytes = b"RF64", declared_bytes: int | None = None) -> bytes:
    """
    Return a file in the form that is meant for more than 4 GiB.

    :param declared_bytes: bytes of audio that the header declares in place of the truth.
    """
    audio = random.Random(2).randbytes(frames * 4)
    head = b"WAVE%b" + fmt()
    data = len(audio) if declared_bytes is None else declared_bytes
    body_size = len(head) - 2 + 36 + 8 + data
    sizes = chunk(b"ds64", struct.pack("<QQQI", body_size, data, data // 4, 0))
    return magic + struct.pack("<I", UNKNOWN) + head % sizes + b"data" + struct.pack("<I", UNKNOWN) + audio
