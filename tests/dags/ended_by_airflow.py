# SPDX-License-Identifier: Apache-2.0
"""Deferrals that end as Airflow itself ends them, because no triggerer answers in time."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, TaskDeferred

from airflow_provider_kie.operators.wav import ConvertToWavOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.tasks import ENDED_BY_AIRFLOW


class _Ended:
    def execute(self, context, **_):
        try:
            return super().execute(context)
        except TaskDeferred:
            return self.resume_execution(ENDED_BY_AIRFLOW, {"error": "Trigger timeout"}, context)


class EndedConversion(_Ended, ConvertToWavOperator):
    pass


class EndedSensor(_Ended, WavConversionSensor):
    pass


with DAG(
    "ended_by_airflow", schedule=None, start_date=datetime(2026, 1, 1), params={"kie_task_id": "set by the test"}
) as dag:
    EndedConversion(task_id="convert", music_task_id="music", audio_id="track", deferrable=True)
    EndedConversion.partial(task_id="mapped", music_task_id="music", deferrable=True).expand(audio_id=["one", "two"])
    EndedSensor(task_id="wait", kie_task_id="{{ params.kie_task_id }}", deferrable=True)
    EndedSensor(task_id="skip", kie_task_id="{{ params.kie_task_id }}", deferrable=True, soft_fail=True)
