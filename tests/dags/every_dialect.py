# SPDX-License-Identifier: Apache-2.0
"""A job of each dialect with signed URLs in its input, made and waited for; for the tests."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.sensors.job import KieJobSensor
from tests.jobs import DIALECTS, SIGNED_INPUT, SIGNED_URL, job_of

QUICK = {"poll_interval": 0.03, "deferrable": True}

with DAG("every_dialect", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
    make = KieJobOperator.partial(task_id="make", callback_url=SIGNED_URL, **QUICK).expand_kwargs(
        [job_of(family, **SIGNED_INPUT) for family in DIALECTS]
    )
    KieJobSensor.partial(task_id="wait", deferrable=False).expand(kie_task_id=make.output)
