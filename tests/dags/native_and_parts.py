# SPDX-License-Identifier: Apache-2.0
"""Ids that native templates make numbers of, and a part of the conversion as an argument; for the tests."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_kie.operators.wav import ConvertToWavOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor


class Take(BaseOperator):
    template_fields = ("value",)

    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.value = value

    def execute(self, context):
        return self.value


with DAG(
    "native_and_parts",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    render_template_as_native_obj=True,
    params={"music_task_id": "5790", "audio_id": "231"},
) as dag:
    submit = ConvertToWavOperator(
        task_id="submit",
        music_task_id="{{ params.music_task_id }}",
        audio_id="{{ params.audio_id }}",
        wait_for_completion=False,
    )
    for deferrable in (False, True):
        wait = WavConversionSensor(
            task_id=f"wait_{deferrable}",
            kie_task_id=submit.output,
            poke_interval=0.05,
            deferrable=deferrable,
            multiple_outputs=True,
        )
        Take(task_id=f"take_{deferrable}", value=wait.output["wav_url"])
