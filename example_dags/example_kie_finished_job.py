# SPDX-License-Identifier: Apache-2.0
"""
Runs whenever a job of KIE's Market has ended, no matter who submitted it, and stores its files.

The news comes from ``kie-callbacks``, which runs beside Airflow and receives KIE's callbacks. The folder is local by
default; any storage of Airflow will do, such as ``s3://your-bucket/kie-jobs``.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, Param, task

from airflow_provider_kie.transfers.job_to_object_storage import KieJobToObjectStorageOperator

AIRFLOW_HOME = os.environ.get("AIRFLOW_HOME", Path.home() / "airflow")

# [START finished]
with DAG(
    dag_id="example_kie_finished_job",
    schedule=[Asset("kie://kie_default/jobs")],
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params={"folder": Param(f"file://{AIRFLOW_HOME}/kie-jobs", type="string", title="Folder in any storage")},
    tags=["example", "kie"],
) as dag:

    @task
    def list_jobs(triggering_asset_events: Any = None, triggering_dataset_events: Any = None) -> list[dict[str, str]]:
        """Name the jobs that have succeeded; one run may have the news of several, and the same news twice."""
        events = triggering_asset_events or triggering_dataset_events or {}  # Airflow 2.11 calls them datasets
        jobs = [event.extra for each in dict(events).values() for event in each]
        family_of = {job["kie_task_id"]: job["family"] for job in jobs if job["succeeded"]}
        return [{"kie_task_id": kie_task_id, "family": family} for kie_task_id, family in family_of.items()]

    KieJobToObjectStorageOperator.partial(
        task_id="store",
        destination="{{ params.folder }}/{kie_task_id}/{name}-{index}.{ext}",
        retries=3,  # a retry fetches only what is missing
    ).expand_kwargs(list_jobs())
# [END finished]
