# SPDX-License-Identifier: Apache-2.0
"""
An image of your own storage becomes a video in your own storage.

Both are local by default; any storage of Airflow will do, such as ``s3://your-bucket/lighthouse.png``.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.transfers.job_to_object_storage import KieJobToObjectStorageOperator
from airflow_provider_kie.transfers.object_storage_to_kie import ObjectStorageToKieOperator

AIRFLOW_HOME = os.environ.get("AIRFLOW_HOME", Path.home() / "airflow")

with DAG(
    dag_id="example_kie_image_to_video",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params={
        "image": Param(f"file://{AIRFLOW_HOME}/lighthouse.png", type="string", title="Image in any storage"),
        "prompt": Param("the light comes on", type="string", title="What happens"),
        "folder": Param(f"file://{AIRFLOW_HOME}/kie-videos", type="string", title="Folder in any storage"),
    },
    tags=["example", "kie"],
) as dag:
    # [START image_to_video]
    upload = ObjectStorageToKieOperator(task_id="upload", source="{{ params.image }}", retries=3)
    video = KieJobOperator(
        task_id="video",
        model="grok-imagine/image-to-video",
        input={"prompt": "{{ params.prompt }}", "image_urls": [upload.output]},
        deferrable=True,
        poll_interval=2,  # 10 seconds by default; this keeps a first run with the emulator short
    )
    store = KieJobToObjectStorageOperator(
        task_id="store",
        kie_task_id=video.output,
        destination="{{ params.folder }}/{kie_task_id}/{name}-{index}.{ext}",
        result_name="manifest.json",
        retries=3,  # a retry fetches only what is missing
    )
    # [END image_to_video]
