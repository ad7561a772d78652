# SPDX-License-Identifier: Apache-2.0
"""
The event that ends a wait in the triggerer, as plain JSON, and its reader for the resumed task.

Workers and triggerers are not upgraded at the same moment, so the event of a WAV conversion is the same as in earlier
versions.
"""

from __future__ import annotations

import json
from typing import Any, cast

from airflow_provider_kie.api.job import KieJob
from airflow_provider_kie.api.wav import WavConversion, as_conversion, as_job
from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.waiting.verdict import Done, Failed

#: Largest job in an event, in bytes. The resumed task reads the record of a larger one again, which is free.
LARGEST_JOB = 16 * 1024

__all__ = ["read_event", "write_event", "write_wav_event"]


def write_event(verdict: Done | Failed) -> dict[str, Any]:
    """Return the event of a job of any family."""
    if isinstance(verdict, Failed):
        return {"status": "failed", "error": verdict.error.to_dict()}
    job: dict[str, Any] = dict(verdict.job)
    if cut := len(json.dumps(job)) > LARGEST_JOB:
        job["result"] = None
    return {"status": "success", "job": job, "warning": verdict.warning} | ({"cut": True} if cut else {})


def write_wav_event(verdict: Done | Failed) -> dict[str, Any]:
    """Return the event of a WAV conversion."""
    if isinstance(verdict, Failed):
        return write_event(verdict)
    return {"status": "success", "conversion": dict(as_conversion(verdict.job)), "warning": verdict.warning}


def read_event(event: dict[str, Any] | None) -> Done | Failed:
    """
    Read the trigger's event; whatever is not clearly a success is a failure.

    :param event: what Airflow passed to the resumed task; None if there was no event.
    """
    match event:
        case {
            "status": "success",
            "job": {"family": str(), "kie_task_id": str()} as job,
            "warning": str(warning),
            **rest,
        }:
            return Done(cast("KieJob", job), warning, cut="cut" in rest)
        case {"status": "success", "conversion": {"wav_url": str(url)} as conversion, "warning": str(warning)} if url:
            return Done(as_job(cast("WavConversion", conversion)), warning)
        case {"status": "failed", "error": {"type": str(), "problem": str()} as error}:
            return Failed(KieError.from_dict(error))
    return Failed(KieError("The task was resumed without the trigger's event"))
