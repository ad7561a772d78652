# SPDX-License-Identifier: Apache-2.0
"""Airflow's local settings in the soak test: Airflow imports this file in each of its processes."""

from __future__ import annotations

# [START freeze]
import gc
import os
import sys

if "triggerer" in sys.argv:
    # The event loop runs in a forked process. What is loaded before the fork, nearly all of Airflow, is out of the
    # garbage collector's sight from then on. Airflow's LocalExecutor and DAG processor do the same.
    os.register_at_fork(before=gc.freeze)
# [END freeze]

if "scheduler" in sys.argv:
    # A task's process is forked, and then need not load the same again.
    import airflow.sdk.execution_time.task_runner  # noqa: F401 - to have it loaded

    import airflow_provider_kie.hooks.kie
    import airflow_provider_kie.sensors.wav  # noqa: F401 - the same
