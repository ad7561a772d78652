# SPDX-License-Identifier: Apache-2.0
"""What counts as a WAV file: every header that writers leave, and nothing else."""

from __future__ import annotations

import io
import re
import struct
import wave

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_kie.emulator.audio import wav_bytes
from airflow_provider_kie.exceptions import KieDownloadError, KieError, KieFileCutOffError, KieNotAWavError
from airflow_provider_kie.files.riff import WavHeader, WavReader, shown
from tests.wav_files import UNKNOWN, chunk, fmt, long_wav, wav


def read(content: bytes, *, piece: int | None = None, length_known: bool = True) -> WavHeader:
    reader = WavReader()
    for start in range(0, len(content), piece or max(1, len(content))):
        reader.feed(content[start : start + piece] if piece else content)
    return reader.finish(len(content), length_known=length_known)


def refused(content: bytes, error: type[KieError] = KieNotAWavError, **how) -> str:
    with pytest.raises(error) as caught:
        read(content, **how)
    return str(caught.value)


def header_or_error(content: bytes, **how) -> WavHeader | KieError:
    try:
        return read(content, **how)
    except KieError as error:
        return error


def test_the_emulators_file_is_what_it_is():
    header = read(wav_bytes())
    assert (header.channels, header.sample_rate, header.bits, header.seconds) == (2, 48_000, 16, 3.0)
    assert header.total_bytes == len(wav_bytes())
    assert header.data_start == 44


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 8, 11, 12, 13, 43, 44, 45, 1000])
def test_it_does_not_matter_how_the_bytes_are_cut(piece):
    content = wav(before=chunk(b"LIST", b"x" * 33) + chunk(b"JUNK", b""))
    assert read(content, piece=piece) == read(content)


@pytest.mark.parametrize(
    "before",
    [chunk(b"LIST", b"INFOISFT"), chunk(b"JUNK", b"\0" * 4096), chunk(b"bext", b"b" * 603), chunk(b"id3 ", b"")],
)
def test_chunks_before_the_audio_are_passed_over(before):
    header = read(wav(100, before=before, after=chunk(b"LIST", b"abc")))
    assert header.data_bytes == 400
    assert header.data_start == 44 + len(before)


def test_the_format_comes_before_the_audio():
    audio = b"data" + struct.pack("<I", 8) + bytes(8)
    ordered = b"WAVE" + chunk(b"JUNK", b"12") + fmt() + audio
    assert read(b"RIFF" + struct.pack("<I", len(ordered)) + ordered).data_bytes == 8
    reverse = b"WAVE" + audio + fmt()
    assert "audio without a format" in refused(b"RIFF" + struct.pack("<I", len(reverse)) + reverse)


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
def test_the_long_forms_take_their_sizes_from_ds64(magic):
    header = read(long_wav(500, magic=magic))
    assert (header.data_bytes, header.channels) == (2000, 2)


def test_a_long_form_of_six_gigabytes():
    reader = WavReader()
    content = long_wav(10, declared_bytes=6 * 10**9)
    reader.feed(content)
    assert reader.header is not None
    assert reader.header.data_bytes == 6 * 10**9
    whole = reader.header.data_start + 6 * 10**9
    assert reader.finish(whole, length_known=True).seconds == 6 * 10**9 / 192_000
    with pytest.raises(KieDownloadError, match="cut off"):
        reader.finish(whole - 1, length_known=True)


def sizes_of(magic: bytes, riff: int, data: int, before: bytes = b"", format_chunk: bytes = fmt()) -> WavHeader:
    """Return the header of a file whose audio nobody wants to make."""
    reader = WavReader()
    reader.feed(magic + struct.pack("<I", riff) + b"WAVE" + before + format_chunk + b"data" + struct.pack("<I", data))
    reader.feed(b"\0" * 100)
    assert reader.header is not None
    return reader.header


DS64 = chunk(b"ds64", struct.pack("<QQQI", 9_000_000_036, 9_000_000_000, 0, 0))


