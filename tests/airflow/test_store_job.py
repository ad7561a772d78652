# SPDX-License-Identifier: Apache-2.0
"""All files of a job, as a user sees them: in the storage, in XCom, and in what the next try asks for."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.emulator.audio import wav_bytes
from airflow_provider_kie.files.storage import Destination, PartFile
from airflow_provider_kie.files.store import StoppedError
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.money import digest
from airflow_provider_kie.transfers.job_to_object_storage import KieJobToObjectStorageOperator
from tests.task_instance import Store, Task, TaskInstance, WorkerCrash

SIX_IMAGES = "grok-imagine/text-to-image"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


@pytest.fixture
def six(kie):
    """The id of a job that made six images."""
    return kie.create_job("jobs", finished=True, model=SIX_IMAGES, prompt="a fox?sig=canary")


@pytest.fixture(params=[True, False], ids=["with a store", "without one"])
def task(request, folder):
    """A function that makes a task with or without Airflow's store; each of its tries is a new operator."""

    def make(kie_task_id, **arguments):
        destination = f"file://{folder}/{{kie_task_id}}/{{name}}-{{index}}.{{ext}}"
        arguments = {"kie_task_id": kie_task_id, "destination": destination} | arguments
        return Task(KieJobToObjectStorageOperator, Store() if request.param else None, **arguments)

    return make


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def asked(kie):
    """Return the files that were asked for, by the path of their links."""
    return [request["path"] for request in kie.requests("file")]


# --- They are stored


def test_all_files_of_a_job_are_stored_and_described(kie, task, six, folder):
    job = KieHook().get_job(six)
    assert task(six).run_once() == [f"file://{folder}/{six}/result-{index}.png" for index in range(6)]
    assert names(folder) == [f"{six}/result-{index}.png" for index in range(6)]
    contents = [(folder / six / f"result-{index}.png").read_bytes() for index in range(6)]
    assert len(set(contents)) == 6
    assert sorted(asked(kie)) == sorted("/s/" + file["url"].split("/s/")[1].partition("?")[0] for file in job["files"])
    assert not any(request["authorized"] for request in kie.requests("file"))


def test_what_is_stored_is_pushed_in_the_order_of_the_job(task, six, folder):
    run = task(six)
    run.run_once()
    assert [(told["name"], told["index"]) for told in run.xcom["files"]] == [("result", index) for index in range(6)]
    for told in run.xcom["files"]:
        content = (folder / six / f"result-{told['index']}.png").read_bytes()
        assert told == {
            "destination": f"file://{folder}/{six}/result-{told['index']}.png",
            "name": "result",
            "index": told["index"],
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "media_type": "image/png",
            "already_there": False,
        }


@pytest.mark.parametrize(
    ("family", "input_", "expected"),
    [
        ("music", {"prompt": "a"}, ["result-0.mp3", "result-1.mp3"]),
        ("stems", {"type": "separate_vocal"}, ["instrumental-0.mp3", "vocal-0.mp3"]),
        ("veo", {"prompt": "a"}, ["result-0.mp4"]),
        ("wav", {"taskId": "m", "audioId": "a"}, ["result-0.wav"]),
        ("runway", {"prompt": "a"}, ["image-0.png", "result-0.mp4"]),
    ],
)
def test_files_of_every_dialect_are_stored(kie, task, folder, family, input_, expected):
    kie_task_id = kie.create_job(family, finished=True, **input_)
    destination = f"{folder}/{{name}}-{{index}}.{{ext}}"
    task(kie_task_id, family=family, destination=destination).run_once()
    assert names(folder) == expected


def test_a_whole_job_brings_its_family_along(kie, task, folder):
    job = KieHook().get_job(kie.create_job("stems", finished=True, type="split_stem"), "stems")
    task(job, destination=f"{folder}/{{name}}.{{ext}}").run_once()
    assert len(names(folder)) == len(job["files"]) == 13


