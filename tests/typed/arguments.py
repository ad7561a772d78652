# SPDX-License-Identifier: Apache-2.0
"""What a DAG may pass for a template field: a text, or what another task gives."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator


@task
def text() -> str:
    return "a text"


with DAG("typed", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
    submit = ConvertToWavOperator(
        task_id="submit",
        music_task_id=text(),
        audio_id=text(),
        callback_url=text(),
        kie_conn_id=text(),
        poll_interval=timedelta(seconds=30),
        wait_for_completion=False,
    )
    WavConversionSensor(task_id="wait", kie_task_id=submit.output, kie_conn_id=text(), max_wait=timedelta(minutes=1))
    url = WavUrlOperator(task_id="url", kie_task_id=submit.output, kie_conn_id=text())
    WavToObjectStorageOperator(
        task_id="store",
        kie_task_id=submit.output,
        destination=text(),
        destination_conn_id=text(),
        kie_conn_id=text(),
    )
    WavToObjectStorageOperator(task_id="store_url", wav_url=url.output, destination="file:///masters/{{ run_id }}.wav")
    ConvertToWavOperator.partial(task_id="submit_many", kie_conn_id=text()).expand_kwargs([{"audio_id": "a"}])
    WavConversionSensor.partial(task_id="wait_many", kie_conn_id=text()).expand(kie_task_id=["a", "b"])
