# SPDX-License-Identifier: Apache-2.0
"""Jobs as mapped tasks and as a batch, as many as the environment says."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta

from airflow.sdk import DAG, ObjectStoragePath, task

from airflow_provider_kie.operators.batch import KieBatchOperator
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.times import switched

FOLDER = os.environ.get("KIE_BENCH_FOLDER", "")
MAPPED, MANY = (int(os.environ.get(name, "10")) for name in ("KIE_BENCH_MAPPED", "KIE_BENCH_MANY"))
USUAL = {"model": "seedream/4.5-text-to-image", "ledger": f"{FOLDER}/ledger", "poll_interval": timedelta(seconds=2)}

for name, deferrable in (("mapped_sync", False), ("mapped_deferrable", True)):
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
        KieJobOperator.partial(task_id="jobs", deferrable=deferrable, **USUAL).expand(
            input=[{"prompt": f"fox {number}"} for number in range(MAPPED)]
        )

# The emulator refuses nothing, and ten thousand would take 83 minutes.
FAST = switched(rate_window=0.2)
FAST.__enter__()
with DAG("batch", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):

    @task
    def list_items() -> str:
        """Write the items into a file, as a literal would become part of the DAG."""
        path = f"{FOLDER}/items.jsonl"
        with ObjectStoragePath(path).open("w") as file:
            file.writelines(json.dumps({"prompt": f"fox {number}"}) + "\n" for number in range(MANY))
        return path

    KieBatchOperator(task_id="jobs", items=list_items(), manifest=f"{FOLDER}/manifest.jsonl", **USUAL)
