# SPDX-License-Identifier: Apache-2.0
"""Storages of many habits: whatever their libraries do, success means that the whole file is under its final name."""

from __future__ import annotations

import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.files.storage import Destination, PartFile
from airflow_provider_kie.times import switched

NEW, OLD = b"the new file", b"an older one"
assert len(NEW) == len(OLD)


@pytest.fixture(autouse=True)
def _short_patience():
    with switched(move_within=1.0, longest_move_look=0.05):
        yield


class ObjectStorage(MemoryFileSystem):
    """Keeps objects, and copies as those do; each has its own."""

    def __init__(self):
        super().__init__()
        self.store, self.pseudo_dirs, self.removed = {}, [""], []

    cachable = False
    mv = AbstractFileSystem.mv

    def put(self, path, content):
        with self.open(path, "wb") as file:
            file.write(content)

    def _rm(self, path):
        super()._rm(path)
        self.removed.append(path)

    @property
    def content(self):
        return {path: file.getvalue() for path, file in self.store.items()}


class Later(ObjectStorage):
    """Begins a copy when it is asked for one, as Azure's library does, and ends it later."""

    at_once = b""

    def cp_file(self, source, target, **_):
        if self.at_once is not None:
            self.put(target, self.at_once)
        self.copying = threading.Timer(0.3, self.go_on, (source, target))
        self.copying.start()

    def go_on(self, source, target):
        self.put(target, self.cat_file(source))


class MuchLater(Later):
    """Shows nothing of a copy before it is whole, so that an older file stays for a while."""

    at_once = None


class Never(Later):
    """Accepts a copy, and does not carry it out."""

    at_once = NEW[:4]

    def go_on(self, source, target):
        pass


class NotEvenBegun(Never):
    """Accepts a copy, and forgets it."""

    at_once = None


class BreaksOff(ObjectStorage):
    """Breaks off in the middle of a copy."""

    def cp_file(self, source, target, **_):
        self.put(target, NEW[:4])
        raise OSError("out of space")


class BreaksOffAtTheEnd(ObjectStorage):
    """Does its work, and loses the answer."""

    def cp_file(self, source, target, **_):
        super().cp_file(source, target)
        raise OSError("no answer")


class MovesByCopy(ObjectStorage):
    """Has a move of its own, which is a copy and does not wait for its end."""

    def mv(self, source, target, **_):
        self.put(target, b"")
        self.rm_file(source)


class OnlyMoves(ObjectStorage):
    """Cannot copy."""

    def cp_file(self, source, target, **_):
        raise NotImplementedError

    def mv(self, source, target, **_):
        self.put(target, self.cat_file(source))
        self.rm_file(source)


class KeepsEverything(ObjectStorage):
    """Lets nobody remove anything."""

    def _rm(self, path):
        raise PermissionError("keep it")


@pytest.fixture
def attach(monkeypatch):
    """A function that makes a file system the one of a scheme."""
    module = sys.modules[ObjectStoragePath.__module__]

    def attach(fs, scheme="memory"):
        stores = sys.modules[module.attach.__module__]._STORE_CACHE
        monkeypatch.setitem(stores, scheme, None)  # and puts back what was there
        module.attach(scheme, fs=fs)
        return fs

    return attach


def store(url="memory://bucket/one.wav", *, overwrite=False, content=NEW):
    """Do with a file what the operator does."""
    place = Destination(url, None, "owner")
    place.size()
    place.clear()
    with closing(PartFile(place)) as part:
        part.begin(len(content))
        part.write(content)
        part.finish(len(content), overwrite=overwrite)


@pytest.mark.parametrize("kind", [ObjectStorage, Later, MuchLater, MovesByCopy, OnlyMoves])
@pytest.mark.parametrize("before", [{}, {"/bucket/one.wav": OLD}], ids=["new", "in place of another one"])
def test_the_file_is_there_when_it_counts_as_stored(attach, kind, before):
    fs = attach(kind())
    for path, content in before.items():
        fs.put(path, content)
    store(overwrite=True)
    assert fs.content == {"/bucket/one.wav": NEW}


def test_a_copy_that_does_not_end_leaves_nothing(attach):
    fs = attach(Never())
    with pytest.raises(e.KieDownloadError, match=r"12 bytes were written .* 1 seconds later the storage has 4 bytes"):
        store()
    assert fs.content == {}


