# SPDX-License-Identifier: Apache-2.0
"""
A catalogue of tracks, converted and stored by one task, however many they are.

The ledger is made once, with ``airflow kie ledger init``. All folders are local by default; ``s3://…``, ``gs://…`` and
``abfs://…`` work alike.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_kie.operators.batch import ConvertCatalogToWavOperator

AIRFLOW_HOME = os.environ.get("AIRFLOW_HOME", Path.home() / "airflow")

with DAG(
    dag_id="example_kie_catalogue",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params={
        "folder": Param(f"file://{AIRFLOW_HOME}/kie-catalogue", type="string", title="Folder in any storage"),
        "ledger": Param(f"file://{AIRFLOW_HOME}/kie-ledger", type="string", title="Folder of the ledger"),
    },
    tags=["example", "kie"],
) as dag:

    @task
    def list_tracks() -> list[dict[str, str]]:
        """Name the tracks; a real DAG names a JSON Lines file, or reads them from a table."""
        music_task_id = "5c790000000000000000000000000be8"
        return [{"music_task_id": music_task_id, "audio_id": f"track-{number}"} for number in range(25)]

    @task
    def report(batch: Any) -> str:
        """Say what has become of them."""
        return f"{batch['succeeded']} of {batch['total']} tracks are converted, see {batch['manifest']}"

    # [START batch]
    masters = ConvertCatalogToWavOperator(
        task_id="masters",
        tracks=list_tracks(),
        ledger="{{ params.ledger }}",
        manifest="{{ params.folder }}/{{ run_id }}.jsonl",
        destination="{{ params.folder }}/{kie_task_id}.{ext}",
        max_in_flight=300,
        poll_interval=2,  # KIE recommends 30 seconds; this keeps a first run with the emulator short
        fail_if=0.01,
        retries=3,  # a retry submits only what was never accepted, and fetches what is missing
    )
    # [END batch]

    report(masters.output)
