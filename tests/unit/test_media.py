# SPDX-License-Identifier: Apache-2.0
"""What a file is, by its first bytes, and where it goes."""

from __future__ import annotations

import pytest

from airflow_provider_kie.emulator.media import KINDS
from airflow_provider_kie.exceptions import KieDownloadError, KieNotAWavError, KieValidationError, KieWrongFileError
from airflow_provider_kie.files.reader import MediaReader, WavOnlyReader
from airflow_provider_kie.files.template import DestinationTemplate
from airflow_provider_kie.media import media_of, no_file
from tests.wav_files import chunk, wav

STARTS = {
    "wav": wav(10),
    "webp": b"RIFF\x10\0\0\0WEBPVP8 ",
    "mp3": b"\xff\xfb\x90\x64",
    "flac": b"fLaC\0\0\0\x22",
    "ogg": b"OggS\0\x02",
    "mp4": b"\0\0\0\x20ftypisom\0\0\2\0",
    "webm": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm",
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR",
    "jpg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "gif": b"GIF89a\1\0\1\0",
    "mid": b"MThd\0\0\0\x06\0\1",
    "json": b'{"instruments": []}',
    "avif": b"\0\0\0\x20ftypavif",
    "mov": b"\0\0\0\x14ftypqt  ",
    "m4a": b"\0\0\0\x20ftypM4A ",
}


@pytest.mark.parametrize("extension", STARTS)
def test_the_bytes_decide_and_not_the_name(extension):
    assert media_of(STARTS[extension], "text/html", "page.html").extension == extension
    assert no_file(STARTS[extension]) is None


@pytest.mark.parametrize("extension", KINDS)
def test_the_emulators_files_are_what_they_are_called(extension):
    kind = KINDS[extension]
    assert media_of(kind.content("mark")) == (kind.media_type, extension)


@pytest.mark.parametrize(
    ("called", "name", "expected"),
    [
        ("image/tiff", "a.bin", ("image/tiff", "tiff")),
        ("IMAGE/TIFF; x=1", "", ("image/tiff", "tiff")),
        ("x/unheard", "a.odd1", ("x/unheard", "odd1")),
        ("", "a.odd1", ("application/octet-stream", "odd1")),
        ("", "a.pdf", ("application/pdf", "pdf")),
        ("", "../../etc", ("application/octet-stream", "bin")),
        ("x/y", "a.much-too-long", ("x/y", "bin")),
    ],
)
def test_unknown_bytes_are_what_the_host_calls_them(called, name, expected):
    assert media_of(b"\0\1\2\3", called, name) == expected


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"<!DOCTYPE html><p>expired",
        b"\xef\xbb\xbf  <HTML>",
        b"<!-- a --> <html>",
        b"<h1>Expired</h1>",
        b"<script>location = '/'</script>",
        b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "a">',
        b"<!---->" * 50 + b"<html>",
        b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code>',
        b'{"code": 404, "msg": "file does not exist"}',
        b'{"error":"gone"}',
        b'{"success": false}',
    ],
)
def test_what_is_certainly_no_file_is_refused(start):
    reader = MediaReader("video/mp4", "a.mp4")
    reader.feed(start)
    with pytest.raises(KieWrongFileError):
        reader.finish(len(start), length_known=True)


@pytest.mark.parametrize("piece", [1, 600, 10_000])
def test_a_wav_header_may_be_longer_than_what_tells_that_it_is_one(piece):
    content, reader = wav(10, before=chunk(b"bext", b"\0" * 1000)), MediaReader()
    for start in range(0, len(content), piece):
        reader.feed(content[start : start + piece])
    header = reader.finish(len(content), length_known=True)
    assert (header.channels, header.sample_rate, reader.oddities) == (2, 48_000, [])


@pytest.mark.parametrize("start", [b"<\0h\0t\0m\0l", b"Link expired"])
def test_unknown_bytes_that_the_host_calls_a_web_page_are_refused(start):
    with pytest.raises(KieWrongFileError, match="web page"):
        MediaReader("Text/HTML; charset=utf-16", "a.mp4").feed(start.ljust(600))