def test_a_copy_that_fails_leaves_nothing_for_the_next(attach):
    fs = attach(BreaksOff())
    with pytest.raises(OSError, match="out of space"):
        store()
    assert fs.content == {}
    fs.cp_file = super(BreaksOff, fs).cp_file
    store()
    assert fs.content == {"/bucket/one.wav": NEW}


def test_what_is_whole_stays_whatever_the_storage_says(attach):
    fs = attach(BreaksOffAtTheEnd())
    with pytest.raises(OSError, match="no answer"):
        store()
    assert fs.content == {"/bucket/one.wav": NEW}


@pytest.mark.parametrize("old", [OLD, OLD[:5]])
def test_a_copy_that_is_not_begun_leaves_the_older_file(attach, old):
    fs = attach(NotEvenBegun())
    fs.put("/bucket/one.wav", old)
    with pytest.raises(e.KieDownloadError, match=f"the storage has {len(old)} bytes of the file that is to be"):
        store(overwrite=True)
    assert fs.content == {"/bucket/one.wav": old}


def test_a_file_of_somebody_else_is_not_taken_back(attach):
    fs = attach(NotEvenBegun())
    fs.go_on = lambda source, target: fs.put(target, NEW + b" of somebody else")
    with pytest.raises(e.KieDownloadError, match="the storage has 29 bytes"):
        store()
    assert fs.content == {"/bucket/one.wav": NEW + b" of somebody else"}


class _Ended(BaseException):
    """Stands for Airflow's end of a task: its time-out, or a signal."""


def test_a_task_that_is_ended_in_a_wait_leaves_nothing(attach, monkeypatch):
    fs = attach(Never())
    looks = fs.info

    def ended(path, **how):
        if path == "/bucket/one.wav" and path in fs.store:
            fs.info = looks
            raise _Ended
        return looks(path, **how)

    fs.info = ended
    with pytest.raises(_Ended):
        store()
    assert fs.content == {}


def test_a_storage_that_keeps_everything_has_the_part(attach, caplog):
    fs = attach(KeepsEverything())
    store()
    part, final = sorted(fs.content)
    assert (final, fs.content[final]) == ("/bucket/one.wav", NEW)
    assert f"{part} may be left in the storage" in caplog.text


def test_nothing_is_deleted_that_is_not_there(attach):
    # A bucket with versions would keep a note of each such deletion.
    fs = attach(ObjectStorage())
    store()
    (part,) = fs.removed
    assert part.endswith(".part")


# --- Storages that rename


class Renames(LocalFileSystem):
    """Does not copy."""

    cachable = False

    def cp_file(self, source, target, **_):
        raise AssertionError("copied")


class LikeSftp(Renames):
    """
    As the library for SFTP: has neither a protocol nor a move in its class; fsspec gives the move to the object. Its
    times are in seconds, so that a file may look like the one that it replaces.
    """

    protocol = "abstract"
    mv = AbstractFileSystem.mv

    def __init__(self):
        super().__init__()
        self.mv = lambda source, target: Path(source).rename(target)

    def info(self, path, **how):
        info = super().info(path, **how)
        return {name: info[name] for name in ("name", "size", "type")}


@pytest.mark.parametrize(("kind", "scheme"), [(Renames, "file"), (LikeSftp, "sftp")])
def test_where_a_move_is_a_rename_nothing_is_copied(attach, tmp_path, kind, scheme):
    attach(kind(), scheme)
    for content, overwrite in ((OLD, False), (NEW, True)):
        store(f"{scheme}://{tmp_path}/new [x]/one.wav", content=content, overwrite=overwrite)
        assert [path.name for path in (tmp_path / "new [x]").iterdir()] == ["one.wav"]
        assert (tmp_path / "new [x]/one.wav").read_bytes() == content


class RenamesToNothing(Renames):
    """Says yes, and renames nothing where there is a file already, as WebHDFS."""

    def mv(self, source, target, **_):
        pass


def test_a_rename_that_did_nothing_is_noticed(attach, tmp_path):
    attach(RenamesToNothing(), "file")
    (tmp_path / "one.wav").write_bytes(OLD)
    with pytest.raises(e.KieDownloadError, match="the file that is to be replaced"):
        store(f"file://{tmp_path}/one.wav", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["one.wav"]
    assert (tmp_path / "one.wav").read_bytes() == OLD
