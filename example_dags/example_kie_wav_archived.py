# SPDX-License-Identifier: Apache-2.0
"""Runs whenever ``example_kie_wav_archive`` has stored a file, and reads what was stored from the asset's event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task

with DAG(
    dag_id="example_kie_wav_archived",
    schedule=[Asset("x-kie://wav-archive")],
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["example", "kie"],
) as dag:
    # [START archived]
    @task
    def list_new_files(triggering_asset_events: Any = None, triggering_dataset_events: Any = None) -> list[str]:
        """Name what was stored since the last run; a real DAG publishes it, or converts it further."""
        events = triggering_asset_events or triggering_dataset_events or {}  # Airflow 2.11 calls them datasets
        stored = [event.extra for each in dict(events).values() for event in each]
        for file in stored:
            print(f"{file['destination']}: {file['seconds']:.1f} seconds, sha256 {file['sha256']}")
        return [file["destination"] for file in stored]

    # [END archived]

    list_new_files()
