# SPDX-License-Identifier: Apache-2.0
"""
The archive and the examples in S3: Amazon's provider, its connection and a real S3 protocol.

It is spoken by moto's server on loopback.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.emulator.audio import wav_bytes
from airflow_provider_kie.emulator.media import png_bytes
from airflow_provider_kie.files import storage
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator
from tests.dag_runs import load_dag, run_dag
from tests.file_server import Act, FileServer
from tests.task_instance import TaskInstance
from tests.wav_files import wav

NEEDED = ("moto", "s3fs", "flask_cors", "airflow.providers.amazon")
MISSING = [name for name in NEEDED if not importlib.util.find_spec(name)]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")

WAV = wav_bytes()
LONG = wav(5_000_000)  # 20 MB: more than the 16 MiB that go to S3 at a time


@pytest.fixture(scope="module")
def s3_url():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(s3_url, monkeypatch):
    """A client of an S3 that has one empty bucket, which Airflow knows as ``aws_masters``."""
    import boto3

    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("s3", endpoint_url=s3_url, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="masters")
    connection = {
        "conn_type": "aws",
        "login": "testing",
        "password": "testing",
        "extra": {"endpoint_url": s3_url, "region_name": "us-east-1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_MASTERS", json.dumps(connection))
    yield client
    for entry in client.list_objects_v2(Bucket="masters").get("Contents", []):
        client.delete_object(Bucket="masters", Key=entry["Key"])
    client.delete_bucket(Bucket="masters")


def keys(s3):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket="masters").get("Contents", [])]


def content(s3, key):
    return s3.get_object(Bucket="masters", Key=key)["Body"].read()


def archive(destination="s3://masters/2026/one [live].wav", **arguments):
    ti = TaskInstance()
    arguments = {"destination_conn_id": "aws_masters"} | arguments
    operator = WavToObjectStorageOperator(task_id="archive", destination=destination, **arguments)
    assert operator.execute({"ti": ti}) == destination
    return ti.pushed["wav_file"]


def test_a_file_is_stored_once_and_then_left_alone(kie, s3):
    kie_task_id = kie.create_conversion(finished=True)
    assert archive(kie_task_id=kie_task_id)["already_there"] is False
    assert keys(s3) == ["2026/one [live].wav"]
    assert content(s3, "2026/one [live].wav") == WAV
    before = s3.head_object(Bucket="masters", Key="2026/one [live].wav")["LastModified"]
    assert archive(kie_task_id=kie_task_id)["already_there"] is True
    assert s3.head_object(Bucket="masters", Key="2026/one [live].wav")["LastModified"] == before


def test_the_url_may_name_the_connection(kie, s3):
    destination = "s3://aws_masters@masters/two.wav"
    archive(destination, destination_conn_id=None, kie_task_id=kie.create_conversion(finished=True))
    assert keys(s3) == ["two.wav"]


def test_a_file_of_several_parts_comes_whole_over_breaks(kie, s3):
    assert len(LONG) > storage.BLOCK
    with FileServer(LONG) as server:
        server.play(Act(cut=0.9, end="reset"), Act())
        archive(wav_url=server.url, allow_private_hosts=True)
    assert content(s3, "2026/one [live].wav") == LONG
    assert keys(s3) == ["2026/one [live].wav"]


def test_a_refused_file_leaves_no_object_and_no_upload(kie, s3):
    with FileServer(LONG) as server:
        server.play(Act(body=LONG + b"more" * 500))
        with pytest.raises(e.KieNotAWavError):
            archive(wav_url=server.url, allow_private_hosts=True)
    assert keys(s3) == []
    assert s3.list_multipart_uploads(Bucket="masters").get("Uploads", []) == []


def test_another_object_is_only_replaced_on_request(kie, s3):
    s3.put_object(Bucket="masters", Key="one.wav", Body=b"something else")
    arguments = {"kie_task_id": kie.create_conversion(finished=True), "destination": "s3://masters/one.wav"}
    with pytest.raises(e.KieDestinationExistsError):
        archive(**arguments)
    assert content(s3, "one.wav") == b"something else"
    archive(**arguments, overwrite=True)
    assert content(s3, "one.wav") == WAV
    assert keys(s3) == ["one.wav"]


def test_a_name_with_objects_below_it_is_a_folder(kie, s3):
    s3.put_object(Bucket="masters", Key="2026/one.wav", Body=b"x")
    for destination in ("s3://masters/2026", "s3://masters", "s3://masters/"):
        with pytest.raises(e.KieValidationError, match="add the name of the file"):
            archive(destination, kie_task_id=kie.create_conversion(finished=True))


def test_a_bucket_that_is_missing_is_not_made(kie, s3):
    with pytest.raises(FileNotFoundError):
        archive("s3://nosuch/one.wav", kie_task_id=kie.create_conversion(finished=True))
    assert "nosuch" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]


def test_example_kie_wav_archive(kie, s3):
    run = run_dag(load_dag("example_kie_wav_archive"), run_conf={"folder": "s3://aws_masters@masters/wavs"})
    assert run.state == "success", run.states()
    assert keys(s3) == ["wavs/e2310000-0000-4000-8000-00008cadc7dc.wav"]
    assert content(s3, keys(s3)[0]) == WAV


def test_example_kie_song(kie, s3):
    run = run_dag(load_dag("example_kie_song"), run_conf={"folder": "s3://aws_masters@masters/songs"})
    assert run.state == "success", run.states()
    song, tracks = run.xcom("song", "kie_task_id"), [track["audio_id"] for track in run.xcom("tracks")]
    of_a_track = ("{}.wav", "{}/vocal.mp3", "{}/instrumental.mp3")
    of_the_song = [f"{song}/{name}" for name in ("manifest.json", "result-0.mp3", "result-1.mp3")]
    assert set(keys(s3)) == {
        f"songs/{name}" for name in [*of_the_song, *(name.format(track) for name in of_a_track for track in tracks)]
    }
    assert [content(s3, f"songs/{track}.wav") for track in tracks] == [WAV, WAV]


def test_example_kie_image_to_video(kie, s3):
    image = png_bytes("a lighthouse")
    s3.put_object(Bucket="masters", Key="images/lighthouse.png", Body=image)
    there = "s3://aws_masters@masters"
    conf = {"image": f"{there}/images/lighthouse.png", "folder": f"{there}/videos"}
    run = run_dag(load_dag("example_kie_image_to_video"), run_conf=conf)
    assert run.state == "success", run.states()
    (uploaded,) = (request["json"] for request in kie.requests("upload"))
    assert uploaded["sha256"] == hashlib.sha256(image).hexdigest()
    folder = f"videos/{run.xcom('video', 'kie_task_id')}"
    assert keys(s3) == ["images/lighthouse.png", f"{folder}/manifest.json", f"{folder}/result-0.mp4"]
    (file,) = json.loads(content(s3, f"{folder}/manifest.json"))["files"]
    assert file["sha256"] == hashlib.sha256(content(s3, f"{folder}/result-0.mp4")).hexdigest()
