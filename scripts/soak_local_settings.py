# SPDX-License-Identifier: Apache-2.0
"""Airflow's local settings in the soak test: Airflow imports this file in each of its processes."""

from __future__ import annotations

import gc
import os
import sys

if "scheduler" in sys.argv:
    # A task's process is forked, and then need not load the same again.
    import airflow.sdk.execution_time.task_runner  # noqa: F401 - to have it loaded

    import airflow_provider_kie.hooks.kie
    import airflow_provider_kie.sensors.wav  # noqa: F401 - the same

if "triggerer" in sys.argv:
    # The event loop runs in a forked process. What is loaded before the fork, nearly all of Airflow, is then no matter
    # of the garbage collector any more, a full run of which would block the loop for it. Airflow's own LocalExecutor
    # and DAG processor do the same.
    os.register_at_fork(before=gc.freeze)
