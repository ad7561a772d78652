# SPDX-License-Identifier: Apache-2.0
"""A conversion that is waited for in two modes and fetched; for the tests."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor

with DAG("every_way", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
    submit = ConvertToWavOperator(task_id="submit", music_task_id="music", audio_id="track", wait_for_completion=False)
    poke = WavConversionSensor(task_id="poke", kie_task_id=submit.output, poke_interval=0.05, deferrable=False)
    defer = WavConversionSensor(task_id="defer", kie_task_id=submit.output, poke_interval=0.05, deferrable=True)
    url = WavUrlOperator(task_id="url", kie_task_id=submit.output)
    submit >> [poke, defer] >> url
