# SPDX-License-Identifier: Apache-2.0
"""The archive as a user sees it: what is in the storage afterwards, in XCom, in the lineage and among the assets."""

from __future__ import annotations

import errno
import hashlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import airflow
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Asset, ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from packaging.version import Version

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.emulator.audio import wav_bytes
from airflow_provider_kie.files.storage import Destination, PartFile
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.transfers.storing import _asset_uri
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator
from tests.conftest import AIRFLOW_HOME
from tests.dag_runs import database, load_dag, run_dag
from tests.file_server import Act, FileServer
from tests.task_instance import TaskInstance
from tests.wav_files import wav

AIRFLOW = Version(airflow.__version__).release
WAV = wav_bytes()
SHA256 = hashlib.sha256(WAV).hexdigest()
TOLD = {"size": len(WAV), "sha256": SHA256, "channels": 2, "sample_rate": 48_000, "bits": 16, "seconds": 3.0}


@pytest.fixture
def context(kie):
    return {"ti": TaskInstance()}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "archive"


@pytest.fixture
def kie_task_id(kie):
    return kie.create_conversion(finished=True)


@pytest.fixture
def said(caplog, capfd):
    """A function that returns what was logged, wherever this Airflow logs."""
    return lambda: caplog.text + "".join(capfd.readouterr())


def archive(context, **arguments):
    if not {"kie_task_id", "wav_url"} & set(arguments):
        arguments["kie_task_id"] = None
    return WavToObjectStorageOperator(task_id="archive", **arguments).execute(context)


def refused(error, context, **arguments):
    with pytest.raises(error) as caught:
        archive(context, **arguments)
    return caught.value


def files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# --- It is stored


def test_the_file_is_stored_and_described(kie, context, folder, kie_task_id):
    destination = f"file://{folder}/masters/one.wav"
    assert archive(context, kie_task_id=kie_task_id, destination=destination) == destination
    assert (folder / "masters/one.wav").read_bytes() == WAV
    assert files(folder / "masters") == ["one.wav"]
    assert context["ti"].pushed == {"wav_file": {**TOLD, "already_there": False}}
    assert [request["endpoint"] for request in kie.requests()] == ["record-info", "file"]
    assert not kie.requests("file")[0]["authorized"]


@pytest.mark.parametrize(
    "name", ["with space.wav", "brackets [live] {x}*?.wav", "ümläut.wav", "no-extension", ".hidden"]
)
@pytest.mark.parametrize("kind", [str, Path, ObjectStoragePath])
def test_names_are_taken_as_they_are(context, folder, kie_task_id, name, kind):
    archive(context, kie_task_id=kie_task_id, destination=kind(f"{folder}/{name}"))
    assert files(folder) == [name]


def test_a_url_of_another_host_is_not_trusted(context, folder):
    arguments = {"destination": f"{folder}/one.wav"}
    with FileServer(WAV) as server:
        server.play(Act(headers={"Content-Disposition": 'attachment; filename="../../evil.wav"'}))
        arguments["wav_url"] = server.url + "/../../evil.wav"
        assert isinstance(refused(e.KieUnsafeUrlError, context, **arguments), AirflowFailException)
        assert server.requests == []
        assert files(folder.parent) == []
        archive(context, **arguments, allow_private_hosts=True)
    assert files(folder) == ["one.wav"]
    assert files(folder.parent) == ["archive"]


@pytest.fixture
def memory_storage():
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    attach = sys.modules[ObjectStoragePath.__module__].attach
    MemoryFileSystem.store.clear()
    attach("memory", fs=MemoryFileSystem())
    yield MemoryFileSystem.store
    MemoryFileSystem.store.clear()


def test_any_storage_that_airflow_knows_will_do(context, kie_task_id, memory_storage):
    destination = "memory://masters/one [live].wav"
    assert archive(context, kie_task_id=kie_task_id, destination=destination) == destination
    assert {path: content.getvalue() for path, content in memory_storage.items()} == {"/masters/one [live].wav": WAV}
    archive(context, kie_task_id=kie_task_id, destination=destination)
    assert context["ti"].pushed["wav_file"]["already_there"] is True


