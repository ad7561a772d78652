# SPDX-License-Identifier: Apache-2.0
"""
The header of a WAV file: RIFF/WAVE, and RF64 or BW64 beyond 4 GiB, read while the bytes arrive.

The rules that live here and nowhere else: which bytes are a WAV file, and whether all of its audio has arrived. KIE's
links have been seen to return web pages instead of audio, so anything else is refused, with its first bytes in the
message.

Many writers put a wrong header before complete audio, and players ignore that. Such a file is accepted, and
:attr:`WavReader.oddities` lists what is wrong. The size of the audio's own chunk decides: audio that is shorter is cut
off, and never accepted.

Sources: Microsoft's "Multimedia Programming Interface and Data Specifications" 1.0 (RIFF) and "Multiple channel audio
data and WAVE files" (2007), EBU Tech 3306 (RF64), ITU-R BS.2088 (BW64); for what players accept in spite of the header,
libsndfile 1.2.2, FFmpeg 8 and SoX 14.4.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from airflow_provider_kie.exceptions import KieDownloadError, KieFileCutOffError, KieNotAWavError

__all__ = ["WavHeader", "WavReader", "shown"]

#: The size in RF64 and BW64 if the real one is in the ``ds64`` chunk.
UNKNOWN = 0xFFFFFFFF
#: The upper halves of placeholders, besides 0, that a writer leaves if it cannot go back to write a size: SoX
#: 0x7FFFF000, rounded down to whole frames, plus the length of the header for the whole file; arecord 0x80000000;
#: ffmpeg 0xFFFFFFFF.
_PLACEHOLDERS = (0x7FFF, 0x8000, 0xFFFF)
_LONG_FORMS = (b"RF64", b"BW64")
_MAGIC = (b"RIFF", *_LONG_FORMS)
#: WAVE_FORMAT_PCM, WAVE_FORMAT_IEEE_FLOAT and WAVE_FORMAT_EXTENSIBLE: each frame has the same number of bytes.
_UNCOMPRESSED = (1, 3, 0xFFFE)
#: The chunks that are read and not skipped, with the number of bytes needed.
_NEEDED = {b"fmt ": 16, b"ds64": 16}
_SHOWN = 80
#: The padding skipped after the audio, and the start of tags that are not chunks.
_BLANK = b"\0\t\n\r "
_TAGS = (b"TAG", b"APETAGEX", b"ID3", b"LYRICS")
#: Surplus bytes that are ignored, because they would be too short to hear.
_INAUDIBLE = 1024


@dataclass(frozen=True, slots=True)
class WavHeader:
    """
    The content of a WAV header.

    :param channels: number of channels.
    :param sample_rate: frames per second.
    :param bits: bits per sample; 0 where the format is compressed.
    :param bytes_per_second: of audio.
    :param data_start: where the audio begins in the file.
    :param data_bytes: bytes of audio; None if the header leaves it open.
    :param total_bytes: bytes of the whole file; None if the header leaves it open.
    """

    channels: int
    sample_rate: int
    bits: int
    bytes_per_second: int
    data_start: int
    data_bytes: int | None
    total_bytes: int | None

    @property
    def seconds(self) -> float:
        """How long the audio is."""
        return round((self.data_bytes or 0) / self.bytes_per_second, 6)


def shown(start: bytes) -> str:
    """Return the first bytes of a file for a message, or that it is empty."""
    return f"its first bytes are {start[:_SHOWN].decode(errors='replace')!r}" if start else "it is empty"


class WavReader:
    """
    Reads a WAV file from its first byte on, in pieces of any size, and keeps only its header.

    :attr:`header` is None until the audio begins, and :attr:`oddities` is complete at the end.
    """

    def __init__(self) -> None:
        self.header: WavHeader | None = None
        self._odd_format = ""
        self._odd_sizes = ""
        self._start = b""
        self._pending = bytearray()
        self._position = 0  # of the first pending byte in the file
        self._skip = 0  # bytes still to pass over
        self._magic = b""
        self._declared = 0
        self._long_sizes: tuple[int, int] | None = None
        self._format: tuple[int, int, int, int] | None = None
        self._after_audio = b""  # the first bytes after the audio, or of the audio itself if its size is open

    @property
    def oddities(self) -> list[str]:
        """What is wrong with the header of a complete file, each as the end of a sentence."""
        return [oddity for oddity in (self._odd_format, self._odd_sizes) if oddity]

    @property
    def length_is_open(self) -> bool:
        """Whether the header leaves open how long the audio is."""
        return self.header is not None and self.header.data_bytes is None

    def feed(self, piece: bytes) -> None:
        """
        Read the next bytes of the file, skipping the audio.

        :raises KieNotAWavError: they are not from a WAV file.
        """
        if len(self._start) < _SHOWN:
            self._start += piece[: _SHOWN - len(self._start)]
        skipped = min(self._skip, len(piece))
        self._skip -= skipped
        self._position += skipped
        if self.header is not None:
            self._note_after_audio(piece[skipped:])
            return
        self._pending += piece[skipped:]
        while self.header is None and not self._skip and self._step():
            pass

    def finish(self, total: int, *, length_known: bool) -> WavHeader:
        """
        Check at the end of the file that all of the audio has arrived.

        :param length_known: the host had announced the length, so the file did not merely break off.
        :raises KieNotAWavError: not a WAV file, without audio, or with too much after the audio.
        :raises KieDownloadError: shorter than declared; a KieFileCutOffError if the host has no more.
        """
        header = self.header
        if header is None:
            if self._magic:
                raise _cut_off(length_known)(f"The file ends after {total:,} bytes, before its audio begins")
            raise self._refuse("is not a WAV file")
        audio = self._audio_bytes(header, total, length_known)
        self._compare_sizes(header, header.data_start + audio, total, length_known)
        return replace(header, data_bytes=audio, total_bytes=total)

    def _audio_bytes(self, header: WavHeader, total: int, length_known: bool) -> int:
        """Return the bytes of audio: from the header, or the rest of the file if the header leaves that open."""
        audio = header.data_bytes
        if audio is None:
            if not length_known:
                raise KieDownloadError(
                    "Neither the WAV header nor the file host says how long the file is, so it is unknown whether all "
                    f"{total:,} bytes arrived"
                )
            room = total - header.data_start
            audio = 0 if self._chunk_follows(room) else room
        if not audio:
            raise self._refuse("holds no audio")
        return audio

    def _compare_sizes(self, header: WavHeader, audio_end: int, total: int, length_known: bool) -> None:
        """Refuse a file with missing audio or a long unknown end; note a size that is merely wrong."""
        declared = total if header.total_bytes is None else header.total_bytes
        room = total - audio_end
        harmless = not self._after_audio or self._after_audio.startswith(_TAGS) or self._chunk_follows(room)
        # Writers differ in whether they count and whether they write the byte that pads an odd chunk. Without it after
        # the last chunk the audio is still complete.
        missing, surplus = total < declared - 1, total > declared + audio_end % 2
        whole = length_known and header.data_bytes is not None and harmless
        if total < audio_end or (missing and not whole):
            raise _cut_off(length_known)(
                f"The file is cut off: {total:,} bytes came, but its header declares {max(audio_end, declared):,}"
            )
        if surplus and not harmless and room > _INAUDIBLE:
            raise self._refuse(f"holds {total:,} bytes, but its WAV header declares {declared:,}")
        if header.data_bytes is None:
            self._odd_sizes = "its header leaves open how long the audio is"
        elif missing or surplus or header.total_bytes is None:
            said = "leaves that open" if header.total_bytes is None else f"declares {declared:,}"
            self._odd_sizes = f"it has {total:,} bytes and its header {said}"

    def _chunk_follows(self, room: int) -> bool:
        """Return whether the bytes after the audio begin with a chunk that fits into the file."""
        if len(self._after_audio) < 8:
            return False
        name, size = struct.unpack_from("<4sI", self._after_audio)
        named = name.isascii() and name.decode().isprintable() and name not in _MAGIC
        return named and bool(size <= room - 8)

    def _note_after_audio(self, piece: bytes) -> None:
        if len(self._after_audio) < 8:
            self._after_audio = (self._after_audio + piece).lstrip(_BLANK)[:8]

    def _refuse(self, why: str) -> KieNotAWavError:
        return KieNotAWavError(f"What came {why}; {shown(self._start)}")

    def _step(self) -> bool:
        """Read a chunk's header, or the whole of a needed chunk; return False if more bytes are needed."""
        if not self._magic:
            return self._read_magic()
        if len(self._pending) < 8:
            return False
        name, size = struct.unpack_from("<4sI", self._pending)
        if name == b"data":
            self._begin_audio(size)
            return True
        needed = _NEEDED.get(name, 0)
        if size < needed:
            raise self._refuse(f"has a chunk {name.decode(errors='replace')!r} that is too short")
        if len(self._pending) < 8 + needed:
            return False
        if needed:
            (self._read_format if name == b"fmt " else self._read_long_sizes)(bytes(self._pending[8 : 8 + needed]))
        self._skip_over(8 + size + size % 2)
        return True

    def _read_magic(self) -> bool:
        # A wrong first byte is refused at once, not after the twelfth: error pages can be very short.
        start = bytes(self._pending[:12])
        possible = any(magic.startswith(start[:4]) for magic in _MAGIC) and b"WAVE".startswith(start[8:12])
        if not possible:
            raise self._refuse("is not a WAV file")
        if len(start) < 12:
            return False
        self._magic = start[:4]
        self._declared = int.from_bytes(start[4:8], "little")
        self._skip_over(12)
        return True

    def _skip_over(self, count: int) -> None:
        here = min(count, len(self._pending))
        del self._pending[:here]
        self._position += here
        self._skip = count - here

    def _read_long_sizes(self, body: bytes) -> None:
        if self._magic in _LONG_FORMS:
            riff, data = struct.unpack("<QQ", body)
            self._long_sizes = riff, data

    def _read_format(self, body: bytes) -> None:
        tag, channels, rate, byte_rate, frame, bits = struct.unpack("<HHIIHH", body)
        if tag in _UNCOMPRESSED:
            # Players follow the bits and ignore the size of the frame, except for ALSA's arecord: 24 bits in 4 bytes.
            packed = channels * ((bits + 7) // 8)
            padded = channels * 4 if bits == 24 else packed
            if frame != packed:
                self._odd_format = f"its header declares frames of {frame} bytes for {channels} channels of {bits} bit"
            byte_rate = rate * (padded if frame == padded else packed)
        if not (channels and rate and byte_rate):
            raise self._refuse(f"declares {channels} channels at {rate} Hz and {byte_rate} bytes a second")
        self._format = channels, rate, bits, byte_rate

    def _begin_audio(self, size: int) -> None:
        if self._format is None:
            raise self._refuse("has audio without a format before it")
        total, data = self._sizes(size)
        self.header = WavHeader(*self._format, self._position + 8, data, total)
        self._skip_over(8 + (data or 0))
        self._note_after_audio(bytes(self._pending))
        self._pending.clear()

    def _sizes(self, size: int) -> tuple[int | None, int | None]:
        """Return the bytes that the file and its audio should have, each None if left open."""
        riff, data = self._declared, size
        if self._magic not in _LONG_FORMS:
            return None if _is_left_open(riff) else riff + 8, None if _is_left_open(data) else data
        if self._long_sizes is None:
            raise self._refuse("has no chunk 'ds64', which holds the sizes of its kind")
        riff = self._long_sizes[0] if riff == UNKNOWN else riff
        return riff + 8, self._long_sizes[1] if data == UNKNOWN else data


def _cut_off(length_known: bool) -> type[KieDownloadError]:
    return KieFileCutOffError if length_known else KieDownloadError


def _is_left_open(size: int) -> bool:
    return size == 0 or size >> 16 in _PLACEHOLDERS