@pytest.mark.parametrize(
    ("magic", "riff", "data", "found"),
    [
        (b"RIFF", 3_000_000_036, 3_000_000_000, (3_000_000_044, 3_000_000_000)),
        (b"RF64", UNKNOWN, UNKNOWN, (9_000_000_044, 9_000_000_000)),
        (b"RF64", UNKNOWN, 400, (9_000_000_044, 400)),
        (b"RF64", 436, UNKNOWN, (444, 9_000_000_000)),
        (b"RF64", 436, 400, (444, 400)),
        (b"RIFF", UNKNOWN, 400, (None, 400)),
        (b"RIFF", 436, UNKNOWN, (444, None)),
    ],
)
def test_which_of_the_sizes_counts(magic, riff, data, found):
    header = sizes_of(magic, riff, data, DS64)  # which says nothing in the short form
    assert (header.total_bytes, header.data_bytes) == found


def test_numbers_are_read_without_a_sign():
    wide = struct.pack("<HHIIHH", 0xFFFE, 20_000, 3_000_000_000, 0, 40_000, 16)
    header = sizes_of(b"RIFF", 436, 400, format_chunk=chunk(b"fmt ", wide))
    assert (header.channels, header.sample_rate, header.bits) == (20_000, 3_000_000_000, 16)
    packed = struct.pack("<HHIIHH", 2, 1, 8000, 3_000_000_000, 40_000, 40_000)
    header = sizes_of(b"RIFF", 436, 400, format_chunk=chunk(b"fmt ", packed))
    assert (header.bytes_per_second, header.bits) == (3_000_000_000, 40_000)


def test_the_first_bytes_are_shown_however_they_came():
    content = b"RIFF0000WAVEdata" + b"\0" * 100
    assert "its first bytes are 'RIFF0000WAVEdata\\x00" in refused(content, piece=5)


def test_a_long_form_without_ds64_is_refused():
    assert "ds64" in refused(wav().replace(b"RIFF", b"RF64", 1))


# --- Sizes


@pytest.mark.parametrize(("frames", "riff_off"), [(101, 0), (101, -1), (100, 0)])
def test_the_byte_that_pads_odd_audio_may_be_counted(frames, riff_off):
    content = wav(frames, channels=1, bits=8)
    declared = len(content) - 8 + riff_off
    assert read(wav(frames, channels=1, bits=8, riff_size=declared)).data_bytes == frames


@pytest.mark.parametrize("frames", range(101, 115, 2))
def test_the_byte_that_pads_odd_audio_may_be_missing(frames):
    content = wav(frames, channels=1, bits=8)[:-1]
    assert read(content).total_bytes == len(content)


def test_the_byte_that_pads_a_last_chunk_may_be_missing():
    assert read(wav(after=chunk(b"LIST", b"abc"))[:-1]).data_bytes == 4000


def test_a_header_that_leaves_the_length_open_says_so():
    open_end, known = WavReader(), WavReader()
    open_end.feed(wav(data_size=UNKNOWN, riff_size=UNKNOWN))
    known.feed(wav())
    assert [reader.length_is_open for reader in (open_end, known, WavReader())] == [True, False, False]


