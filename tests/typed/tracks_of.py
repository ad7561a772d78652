# SPDX-License-Identifier: Apache-2.0
"""The task of docs/operators.md that reads the tracks of a music task."""

from __future__ import annotations

# [START tracks_of]
from airflow.providers.common.compat.sdk import task

from airflow_provider_kie.hooks.kie import KieHook


@task
def tracks_of(music_task_id: str) -> list[dict[str, str]]:
    record = KieHook().request("GET", "/api/v1/generate/record-info", params={"taskId": music_task_id})
    if not record or record["status"] != "SUCCESS":
        raise RuntimeError(f"KIE does not know music task {music_task_id}, or it is not finished")
    return [{"music_task_id": music_task_id, "audio_id": track["id"]} for track in record["response"]["sunoData"]]


# [END tracks_of]
