# SPDX-License-Identifier: Apache-2.0
"""Jobs of the family ``wav`` as KIE's answers read into."""

from __future__ import annotations

from airflow_provider_kie.api.job import KieJob
from airflow_provider_kie.api.wav import WavConversion, as_job

URL = "https://tempfile.example/s/1.wav"


def wav_job(status: str = "PENDING", **fields: object) -> KieJob:
    """Return the job of a conversion; a field that is not given is None."""
    empty = dict.fromkeys(WavConversion.__annotations__)
    return as_job(WavConversion(**{**empty, "kie_task_id": "wav-1", "status": status, **fields}))
