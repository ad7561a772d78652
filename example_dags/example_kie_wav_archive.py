# SPDX-License-Identifier: Apache-2.0
"""
From a track at KIE to a checked WAV file in your own storage, and the news of it to other DAGs.

The folder is local by default. For S3 pass ``s3://your-bucket/masters`` (with apache-airflow-providers-amazon[s3fs]
installed), for Google ``gs://…``, for Azure ``abfs://…``; nothing else changes.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, Asset, Param

from airflow_provider_kie.operators.wav import ConvertToWavOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator

AIRFLOW_HOME = os.environ.get("AIRFLOW_HOME", Path.home() / "airflow")
# The destination depends on the run, so this asset stands for the whole archive.
MASTERS = Asset("x-kie://wav-archive")

with DAG(
    dag_id="example_kie_wav_archive",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params={
        "music_task_id": Param("5c790000000000000000000000000be8", type="string", title="Music task at KIE"),
        "audio_id": Param("e2310000-0000-4000-8000-00008cadc7dc", type="string", title="Track of that task"),
        "folder": Param(f"file://{AIRFLOW_HOME}/kie-archive", type="string", title="Folder in any storage"),
    },
    tags=["example", "kie"],
) as dag:
    convert = ConvertToWavOperator(
        task_id="convert",
        music_task_id="{{ params.music_task_id }}",
        audio_id="{{ params.audio_id }}",
        wait_for_completion=False,
    )

    wait = WavConversionSensor(
        task_id="wait",
        kie_task_id="{{ ti.xcom_pull(task_ids='convert', key='kie_task_id') }}",
        deferrable=True,
        poke_interval=2,  # KIE recommends 30 seconds; this keeps a first run with the emulator short
        timeout=15 * 60,
    )

    # [START archive]
    archive = WavToObjectStorageOperator(
        task_id="archive",
        kie_task_id="{{ ti.xcom_pull(task_ids='convert', key='kie_task_id') }}",
        destination="{{ params.folder }}/{{ params.audio_id }}.wav",
        retries=3,  # running again does no harm: what is there already is left alone
        outlets=[MASTERS],
    )
    # [END archive]

    convert >> wait >> archive