@pytest.mark.parametrize(
    "start", [b"<?xml version='1.0'?><svg>", b"<svg xmlns='a'>", b"[00:12.00] la la", b"[1st verse]"]
)
def test_what_only_looks_like_something_else_is_what_it_is_called(start):
    reader = MediaReader("model/x", "a.odd")
    reader.feed(start)
    reader.finish(len(start), length_known=True)
    assert reader.media == ("model/x", "odd")


@pytest.mark.parametrize("piece", [1, 7, 10_000])
@pytest.mark.parametrize("extension", STARTS)
def test_a_file_may_come_in_pieces_of_any_size(extension, piece):
    content, reader = STARTS[extension], MediaReader()
    for start in range(0, len(content), piece):
        reader.feed(content[start : start + piece])
    header = reader.finish(len(content), length_known=True)
    assert reader.media.extension == extension
    assert (header is not None) == (extension == "wav") == reader.says_where_it_ends
    assert reader.oddities == []


def test_a_wav_file_keeps_its_full_check():
    content = wav(1000)
    reader = MediaReader()
    reader.feed(content[:-100])
    with pytest.raises(KieDownloadError, match="cut off"):
        reader.finish(len(content) - 100, length_known=False)
    with pytest.raises(KieNotAWavError):
        WavOnlyReader().feed(STARTS["png"])


def test_a_start_of_many_comments_is_read_at_once():
    """In a search that tries all ways to divide them it would take years, and no time-out would interrupt it."""
    assert no_file(b"<!---->" * 73) is None


def test_unknown_bytes_are_told_in_a_warning():
    reader = MediaReader("model/obj", "a.obj")
    reader.feed(b"v 0 0 0")
    reader.finish(7, length_known=True)
    (oddity,) = reader.oddities
    assert "model/obj" in oddity


# --- Where files go

TWO = [{"url": "u", "name": "result", "index": 0}, {"url": "u", "name": "result", "index": 1}]


def test_a_template_gives_each_file_a_place():
    template = DestinationTemplate("s3://a/{{x}}/{kie_task_id}/{name}-{index:02}.{ext}", "t1")
    template.check(TWO)
    assert [template.url(file, "png") for file in TWO] == [f"s3://a/{{x}}/t1/result-0{n}.png" for n in (0, 1)]
    assert template.has_extension
    assert template.beside("{kie_task_id}.json") == "s3://a/{x}/t1/t1.json"


@pytest.mark.parametrize(
    ("destination", "beside"),
    [
        ("{name}.{ext}", "m"),
        ("/{index}", "/m"),
        ("s3://a/b/{name}/x", "s3://a/b/m"),
        ("file:///a/b.{ext}", "file:///a/m"),
    ],
)
def test_what_belongs_to_all_files_goes_where_they_part(destination, beside):
    assert DestinationTemplate(destination, "t1").beside("m") == beside


@pytest.mark.parametrize("destination", ["s3://a/{kie_task_id}.{ext}", "s3://a/{name}.{ext}", "s3://a/{index}{ext}"])
def test_files_that_would_share_a_place_are_refused(destination):
    files = [*TWO, {"url": "u", "name": "mask", "index": 0}]
    with pytest.raises(KieValidationError, match="the same place"):
        DestinationTemplate(destination, "t1").check(files)


@pytest.mark.parametrize(
    ("destination", "word"),
    [
        ("{label}", "label"),
        ("{}", "fields"),
        ("{name", "expected"),
        ("{name!r}", "!r"),
        ("{index:x9}", "x9"),
        ("{name.x}", "name.x"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_refused(destination, word):
    with pytest.raises(KieValidationError, match=word) as caught:
        DestinationTemplate(destination, "t1")
    assert "{kie_task_id}, {name}, {index}, {ext}" in str(caught.value)


@pytest.mark.parametrize("name", ["a/b.json", "{name}.json", "{kie_task_id.__class__}"])
def test_the_name_of_a_manifest_is_checked_too(name):
    with pytest.raises(KieValidationError, match="result_name"):
        DestinationTemplate("a/{name}", "t1").beside(name)
