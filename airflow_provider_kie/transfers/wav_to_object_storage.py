# SPDX-License-Identifier: Apache-2.0
"""The archive: stores a WAV file from KIE, complete and checked, in the user's own storage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import BaseOperator, XComArg

from airflow_provider_kie.api.fields import is_blank, pushed_nothing
from airflow_provider_kie.api.wav import as_conversion, check_route, id_in
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.exceptions import (
    KieDestinationExistsError,
    KieError,
    KieLinkExpiredError,
    KieValidationError,
)
from airflow_provider_kie.files.storage import Comparison, Destination, DiffersError
from airflow_provider_kie.links.kie import KieLogsLink
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.tasks import as_rendered, open_hook
from airflow_provider_kie.waiting.verdict import finished

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.files.download import Downloaded
    from airflow_provider_kie.files.host import Link
    from airflow_provider_kie.hooks.kie import KieHook

__all__ = ["WavToObjectStorageOperator"]

#: The sources of the file, of which exactly one must be given.
_SOURCES = ("kie_task_id", "wav_url")


class WavToObjectStorageOperator(BaseOperator):
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
    operator_extra_links = (KieLogsLink(),)

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
        self.route = check_route(route)
        self.kie_task_id = as_rendered(kie_task_id)
        self.wav_url = as_rendered(wav_url)
        self.destination = as_rendered(destination)
        self.overwrite = overwrite
        self.destination_conn_id = as_rendered(destination_conn_id)
        self.kie_conn_id = as_rendered(kie_conn_id)
        self.max_bytes = max_bytes
        self.allow_private_hosts = allow_private_hosts
        # A template or another task's output may render to None, which is not the same as a missing argument.
        self._given = [name for name in _SOURCES if getattr(self, name) is not None]

    @cached_property
    def hook(self) -> KieHook:
        """The hook, created when it is first needed."""
        return open_hook(self.kie_conn_id)

    def execute(self, context: Context) -> str:
        """
        Store the file and return its destination.

        :param context: Airflow's context.
        :raises KieError: nothing was stored.
        """
        self._choose_source(context)
        destination = Destination(self.destination, self.destination_conn_id, *_owner_and_try(context))
        try:
            got, already_there = self._store(destination)
        except KieError as error:
            error.kie_task_id = error.kie_task_id or self.kie_task_id
            raise
        wav_file = {
            "size": got.size,
            "sha256": got.sha256,
            "channels": got.header.channels,
            "sample_rate": got.header.sample_rate,
            "bits": got.header.bits,
            "seconds": got.header.seconds,
            "already_there": already_there,
        }
        tell = "WAV file was already there: %s (%s bytes, sha256 %s)."
        tell = tell if already_there else "WAV file is stored: %s (%s bytes, sha256 %s)."
        self.log.info(tell, destination.url, f"{got.size:,}", got.sha256)
        context["ti"].xcom_push(key="wav_file", value=wav_file)
        self._update_outlets(context, {"destination": destination.url, **wav_file})
        self._report_lineage(self._source, destination)
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

    def _store(self, destination: Destination) -> tuple[Downloaded, bool]:
        """Return the download, and whether it was there already."""
        size_there = destination.size()
        destination.clear()
        if size_there is not None:
            same = self._compare(destination, size_there)
            if same is not None:
                return same, True
        with destination.part() as part:
            got = self._download(destination, part)
            part.publish(got.size, overwrite=self.overwrite)
        return got, False

    def _compare(self, destination: Destination, size_there: int) -> Downloaded | None:
        """Return the download if it equals the existing file, or None if that may be overwritten."""
        try:
            with Comparison(destination, size_there) as comparison:
                got = self._download(destination, comparison)
                comparison.end()
        except DiffersError as differs:
            if not self.overwrite:
                raise KieDestinationExistsError(
                    f"Another file is at {quoted(destination.url)} already, and was left as it is: {differs}"
                ) from None
            self.log.info("Another file at %s is going to be replaced: %s.", destination.url, differs)
            return None
        except KieLinkExpiredError as gone:
            raise KieDestinationExistsError(
                f"A file of {size_there:,} bytes is at {quoted(destination.url)} already, and was left as it is; "
                f"whether it is the same can no longer be checked: {gone.problem}"
            ) from None
        return got

    def _download(self, destination: Destination, sink: Any) -> Downloaded:
        from airflow_provider_kie.files.download import download
        from airflow_provider_kie.files.host import FileHost

        links = _LastSeen(self._links())
        host = FileHost(self.hook.settings, allow_private_hosts=self.allow_private_hosts)
        try:
            got = download(host, links, sink, max_bytes=self.max_bytes)
        finally:
            host.close()
        self._source = links.last
        return got

    def _links(self) -> Iterator[Link]:
        """Yield the file's link; once it has expired, KIE's newest one, then temporary ones of 20 minutes."""
        from airflow_provider_kie.files.host import Link

        if self.wav_url is not None:
            url = self.wav_url
            yield Link(url, from_kie=False)
        else:
            url = self._wav_url()
            yield Link(url, from_kie=True)
            fresh = self._wav_url()
            if fresh != url:
                url = fresh
                yield Link(url, from_kie=True)
        while True:
            try:
                temporary = self.hook.get_download_url(url)
            except KieError as error:
                self.log.warning("KIE gives no fresh link: %s", error)
                return
            yield Link(temporary, from_kie=True)

    def _wav_url(self) -> str:
        kie_task_id: Any = self.kie_task_id  # the hook checks its type too
        row = self.hook.wav_route(self.route)
        end = finished(row, kie_task_id, self.hook.poll(row, kie_task_id, retry_reads=True))
        return str(as_conversion(end.job)["wav_url"])

    # --- Outlets and lineage

    @contextlib.contextmanager
    def _best_effort(self, what: str) -> Iterator[None]:
        """Turn an error into a warning, because the file is stored."""
        try:
            yield
        except Exception as error:
            self.log.warning("%s could not be reported; the file is stored anyway: %r", what, error)

    def _update_outlets(self, context: Context, extra: dict[str, Any]) -> None:
        events: Any = context.get("outlet_events")
        for outlet in self.outlets if events is not None else ():
            if hasattr(outlet, "uri"):
                with self._best_effort(f"The extra of outlet {quoted(outlet.uri)}"):
                    events[outlet].extra.update(extra)

    def _report_lineage(self, link: Link, destination: Destination) -> None:
        with self._best_effort("The lineage"):
            from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

            collector: Any = get_hook_lineage_collector()  # type: ignore[no-untyped-call]  # Airflow's own
            with self._best_effort("Where the file came from"):
                source = urlsplit(link.url)._replace(query="", fragment="").geturl()
                collector.add_input_asset(context=self.hook, uri=source)
            with self._best_effort("Where the file went"):
                collector.add_output_asset(context=destination.storage_path, uri=_asset_uri(destination.url))


class _LastSeen(Iterator["Link"]):
    """An iterator over links that remembers the last one."""

    def __init__(self, links: Iterator[Link]) -> None:
        self._links = links
        self.last: Link

    def __next__(self) -> Link:
        self.last = next(self._links)
        return self.last


def _owner_and_try(context: Context) -> tuple[str, int]:
    """Return what identifies the task instance in each of its tries, and the number of this try."""
    ti = context.get("ti")
    owner = "\n".join(str(getattr(ti, name, "")) for name in ("dag_id", "run_id", "task_id", "map_index"))
    return owner, max(1, getattr(ti, "try_number", None) or 1)


def _asset_uri(destination: str) -> str:
    """Return a destination as an asset's URI: without a connection id, and with a scheme also for a local path."""
    parts = urlsplit(destination)
    if not parts.scheme:
        return f"file://{destination}"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