# --- Arguments


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kie_task_id": "a1", "wav_url": "https://a.example/1.wav"}, "Exactly one of kie_task_id and wav_url"),
        ({"destination": "None"}, "destination is empty"),
        ({"destination": None}, "destination is empty"),
        ({"destination": {"bucket": "masters"}}, "destination is a dict"),
        ({"destination": "nosuch://bucket/one.wav"}, "'nosuch' needs its Airflow provider"),
        *(({"destination": f"{{}}{end}"}, "add the name of the file") for end in ("", "/", "/.", "/..", "/new/")),
    ],
)
def test_an_argument_that_cannot_work_is_named(context, folder, kie_task_id, arguments, says):
    folder.mkdir()
    arguments = {"kie_task_id": kie_task_id, "destination": f"{folder}/one.wav"} | arguments
    if isinstance(arguments["destination"], str):
        arguments["destination"] = arguments["destination"].format(f"file://{folder}")
    assert says in str(refused(e.KieValidationError, context, **arguments))
    assert files(folder) == []


@pytest.mark.parametrize("empty", ["None", "", " ", None])
def test_of_two_templates_one_may_turn_out_empty(context, folder, kie_task_id, empty):
    destination = {"destination": f"{folder}/one.wav", "destination_conn_id": empty}
    archive(context, kie_task_id=kie_task_id, wav_url=empty, **destination)
    with FileServer(WAV) as server:
        archive(context, wav_url=server.url, kie_task_id=empty, **destination, allow_private_hosts=True)
    assert files(folder) == ["one.wav"]
    for name in ("kie_task_id", "wav_url"):
        operator = WavToObjectStorageOperator(task_id="a", **destination, **{name: "{{ a template }}"})
        setattr(operator, name, empty)  # what Airflow makes of the template
        with pytest.raises(e.KieValidationError, match=f"^{name} is empty; the task that should provide it pushed"):
            operator.execute(context)


def test_sources_without_a_value_are_named_in_a_dag(kie, said):
    run = run_dag(load_dag("archive_without_source"))
    told = said()
    empty = "is empty; the task that should provide it pushed nothing"
    for task_id, error in {
        "pushed_nothing": f"wav_url {empty}",
        "template": f"kie_task_id {empty}",
        "two_templates": f"kie_task_id is empty and wav_url {empty}",
        "mapped": f"kie_task_id is empty and wav_url {empty}",
        "mapped_template": f"wav_url {empty}",
        "not_given": "Exactly one of kie_task_id and wav_url is needed",
    }.items():
        state = run.states().get(task_id) or run.states()[f"{task_id}[0]"]
        assert (task_id, state) == (task_id, "failed")
        assert f"{task_id}: {error}" in told
    assert kie.requests() == []


# --- Running again


def test_running_again_leaves_the_file_alone(context, folder, kie_task_id):
    arguments = {"kie_task_id": kie_task_id, "destination": f"{folder}/one.wav"}
    archive(context, **arguments)
    before = (folder / "one.wav").stat()
    for overwrite in (False, True):
        archive(context, **arguments, overwrite=overwrite)
        assert context["ti"].pushed["wav_file"] == {**TOLD, "already_there": True}
    after = (folder / "one.wav").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert files(folder) == ["one.wav"]


@pytest.mark.parametrize(
    "other", [b"", WAV[:-1], WAV + b"x", WAV[:-1] + b"x"], ids=["empty", "cut", "longer", "last byte"]
)
def test_another_file_is_only_replaced_on_request(context, folder, kie_task_id, other):
    folder.mkdir()
    (folder / "one.wav").write_bytes(other)
    arguments = {"kie_task_id": kie_task_id, "destination": f"{folder}/one.wav"}
    error = refused(e.KieDestinationExistsError, context, **arguments)
    assert isinstance(error, AirflowFailException)
    assert error.kie_task_id == kie_task_id
    assert (folder / "one.wav").read_bytes() == other
    assert files(folder) == ["one.wav"]
    archive(context, **arguments, overwrite=True)
    assert (folder / "one.wav").read_bytes() == WAV
    assert files(folder) == ["one.wav"]
    assert context["ti"].pushed["wav_file"]["already_there"] is False


def test_another_file_is_refused_without_a_length_too(context, folder):
    folder.mkdir()
    (folder / "one.wav").write_bytes(WAV + b"more")
    with FileServer(WAV) as server:
        server.play(Act(length="chunked"))
        arguments = {"wav_url": server.url, "destination": f"{folder}/one.wav", "allow_private_hosts": True}
        refused(e.KieDestinationExistsError, context, **arguments)
        archive(context, **arguments, overwrite=True)
    assert (folder / "one.wav").read_bytes() == WAV


def test_what_appears_meanwhile_is_not_replaced(context, folder, kie_task_id, monkeypatch):
    def appear(self, size, *, overwrite):
        (folder / "one.wav").write_bytes(b"somebody else's")
        move(self, size, overwrite=overwrite)

    move = Destination.move
    monkeypatch.setattr(Destination, "move", appear)
    arguments = {"kie_task_id": kie_task_id, "destination": f"{folder}/one.wav"}
    refused(e.KieDestinationExistsError, context, **arguments)
    assert (folder / "one.wav").read_bytes() == b"somebody else's"
    assert files(folder) == ["one.wav"]


