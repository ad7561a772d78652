# SPDX-License-Identifier: Apache-2.0
"""
What a WAV file says about itself: RIFF/WAVE, and RF64 or BW64 beyond 4 GiB, read while the bytes come in.

The rules that live here and nowhere else: which bytes are a WAV file, and whether the sizes in its header agree with
the number of bytes that came. KIE's links have been seen to answer with web pages instead of audio, so everything
else is refused, with its first bytes in the message.

Sources: Microsoft's "Multimedia Programming Interface and Data Specifications" 1.0 (RIFF) and "Multiple channel audio
data and WAVE files" (2007), EBU Tech 3306 (RF64), ITU-R BS.2088 (BW64).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from airflow_provider_kie.exceptions import KieDownloadError, KieNotAWavError

__all__ = ["WavHeader", "WavReader", "shown"]

#: What a writer that can not go back (such as ffmpeg into a pipe) leaves in place of a size, and what RF64 and BW64
#: say where the ``ds64`` chunk holds the size.
UNKNOWN = 0xFFFFFFFF
_LONG_FORMS = (b"RF64", b"BW64")
_MAGIC = (b"RIFF", *_LONG_FORMS)
#: WAVE_FORMAT_PCM, WAVE_FORMAT_IEEE_FLOAT and WAVE_FORMAT_EXTENSIBLE: each frame has the same number of bytes.
_UNCOMPRESSED = (1, 3, 0xFFFE)
#: The chunks that are read rather than passed over, with the bytes that are needed of them.
_NEEDED = {b"fmt ": 16, b"ds64": 16}
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class WavHeader:
    """
    What the header says.

    :param channels: number of channels.
    :param sample_rate: frames per second.
    :param bits: bits per sample; 0 where the format is compressed.
    :param bytes_per_second: of audio.
    :param data_start: where the audio begins in the file.
    :param data_bytes: bytes of audio; None while only the end of the file can tell.
    :param total_bytes: bytes of the whole file; None while only the end of the file can tell.
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
    """
    Return the first bytes of something for a message, or say that there are none.

    :param start: the bytes, of which not more than 80 are shown; URLs among them lose their query string in the error.
    """
    return f"its first bytes are {start[:_SHOWN].decode(errors='replace')!r}" if start else "it is empty"


class WavReader:
    """
    Reads a WAV file from its first byte on, in pieces of any size, and keeps nothing but what the header says.

    :attr:`header` is None until the audio begins.
    """

    def __init__(self) -> None:
        self.header: WavHeader | None = None
        self._start = b""
        self._pending = bytearray()
        self._position = 0  # of the first pending byte in the file
        self._skip = 0  # bytes still to pass over
        self._magic = b""
        self._declared = 0
        self._long_sizes: tuple[int, int] | None = None
        self._format: tuple[int, int, int, int] | None = None

    @property
    def ends_with_the_file(self) -> bool:
        """Whether the header leaves open how long the audio is."""
        return self.header is not None and self.header.data_bytes is None

    def feed(self, piece: bytes) -> None:
        """
        Take the next bytes of the file.

        :param piece: the bytes; passed over once the header is known.
        :raises KieNotAWavError: they can not be those of a WAV file.
        """
        if len(self._start) < _SHOWN:
            self._start += piece[: _SHOWN - len(self._start)]
        if self.header is not None:
            return
        skipped = min(self._skip, len(piece))
        self._skip -= skipped
        self._position += skipped
        self._pending += piece[skipped:]
        while self.header is None and not self._skip and self._step():
            pass

    def finish(self, total: int, *, vouched: bool) -> WavHeader:
        """
        Check the declared sizes against what came, once all has come.

        :param total: bytes that came.
        :param vouched: the sender had said how many bytes there would be, so that the end is the end.
        :raises KieNotAWavError: not a WAV file, or longer than it says.
        :raises KieDownloadError: shorter than it says.
        """
        header = self.header
        if header is None:
            if self._magic:
                raise KieDownloadError(f"The file ends after {total:,} bytes, before its audio begins")
            raise self._refuse("is not a WAV file")
        if header.data_bytes is None:
            if not vouched:
                raise KieDownloadError(
                    "Neither the WAV header nor the file host says how long the file is, so nobody knows whether all "
                    f"{total:,} bytes came"
                )
            header = replace(header, data_bytes=total - header.data_start)
        audio_end = header.data_start + (header.data_bytes or 0)
        declared = total if header.total_bytes is None else header.total_bytes
        # The byte that pads an odd chunk is counted by some writers and written by some. One that is missing behind the
        # last chunk does no harm as long as the audio is whole.
        odd = audio_end % 2
        if total < max(audio_end, declared - 1):
            raise KieDownloadError(
                f"The file is cut off: {total:,} bytes came, but its header declares {max(audio_end, declared):,}"
            )
        if total > declared + odd:
            raise self._refuse(f"holds {total:,} bytes, but its WAV header declares {declared:,}")
        if not header.data_bytes:
            raise self._refuse("holds no audio")
        return replace(header, total_bytes=total)

    def _refuse(self, why: str) -> KieNotAWavError:
        return KieNotAWavError(f"What came {why}; {shown(self._start)}")

    def _step(self) -> bool:
        """Read one chunk's header, or the whole of a chunk that is needed; tell whether there was enough for it."""
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
        self._pass_over(8 + size + size % 2)
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
        self._pass_over(12)
        return True

    def _pass_over(self, count: int) -> None:
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
            if not bits or frame != channels * ((bits + 7) // 8):
                raise self._refuse(f"declares frames of {frame} bytes for {channels} channels of {bits} bit")
            byte_rate = rate * frame
        if not (channels and rate and byte_rate):
            raise self._refuse(f"declares {channels} channels at {rate} Hz and {byte_rate} bytes a second")
        self._format = channels, rate, bits, byte_rate

    def _begin_audio(self, size: int) -> None:
        if self._format is None:
            raise self._refuse("has audio without a format before it")
        total, data = self._sizes(size)
        self.header = WavHeader(*self._format, self._position + 8, data, total)
        self._pending.clear()

    def _sizes(self, size: int) -> tuple[int | None, int | None]:
        """Return the bytes that the file and its audio should have, each None where the writer did not know."""
        riff: int | None = self._declared
        data: int | None = size
        if self._magic in _LONG_FORMS:
            if self._long_sizes is None:
                raise self._refuse("has no chunk 'ds64', which holds the sizes of its kind")
            riff = self._long_sizes[0] if riff == UNKNOWN else riff
            data = self._long_sizes[1] if size == UNKNOWN else size
        else:
            riff = None if riff == UNKNOWN else riff
            data = None if size == UNKNOWN else size
        return None if riff is None else riff + 8, data
