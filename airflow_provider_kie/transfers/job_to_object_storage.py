# SPDX-License-Identifier: Apache-2.0
"""Stores all files of a job, complete and checked, in the user's own storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, XComArg

from airflow_provider_kie.api.echo import read_input
from airflow_provider_kie.api.families import JOBS
from airflow_provider_kie.api.fields import check_count, is_blank
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.exceptions import KieDownloadError, KieError, KieValidationError
from airflow_provider_kie.money import digest
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.tasks import as_rendered, which_job
from airflow_provider_kie.transfers.job_files import JobFilesOperator, key_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.api.job import KieFile, KieJob
    from airflow_provider_kie.files.store import Stored
    from airflow_provider_kie.files.template import DestinationTemplate
    from airflow_provider_kie.transfers.notes import Notes

__all__ = ["KieJobToObjectStorageOperator"]


class KieJobToObjectStorageOperator(JobFilesOperator):
    """
    Store the files of a finished job, complete and checked, in any storage that Airflow supports.

    Each file is streamed, resumed after a break, written beside its destination and moved into place once it is
    complete. What a file is, its bytes decide: a web page or an error is refused, whatever its link says; a WAV file is
    also checked to its end. An existing file with the same content is kept. A file that cannot be had does not keep
    the others from being stored; the task then fails and names it, and its next try fetches only what is missing. Does
    not wait for the job.

    Returns the list of destinations, and pushes ``files``, a list of dicts with ``destination``, ``name``, ``index``,
    ``size``, ``sha256``, ``media_type`` and ``already_there``. The same becomes the extra of the events of its
    ``outlets``, if there are any. With ``result_name`` it also pushes ``manifest``, the destination of that file.

    :param kie_task_id: the job: its id at KIE, or the whole :class:`~airflow_provider_kie.api.job.KieJob`, which brings
        its family along. (templated)
    :param family: its family, such as ``music``; default is ``jobs``, KIE's Market. (templated)
    :param destination: an ``ObjectStoragePath`` URL with the fields ``{kie_task_id}``, ``{name}``, ``{index}`` and
        ``{ext}``, such as ``s3://bucket/{kie_task_id}/{name}-{index}.{ext}``. (templated)
    :param names: store only the files of these names, such as ``["vocal"]``; default is all. (templated)
    :param result_name: also store what the job gave besides files, and where the files come from, as JSON under this
        name in the folder that the destinations have in common; may contain ``{kie_task_id}``. (templated)
    :param overwrite: replace files with other content, which are otherwise refused.
    :param destination_conn_id: the storage's Airflow connection; the URL may also name it. (templated)
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param max_bytes: the largest file that is accepted.
    :param max_workers: how many files are fetched at a time.
    """

    template_fields: Sequence[str] = (
        *("kie_task_id", "family", "destination", "names", "result_name", "destination_conn_id", "kie_conn_id"),
    )

    def __init__(
        self,
        *,
        kie_task_id: str | Mapping[str, Any] | XComArg,
        destination: str | XComArg,
        family: str | XComArg = JOBS.name,
        names: Sequence[str] | XComArg | None = None,
        result_name: str | XComArg | None = None,
        overwrite: bool = False,
        destination_conn_id: str | XComArg | None = None,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        max_bytes: int = 4 * 1024**3,
        max_workers: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kie_task_id: Any = kie_task_id
        self.family = as_rendered(family)
        self.destination = as_rendered(destination)
        self.names: Any = names
        self.result_name = as_rendered(result_name)
        self.overwrite = overwrite
        self.destination_conn_id = as_rendered(destination_conn_id)
        self.kie_conn_id = as_rendered(kie_conn_id)
        self.max_bytes = max_bytes
        self.max_workers = max_workers

    def execute(self, context: Context) -> list[str]:
        """
        Store the files and return their destinations.

        :param context: Airflow's context.
        :raises KieError: at least one file is not stored; ``files`` names those that are.
        """
        from airflow_provider_kie.files.store import each
        from airflow_provider_kie.files.template import DestinationTemplate
        from airflow_provider_kie.transfers.notes import Notes

        kie_task_id, row = which_job(self.kie_task_id, self.family)
        template = DestinationTemplate(self.destination, kie_task_id)
        manifest_url = None if is_blank(self.result_name) else template.beside(str(self.result_name))
        job = self._read(row, kie_task_id)
        files = self._choose(job, may_be_none=not is_blank(self.result_name))
        self._check(template, files, manifest_url, context)
        notes = Notes(context, template, self.destination_conn_id, kie_task_id)
        facts = {key_of(file): noted for file in files if (noted := self._noted(notes, file, context))}
        missing = [file for file in files if key_of(file) not in facts]
        failures: list[tuple[KieFile, Exception]] = []
        fetch = partial(self._fetch, row, template, kie_task_id, context)
        for file, end in each(missing, fetch, self.max_workers, self._ending):
            if isinstance(end, Exception):
                self.log.warning("%s is not stored: %s", _label(file), end)
                failures.append((file, end))
                continue
            facts[key_of(file)] = told = _facts(file, end)
            notes.add(told)
            tell = "%s was already there: %s (%s bytes)." if end.already_there else "%s is stored: %s (%s bytes)."
            self.log.info(tell, _label(file), told["destination"], f"{told['size']:,}")
            self._report_lineage(end.link, end.destination)
        stored = [facts[key_of(file)] for file in files if key_of(file) in facts]
        context["ti"].xcom_push(key="files", value=stored)
        if failures:
            failures.sort(key=lambda failure: files.index(failure[0]))
            raise _failure(row, kie_task_id, failures, len(files))
        if manifest_url:
            self._store_manifest(row, job, manifest_url, stored, context)
        notes.close()
        destinations = [told["destination"] for told in stored]
        if len(files) == len(job["files"]):
            self._note_archived(job["family"], kie_task_id, destinations)
        self._update_outlets(context, {"files": stored})
        return destinations

    def _check(
        self, template: DestinationTemplate, files: Sequence[KieFile], manifest_url: str | None, context: Context
    ) -> None:
        """Refuse arguments that cannot work, before anything is fetched."""
        check_count("max_bytes", self.max_bytes)
        check_count("max_workers", self.max_workers)
        template.check(files)
        for url in (*(template.url(file, "bin") for file in files), *filter(None, [manifest_url])):
            self._destination(url, context)

    def _noted(self, notes: Notes, file: KieFile, context: Context) -> dict[str, Any] | None:
        """Return the facts of a file that an earlier try has stored, if it is still there."""
        facts = notes.find(file["name"], file["index"])
        if facts is None or self._destination(facts["destination"], context).size() != facts["size"]:
            return None
        self.log.info("%s was stored by an earlier try: %s.", _label(file), facts["destination"])
        return {**facts, "already_there": True}

    def _store_manifest(
        self, row: Family, job: KieJob, url: str, files: list[dict[str, Any]], context: Context
    ) -> None:
        from airflow_provider_kie.transfers import manifest

        if url in [file["destination"] for file in files]:
            raise KieValidationError(f"result_name leads to {quoted(url)}, where a file of the job is")
        given = self.hook.call(read_input(row, job["kie_task_id"]))
        content = manifest.manifest_of(job, files, None if given is None else digest(given))
        manifest.write(self._destination(url, context), content, overwrite=self.overwrite)
        self.log.info("The manifest is stored: %s.", url)
        context["ti"].xcom_push(key="manifest", value=url)


def _label(file: KieFile) -> str:
    return f"File {file['name']} {file['index']}"


def _facts(file: KieFile, stored: Stored) -> dict[str, Any]:
    got = stored.got
    return {
        "destination": stored.destination.url,
        "name": file["name"],
        "index": file["index"],
        "size": got.size,
        "sha256": got.sha256,
        "media_type": got.media.media_type,
        "already_there": stored.already_there,
    }


def _failure(row: Family, kie_task_id: str, failures: list[tuple[KieFile, Exception]], total: int) -> Exception:
    """Return one error for all files that are not stored, of a class for which Airflow retries, if one of them is."""
    (_, first), *_ = sorted(failures, key=lambda failure: isinstance(failure[1], AirflowFailException))
    if isinstance(first, KieError):
        first.kie_task_id, first.family = first.kie_task_id or kie_task_id, first.family or row.tag
    if total == 1:
        return first
    reasons = (f"{_label(file)}: {error.problem if isinstance(error, KieError) else error}" for file, error in failures)
    missing = ", ".join(f"{file['name']} {file['index']}" for file, _ in failures)
    others = ", the others are" if len(failures) < total else ""
    problem = f"{len(failures)} of {total} files are not stored ({missing}){others}; {'; '.join(reasons)}"
    if isinstance(first, KieError):
        return type(first)(problem, **first.details())
    return KieDownloadError(problem, kie_task_id=kie_task_id, family=row.tag)