# --- Nothing half


@pytest.mark.parametrize(
    ("answer", "error", "shown"),
    [
        ("file-html", e.KieNotAWavError, "<!DOCTYPE html>"),
        ("file-json-error", e.KieNotAWavError, "file does not exist"),
        ("file-empty", e.KieNotAWavError, "it is empty"),
        ("file-redirect-plain", e.KieUnsafeUrlError, "kie.invalid"),
        ("file-server-error", e.KieDownloadError, "error code: 520"),
        ("file-reset", e.KieDownloadError, "given up"),
        ("file-gone", e.KieLinkExpiredError, "HTTP 410"),
        ("", e.KieFileTooLargeError, "500,000"),
    ],
)
def test_what_cannot_be_stored_never_becomes_visible(kie, context, folder, kie_task_id, answer, error, shown):
    if answer:
        kie.play(answer, repeat=True)
    most = 500_000 if error is e.KieFileTooLargeError else 10**9
    caught = refused(error, context, kie_task_id=kie_task_id, destination=f"{folder}/one.wav", max_bytes=most)
    assert shown in str(caught)
    assert f"WAV task {kie_task_id!r}" in str(caught)
    assert "sig=" not in str(caught)
    assert files(folder) == []
    assert context["ti"].pushed == {}


@pytest.mark.parametrize("answer", ["file-cut-off", "file-server-error", "file-html"])
def test_trouble_that_passes_is_survived(kie, context, folder, kie_task_id, answer):
    kie.play(answer)
    archive(context, kie_task_id=kie_task_id, destination=f"{folder}/one.wav")
    assert (folder / "one.wav").read_bytes() == WAV


@pytest.mark.parametrize("answer", ["file-forbidden", "file-not-found", "file-gone"])
def test_kie_is_asked_for_a_fresh_link(kie, context, folder, kie_task_id, answer):
    kie.play(answer)
    archive(context, kie_task_id=kie_task_id, destination=f"{folder}/one.wav")
    assert (folder / "one.wav").read_bytes() == WAV
    asked = ["record-info", "file", "record-info", "download-url", "file"]
    assert [request["endpoint"] for request in kie.requests()] == asked
    url = KieHook().get_wav_conversion(kie_task_id)["wav_url"]
    kie.play(answer)
    archive(context, wav_url=url, destination=f"{folder}/two.wav", allow_private_hosts=True)
    assert [request["endpoint"] for request in kie.requests()][6:] == ["file", "download-url", "file"]
    kie.play(answer)
    kie.play("url-refused")
    final = refused(e.KieLinkExpiredError, context, kie_task_id=kie_task_id, destination=f"{folder}/three.wav")
    assert isinstance(final, AirflowFailException)


def test_a_temporary_link_that_expires_is_renewed(kie, context, folder, kie_task_id):
    kie.play("file-gone", "file-cut-off", "file-gone")
    archive(context, kie_task_id=kie_task_id, destination=f"{folder}/one.wav")
    assert (folder / "one.wav").read_bytes() == WAV
    assert [request["endpoint"] for request in kie.requests()].count("download-url") == 2


@pytest.mark.parametrize("answer", ["file-gone", "file-html"])
def test_a_stored_file_that_kie_deleted_is_left_alone(kie, context, folder, kie_task_id, answer):
    archive(context, kie_task_id=kie_task_id, destination=f"{folder}/one.wav")
    kie.play(answer, endpoint="file", repeat=True)
    error = e.KieDestinationExistsError if answer == "file-gone" else e.KieNotAWavError
    message = str(refused(error, context, kie_task_id=kie_task_id, destination=f"{folder}/one.wav"))
    assert "run the job again" not in message
    assert (folder / "one.wav").read_bytes() == WAV


@pytest.mark.parametrize(
    ("track", "seconds", "error"),
    [("music", 60, e.KieNotReadyError), ("fail-music", 0, e.KieConversionFailedError)],
    ids=["running", "failed"],
)
def test_a_conversion_without_a_file_is_not_waited_for(kie, context, folder, track, seconds, error):
    kie.configure(conversion_seconds=seconds)
    raised = refused(error, context, kie_task_id=kie.create_conversion(track), destination=f"{folder}/one.wav")
    assert isinstance(raised, AirflowFailException) == (track == "fail-music")


