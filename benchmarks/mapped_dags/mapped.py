# SPDX-License-Identifier: Apache-2.0
"""The same jobs as mapped tasks and as one batch, as many as the environment says."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG

from airflow_provider_kie.operators.batch import KieBatchOperator
from airflow_provider_kie.operators.job import KieJobOperator

MODEL = "seedream/4.5-text-to-image"
FOLDER = os.environ.get("KIE_BENCH_FOLDER", "")
INPUTS = [{"prompt": f"fox {number}"} for number in range(int(os.environ.get("KIE_BENCH_COUNT", "10")))]
USUAL = {"model": MODEL, "ledger": f"{FOLDER}/ledger", "poll_interval": timedelta(seconds=2)}

for name, deferrable in (("mapped_sync", False), ("mapped_deferrable", True)):
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
        KieJobOperator.partial(task_id="jobs", deferrable=deferrable, **USUAL).expand(input=INPUTS)

with DAG("batch", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    KieBatchOperator(task_id="jobs", items=INPUTS, manifest=f"{FOLDER}/manifest.jsonl", **USUAL)
