# SPDX-License-Identifier: Apache-2.0
"""The archive: stores a WAV file from KIE, complete and checked, in the user's own storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_kie.api.fields import check_url, is_blank, pushed_nothing
from airflow_provider_kie.api.wav import as_conversion, check_route, id_in
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.exceptions import KieError, KieValidationError
from airflow_provider_kie.tasks import as_rendered
from airflow_provider_kie.transfers.storing import StoringOperator, owner_and_try
from airflow_provider_kie.waiting.verdict import finished

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.files.store import Stored

__all__ = ["WavToObjectStorageOperator"]

#: The sources of the file, of which exactly one must be given.
_SOURCES = ("kie_task_id", "wav_url")


class WavToObjectStorageOperator(StoringOperator):
    """
    Store the WAV file of a finished conversion, complete and checked, in any storage that Airflow supports.

    The file is streamed, so memory stays flat whatever its size; a transfer that breaks off resumes where it stopped if
    the file host allows it. It is written beside the destination and moved into place once it has proved to be a
    complete WAV file. An existing file with the same content is kept. Does not wait for the conversion.

    Returns the destination, and pushes ``wav_file``: ``size``, ``sha256``, ``channels``, ``sample_rate``, ``bits``,
    ``seconds`` and ``already_there``. The same, with ``destination``, becomes the extra of the events of its
    ``outlets``, if there are any.

    :param kie_task_id: the WAV task: the id that the submit of the conversion returned, not the music task's; or a
        whole :class:`~airflow_provider_kie.api.job.KieJob` or conversion. Either this or ``wav_url``; with this, an
        expired link can be replaced. Of two templates one may render to nothing. (templated)
    :param wav_url: the file's URL; trusted less, see ``allow_private_hosts``. (templated)
    :param destination: an ``ObjectStoragePath`` URL that names a file, such as ``s3://bucket/masters/one.wav``.
        (templated)
    :param overwrite: replace a file with other content, which is otherwise refused.
    :param destination_conn_id: the storage's Airflow connection; the URL may also name it, as in
        ``s3://aws_default@bucket/one.wav``. (templated)
    :param route: how the conversion was submitted, ``"wav"`` or ``"jobs"``. A conversion that is unknown by this route
        is also read by the other one. Default is the connection's ``wav_route``.
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param max_bytes: the largest file that is accepted.
    :param allow_private_hosts: also follow a ``wav_url`` or a redirect to addresses of the private network.
    """

    template_fields: Sequence[str] = ("kie_task_id", "wav_url", "destination", "destination_conn_id", "kie_conn_id")

    def __init__(
        self,
        *,
        destination: str | XComArg,
        kie_task_id: str | XComArg | None = None,
        wav_url: str | XComArg | None = None,
        overwrite: bool = False,
        destination_conn_id: str | XComArg | None = None,
        route: str | None = None,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        max_bytes: int = 4 * 1024**3,
        allow_private_hosts: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.destination = as_rendered(destination)
        self.overwrite = overwrite
        self.destination_conn_id = as_rendered(destination_conn_id)
        self.kie_conn_id = as_rendered(kie_conn_id)
        self.max_bytes = max_bytes
        self.route = check_route(route)
        self.kie_task_id = as_rendered(kie_task_id)
        self.wav_url = as_rendered(wav_url)
        self.allow_private_hosts = allow_private_hosts
        # A template or another task's output may render to None, which is not the same as a missing argument.
        self._given = [name for name in _SOURCES if getattr(self, name) is not None]

    def execute(self, context: Context) -> str:
        """
        Store the file and return its destination.

        :param context: Airflow's context.
        :raises KieError: nothing was stored.
        """
        self._choose_source(context)
        try:
            stored = self._store_wav(context)
        except KieError as error:
            error.kie_task_id = error.kie_task_id or self.kie_task_id
            raise
        got, destination = stored.got, stored.destination
        wav_file = {
            "size": got.size,
            "sha256": got.sha256,
            **{name: getattr(got.header, name) for name in ("channels", "sample_rate", "bits", "seconds")},
            "already_there": stored.already_there,
        }
        tell = "WAV file was already there: %s (%s bytes, sha256 %s)."
        tell = tell if stored.already_there else "WAV file is stored: %s (%s bytes, sha256 %s)."
        self.log.info(tell, destination.url, f"{got.size:,}", got.sha256)
        context["ti"].xcom_push(key="wav_file", value=wav_file)
        if self.kie_task_id is not None:
            self._note_archived(self._family, self.kie_task_id, [destination.url])
        self._update_outlets(context, {"destination": destination.url, **wav_file})
        self._report_lineage(stored.link, destination)
        return destination.url

    def _choose_source(self, context: Context) -> None:
        """Keep the value of one source, and set the other to None."""
        filled = [name for name in _SOURCES if not is_blank(getattr(self, name))]
        if not filled and (passed := self._passed(context)):
            raise pushed_nothing(*passed)
        if len(filled) != 1:
            raise KieValidationError("Exactly one of kie_task_id and wav_url is needed")
        for name in set(_SOURCES) - set(filled):
            setattr(self, name, None)
        if self.kie_task_id is not None:
            self.kie_task_id = id_in(self.kie_task_id)

    def _passed(self, context: Context) -> list[str]:
        """Return which sources the DAG passed, whatever they rendered to."""
        passed = [name for name in _SOURCES if name in self._given or getattr(self, name) is not None]
        # A mapped task is created from its values, so a None may be one of them.
        mapped = getattr(context["ti"], "map_index", None) not in (None, -1)
        return passed or (list(_SOURCES) if mapped else [])

    def _store_wav(self, context: Context) -> Stored:
        from airflow_provider_kie.files.host import Link
        from airflow_provider_kie.files.reader import WavOnlyReader
        from airflow_provider_kie.files.storage import Destination

        destination = Destination(self.destination, self.destination_conn_id, *owner_and_try(context))
        destination.size()  # a folder is refused before anything is read
        if self.wav_url is None:
            first = Link(self._wav_url(), from_kie=True)
            return self._store(first, self._wav_url, lambda _: destination, new_reader=WavOnlyReader)
        first = Link(check_url("wav_url", self.wav_url), from_kie=False)
        return self._store(first, None, lambda _: destination, new_reader=WavOnlyReader)

    def _wav_url(self) -> str:
        kie_task_id: Any = self.kie_task_id  # the hook checks its type too
        row = self.hook.wav_route(self.route)
        end = finished(row, kie_task_id, self.hook.poll(row, kie_task_id, retry_reads=True))
        self._family = end.job["family"]
        return str(as_conversion(end.job)["wav_url"])
