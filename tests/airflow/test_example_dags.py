# SPDX-License-Identifier: Apache-2.0
"""The example DAGs run as they are, and leave in XCom what the README promises."""

from __future__ import annotations

import hashlib
import json
import os
import wave
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import airflow
import pytest
import requests
from packaging.version import Version

from airflow_provider_kie.emulator.media import png_bytes
from airflow_provider_kie.ledger.storage import init_ledger, open_ledger
from airflow_provider_kie.operators.job import KieJobOperator
from tests.dag_runs import load_dag, run_dag
from tests.jobs import IMAGE_MODEL
from tests.task_instance import Task

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"


@pytest.fixture(autouse=True)
def _emulator(kie):
    pass


def link_to_the_file(run, task_id):
    """Return what the button on the task's page leads to."""
    if Version(airflow.__version__).major >= 3:
        return run.xcom(task_id, "_link_WavFileLink")
    from airflow.models.taskinstancekey import TaskInstanceKey
    from airflow.serialization.serialized_objects import SerializedDAG

    # The web server has only what is in the database.
    dag = SerializedDAG.from_dict(SerializedDAG.to_dict(load_dag(run.dag_id)))
    instance = SimpleNamespace(key=TaskInstanceKey(run.dag_id, task_id, run.run_id, 1, -1))
    return dag.get_task(task_id).get_extra_links(instance, "WAV file")


def fetch(url):
    return requests.get(url, headers={"User-Agent": "test"}, timeout=10).content


def test_example_kie_wav(kie, capfd):
    run = run_dag(load_dag("example_kie_wav"))
    assert run.state == "success", run.states()
    kie_task_id = run.xcom("submit", "kie_task_id")
    assert run.xcom("submit") == kie_task_id
    conversion = run.xcom("wait")
    assert conversion["kie_task_id"] == kie_task_id
    assert conversion["status"] == "SUCCESS"
    assert run.xcom("wav_url") == conversion["wav_url"]
    assert run.xcom("wav_url", "wav_conversion") == conversion
    assert run.xcom("describe") == {"channels": 2, "rate": 48000, "seconds": 3.0}
    assert link_to_the_file(run, "wait") == link_to_the_file(run, "wav_url") == conversion["wav_url"]
    assert not link_to_the_file(run, "submit")
    # Airflow 3 works the links out after each part of a task, and logs an error for each key that is not there.
    assert "XCom not found" not in "".join(capfd.readouterr())
    assert kie.accepted_submits == 1
    assert [request["path"] for request in kie.requests("submit")] == ["/api/v1/wav/generate"]


def test_example_kie_wav_mapped(kie):
    run = run_dag(load_dag("example_kie_wav_mapped"))
    assert run.state == "success", run.states()
    urls = [run.xcom("convert", map_index=index) for index in range(3)]
    assert len(set(urls)) == 3
    assert all(url.startswith(kie.url) for url in urls)
    assert len({run.xcom("convert", "kie_task_id", index) for index in range(3)}) == 3
    assert run.xcom("report") == 3
    assert kie.accepted_submits == 3


def test_example_kie_wav_archive(kie, tmp_path):
    for already_there in (False, True):
        kie.reset()  # KIE refuses to convert a track twice
        run = run_dag(load_dag("example_kie_wav_archive"), run_conf={"folder": f"file://{tmp_path}/masters"})
        assert run.state == "success", run.states()
        destination = f"file://{tmp_path}/masters/e2310000-0000-4000-8000-00008cadc7dc.wav"
        assert run.xcom("archive") == destination
        stored = run.xcom("archive", "wav_file")
        assert (stored["seconds"], stored["already_there"]) == (3.0, already_there)
        with wave.open(destination.removeprefix("file://")) as file:
            assert file.getnframes() == 3 * 48_000
    assert len(list((tmp_path / "masters").iterdir())) == 1


def test_example_kie_wav_archived():
    run = run_dag(load_dag("example_kie_wav_archived"))
    assert run.state == "success", run.states()
    assert run.xcom("list_new_files") == []


def test_example_kie_song(kie, tmp_path):
    run = run_dag(load_dag("example_kie_song"), run_conf={"folder": f"file://{tmp_path}/songs"})
    assert run.state == "success", run.states()
    song = run.xcom("song")
    assert run.xcom("tracks") == song["tracks"]
    for index, track in enumerate(song["tracks"]):
        assert track["music_task_id"] == song["kie_task_id"]
        destination = f"{tmp_path}/songs/{track['audio_id']}.wav"
        assert run.xcom("keep", map_index=index) == f"file://{destination}"
        with wave.open(destination) as file:
            assert file.getnframes() == 3 * 48_000
        stems = run.xcom("stems", map_index=index)
        assert (stems["family"], stems["status"]) == ("stems", "SUCCESS")
        assert [file["name"] for file in stems["files"]] == ["vocal", "instrumental"]
        of_the_track = [f"{tmp_path}/songs/{track['audio_id']}/{name}.mp3" for name in ("vocal", "instrumental")]
        assert run.xcom("keep_stems", map_index=index) == [f"file://{path}" for path in of_the_track]
        assert all(Path(path).stat().st_size for path in of_the_track)
    of_the_song = tmp_path / "songs" / song["kie_task_id"]
    assert run.xcom("keep_song") == [f"file://{of_the_song}/result-{index}.mp3" for index in range(2)]
    manifest = json.loads((of_the_song / "manifest.json").read_text())
    assert manifest["tracks"] == song["tracks"]
    assert sorted(path.name for path in of_the_song.iterdir()) == ["manifest.json", "result-0.mp3", "result-1.mp3"]
    assert len(list((tmp_path / "songs").iterdir())) == 1 + 2 * 2
    song_submit, *others = (request["json"] for request in kie.requests("submit"))
    assert song_submit["prompt"] == "a sea shanty about a lighthouse"
    paid = sorted(
        (submit["audioId"], submit.get("type", "wav")) for submit in others if submit["taskId"] == song["kie_task_id"]
    )
    assert paid == sorted((track["audio_id"], kind) for track in song["tracks"] for kind in ("wav", "separate_vocal"))


