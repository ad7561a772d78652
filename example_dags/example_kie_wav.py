# SPDX-License-Identifier: Apache-2.0
"""
From a track at KIE to the URL of its WAV file, one step a task.

Submitting and waiting are two tasks on purpose: the sensor can be cleared and run again at any time without paying.
"""

from __future__ import annotations

import io
import wave
from datetime import datetime
from typing import Any

import requests
from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor

with DAG(
    dag_id="example_kie_wav",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params={
        "music_task_id": Param("5c790000000000000000000000000be8", type="string", title="Music task at KIE"),
        "audio_id": Param("e2310000-0000-4000-8000-00008cadc7dc", type="string", title="Track of that task"),
    },
    tags=["example", "kie"],
) as dag:
    # [START submit]
    submit = ConvertToWavOperator(
        task_id="submit",
        music_task_id="{{ params.music_task_id }}",
        audio_id="{{ params.audio_id }}",
        wait_for_completion=False,
    )
    # [END submit]

    # [START wait]
    wait = WavConversionSensor(
        task_id="wait",
        kie_task_id="{{ ti.xcom_pull(task_ids='submit', key='kie_task_id') }}",
        deferrable=True,
        poke_interval=2,  # KIE recommends 30 seconds; this keeps a first run with the emulator short
        timeout=15 * 60,
    )
    # [END wait]

    # [START url]
    wav_url = WavUrlOperator(
        task_id="wav_url",
        kie_task_id="{{ ti.xcom_pull(task_ids='submit', key='kie_task_id') }}",
    )
    # [END url]

    @task
    def describe(url: Any) -> dict[str, float]:
        """Read the start of the file and say what it is."""
        headers = {"User-Agent": "example-dag/1.0", "Range": "bytes=0-4095"}
        answer = requests.get(url, headers=headers, timeout=30)
        answer.raise_for_status()
        with wave.open(io.BytesIO(answer.content)) as file:
            return {
                "channels": file.getnchannels(),
                "rate": file.getframerate(),
                "seconds": file.getnframes() / file.getframerate(),
            }

    submit >> wait >> wav_url
    describe(wav_url.output)
