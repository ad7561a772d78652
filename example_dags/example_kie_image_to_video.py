# SPDX-License-Identifier: Apache-2.0
"""An image by a model of KIE's Market, whose link is an input of the video that another model makes of it."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_kie.operators.job import KieJobOperator

with DAG(
    dag_id="example_kie_image_to_video",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params={
        "image": Param("a lighthouse in the fog", type="string", title="What is to be seen"),
        "video": Param("the light comes on", type="string", title="What happens"),
    },
    tags=["example", "kie"],
) as dag:
    # [START image_to_video]
    image = KieJobOperator(
        task_id="image",
        model="seedream/5-lite-text-to-image",
        input={"prompt": "{{ params.image }}", "aspect_ratio": "16:9", "quality": "basic"},
        deferrable=True,
        poll_interval=2,  # 10 seconds by default; this keeps a first run with the emulator short
    )
    video = KieJobOperator(
        task_id="video",
        model="grok-imagine/image-to-video",
        input={"prompt": "{{ params.video }}", "image_urls": [image.output["url"]]},
        deferrable=True,
        poll_interval=2,
    )
    # [END image_to_video]
