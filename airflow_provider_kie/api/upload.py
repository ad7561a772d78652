# SPDX-License-Identifier: Apache-2.0
"""
Uploads to KIE's file host, which is free: a job can only take files from public links.

The host is another one than the API's, answers in the same envelope, and names the link ``downloadUrl`` (recorded
2026-08-18 and 2026-10-01). KIE's pages say that it deletes uploads after 3 days, and in one place after 24 hours, and
that a file of an equal name replaces the earlier one, perhaps late, because of caches. They name no largest size for a
streamed file.
"""

from __future__ import annotations

from typing import TypedDict

from airflow_provider_kie.api import fields
from airflow_provider_kie.api.call import Call, UploadBody
from airflow_provider_kie.api.envelope import Json
from airflow_provider_kie.exceptions import KieUnreadableAnswerError, KieValidationError
from airflow_provider_kie.redaction import quoted

__all__ = ["LARGEST_UPLOAD", "KieUpload", "upload_file"]

#: What KIE's pages recommend at most for a file that it fetches itself; they name no limit for one that it is sent.
LARGEST_UPLOAD = 100 * 1000**2


class KieUpload(TypedDict):
    """
    An uploaded file.

    ``url``: its link. ``file_name``, ``file_path``: how KIE calls it. ``size``: in bytes. ``sha256``: of its content.
    ``media_type``: what it is. ``uploaded_at``: ISO 8601, or None if KIE does not say.
    """

    url: str
    file_name: str
    file_path: str | None
    size: int
    sha256: str
    media_type: str
    uploaded_at: str | None


def upload_file(body: UploadBody) -> Call[KieUpload]:
    """
    Return the call that uploads a file.

    :raises KieValidationError: a name cannot be sent.
    """
    for name, value in (("file_name", body.file_name), ("upload_path", body.upload_path)):
        if fields.is_blank(value):
            raise fields.pushed_nothing(name)
        if not isinstance(value, str) or not value.isprintable() or {".", ".."} & set(value.split("/")):
            raise KieValidationError(f"{name} is {quoted(value)}, but must be a printable text without '.' and '..'")
    if "/" in body.file_name:
        raise KieValidationError(f"file_name is {quoted(body.file_name)}; its folder goes into upload_path")
    return Call(
        "Uploading the file",
        "POST",
        "/api/file-stream-upload",
        lambda data: _parse(body, data),
        upload=body,
    )


def _parse(body: UploadBody, data: Json) -> KieUpload:
    said = data if isinstance(data, dict) else {}
    url = fields.http_url(said.get("downloadUrl"))
    if url is None:
        raise KieUnreadableAnswerError("KIE took the file but gave no link to it")
    size = said.get("fileSize")
    if fields.whole(size) is not None and fields.whole(size) != body.size:
        raise KieUnreadableAnswerError(f"KIE has {size} bytes of a file of {body.size}")
    return KieUpload(
        url=url,
        file_name=fields.text(said.get("fileName")) or body.file_name,
        file_path=fields.text(said.get("filePath")),
        size=body.size,
        sha256=body.sha256,
        media_type=body.media_type,
        uploaded_at=fields.time(said.get("uploadedAt")),
    )
