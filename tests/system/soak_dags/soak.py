# SPDX-License-Identifier: Apache-2.0
"""The DAG of the triggerer's soak test: one mapped task, as many waits as the environment says."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import DAG

from airflow_provider_kie.sensors.wav import WavConversionSensor

with DAG("soak", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    WavConversionSensor.partial(
        task_id="wait",
        deferrable=True,
        poke_interval=float(os.environ.get("KIE_SOAK_INTERVAL", "10")),
        timeout=24 * 3600,
    ).expand(kie_task_id=[f"held-{number}" for number in range(int(os.environ.get("KIE_SOAK_COUNT", "10")))])
