# SPDX-License-Identifier: Apache-2.0
"""What the operators that store files of jobs have in common: which files, from where, and to where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie.api.families import tag_of
from airflow_provider_kie.exceptions import KieError, KieValidationError
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.transfers.storing import StoringOperator, owner_and_try
from airflow_provider_kie.waiting.verdict import finished

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.api.job import KieFile, KieJob
    from airflow_provider_kie.files.storage import Destination
    from airflow_provider_kie.files.store import Stopped, Stored
    from airflow_provider_kie.files.template import DestinationTemplate
    from airflow_provider_kie.media import Media

__all__ = ["JobFilesOperator", "check_names", "key_of"]


class JobFilesOperator(StoringOperator):
    """Stores files of jobs, each at a place that a template gives it."""

    names: Any

    def _read(self, row: Family, kie_task_id: str) -> KieJob:
        return finished(row, kie_task_id, self.hook.poll(row, kie_task_id, retry_reads=True)).job

    def _choose(self, job: KieJob, *, may_be_none: bool = False) -> list[KieFile]:
        """
        Return the files to store.

        :param may_be_none: something else of the job is stored too.
        """
        there = list(dict.fromkeys(file["name"] for file in job["files"]))
        problem = ""
        names = check_names(self.names)
        if wrong := [name for name in names if name not in there]:
            names_there = ", ".join(there) or "none"
            problem = f"names holds {', '.join(map(quoted, wrong))}, but the files of the job are {names_there}"
        elif not there and not may_be_none:
            problem = "The job has no files; its result can be stored by result_name"
        if problem:
            raise KieValidationError(problem, kie_task_id=job["kie_task_id"], family=tag_of(job["family"]))
        return [file for file in job["files"] if not names or file["name"] in names]

    def _destination(self, url: str, context: Context) -> Destination:
        from airflow_provider_kie.files.storage import Destination

        return Destination(url, self.destination_conn_id, *owner_and_try(context))

    def _fetch(
        self,
        row: Family,
        template: DestinationTemplate,
        kie_task_id: str,
        context: Context,
        file: KieFile,
        stopped: Stopped,
    ) -> Stored:
        from airflow_provider_kie.files.host import Link

        def place(media: Media | None) -> Destination | None:
            if media is None and template.has_extension:
                return None
            return self._destination(template.url(file, media.extension if media else ""), context)

        def reread() -> str | None:
            again = self._read(row, kie_task_id)["files"]
            return next((each["url"] for each in again if key_of(each) == key_of(file)), None)

        return self._store(Link(file["url"], from_kie=True), reread, place, stopped=stopped)

    def _store_all(
        self, row: Family, job: KieJob, kept: Sequence[str], destinations: list[str], context: Context
    ) -> None:
        """
        Store the files of a job, one after the other, but for those that are stored already.

        :param kept: where files of the job were stored before, perhaps at other places.
        :param destinations: where each file goes is added here, as soon as it is there.
        :raises KieError: one could not be stored; the others are.
        """
        from airflow_provider_kie.files.template import DestinationTemplate

        template = DestinationTemplate(self.destination, job["kie_task_id"])
        files = self._choose(job)
        template.check(files)
        failures: list[KieError] = []
        for file in files:
            try:
                there = self._stored_before(template, file, kept, context)
                if there is None:
                    stored = self._fetch(row, template, job["kie_task_id"], context, file, self._ending.wait)
                    there = stored.destination.url
                destinations.append(there)
            except KieError as error:
                failures.append(error)
        if failures:
            raise min(failures, key=lambda error: isinstance(error, AirflowFailException))

    def _stored_before(
        self, template: DestinationTemplate, file: KieFile, kept: Sequence[str], context: Context
    ) -> str | None:
        places = (url for url in kept if url == template.url(file, url.rpartition(".")[2]))
        return next((url for url in places if self._destination(url, context).size() is not None), None)


def check_names(given: Any) -> list[Any]:
    """
    Return the names of the files to store; none for all of them.

    :raises KieValidationError: it is no list of names.
    """
    try:
        return [given] if isinstance(given, str) else list(given or ())
    except TypeError:
        raise KieValidationError(f"names is {quoted(given)}, but must be a list of names") from None


def key_of(file: KieFile) -> tuple[str, int]:
    """Return what tells a file from the others of its job."""
    return file["name"], file["index"]
