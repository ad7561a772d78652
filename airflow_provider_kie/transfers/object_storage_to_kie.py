# SPDX-License-Identifier: Apache-2.0
"""Uploads a file of the user's own storage to KIE, for a job that needs it at a public link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_kie.api.fields import is_blank
from airflow_provider_kie.api.upload import LARGEST_UPLOAD, upload_file
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.tasks import KieTask, as_rendered

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = ["ObjectStorageToKieOperator"]


class ObjectStorageToKieOperator(KieTask):
    """
    Upload a file of any storage that Airflow supports to KIE's file host, which is free.

    Jobs take files from public links only. The file is streamed, so memory stays flat whatever its size. KIE deletes
    it after one to three days, so put this task right before the job.

    Returns the link, and pushes ``kie_file``: a dict with ``url``, ``file_name``, ``file_path``, ``size``, ``sha256``,
    ``media_type`` and ``uploaded_at``.

    :param source: an ``ObjectStoragePath`` URL, such as ``s3://bucket/cat.png``. (templated)
    :param source_conn_id: the storage's Airflow connection; the URL may also name it. (templated)
    :param upload_path: the folder at KIE. (templated)
    :param file_name: the name at KIE; an equal one replaces the earlier file. By default it is made of the content, so
        that equal content has an equal link. (templated)
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param max_bytes: the largest file that is accepted; default is 100 MB, see the docs.
    """

    template_fields: Sequence[str] = ("source", "source_conn_id", "upload_path", "file_name", "kie_conn_id")

    def __init__(
        self,
        *,
        source: str | XComArg,
        source_conn_id: str | XComArg | None = None,
        upload_path: str | XComArg = "airflow",
        file_name: str | XComArg | None = None,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        max_bytes: int = LARGEST_UPLOAD,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = as_rendered(source)
        self.source_conn_id = as_rendered(source_conn_id)
        self.upload_path = as_rendered(upload_path)
        self.file_name = as_rendered(file_name)
        self.kie_conn_id = as_rendered(kie_conn_id)
        self.max_bytes = max_bytes

    def execute(self, context: Context) -> str:
        """
        Upload the file and return its link.

        :param context: Airflow's context.
        :raises KieError: it is not uploaded.
        """
        from airflow_provider_kie.hooks.source import body_of

        body = body_of(
            self.source,
            self.source_conn_id,
            file_name=None if is_blank(self.file_name) else str(self.file_name),  # a native template makes numbers
            upload_path=str(self.upload_path),
            max_bytes=self.max_bytes,
        )
        self.log.info("Uploading %s (%s bytes) as %s.", quoted(str(self.source)), f"{body.size:,}", body.file_name)
        uploaded = self.hook.call(upload_file(body))
        context["ti"].xcom_push(key="kie_file", value=uploaded)
        return uploaded["url"]
