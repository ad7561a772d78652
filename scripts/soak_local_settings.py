# SPDX-License-Identifier: Apache-2.0
"""Airflow's local settings in the soak test: Airflow imports this file in each of its processes."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import Final

#: A line for each full garbage collection of the triggerer: when it ended, its seconds of CPU, how many objects it saw.
COLLECTIONS: Final = Path(os.environ["AIRFLOW_HOME"], "collections.txt")


class Collections:
    """Notes the full collections; called by Python before and after each one."""

    began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """Take the time, or note it down."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self.began = time.thread_time()
            return
        cpu = time.thread_time() - self.began
        with COLLECTIONS.open("a") as file:
            file.write(f"{time.time()} {cpu} {len(gc.get_objects(generation=2))}\n")


if "scheduler" in sys.argv:
    # A task's process is forked, and then need not load the same again.
    import airflow.sdk.execution_time.task_runner  # noqa: F401 - to have it loaded

    import airflow_provider_kie.hooks.kie
    import airflow_provider_kie.sensors.wav  # noqa: F401 - the same

if "triggerer" in sys.argv:
    gc.callbacks.append(Collections())
