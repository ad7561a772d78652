# SPDX-License-Identifier: Apache-2.0
"""The emulator's files: their content, their links, and those that were uploaded."""

from __future__ import annotations

import struct
import zlib

import pytest

from airflow_provider_kie.emulator import uploads
from airflow_provider_kie.emulator.audio import wav_bytes
from airflow_provider_kie.emulator.files import File, made_file
from airflow_provider_kie.emulator.media import KINDS, mp3_bytes, mp4_bytes, png_bytes
from airflow_provider_kie.emulator.state import EmulatorState
from airflow_provider_kie.emulator.uploads import UploadForm, Uploads

BASE = "http://127.0.0.1:1"
MARK = "0123456789abcdef"


def found(state: EmulatorState, url: str) -> File | int:
    """Return what the file host gives for a link."""
    path, _, signature = url.removeprefix(state.base_url).partition("?sig=")
    return state.links.find(path, signature)


# Content


def test_a_marked_png_is_whole() -> None:
    content, names = png_bytes(MARK), []
    at = 8
    while at < len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        (crc,) = struct.unpack_from(">I", content, at + 8 + size)
        assert crc == zlib.crc32(content[at + 4 : at + 8 + size])
        names.append(name)
        at += size + 12
    assert (at, names) == (len(content), [b"IHDR", b"tEXt", b"IDAT", b"IEND"])


@pytest.mark.parametrize("mark", ["", MARK, MARK * 20])
def test_a_marked_mp3_has_its_first_frame_after_the_tag(mark: str) -> None:
    content = mp3_bytes(mark)
    assert content[:5] == b"ID3\3\0"
    assert max(content[6:10]) < 0x80
    size = sum(byte << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=True))
    assert content[10 + size :] == (b"\xff\xfb\x90\x00" + bytes(413)) * 10


def test_a_marked_mp4_is_whole() -> None:
    content, names = mp4_bytes(MARK), []
    at = 0
    while at < len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        names.append(name)
        at += size
    assert (at, names) == (len(content), [b"ftyp", b"free", b"moov", b"mdat"])


@pytest.mark.parametrize("extension", KINDS)
def test_a_mark_tells_files_apart_except_wavs(extension: str) -> None:
    first, second = made_file(extension, "a"), made_file(extension, "b")
    assert first
    assert second
    assert (first.content == second.content, first.etag == second.etag) == (extension == "wav",) * 2
    assert len(first.content) < 5000 or first.content == wav_bytes()


# Links that die


@pytest.fixture
def state() -> EmulatorState:
    return EmulatorState()


def test_the_files_of_a_job_are_told_apart(state: EmulatorState) -> None:
    files = [found(state, state.file_url(job, "png", number)) for job in "ab" for number in range(6)]
    assert len({file.etag for file in files if isinstance(file, File)}) == 12


def test_deleted_files_leave_no_way(state: EmulatorState) -> None:
    dead, others = state.file_url("a", "png", 1), state.file_url("b", "png", 1)
    lent = state.download_url({"url": dead}).data
    state.links.expire("a", fresh=False)
    assert state.file_url("a", "png", 1) == dead
    assert [found(state, url) for url in (dead, str(lent))] == [404, 404]
    assert state.download_url({"url": dead}).body() == {"code": 422, "msg": "url is wrong", "data": None}
    assert isinstance(found(state, others), File)


def test_replaced_links_lead_to_the_same_files(state: EmulatorState) -> None:
    urls = [state.file_url("a", "mp4", 0)]
    file = found(state, urls[0])
    for _ in range(2):
        state.links.expire("a", fresh=True)
        urls.append(state.file_url("a", "mp4", 0))
    assert [found(state, url) for url in urls] == [404, 404, file]
    assert [found(state, str(state.download_url({"url": url}).data)) for url in urls] == [file] * 3

    state.links.expire("a", fresh=False)
    assert [found(state, url) for url in urls] == [404] * 3
    assert {state.download_url({"url": url}).code for url in urls} == {422}
    state.reset()
    assert found(state, urls[0]) == file


# Uploads


def upload(kept: Uploads, content: bytes = b"a", path: str = "images", name: str = "a.png") -> str:
    """Upload a file, and return its path."""
    form = UploadForm(name, path, File.of(content, "image/png"))
    data = kept.keep(form, BASE, 1_790_840_813.882).data
    assert isinstance(data, dict)
    return str(data["downloadUrl"]).removeprefix(BASE)


def test_an_upload_is_answered_as_recorded() -> None:
    form = UploadForm("a b.png", "images/x", File.of(b"abc", "image/png"))
    assert Uploads().keep(form, BASE, 1_790_840_813.882).body() == {
        "success": True,
        "code": 200,
        "msg": "File uploaded successfully",
        "data": {
            "success": True,
            "fileName": "a b.png",
            "filePath": "kieai/1/images/x/a b.png",
            "downloadUrl": f"{BASE}/u/kieai/1/images/x/a%20b.png",
            "fileSize": 3,
            "mimeType": "image/png",
            "uploadedAt": "2026-10-01T07:46:53.882Z",
        },
    }


def test_the_newest_file_of_a_name_counts() -> None:
    kept = Uploads()
    paths = {upload(kept, b"old"), upload(kept, b"new"), upload(kept, b"new", "/images/./")}
    (path,) = paths
    file = kept.find(path)
    assert file
    assert file.content == b"new"
    assert kept.find(path + "0") is None


def test_the_oldest_files_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Uploads()
    paths = [upload(kept, name=f"{number}.png") for number in range(uploads.MOST_FILES + 2)]
    assert [number for number, path in enumerate(paths) if not kept.find(path)] == [0, 1]

    monkeypatch.setattr(uploads, "MOST_BYTES", 10)
    kept = Uploads()
    first, second, third = (upload(kept, b"12345", name=name) for name in ("1", "2", "3"))
    assert [bool(kept.find(path)) for path in (first, second, third)] == [False, True, True]
    upload(kept, b"12345", name="2")
    large = upload(kept, b"1" * 11, name="4")
    assert [bool(kept.find(path)) for path in (first, second, third, large)] == [False, False, False, True]
