# SPDX-License-Identifier: Apache-2.0
"""What file hosts do wrong, for every kind of file: it is stored whole, or there is an error and all is as before."""

from __future__ import annotations

import random
import threading
import time

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.emulator.media import KINDS
from airflow_provider_kie.files.host import FileHost, Link
from airflow_provider_kie.files.storage import Destination
from airflow_provider_kie.files.store import StoppedError, each, store
from airflow_provider_kie.times import switched
from tests.file_server import Act, FileServer
from tests.wav_files import wav

NOISE = random.Random(3).randbytes(600_000)
FILES = {"wav": wav(150_000)} | {kind: KINDS[kind].content("mark") + NOISE for kind in ("mp3", "mp4", "png")}
PAGE = b"<!DOCTYPE html><html><body>This file has expired</body></html>"
BROKEN = Act(cut=0.5, end="reset")
ENDLESS, ENDLESS_CUT = (Act(length="none", etag=None, cut=share) for share in (1.0, 0.5))
#: What the host does, and the error; None where the file is stored in spite of it.
pytestmark = pytest.mark.usefixtures("short_times")

FAULTS = {
    "broken": ([BROKEN, Act()], None),
    "broken without ranges": ([BROKEN, Act(ranges=False)], None),
    "broken each time": ([Act(cut=0.5, end="reset", ranges=False)], e.KieDownloadError),
    "cut": ([Act(cut=0.5), Act()], None),
    "cut each time": ([Act(cut=0.5, etag=None)], e.KieDownloadError),
    "slow": ([Act(cut=0.5, end="hold"), Act()], None),
    "without a length": ([Act(length="none")], None),
    "cut without a length": ([Act(length="none", cut=0.5), Act(length="none")], None),
    "without a length or a validator": ([ENDLESS], None),
    "cut, without a length or a validator": (
        [Act(length="none", etag=None, cut=0.5), Act(length="none", etag=None)],
        None,
    ),
    "chunked": ([Act(length="chunked")], None),
    "compressed": ([Act(zipped=True)], None),
    "expired": ([Act(status=404, body=b"Not Found")], e.KieLinkExpiredError),
    "expired once": ([Act(status=410, body=b"Gone"), Act()], None),
    "a web page": ([Act(body=PAGE)], e.KieWrongFileError),
    "a web page once": ([Act(body=PAGE), Act()], None),
    "an error": ([Act(body=b'{"code": 404, "msg": "gone"}')], e.KieWrongFileError),
    "empty": ([Act(body=b"")], e.KieWrongFileError),
    "a private address": ([Act(status=302, headers={"Location": "https://10.0.0.1/a"})], e.KieUnsafeUrlError),
    "too large": ([Act()], e.KieFileTooLargeError),
    "too large without a length": ([Act(length="none")], e.KieFileTooLargeError),
    "a server error once": ([Act(status=503, body=b"busy"), Act()], None),
    "refused": ([Act(status=400, body=b"no")], e.KieDownloadError),
}


def store_one(server, folder, *, max_bytes=10**9, overwrite=True, stopped=None):
    host = FileHost(KieSettings("kie_default", "canary-key-0123456789", timeout=0.5))
    links = [Link(f"{server.url}/{name}/a?sig=canary", True) for name in ("a", "b", "c", "d")]

    def place(media):
        return media and Destination(f"{folder}/one.{media.extension}", None, "owner")

    try:
        return store(host, lambda: iter(links), place, overwrite=overwrite, max_bytes=max_bytes, stopped=stopped)
    finally:
        host.close()


@pytest.mark.parametrize("before", [None, b"an older file"], ids=["new", "in place of another"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_stored_whole_or_not_at_all(tmp_path, kind, fault, before):
    acts, error = FAULTS[fault]
    path = tmp_path / f"one.{kind}"
    if before:
        path.write_bytes(before)
    with FileServer(FILES[kind]) as server:
        server.play(*acts)
        max_bytes = 1000 if fault.startswith("too large") else 10**9
        if error:
            with pytest.raises(error) as caught:
                store_one(server, tmp_path, max_bytes=max_bytes)
            assert type(caught.value) is error
            assert "canary" not in str(caught.value)
        else:
            stored = store_one(server, tmp_path, max_bytes=max_bytes)
            assert stored.got.size == len(FILES[kind])
        assert all("authorization" not in request.headers for request in server.requests)
    whole = before if error else FILES[kind]
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == ({path.name: whole} if whole else {})


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_changes_on_the_way_is_stored_as_it_is_now(tmp_path, kind):
    changed = FILES[kind][:-10] + b"0123456789"
    with FileServer(FILES[kind]) as server:
        server.play(BROKEN, Act(body=changed, etag='"two"'))
        store_one(server, tmp_path)
    assert (tmp_path / f"one.{kind}").read_bytes() == changed


def test_a_file_that_turns_out_to_be_of_another_kind_goes_elsewhere(tmp_path):
    with FileServer(FILES["png"]) as server:
        server.play(BROKEN, Act(body=FILES["mp3"], etag='"two"'))
        assert store_one(server, tmp_path).destination.url.endswith("one.mp3")
    assert [path.name for path in tmp_path.iterdir()] == ["one.mp3"]


@pytest.mark.parametrize("act", [Act(), Act(status=503)], ids=["while it comes", "while it waits to ask again"])
@switched(first_download_pause=30.0)
def test_a_transfer_stops_with_its_task(tmp_path, act):
    with FileServer(FILES["mp3"]) as server:
        server.play(act)
        started = threading.Event()

        def work(item, stopped):
            if item == "other":
                started.wait(10)
                raise ValueError

            def after_the_start(seconds):
                started.set()
                return stopped(max(seconds, 10))

            try:
                return store_one(server, tmp_path, stopped=after_the_start)
            except StoppedError:
                ends.append("stopped")
                raise

        ends = []
        running = each(["transfer", "other"], work, 2, threading.Event())
        assert next(running)[0] == "other"
        before = time.monotonic()
        running.close()  # as an exception in the loop over it does
        assert time.monotonic() - before < 9
    assert ends == ["stopped"]
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("same", [True, False])
def test_a_file_that_another_try_stores_meanwhile_is_compared(tmp_path, monkeypatch, same):
    path, move = tmp_path / "one.png", Destination.move

    def appear(self, *args, **kwargs):
        path.write_bytes(FILES["png"] if same else b"mine")
        move(self, *args, **kwargs)

    monkeypatch.setattr(Destination, "move", appear)
    with FileServer(FILES["png"]) as server:
        if same:
            assert store_one(server, tmp_path, overwrite=False).already_there
        else:
            with pytest.raises(e.KieDestinationExistsError, match="Another file"):
                store_one(server, tmp_path, overwrite=False)
    assert path.read_bytes() == (FILES["png"] if same else b"mine")
    assert [each.name for each in tmp_path.iterdir()] == ["one.png"]
