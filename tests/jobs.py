# SPDX-License-Identifier: Apache-2.0
"""Jobs: what a submit of any family says, and those of the family ``wav`` as KIE's answers read into."""

from __future__ import annotations

from typing import Any

from airflow_provider_kie.api.job import KieJob
from airflow_provider_kie.api.wav import WavConversion, as_job
from airflow_provider_kie.emulator.families import FAMILIES

URL = "https://tempfile.example/s/1.wav"
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