LIST = chunk(b"LIST", b"INFOISFT\x0e\0\0\0Lavf58.29.100\0")
PICTURE = chunk(b"id3 ", b"\x89PNG" * 500)
ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
APEV2 = b"APETAGEX" + struct.pack("<IIII8x", 2000, 2000, 1, 0xA000_0000) + b"x" * 2000
CUT_OFF = {
    "1 byte of the audio": wav()[:-1],
    "half of the audio": wav()[:-2000],
    "all of the audio": wav()[:44],
    "the audio, and the RIFF size too small": wav(riff_size=2036)[:-2000],
    "the audio, and the RIFF size left open": wav(riff_size=UNKNOWN)[:-2000],
    "the audio, by what its chunk declares": wav(data_size=4008),
    "the audio, by far": wav(data_size=10**9),
    "audio left open, by the RIFF size": wav(data_size=UNKNOWN)[:-2000],
    "a chunk behind the audio": wav(after=LIST)[:-10],
    "a chunk behind the audio, by one byte more than pads it": wav(after=chunk(b"LIST", b"abc"))[:-2],
    "the audio of a long form": long_wav()[:-1],
}
ODD = {
    "RIFF size 8 too much": (wav(riff_size=4044), "it has 4,044 bytes and its header declares 4,052"),
    "RIFF size 8 too small": (wav(riff_size=4028), "it has 4,044 bytes and its header declares 4,036"),
    "RIFF size of a file without audio": (wav(riff_size=36), "declares 44"),
    "RIFF size by far too much": (wav(riff_size=10**9), "declares 1,000,000,008"),
    "RIFF size too much, with a chunk behind": (wav(after=LIST, riff_size=4100), "declares 4,108"),
    "RIFF size left open": (wav(riff_size=UNKNOWN), "it has 4,044 bytes and its header leaves that open"),
    "chunk not counted": (wav() + LIST, "it has 4,078 bytes and its header declares 4,044"),
    "large chunk not counted": (wav() + chunk(b"id3 ", b"\x89PNG" * 500), "declares 4,044"),
    "chunk behind odd audio not counted": (wav(1333, bits=8, channels=3) + LIST, "declares 4,044"),
    "part of a chunk not counted": (wav(after=LIST, riff_size=4060), "declares 4,068"),
    "APEv2 and ID3v1": (wav() + APEV2 + ID3V1, "it has 6,204 bytes"),
    "ID3v2": (wav() + b"ID3\x03\0\0" + bytes(3000) + b"x", "declares 4,044"),
    "lyrics": (wav() + b"LYRICSBEGIN" + b"x" * 3000, "declares 4,044"),
    "a zero": (wav() + b"\0", "it has 4,045 bytes"),
    "many zeros": (wav() + bytes(70_000), "it has 74,044 bytes"),
    "a line break": (wav() + b"\r\n", "it has 4,046 bytes"),
    "the end of an upload": (wav() + b"\r\n------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n", "declares 4,044"),
    "as much as nobody hears": (wav() + b"x" * 1024, "declares 4,044"),
    "a long form with a tag": (long_wav() + ID3V1, "bytes and its header declares"),
}
LEFT_OPEN = {
    "ffmpeg": (UNKNOWN, UNKNOWN, 16),
    "ffmpeg, with the RIFF size patched": (None, UNKNOWN, 16),
    "both 0": (0, 0, 16),
    "written before the audio": (36, 0, 16),
    "closed without the audio's size": (None, 0, 16),
    "SoX": (0x7FFFF024, 0x7FFFF000, 16),
    "SoX, in whole frames": (0x7FFFF044, 0x7FFFEFFC, 24),
    "SoX, with a long header": (0x80000010, 0x7FFFF000, 16),
    "arecord": (0x80000024, 0x80000000, 16),
    "arecord for ever": (0x7FFFFF24, 0x7FFFFF00, 16),
    "all that a size can hold, less the header": (UNKNOWN, UNKNOWN - 36, 16),
}


def read_with_oddities(content: bytes, piece: int, *, length_known: bool = True) -> tuple[WavHeader, str]:
    reader = WavReader()
    for start in range(0, len(content), piece):
        reader.feed(content[start : start + piece])
    header = reader.finish(len(content), length_known=length_known)
    return header, "; ".join(reader.oddities)


@pytest.mark.parametrize("length_known", [True, False])
@pytest.mark.parametrize("content", CUT_OFF.values(), ids=CUT_OFF)
def test_a_file_that_is_cut_off_is_refused(content, length_known):
    error = header_or_error(content, piece=13, length_known=length_known)
    assert isinstance(error, KieDownloadError)
    assert re.search(r"cut off: .* declares" if length_known else "cut off|unknown whether", str(error))
    # What the host vouches for is the same the next time.
    assert isinstance(error, KieFileCutOffError) is isinstance(error, AirflowFailException) is length_known


