# SPDX-License-Identifier: Apache-2.0
"""A job for which a second submit is charged, once and mapped; for the tests of what is settled by hand."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kie.operators.job import KieJobOperator

with DAG("one_image", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
    KieJobOperator(task_id="make", model="m/1", input={"prompt": "{{ run_id }}"}, poll_interval=0.05, timeout=20)
    KieJobOperator.partial(task_id="mapped", model="m/1", poll_interval=0.05, timeout=20).expand(
        input=[{"prompt": "a lighthouse"}, {"prompt": "a harbour"}]
    )
