# SPDX-License-Identifier: Apache-2.0
"""Archives one file, which it names as an outlet, and several by a mapped task."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, Asset, Param, task

from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator

FOLDER = f"file://{os.environ['AIRFLOW_HOME']}/archive_files"

with DAG(
    "archive_files", schedule=None, start_date=datetime(2026, 1, 1), params={"kie_task_id": Param("", type="string")}
) as dag:

    @task
    def sources(params: dict[str, str] | None = None) -> list[dict[str, str]]:
        """Name three files."""
        kie_task_id = (params or {})["kie_task_id"]
        return [{"kie_task_id": kie_task_id, "destination": f"{FOLDER}/{number}.wav"} for number in range(3)]

    WavToObjectStorageOperator(
        task_id="archive",
        kie_task_id="{{ params.kie_task_id }}",
        destination=f"{FOLDER}/one.wav",
        outlets=[Asset(f"{FOLDER}/one.wav")],
    )
    WavToObjectStorageOperator.partial(task_id="mapped").expand_kwargs(sources())