@pytest.mark.parametrize("length_known", [True, False])
def test_a_file_that_ends_in_its_header_is_refused(length_known):
    error = header_or_error(wav()[:30], length_known=length_known)
    assert "before its audio begins" in str(error)
    assert isinstance(error, KieDownloadError)
    assert isinstance(error, KieFileCutOffError) is length_known


@pytest.mark.parametrize("piece", [1, 4045, 10**6])
@pytest.mark.parametrize(("content", "oddity"), ODD.values(), ids=ODD)
def test_a_file_whose_audio_is_whole_is_accepted(content, oddity, piece):
    header, oddities = read_with_oddities(content, piece)
    assert header.data_bytes in (3999, 4000)
    assert header.total_bytes == len(content)
    assert oddity in oddities


@pytest.mark.parametrize("name", [name for name in ODD if "too much" in name])
def test_what_is_declared_may_still_come_if_nobody_vouches(name):
    assert "cut off" in refused(ODD[name][0], KieDownloadError, length_known=False)


@pytest.mark.parametrize("name", [name for name in ODD if "too much" not in name])
def test_without_a_length_the_header_is_enough(name):
    assert read_with_oddities(ODD[name][0], 999, length_known=False) == read_with_oddities(ODD[name][0], 999)


@pytest.mark.parametrize(
    "content",
    [wav(), wav(after=LIST + PICTURE), wav(101, 1, bits=8), wav(101, 1, bits=8)[:-1], wav(bits=24), long_wav()],
)
def test_a_file_as_it_should_be_has_no_oddities(content):
    assert read_with_oddities(content, 999)[1] == ""


@pytest.mark.parametrize("more", [b"x" * 1025, b"\n<!DOCTYPE html>" * 99, wav(seed=2)])
def test_what_may_be_audio_that_no_player_plays_is_refused(more):
    assert "declares 4,044" in refused(wav() + more)
    assert "declares 2,044" in refused(wav(data_size=2000, riff_size=2036))


@pytest.mark.parametrize("sizes", [(None, None), (UNKNOWN, UNKNOWN), (0, 0), (0x7FFFF024, 0x7FFFF000)])
@pytest.mark.parametrize("after", [b"", LIST])
def test_without_audio_it_is_not_worth_storing(sizes, after):
    riff_size, data_size = sizes
    assert "holds no audio" in refused(wav(0, riff_size=riff_size, data_size=data_size, after=after))


@pytest.mark.parametrize("piece", [1, 50, 10**6])
@pytest.mark.parametrize(("riff_size", "data_size", "bits"), LEFT_OPEN.values(), ids=LEFT_OPEN)
def test_a_size_left_open_needs_the_length_of_the_host(riff_size, data_size, bits, piece):
    content = wav(riff_size=riff_size, data_size=data_size, bits=bits)
    header, oddities = read_with_oddities(content, piece)
    assert (header.data_bytes, header.total_bytes) == (len(content) - 44, len(content))
    assert header.seconds == round(1000 / 48_000, 6)
    assert oddities == "its header leaves open how long the audio is"
    assert "unknown whether" in refused(content, KieDownloadError, length_known=False)


def test_audio_as_long_as_a_size_left_open_is_whole():
    reader = WavReader()
    reader.feed(wav(0, riff_size=0x7FFFF024, data_size=0x7FFFF000))
    assert reader.finish(44 + 0x7FFFF000, length_known=True).data_bytes == 0x7FFFF000


