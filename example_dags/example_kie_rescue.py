# SPDX-License-Identifier: Apache-2.0
"""
Every day, store what nobody has stored and KIE deletes within three days.

The connection ``kie_default`` names the ledger, which knows all jobs and where their files are. The folder is local by
default; ``s3://…``, ``gs://…`` and ``abfs://…`` work alike.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_kie.transfers.job_to_object_storage import KieJobToObjectStorageOperator

AIRFLOW_HOME = os.environ.get("AIRFLOW_HOME", Path.home() / "airflow")


# [START expiring]
@task
def list_expiring() -> list[dict[str, Any]]:
    from airflow_provider_kie.hooks.kie import KieHook
    from airflow_provider_kie.ledger.report import expiring
    from airflow_provider_kie.ledger.storage import open_ledger

    settings = KieHook().settings
    jobs = expiring(open_ledger(settings.ledger), within=timedelta(days=3))
    ours = [job for job in jobs if job["account"] == settings.payer]  # other accounts' jobs are not found
    return ours[:1000]  # Airflow maps up to 1024 tasks, and the first to expire come first


# [END expiring]

with DAG(
    dag_id="example_kie_rescue",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params={"folder": Param(f"file://{AIRFLOW_HOME}/kie-rescued", type="string", title="Folder in any storage")},
    tags=["example", "kie"],
) as dag:
    # [START store]
    KieJobToObjectStorageOperator.partial(
        task_id="store",
        destination="{{ params.folder }}/{kie_task_id}/{name}-{index}.{ext}",
        result_name="manifest.json",
        retries=3,
        max_active_tis_per_dag=8,
    ).expand(kie_task_id=list_expiring())
    # [END store]