def test_only_the_named_files_are_fetched(kie, task, folder):
    kie_task_id = kie.create_job("stems", finished=True, type="split_stem")
    destination = f"{folder}/{{name}}.{{ext}}"
    run = task(kie_task_id, family="stems", names=["drums", "bass"], destination=destination)
    assert sorted(run.run_once()) == [f"{folder}/bass.mp3", f"{folder}/drums.mp3"]
    assert len(asked(kie)) == 2
    with pytest.raises(e.KieValidationError, match=r"'kazoo'.*vocal"):
        run.run_once(names="kazoo")


def test_running_again_leaves_the_files_alone(kie, task, six, folder):
    run = task(six)
    run.run_once()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    run.run_once()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before
    assert all(told["already_there"] for told in run.xcom["files"])


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_file_is_replaced_only_if_asked(task, six, folder, overwrite):
    (folder / six).mkdir(parents=True)
    (folder / six / "result-3.png").write_bytes(b"mine")
    run = task(six, overwrite=overwrite)
    if overwrite:
        run.run_once()
    else:
        with pytest.raises(e.KieDestinationExistsError, match=r"1 of 6 files .*result 3"):
            run.run_once()
    assert ((folder / six / "result-3.png").read_bytes() == b"mine") == (not overwrite)
    assert len(list(folder.rglob("*.png"))) == 6


# --- What cannot work is refused before anything is fetched


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"destination": "{folder}/{{name}}.{{ext}}"}, "the same place"),
        ({"destination": "{folder}/{{label}}"}, "label"),
        ({"destination": "nosuch://a/{{index}}"}, "nosuch"),
        ({"destination": None}, "destination is empty"),
        ({"max_workers": 0}, "max_workers"),
        ({"max_workers": "3"}, "max_workers"),
        ({"max_bytes": None}, "max_bytes"),
        ({"names": 5}, "names is 5"),
        ({"names": ["result", ["x"], 1]}, "names holds .*'x'.*, 1,"),
        ({"result_name": "a/b"}, "result_name"),
        ({"result_name": ".."}, "names a folder"),
        ({"family": "None"}, "family is empty"),
        ({"kie_task_id": None}, "kie_task_id is empty"),
        ({"kie_task_id": "../../etc"}, "kie_task_id"),
    ],
)
def test_an_argument_that_cannot_work_is_named(kie, task, six, folder, changes, word):
    if changes.get("destination"):
        changes = {"destination": changes["destination"].format(folder=folder)}
    with pytest.raises(e.KieValidationError, match=word):
        task(**{"kie_task_id": six} | changes).run_once()
    assert asked(kie) == names(folder) == []


def test_a_job_without_files_says_what_to_do(kie, task):
    kie_task_id = kie.create_job("lyrics", finished=True, prompt="a")
    with pytest.raises(e.KieValidationError, match="no files; its result can be stored by result_name"):
        task(kie_task_id, family="lyrics").run_once()


def test_an_error_about_a_job_names_its_family(kie, task):
    kie_task_id = kie.create_job("veo", finished=True, prompt="a")
    with pytest.raises(e.KieValidationError, match=rf"veo job '{kie_task_id}'"):
        task(kie_task_id, family="veo", names="vocal").run_once()


def test_a_job_that_runs_is_not_waited_for(kie, task):
    kie.configure(conversion_seconds=60)
    with pytest.raises(e.KieNotReadyError):
        task(kie.create_job("veo", prompt="a"), family="veo").run_once()


# --- One that cannot be had


@pytest.mark.parametrize("workers", [1, 3])
def test_the_next_try_fetches_only_what_is_missing(kie, task, six, folder, workers):
    run = task(six, max_workers=workers)
    kie.play(*["file-html"] * 4 * workers, endpoint="file")  # a file is asked for under four links
    with pytest.raises(
        e.KieWrongFileError, match=r"of 6 files are not stored \(result \d.*the others are; File result"
    ):
        run.run_once()
    stored = names(folder)
    assert 3 <= len([name for name in stored if name.endswith(".png")]) < 6
    assert len(run.xcom["files"]) == len([name for name in stored if name.endswith(".png")])
    before = len(asked(kie))
    missing = 6 - len(run.xcom["files"])
    run.run_once()
    assert len(asked(kie)) - before == missing
    assert [told["index"] for told in run.xcom["files"]] == list(range(6))
    assert sum(not told["already_there"] for told in run.xcom["files"]) == missing
    assert names(folder) == [f"{six}/result-{index}.png" for index in range(6)]  # no note is left


