# SPDX-License-Identifier: Apache-2.0
"""Jobs: what a submit of any family says, and those of the family ``wav`` as KIE's answers read into."""

from __future__ import annotations

from typing import Any

from airflow_provider_kie.api.job import KieJob
from airflow_provider_kie.api.wav import WavConversion, as_job
from airflow_provider_kie.emulator.families import FAMILIES

URL = "https://tempfile.example/s/1.wav"
#: What only KIE and those who may read XCom should see of the URLs of a job.
QUERY_CANARY = "query-canary-5d1c77f0"
SIGNED_URL = f"https://files.example/a?X-Amz-Signature={QUERY_CANARY}"
#: Fields that some families take, and of which the emulator repeats some in its records.
SIGNED_INPUT: dict[str, Any] = {"audioUrl": SIGNED_URL, "inputImage": SIGNED_URL, "more": {"urls": [SIGNED_URL]}}
#: One family of each of KIE's dialects.
DIALECTS = ("jobs", "music", "stems", "veo", "runway")
IMAGE_MODEL = "seedream/4.5-text-to-image"


def job_of(family: str, **fields: object) -> dict[str, Any]:
    """Return a job that the emulator accepts, as the arguments of ``KieHook.submit_job`` and the operator."""
    if FAMILIES[family].on_market:
        return {"model": IMAGE_MODEL, "input": {"prompt": "a fox", **fields}}
    required = (name for name in FAMILIES[family].required if name != "callBackUrl")
    return {"family": family, "input": dict.fromkeys(required, "given") | fields}


def wav_job(status: str = "PENDING", **fields: object) -> KieJob:
    """Return the job of a conversion; a field that is not given is None."""
    empty = dict.fromkeys(WavConversion.__annotations__)
    return as_job(WavConversion(**{**empty, "kie_task_id": "wav-1", "status": status, **fields}))