class _FullDisk:
    """A file that takes so many bytes and no more."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, piece):
        self._room -= len(piece)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(piece)

    def close(self):
        self._file.close()


def test_a_full_disk_leaves_nothing_behind(kie, context, folder, kie_task_id, monkeypatch):
    opened = LocalFileSystem.open

    def open_(self, path, mode="rb", **how):
        file = opened(self, path, mode, **how)
        return _FullDisk(file, 300_000) if mode == "wb" else file

    monkeypatch.setattr(LocalFileSystem, "open", open_)
    with pytest.raises(OSError, match="No space left"):
        archive(context, kie_task_id=kie_task_id, destination=f"{folder}/one.wav")
    assert files(folder) == []
    assert len(kie.requests("file")) == 1


# A process of its own, with the names of TaskInstance above.
KILLED = """
import sys
from types import SimpleNamespace

from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator

ti = SimpleNamespace(dag_id="dag", run_id="run", task_id="archive", map_index=-1)
WavToObjectStorageOperator(
    task_id="archive", wav_url=sys.argv[1], destination=sys.argv[2], allow_private_hosts=True
).execute({"ti": ti})
"""


def test_the_try_after_a_killed_worker_cleans_up(context, folder):
    content = wav(500_000)
    with FileServer(content) as server:
        server.play(Act(cut=0.6, end="hold"))
        destination = f"{folder}/one.wav"
        process = subprocess.Popen([sys.executable, "-c", KILLED, server.url, destination])
        until = time.monotonic() + 60
        while not any(path.stat().st_size for path in folder.glob(".kie-*.part")) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        (part,) = files(folder)
        assert part.startswith(".kie-")
        server.play(Act())
        archive(context, wav_url=server.url, destination=destination, allow_private_hosts=True)
    assert files(folder) == ["one.wav"]
    assert (folder / "one.wav").read_bytes() == content


def test_a_worker_killed_after_storing_finds_its_file(context, folder, kie_task_id):
    arguments = {"kie_task_id": kie_task_id, "destination": f"{folder}/one.wav"}
    archive(context, **arguments)
    (folder / Path(Destination(arguments["destination"], None, owner()).part_path).name).write_bytes(b"half")
    archive(context, **arguments)
    assert files(folder) == ["one.wav"]
    assert context["ti"].pushed["wav_file"]["already_there"] is True


def test_no_try_moves_the_file_of_another(folder):
    first, second = (Destination(f"{folder}/one.wav", None, owner(), attempt) for attempt in (1, 2))
    with closing(PartFile(first)) as old, closing(PartFile(second)) as new:
        old.begin(4)
        old.write(b"half")
        second.clear()  # what the second try does first
        new.begin(8)
        new.write(b"the ")
        with pytest.raises(e.KieDownloadError, match="the storage has nothing"):
            old.finish(4, overwrite=False)
        new.write(b"file")
        new.finish(8, overwrite=False)
    assert files(folder) == ["one.wav"]
    assert (folder / "one.wav").read_bytes() == b"the file"
    others = [Destination(f"{folder}/one.wav", None, owner(**each)) for each in ({}, {"run_id": "b"}, {"map_index": 1})]
    others.append(Destination(f"{folder}/two.wav", None, owner()))
    assert len({place.part_path for place in others}) == 4


def owner(**changed):
    names = {"dag_id": "dag", "run_id": "run", "task_id": "archive", "map_index": -1} | changed
    return "\n".join(str(value) for value in names.values())


# --- What others see of it


def test_an_outlet_is_only_added_on_request():
    # One that is added unasked can keep the task from running, where another DAG names the same URI otherwise.
    arguments = {"task_id": "a", "kie_task_id": "x", "destination": "s3://bucket/one.wav"}
    assert list(WavToObjectStorageOperator(**arguments).outlets) == []
    mine = [Asset("s3://bucket/one.wav"), Asset("x-masters://all")]
    assert list(WavToObjectStorageOperator(**arguments, outlets=mine).outlets) == mine


class _Unwilling:
    """Stands for whatever Airflow and its plugins may raise."""

    def __getattr__(self, name):
        raise ValueError(f"no {name}")

    def __getitem__(self, key):
        raise ValueError("no events")


def test_an_event_that_takes_no_extra_fails_no_task(context, folder, kie_task_id, said):
    destination = f"file://{folder}/one.wav"
    context["outlet_events"] = _Unwilling()
    archive(context, kie_task_id=kie_task_id, destination=destination, outlets=[Asset(destination)])
    assert context["ti"].pushed["wav_file"]["size"] == len(WAV)
    assert "no events" in said()


def url_at_kie(kie_task_id):
    return KieHook().get_wav_conversion(kie_task_id)["wav_url"].partition("?")[0]


class _Collector:
    """Takes only where the file went: half of the lineage is told where the other half cannot be."""

    add_input_asset = None

    def __init__(self):
        self.outputs = []

    def add_output_asset(self, context, uri):
        self.outputs.append(uri)


@pytest.fixture
def collect(monkeypatch):
    """A function that makes something else what collects the lineage."""
    from airflow.providers.common.compat.lineage import hook

    return lambda collector: monkeypatch.setattr(hook, "get_hook_lineage_collector", lambda: collector)


def test_lineage_that_cannot_be_told_fails_no_task(context, folder, kie_task_id, collect, said):
    collect(_Unwilling())
    for already_there in (False, True):
        archive(context, kie_task_id=kie_task_id, destination=f"{folder}/one.wav")
        assert context["ti"].pushed["wav_file"]["already_there"] is already_there
    assert "no add_input_asset" in said()


def test_half_of_the_lineage_is_told_if_need_be(context, folder, kie_task_id, collect):
    collect(collector := _Collector())
    archive(context, kie_task_id=kie_task_id, destination=f"{folder}/one.wav")
    assert collector.outputs == [f"file://{folder}/one.wav"]
    assert _asset_uri("s3://aws_default@bucket/one.wav") == "s3://bucket/one.wav"


@pytest.mark.parametrize("name", ["Größe.wav", "/".join(["d" * 200] * 8) + "/one.wav"], ids=["not ASCII", "long"])
def test_a_name_that_is_no_asset_is_stored_all_the_same(context, folder, kie_task_id, collect, name):
    from airflow.providers.common.compat.lineage import hook
    from airflow.providers.common.compat.sdk import HookLineageCollector

    collector = HookLineageCollector()
    if not hasattr(collector, "add_input_asset"):
        hook._add_asset_naming_compatibility_layer(collector)
    collect(collector)
    archive(context, kie_task_id=kie_task_id, destination=f"{folder}/{name}")
    assert (folder / name).read_bytes() == WAV
    assert context["ti"].pushed["wav_file"]["size"] == len(WAV)


def test_airflows_own_collector_takes_the_lineage(kie, context, folder, kie_task_id, monkeypatch):
    # Airflow collects only if a plugin reads it; OpenLineage is such a plugin.
    from airflow.providers.common.compat.lineage import hook
    from airflow.providers.common.compat.sdk import HookLineageCollector

    collector = HookLineageCollector()
    monkeypatch.setattr(hook, "_get_base_collector", lambda: collector, raising=False)
    given = hook.get_hook_lineage_collector
    monkeypatch.setattr(
        hook, "get_hook_lineage_collector", lambda: collector if hasattr(collector, "add_input_asset") else given()
    )
    if not hasattr(collector, "add_input_asset"):
        pytest.skip("Airflow 2.11 calls them datasets; common-compat translates, which the test above goes through")
    archive(context, kie_task_id=kie_task_id, destination=f"{folder}/one.wav")
    lineage = collector.collected_assets
    assert [info.asset.uri for info in lineage.inputs] == [url_at_kie(kie_task_id)]
    assert [info.asset.uri for info in lineage.outputs] == [f"file://{folder}/one.wav"]


# --- As Airflow runs it


def asset_events(run):
    """Return the URI and the extra of each event that a run caused."""
    kind = "asset" if AIRFLOW >= (3,) else "dataset"
    query = (
        f"select uri, event.extra from {kind}_event event join {kind} on {kind}.id = event.{kind}_id "
        "where source_dag_id = ? and source_run_id = ?"
    )
    with closing(sqlite3.connect(database())) as connection:
        rows = connection.execute(query, (run.dag_id, run.run_id)).fetchall()
    return [(uri, json.loads(extra)) for uri, extra in rows]


def test_a_dag_says_it_in_xcom_and_in_the_asset_event(kie, kie_task_id):
    folder = AIRFLOW_HOME / "archive_files"
    dag = load_dag("archive_files")
    if AIRFLOW < (3,):
        dag.sync_to_db()  # else dag.test() knows no datasets
    for already_there in (False, True):
        run = run_dag(dag, run_conf={"kie_task_id": kie_task_id})
        assert run.state == "success", run.states()
        destination = f"file://{folder}/one.wav"
        told = {**TOLD, "already_there": already_there}
        assert run.xcom("archive") == destination
        assert run.xcom("archive", "wav_file") == told
        assert run.xcom("mapped", map_index=2) == f"file://{folder}/2.wav"
        assert asset_events(run) == [(destination, {"destination": destination, **told})]
    assert files(folder) == ["0.wav", "1.wav", "2.wav", "one.wav"]