def test_a_noted_file_that_is_gone_is_fetched_again(task, six, folder):
    run = task(six)
    run.run_once()
    (folder / six / "result-2.png").unlink()
    run.run_once()
    assert len(names(folder)) == 6


def test_a_noted_file_of_another_size_is_no_longer_that_file(task, six, folder):
    run = task(six)
    run.run_once()
    (folder / six / "result-2.png").write_bytes(b"cut")
    with pytest.raises(e.KieDestinationExistsError, match="result 2"):
        run.run_once()
    assert run.run_once(overwrite=True)
    assert (folder / six / "result-2.png").read_bytes().startswith(b"\x89PNG")


def test_a_worker_that_dies_while_it_notes_a_file_leaves_the_earlier_notes(kie, six, folder, monkeypatch):
    run = Task(KieJobToObjectStorageOperator, None, kie_task_id=six, destination=f"{folder}/{{index}}.png")
    noted = []
    opened = Destination.open

    def open_(self, path, mode):
        file = opened(self, path, mode)
        if mode == "wb" and self.path.endswith(".json"):
            noted.append(path)
            if len(noted) == 3:
                file.close()
                raise WorkerCrash
        return file

    monkeypatch.setattr(Destination, "open", open_)
    with pytest.raises(WorkerCrash):
        run.run_once(max_workers=1)
    before = len(asked(kie))
    run.run_once()
    assert len(asked(kie)) == before + 4  # the third is compared with what is there
    assert names(folder) == [f"{index}.png" for index in range(6)]


@pytest.mark.parametrize("note", [5, [], "x", {"size": 5}, {"destination": "/x"}])
def test_a_note_that_cannot_be_read_costs_a_download(six, folder, note):
    store = Store()
    run = Task(KieJobToObjectStorageOperator, store, kie_task_id=six, destination=f"{folder}/{{index}}.{{ext}}")
    run.run_once()
    store.values["kie_files"]["files"]["result/0"] = note
    (folder / "0.png").unlink()
    assert len(run.run_once()) == 6
    assert len(names(folder)) == 6


def test_two_tasks_in_one_folder_keep_their_own_notes(kie, folder):
    kie_task_id = kie.create_job("stems", finished=True, type="split_stem")
    destination = f"{folder}/{{name}}.{{ext}}"

    def run(task_id, names):
        ti = TaskInstance()
        ti.task_id = task_id
        arguments = {"family": "stems", "destination": destination, "names": names, "max_workers": 1}
        return KieJobToObjectStorageOperator(task_id="task", kie_task_id=kie_task_id, **arguments).execute({"ti": ti})

    (folder / "bass.mp3").mkdir(parents=True)
    with pytest.raises(e.KieValidationError, match="bass"):
        run("a", ["drums", "bass"])
    run("b", "vocal")
    (folder / "bass.mp3").rmdir()
    before = len(asked(kie))
    run("a", ["drums", "bass"])
    assert len(asked(kie)) == before + 1


def test_after_a_change_of_the_destination_all_files_go_there(task, six, folder):
    run = task(six)
    run.run_once()
    assert run.run_once(destination=f"{folder}/other/{{index}}.{{ext}}")[0] == f"{folder}/other/0.png"
    assert len(names(folder / "other")) == 6


def test_a_retry_follows_if_it_may_help_one_file(kie, task, six, folder):
    (folder / "0.png").mkdir(parents=True)  # which no retry can help
    kie.play(*["file-server-error"] * 6, endpoint="file")
    with pytest.raises(e.KieDownloadError, match=r"2 of 6 files .*result 0.*result 1") as caught:
        task(six, max_workers=1, destination=f"{folder}/{{index}}.png").run_once()
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.kie_task_id == six


