# SPDX-License-Identifier: Apache-2.0
"""The operator that returns the tracks of a song, for mapped tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_kie.api.families import MUSIC
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.exceptions import KieValidationError
from airflow_provider_kie.links.kie import KieLogsLink
from airflow_provider_kie.tasks import JobTask, as_rendered, which_job
from airflow_provider_kie.waiting.verdict import finished

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.job import KieTrack

__all__ = ["MusicTracksOperator"]


class MusicTracksOperator(JobTask):
    """
    Return the tracks of a finished song, over which other tasks are mapped.

    It only reads, which is free. Airflow maps over ``return_value`` only, so this task goes between the song and
    ``ConvertToWavOperator.partial(...).expand_kwargs(tracks.output)``. Each track is a dict with ``music_task_id`` and
    ``audio_id``.

    :param kie_task_id: the song: its id at KIE, or the whole :class:`~airflow_provider_kie.api.job.KieJob`. (templated)
    :param family: its family, such as ``music`` or ``upload-cover``. (templated)
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    """

    template_fields: Sequence[str] = ("kie_task_id", "family", "kie_conn_id")
    operator_extra_links = (KieLogsLink(),)

    def __init__(
        self,
        *,
        kie_task_id: str | XComArg,
        family: str | XComArg = MUSIC.name,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kie_task_id = as_rendered(kie_task_id)
        self.family = as_rendered(family)
        self.kie_conn_id = as_rendered(kie_conn_id)

    def execute(self, context: Context) -> list[KieTrack]:
        """
        Read the song and return its tracks.

        :param context: Airflow's context.
        :raises KieNotReadyError: the song is not finished.
        :raises KieValidationError: the job has no track.
        """
        kie_task_id, row = which_job(self.kie_task_id, self.family)
        end = finished(row, kie_task_id, self.hook.poll(row, kie_task_id, retry_reads=True))
        self._log_end(end)
        if not end.job["tracks"]:
            # With an empty list all tasks mapped over it would be skipped, and the run would succeed.
            problem = "The job has no tracks; only jobs that make songs have them, such as those of family music"
            raise KieValidationError(problem, kie_task_id=kie_task_id, family=row.tag)
        return end.job["tracks"]
