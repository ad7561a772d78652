# SPDX-License-Identifier: Apache-2.0
"""Every operator, and subclasses of them, mapped over two conversions; for the tests."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator
from tests.typed.subclasses import ArchiveForClient, ConvertForClient, MarkedSensor, UrlWithoutQuery

FOLDER = f"file://{os.environ['AIRFLOW_HOME']}/mapped_ways"
QUICK = {"poke_interval": 0.05, "timeout": 30}

with DAG("mapped_ways", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
    submit = ConvertToWavOperator.partial(task_id="submit", music_task_id="music", wait_for_completion=False).expand(
        audio_id=["one", "two"]
    )
    each = {"kie_task_id": submit.output}
    waits = [
        WavConversionSensor.partial(task_id="poke", deferrable=False, **QUICK).expand(**each),
        WavConversionSensor.partial(task_id="defer", deferrable=True, start_from_trigger=True, **QUICK).expand(**each),
        MarkedSensor.partial(task_id="marked", day="Monday", deferrable=True).expand(**each),
    ]
    after = [
        WavUrlOperator.partial(task_id="url").expand(**each),
        UrlWithoutQuery.partial(task_id="short_url").expand(**each),
        WavToObjectStorageOperator.partial(task_id="store", destination=FOLDER + "/{{ ti.map_index }}.wav").expand(
            **each
        ),
        ArchiveForClient.partial(task_id="client", client="{{ ti.map_index }}", folder=FOLDER + "/clients").expand(
            **each
        ),
    ]
    for wait in waits:
        wait >> after
    ConvertForClient.partial(
        task_id="convert", music_task_id="music", kie_conn_id="kie_default", poll_interval=0.05, deferrable=True
    ).expand_kwargs([{"audio_id": "three", "client": "acme"}, {"audio_id": "four", "client": "other"}])