def test_dead_links_are_replaced(kie, task, six, folder):
    operator = task(six)
    links = [file["url"] for file in KieHook().get_job(six)["files"]]
    kie.expire_links(six, fresh=True)
    operator.run_once()
    assert len(names(folder)) == 6
    assert not {link.split("?")[0] for link in links} & {kie.url + path for path in asked(kie)}


def test_deleted_files_are_named(kie, task, six, folder):
    kie.expire_links(six)
    in_order = ", ".join(f"result {index}" for index in range(6))
    with pytest.raises(e.KieLinkExpiredError, match=rf"6 of 6 files are not stored \({in_order}\); ") as caught:
        task(six).run_once()
    assert isinstance(caught.value, AirflowFailException)
    assert names(folder) == []


def test_what_ends_the_task_ends_its_transfers(task, six, folder, monkeypatch):
    """Airflow's time-out is raised in the main thread, while other threads fetch."""

    class TimedOut(BaseException):
        pass

    def add(self, facts):
        raise TimedOut

    monkeypatch.setattr("airflow_provider_kie.transfers.notes.Notes.add", add)
    with pytest.raises(TimedOut):
        task(six).run_once()
    assert all(name.endswith(".png") for name in names(folder))


KILLED = """
import sys
from types import SimpleNamespace

from airflow_provider_kie.files.store import _Arrival
from airflow_provider_kie.transfers.job_to_object_storage import KieJobToObjectStorageOperator

begin, begun = _Arrival.begin, []

def hang_in_the_fourth(self, size, media):
    begin(self, size, media)
    begun.append(size)
    if len(begun) == 4:
        print("in the fourth", flush=True)
        sys.stdin.read()

_Arrival.begin = hang_in_the_fourth
ti = SimpleNamespace(dag_id="dag", run_id="run", task_id="archive", map_index=-1, xcom_push=lambda **_: None)
KieJobToObjectStorageOperator(
    task_id="task", kie_task_id=sys.argv[1], destination=sys.argv[2], max_workers=1
).execute({"ti": ti})
"""


def test_the_try_after_a_killed_worker_fetches_the_rest(kie, six, folder):
    destination = f"{folder}/{{index}}.{{ext}}"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, six, destination], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        while "in the fourth" not in (line := process.stdout.readline()):
            assert line or process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert sorted(path.name for path in folder.glob("*.png")) == ["0.png", "1.png", "2.png"]
    assert len(asked(kie)) == 4
    ti = TaskInstance()
    KieJobToObjectStorageOperator(task_id="task", kie_task_id=six, destination=destination, max_workers=1).execute(
        {"ti": ti}
    )
    assert len(asked(kie)) == 4 + 3  # the one in flight, and two more
    assert names(folder) == [f"{index}.png" for index in range(6)]
    assert [told["already_there"] for told in ti.pushed["files"]] == [True] * 3 + [False] * 3


# --- The manifest


def test_the_manifest_says_where_the_files_come_from(kie, task, folder):
    input_ = {"model": SIX_IMAGES, "prompt": "a fox", "image_urls": ["https://a.example/x.png?sig=canary"]}
    kie_task_id = kie.create_job("jobs", finished=True, **input_)
    run = task(kie_task_id, result_name="{kie_task_id}.json")
    run.run_once()
    path = folder / kie_task_id / f"{kie_task_id}.json"
    assert run.xcom["manifest"] == f"file://{path}"
    manifest = json.loads(path.read_text())
    assert "canary" not in path.read_text()
    assert (manifest["family"], manifest["model"], manifest["kie_task_id"]) == ("jobs", SIX_IMAGES, kie_task_id)
    assert manifest["credits"] == 4.0
    del input_["model"]
    assert manifest["input_sha256"] == digest(input_)
    told = [{name: value for name, value in file.items() if name != "already_there"} for file in run.xcom["files"]]
    assert manifest["files"] == told
    run.run_once()
    assert json.loads(path.read_text()) == manifest


def test_a_result_without_files_is_stored_by_its_name(kie, task, folder):
    kie_task_id = kie.create_job("lyrics", finished=True, prompt="a")
    run = task(kie_task_id, family="lyrics", destination=f"{folder}/{{name}}.{{ext}}", result_name="text.json")
    assert run.run_once() == run.xcom["files"] == []
    manifest = json.loads((folder / "text.json").read_text())
    job = KieHook().get_job(kie_task_id, "lyrics")
    assert manifest["result"] == job["result"]
    assert "\n" in manifest["result"][0]["text"]
    assert names(folder) == ["text.json"]


