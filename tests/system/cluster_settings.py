# SPDX-License-Identifier: Apache-2.0
"""Airflow's local settings in the cluster test: Airflow imports this file in each of its processes."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# [START preload]
if "celery" in sys.argv:
    # A task's process is forked, and then need not load the same again.
    with suppress(ImportError):  # 2.11
        import airflow.sdk.execution_time.task_runner  # noqa: F401 - to have it loaded

    import airflow_provider_kie.hooks.kie
    import airflow_provider_kie.operators.job
    import airflow_provider_kie.operators.wav  # noqa: F401 - the same
# [END preload]

if "scheduler" in sys.argv:
    from airflow.providers.celery.executors.celery_executor import CeleryExecutor

    HELD = Path(os.environ["KIE_CLUSTER_HELD"])
    NAME = os.environ["KIE_CLUSTER_PROCESS"]
    SECONDS_HELD = 60.0
    send: Any = CeleryExecutor._send_workloads_to_celery

    def send_and_wait_to_be_killed(self: Any, workloads: Any) -> Any:
        """
        Wait between the messages to the workers and the record that they were sent, if the test asks for it.

        The id of this scheduler's job tells the test which tasks it has sent.
        """
        HELD.with_name(f"{NAME}.job").write_text(str(self.job_id))
        sent = send(self, workloads)
        with suppress(FileNotFoundError):
            held = (HELD / "a-scheduler").rename(HELD / NAME)
            until = time.monotonic() + SECONDS_HELD
            while held.exists() and time.monotonic() < until:
                time.sleep(0.2)
        return sent

    CeleryExecutor._send_workloads_to_celery = send_and_wait_to_be_killed
