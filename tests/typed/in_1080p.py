# SPDX-License-Identifier: Apache-2.0
"""The task of docs/single-calls.md that waits for a Veo video in 1080p."""

from __future__ import annotations

# [START in_1080p]
from airflow.providers.common.compat.sdk import PokeReturnValue, task

from airflow_provider_kie.hooks.kie import KieHook


@task.sensor(poke_interval=30, timeout=15 * 60, mode="reschedule", retries=0)
def in_1080p(veo_job: str) -> PokeReturnValue:
    url = KieHook("kie_default").upscale_veo(veo_job, "1080p")
    return PokeReturnValue(is_done=url is not None, xcom_value=url)


# [END in_1080p]
