# SPDX-License-Identifier: Apache-2.0
"""Archives whose source turns out to have no value, and one to which none was given."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator


class Archive(WavToObjectStorageOperator):
    """Names itself in its error."""

    def execute(self, context):
        try:
            return super().execute(context)
        except KieError as error:
            error.problem = f"{self.task_id}: {error.problem}"
            raise


with DAG("archive_without_source", schedule=None, start_date=datetime(2026, 1, 1)) as dag:

    @task
    def nothing() -> None:
        """Push nothing."""

    pulled = "{{ ti.xcom_pull(task_ids='nothing') }}"
    source = nothing()
    to = {"destination": "/nowhere/one.wav"}
    source >> [
        Archive(task_id="pushed_nothing", wav_url=source, **to),
        Archive(task_id="template", kie_task_id=pulled, **to),
        Archive(task_id="two_templates", kie_task_id=pulled, wav_url="{{ '' }}", **to),
        Archive.partial(task_id="mapped", **to).expand(kie_task_id=[None]),
        Archive.partial(task_id="mapped_template", **to).expand_kwargs([{"wav_url": pulled}]),
        Archive(task_id="not_given", wav_url=None, **to),
    ]
