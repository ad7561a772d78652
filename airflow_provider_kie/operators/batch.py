# SPDX-License-Identifier: Apache-2.0
"""The operators that carry out thousands of jobs in one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_kie.api.families import JOBS, find_family
from airflow_provider_kie.api.fields import is_blank
from airflow_provider_kie.api.wav import check_route
from airflow_provider_kie.exceptions import KieValidationError
from airflow_provider_kie.operators.many import BatchOperator
from airflow_provider_kie.tasks import as_rendered

if TYPE_CHECKING:
    from airflow_provider_kie.batch.items import Kind

__all__ = ["ConvertCatalogToWavOperator", "KieBatchOperator"]


class KieBatchOperator(BatchOperator):
    """
    Carry out many jobs of one kind in one task: submit each once, wait for all of them, store their files.

    Submits are held back so that KIE's limit of 20 in 10 seconds is not met. One event loop waits for all jobs, in the
    worker's slot; nothing is deferred. A try that is killed loses nothing: the next one looks all items up in the
    ledger, submits only what was never accepted, waits for what runs, and fetches what is missing.

    Pushes ``batch``, a dict with ``total``, ``succeeded``, ``failed``, ``unknown``, ``credits`` and ``manifest``,
    before the task may fail, and returns the same. The manifest has one line of JSON for each item, in their order:
    ``item``, ``digest``, ``ordinal``, ``entry``, ``kie_task_id``, ``end``, ``error``, ``destinations``, ``credits``.

    :param items: a list of inputs, or the URL of a JSON Lines file with one input in each line. (templated)
    :param model: KIE's model, for jobs of its Market. Either this or ``family``. (templated)
    :param family: the family of the jobs, such as ``music``. (templated)
    :param manifest: URL of the manifest, such as ``s3://bucket/{{ run_id }}.jsonl``; an earlier one of the same batch
        is replaced. (templated)
    :param ledger: URL of the folder that remembers jobs, made by ``airflow kie ledger init``; by default the
        connection's. One of them is needed. (templated)
    :param destination: where the files go, see
        :class:`~airflow_provider_kie.transfers.job_to_object_storage.KieJobToObjectStorageOperator`; by default none is
        stored. Must contain ``{kie_task_id}``. (templated)
    :param destination_conn_id: the Airflow connection of the storage of files and manifest. (templated)
    :param names: store only the files of these names. (templated)
    :param overwrite: replace other files at the destinations, and at that of the manifest.
    :param max_in_flight: how many jobs run at KIE at a time.
    :param poll_interval: seconds or a ``timedelta`` between two polls of a job; by default what suits the family.
    :param timeout: seconds or a ``timedelta`` to wait for each job.
    :param fail_if: ``"any"``: the task fails if any item did not succeed; ``"all"``: if none did; a number: if a larger
        share did not.
    :param max_attempts: how many accepted submits an item may have, over the life of the task instance. Another one
        follows only a failure that KIE confirms.
    :param max_credits: submit nothing more once the jobs that have ended cost that much, as far as KIE says.
    :param on_unknown_submit: what happens to an item whose submit may have been accepted: ``"fail"`` (the default where
        a second submit is charged) leaves it unknown; with ``"resubmit"`` the next try submits again.
    :param reuse: ``"task"``: an item belongs to this task instance, even after a clear; ``"input"``: jobs of other
        tasks with the same account, model and input count too.
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    """

    template_fields: Sequence[str] = (
        *("items", "model", "family", "manifest", "ledger", "destination", "destination_conn_id", "names"),
        "kie_conn_id",
    )
    _items_argument = "items"

    def __init__(
        self,
        *,
        items: str | Sequence[Mapping[str, Any]] | XComArg,
        model: str | XComArg | None = None,
        family: str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.items: Any = items
        self.model = as_rendered(model)
        self.family = as_rendered(family)

    @property
    def _kind(self) -> Kind:
        from airflow_provider_kie.batch.items import Jobs

        if is_blank(self.model) == is_blank(self.family):
            raise KieValidationError("Either model or family is needed, and not both")
        row = JOBS if is_blank(self.family) else find_family(str(self.family))
        return Jobs(row, None if is_blank(self.model) else self.model)


class ConvertCatalogToWavOperator(BatchOperator):
    """
    Convert many tracks to WAV in one task.

    It does what :class:`KieBatchOperator` does, with the same arguments besides ``items``, ``model`` and ``family``.

    :param tracks: a list of dicts with ``music_task_id`` and ``audio_id``, such as the ``tracks`` of music jobs, or the
        URL of a JSON Lines file with one of them in each line. (templated)
    :param route: how conversions are submitted, ``"wav"`` or ``"jobs"``; default is the connection's ``wav_route``.
    """

    template_fields: Sequence[str] = (
        *("tracks", "manifest", "ledger", "destination", "destination_conn_id", "names", "kie_conn_id"),
    )
    _items_argument = "tracks"

    def __init__(
        self, *, tracks: str | Sequence[Mapping[str, Any]] | XComArg, route: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.tracks: Any = tracks
        self.route = check_route(route)

    @property
    def _kind(self) -> Kind:
        from airflow_provider_kie.batch.items import Tracks

        return Tracks(self.hook.wav_route(self.route), self.route)