def test_a_manifest_holds_neither_signatures_nor_a_callback(kie, task, folder):
    kie_task_id = kie.create_job("music", finished=True, prompt="a", callBackUrl="https://a.example/b")
    job = KieHook().get_job(kie_task_id, "music")
    assert "?sig=" in json.dumps(job["result"])
    task(kie_task_id, family="music", destination=f"{folder}/{{index}}.{{ext}}", result_name="a.json").run_once()
    text = (folder / "a.json").read_text()
    assert "https://" in text or "http://" in text
    assert "sig=" not in text
    assert json.loads(text)["input_sha256"] == digest({"prompt": "a"})  # a callback is not part of what is made


def test_a_manifest_does_not_replace_another_file(kie, task, six, folder):
    folder.mkdir()
    (folder / "a.json").write_text("mine")
    run = task(six, destination=f"{folder}/{{index}}.{{ext}}", result_name="a.json")
    with pytest.raises(e.KieDestinationExistsError):
        run.run_once()
    assert (folder / "a.json").read_text() == "mine"
    run.run_once(overwrite=True)
    assert json.loads((folder / "a.json").read_text())["kie_task_id"] == six
    assert run.xcom["files"][0]["already_there"] is True


def test_a_manifest_does_not_take_the_place_of_a_file(task, six, folder):
    run = task(six, destination=f"{folder}/{{index}}.{{ext}}", result_name="2.png", overwrite=True)
    with pytest.raises(e.KieValidationError, match="result_name"):
        run.run_once()
    assert (folder / "2.png").read_bytes().startswith(b"\x89PNG")


def test_what_a_killed_worker_left_of_a_manifest_is_removed(task, six, folder):
    owner = "\n".join(["dag", "run", "archive", "-1"])
    part = Destination(f"{folder}/a.json", None, owner, 1).part_path
    folder.mkdir()
    (folder / part.rpartition("/")[2]).write_text("{")
    task(six, destination=f"{folder}/{{index}}.{{ext}}", result_name="a.json").run_once()
    assert names(folder) == [*(f"{index}.png" for index in range(6)), "a.json"]


def test_an_equal_manifest_is_left_alone(task, six, folder):
    run = task(six, result_name="a.json")
    run.run_once()
    path = folder / six / "a.json"
    before = path.stat()
    run.run_once()
    run.run_once(overwrite=True)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 0'))
    run.run_once()
    assert json.loads(path.read_text())["schema"] == 1


def test_a_wav_file_is_checked_to_its_end(kie, task, folder):
    kie_task_id = kie.create_job("wav", finished=True, taskId="m", audioId="a")
    run = task(kie_task_id, family="wav", destination=f"{folder}/one.wav")
    run.run_once()
    assert (folder / "one.wav").read_bytes() == wav_bytes()
    kie.play("file-cut-off", endpoint="file", repeat=True)
    with pytest.raises(e.KieDownloadError):
        task(kie_task_id, family="wav", destination=f"{folder}/two.wav").run_once()
    assert names(folder) == ["one.wav"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_task_that_is_killed_leaves_nothing_half_written(six, folder, monkeypatch, workers):
    """Airflow 3 calls this, and kills the process five seconds later."""
    operator = KieJobToObjectStorageOperator(
        task_id="task", kie_task_id=six, destination=f"{folder}/{{index}}.png", max_workers=workers
    )
    write = PartFile.write

    def write_and_be_killed(self, piece):
        write(self, piece)
        operator.on_kill()

    monkeypatch.setattr(PartFile, "write", write_and_be_killed)
    with pytest.raises((StoppedError, e.KieError)):
        operator.execute({"ti": TaskInstance()})
    assert not [name for name in names(folder) if name.endswith(".part")]
    assert len([name for name in names(folder) if name.endswith(".png")]) <= workers
