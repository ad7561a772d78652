# SPDX-License-Identifier: Apache-2.0
"""What the operators that store files have in common."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.tasks import KieTask

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.files.download import NewReader
    from airflow_provider_kie.files.host import Link
    from airflow_provider_kie.files.storage import Destination
    from airflow_provider_kie.files.store import Place, Stopped, Stored

__all__ = ["StoringOperator", "owner_and_try"]


#: The threads that fetch files share one hook, whose session is not made for that.
_TURN = threading.Lock()


class StoringOperator(KieTask):
    """Stores files that KIE made."""

    destination: str
    destination_conn_id: str | None
    overwrite: bool
    max_bytes: int
    #: Also follow links and redirects to addresses of the private network.
    allow_private_hosts = False

    @cached_property
    def _ending(self) -> threading.Event:
        return threading.Event()

    def on_kill(self) -> None:
        """Stop what is being fetched, so that nothing half written is left."""
        self._ending.set()

    def _store(
        self,
        first: Link,
        reread: Callable[[], str | None] | None,
        place: Place,
        *,
        new_reader: NewReader | None = None,
        stopped: Stopped | None = None,
    ) -> Stored:
        """
        Store one file.

        :param first: its link.
        :param reread: returns the file's newest link, if KIE still names one; None if KIE has no record of it.
        """
        from airflow_provider_kie.files.host import FileHost
        from airflow_provider_kie.files.reader import MediaReader
        from airflow_provider_kie.files.store import store

        host = FileHost(self.hook.settings, allow_private_hosts=self.allow_private_hosts)
        try:
            return store(
                host,
                lambda: self._links(first, reread),
                place,
                overwrite=self.overwrite,
                max_bytes=self.max_bytes,
                new_reader=new_reader or MediaReader,
                stopped=stopped or self._ending.wait,
            )
        finally:
            host.close()

    def _links(self, first: Link, reread: Callable[[], str | None] | None) -> Iterator[Link]:
        """Yield the file's link; once it has expired, KIE's newest one, then temporary ones of 20 minutes."""
        from airflow_provider_kie.files.host import Link

        yield first
        url = first.url
        with _TURN:
            fresh = reread() if reread else None
        if fresh and fresh != url:
            url = fresh
            yield Link(url, from_kie=True)
        while True:
            try:
                with _TURN:
                    temporary = self.hook.get_download_url(url)
            except KieError as error:
                self.log.warning("KIE gives no fresh link: %s", error)
                return
            yield Link(temporary, from_kie=True)

    # --- The ledger, outlets and lineage

    @contextlib.contextmanager
    def _best_effort(self, what: str) -> Iterator[None]:
        """Turn an error into a warning, because the file is stored."""
        try:
            yield
        except Exception as error:
            self.log.warning("%s could not be reported; the file is stored anyway: %r", what, error)

    def _note_archived(self, family: str, kie_task_id: str, destinations: Sequence[str]) -> None:
        if url := self.hook.settings.ledger:
            with self._best_effort("Where the files are"):
                from airflow_provider_kie.ledger.storage import open_ledger

                open_ledger(url).note_archived(family, kie_task_id, destinations)

    def _update_outlets(self, context: Context, extra: Mapping[str, Any]) -> None:
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


def owner_and_try(context: Context) -> tuple[str, int]:
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
