# SPDX-License-Identifier: Apache-2.0
"""
A list of tracks, each converted by a mapped task that waits in the triggerer instead of a worker slot.

KIE refuses more than 20 new conversions in 10 seconds, so no more than 16 are started at a time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_kie.operators.wav import ConvertToWavOperator

with DAG(
    dag_id="example_kie_wav_mapped",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["example", "kie"],
) as dag:

    @task
    def list_tracks() -> list[dict[str, str]]:
        """Name the tracks; a real DAG reads them from a table or an earlier task."""
        music_task_id = "5c790000000000000000000000000be8"
        return [{"music_task_id": music_task_id, "audio_id": f"track-{number}"} for number in range(3)]

    @task
    def report(urls: Any) -> int:
        """Count the files."""
        for url in urls:
            print(f"converted: {url.partition('?')[0]}")
        return len(list(urls))

    # [START mapped]
    convert = ConvertToWavOperator.partial(
        task_id="convert",
        deferrable=True,
        poll_interval=2,  # KIE recommends 30 seconds; this keeps a first run with the emulator short
        max_active_tis_per_dag=16,
    ).expand_kwargs(list_tracks())
    # [END mapped]

    report(convert.output)
