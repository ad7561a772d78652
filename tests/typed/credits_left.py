# SPDX-License-Identifier: Apache-2.0
"""The task of docs/operators.md that calls the hook."""

from __future__ import annotations

# [START credits_left]
from airflow.providers.common.compat.sdk import task

from airflow_provider_kie.hooks.kie import KieHook


@task
def credits_left() -> float:
    return KieHook("kie_default").get_credits()


# [END credits_left]
