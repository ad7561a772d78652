# SPDX-License-Identifier: Apache-2.0
"""One track in three steps: submit it, wait, use the URL of its WAV file."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task  # on Airflow 3: from airflow.sdk

from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor

with DAG("wav_of_a_track", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
    submit = ConvertToWavOperator(
        task_id="submit",
        music_task_id="5c790000000000000000000000000be8",
        audio_id="e2310000-0000-4000-8000-00008cadc7dc",
        wait_for_completion=False,
    )
    wait = WavConversionSensor(
        task_id="wait", kie_task_id=submit.output, deferrable=True, poke_interval=10, timeout=3600
    )
    url = WavUrlOperator(task_id="url", kie_task_id=submit.output)

    @task
    def use(wav_url: Any) -> None:
        print(wav_url)

    submit >> wait >> url
    use(url.output)