def test_example_kie_image_to_video(kie, tmp_path):
    image = tmp_path / "lighthouse.png"
    image.write_bytes(png_bytes("a lighthouse"))
    folder = f"file://{tmp_path}/videos"
    run = run_dag(load_dag("example_kie_image_to_video"), run_conf={"image": f"file://{image}", "folder": folder})
    assert run.state == "success", run.states()
    link = run.xcom("upload")
    assert fetch(link) == image.read_bytes()
    (submit,) = (request["json"] for request in kie.requests("submit"))
    assert submit["input"] == {"prompt": "the light comes on", "image_urls": [link]}
    video = run.xcom("video")
    stored = tmp_path / "videos" / video["kie_task_id"]
    assert run.xcom("store") == [f"file://{stored}/result-0.mp4"]
    assert (stored / "result-0.mp4").read_bytes() == fetch(video["files"][0]["url"])
    assert sorted(path.name for path in stored.iterdir()) == ["manifest.json", "result-0.mp4"]
    manifest = json.loads((stored / "manifest.json").read_text())
    assert manifest["model"] == "grok-imagine/image-to-video"
    assert [file["sha256"] for file in manifest["files"]] == [
        hashlib.sha256((stored / "result-0.mp4").read_bytes()).hexdigest()
    ]


def test_example_kie_rescue(kie, tmp_path, monkeypatch):
    ledger = init_ledger(f"file://{tmp_path}/ledger").url
    connection = json.loads(os.environ["AIRFLOW_CONN_KIE_DEFAULT"])
    connection["extra"]["ledger"] = ledger
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    soon, late = (submit_remembered(prompt) for prompt in ("a lighthouse", "a harbour"))
    (path,) = (path for path in (tmp_path / "ledger").glob("??/*/0001.finished") if soon in path.read_text())
    ended = (datetime.now(UTC) - timedelta(days=12)).isoformat()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"complete_time": ended}))

    for expected in ([soon], []):
        run = run_dag(load_dag("example_kie_rescue"), run_conf={"folder": f"file://{tmp_path}/rescued"})
        assert run.state == "success", run.states()
        assert [job["kie_task_id"] for job in run.xcom("list_expiring")] == expected
    assert [path.name for path in (tmp_path / "rescued").iterdir()] == [soon]
    assert sorted(path.name for path in (tmp_path / "rescued" / soon).iterdir()) == ["manifest.json", "result-0.png"]
    archived = open_ledger(ledger).archived("jobs", soon)
    assert archived["destinations"] == [f"file://{tmp_path}/rescued/{soon}/result-0.png"]
    assert open_ledger(ledger).archived("jobs", late) is None
    assert kie.accepted_submits == 2


def submit_remembered(prompt):
    """Submit a job, and wait for its end, with the ledger of the connection; its id."""
    task = Task(KieJobOperator, None, model=IMAGE_MODEL, input={"prompt": prompt}, reuse="input", poll_interval=0.05)
    return task.run_once()["kie_task_id"]


def test_example_kie_finished_job():
    """What it does with events, tests/airflow/test_callbacks.py shows."""
    run = run_dag(load_dag("example_kie_finished_job"))
    assert run.state == "success", run.states()
    assert run.xcom("list_jobs") == []


def test_example_kie_catalogue(kie, tmp_path):
    conf = {"folder": f"file://{tmp_path}/masters", "ledger": init_ledger(f"file://{tmp_path}/ledger").url}
    run = run_dag(load_dag("example_kie_catalogue"), run_conf=conf)
    assert run.state == "success", run.states()
    batch = run.xcom("masters", "batch")
    assert run.xcom("masters") == batch
    assert (batch["total"], batch["succeeded"], kie.accepted_submits) == (25, 25, 25)
    assert len(list((tmp_path / "masters").glob("*.wav"))) == 25
    rows = [json.loads(line) for line in Path(batch["manifest"].removeprefix("file://")).read_text().splitlines()]
    assert [row["item"]["audio_id"] for row in rows] == [f"track-{number}" for number in range(25)]
    assert run.xcom("report") == f"25 of 25 tracks are converted, see {batch['manifest']}"


def test_the_dag_of_the_test_project(kie):
    run = run_dag(load_dag("wav_of_a_track"))
    assert run.state == "success", run.states()
    assert run.xcom("url") == run.xcom("wait")["wav_url"]
    assert kie.accepted_submits == 1


def test_every_example_is_run_here():
    here = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'load_dag("{path.stem}")' not in here] == []