@pytest.mark.parametrize(
    ("bits", "frame", "frames"),
    [(24, 8, 3000), (24, 6, 4000), (24, 0, 4000), (16, 0, 6000), (16, 3, 6000), (16, 8, 6000), (20, 8, 4000)],
)
def test_a_frame_of_another_size_is_counted_as_players_do(bits, frame, frames):
    content = wav(24_000 // (2 * ((bits + 7) // 8)), bits=bits, frame=frame)
    header, oddities = read_with_oddities(content, 999)
    assert (header.bits, header.data_bytes, header.seconds) == (bits, 24_000, round(frames / 48_000, 6))
    odd = f"its header declares frames of {frame} bytes for 2 channels of {bits} bit"
    assert oddities == ("" if (bits, frame) == (24, 6) else odd)


# --- What is no WAV file


NO_WAVS = [
    *(b"<!DOCTYPE html><html><body>This file has expired", b'{"code":404,"msg":"file does not exist","data":null}'),
    *(b"ID3\x04\0\0", b"RIFX" + bytes(40), b"RIFF\x24\0\0\0AVI LIST", b"R", b"x", b"\0" * 100),
]


@pytest.mark.parametrize("content", NO_WAVS)
def test_what_is_no_wav_is_refused_with_its_first_bytes(content):
    message = refused(content)
    assert "is not a WAV file" in message
    assert repr(content[:80].decode(errors="replace"))[1:-1] in message
    assert message == refused(content, piece=len(content))


def test_an_empty_file_is_called_so():
    assert "it is empty" in refused(b"")


def test_what_is_shown_is_short_and_holds_no_signature():
    assert len(shown(b"x" * 500)) < 120
    message = refused(b"see https://files.example/a.wav?sig=canary-0123456789 please")
    assert "canary" not in message
    assert "files.example" in message


@pytest.mark.parametrize(
    "bad",
    [
        b"short",
        *(struct.pack("<HHIIHH", 1, *fields) for fields in ((0, 48_000, 0, 0, 16), (2, 0, 0, 4, 16))),
        struct.pack("<HHIIHH", 1, 2, 48_000, 192_000, 0, 0),
        struct.pack("<HHIIHH", 0x55, 2, 48_000, 0, 1, 0),
    ],
)
def test_a_format_that_makes_no_sense_is_refused(bad):
    body = b"WAVE" + chunk(b"fmt ", bad) + chunk(b"data", bytes(8))
    refused(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_a_compressed_format_is_a_wav_too():
    body = b"WAVE" + chunk(b"fmt ", struct.pack("<HHIIHH", 0x55, 2, 44_100, 16_000, 1, 0)) + chunk(b"data", bytes(8000))
    header = read(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert (header.bits, header.seconds) == (0, 0.5)


# --- Any bytes

SHAPES = {
    "frames": st.integers(1, 300),
    "channels": st.integers(1, 64),
    "rate": st.integers(1, 768_000),
    "bits": st.sampled_from([8, 12, 16, 20, 24, 32, 64]),
    "tag": st.sampled_from([1, 3, 0xFFFE]),
}
CHUNKS = st.lists(
    st.tuples(st.sampled_from([b"LIST", b"JUNK", b"bext", b"\0\xff !"]), st.binary(max_size=90)), max_size=3
).map(lambda pairs: b"".join(chunk(*pair) for pair in pairs))


@given(before=CHUNKS, after=CHUNKS, piece=st.integers(1, 200), **SHAPES)
def test_every_wav_is_read_right(before, after, piece, **shape):
    content = wav(before=before, after=after, **shape)
    header = read(content, piece=piece, length_known=False)
    frame = shape["channels"] * ((shape["bits"] + 7) // 8)
    assert (header.channels, header.sample_rate, header.bits) == (shape["channels"], shape["rate"], shape["bits"])
    assert header.data_bytes == shape["frames"] * frame
    assert header.seconds == round(shape["frames"] / shape["rate"], 6)
    assert header.total_bytes == len(content)


@given(st.integers(1, 300), st.integers(1, 8), st.integers(1, 400_000), st.integers(1, 4))
def test_it_agrees_with_the_standard_library(frames, channels, rate, width):
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(bytes(frames * channels * width))
    header = read(target.getvalue())
    assert (header.channels, header.sample_rate, header.bits) == (channels, rate, 8 * width)
    assert header.data_bytes == frames * channels * width


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda tail: b"RIFF\xff\xff\xff\xffWAVE" + tail)))
@example(b"")
@example(b"RF64" + bytes(40))
def test_any_bytes_give_a_header_or_our_error(content):
    found = header_or_error(content, piece=17)
    if isinstance(found, KieError):
        assert len(str(found)) < 800
    else:
        assert found.data_bytes
        assert found.seconds >= 0
