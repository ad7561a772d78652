# SPDX-License-Identifier: Apache-2.0
"""
A song by a prompt; its two tracks, a WAV file of each and its stems, all in your own storage.

The folder is local by default; any storage of Airflow will do, such as ``s3://your-bucket/songs``.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.operators.music import MusicTracksOperator
from airflow_provider_kie.operators.wav import ConvertToWavOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.transfers.job_to_object_storage import KieJobToObjectStorageOperator
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator

AIRFLOW_HOME = os.environ.get("AIRFLOW_HOME", Path.home() / "airflow")

with DAG(
    dag_id="example_kie_song",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params={
        "prompt": Param("a sea shanty about a lighthouse", type="string", title="What the song is about"),
        "folder": Param(f"file://{AIRFLOW_HOME}/kie-songs", type="string", title="Folder in any storage"),
    },
    tags=["example", "kie"],
) as dag:
    # Intervals of 2 seconds keep a first run with the emulator short; the defaults suit KIE.
    # [START story]
    song = KieJobOperator(
        task_id="song",
        family="music",
        input={"model": "V6", "customMode": False, "instrumental": False, "prompt": "{{ params.prompt }}"},
        deferrable=True,
        poll_interval=2,
    )
    tracks = MusicTracksOperator(task_id="tracks", kie_task_id=song.output)
    keep_song = KieJobToObjectStorageOperator(
        task_id="keep_song",
        kie_task_id=song.output,
        destination="{{ params.folder }}/{kie_task_id}/{name}-{index}.{ext}",
        result_name="manifest.json",
        retries=3,
    )

    convert = ConvertToWavOperator.partial(task_id="convert", wait_for_completion=False).expand_kwargs(tracks.output)
    wait = WavConversionSensor.partial(task_id="wait", deferrable=True, poke_interval=2, timeout=900).expand(
        kie_task_id=convert.output
    )
    keep = WavToObjectStorageOperator.partial(
        task_id="keep",
        destination="{{ params.folder }}/{{ ti.xcom_pull('tracks')[ti.map_index]['audio_id'] }}.wav",
        retries=3,
    ).expand(kie_task_id=convert.output)
    wait >> keep

    stems = KieJobOperator.partial(task_id="stems", family="stems", deferrable=True, poll_interval=2).expand(
        input=tracks.output.map(
            lambda track: {"type": "separate_vocal", "taskId": track["music_task_id"], "audioId": track["audio_id"]}
        )
    )
    keep_stems = KieJobToObjectStorageOperator.partial(
        task_id="keep_stems",
        destination="{{ params.folder }}/{{ ti.xcom_pull('tracks')[ti.map_index]['audio_id'] }}/{name}.{ext}",
        retries=3,
    ).expand(kie_task_id=stems.output)
    # [END story]
