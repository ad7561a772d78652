# SPDX-License-Identifier: Apache-2.0
"""Reads a file of any storage that Airflow supports, to be uploaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_provider_kie.api.call import UploadBody
from airflow_provider_kie.api.fields import check_count
from airflow_provider_kie.exceptions import (
    KieConnectionError,
    KieFileTooLargeError,
    KieValidationError,
)
from airflow_provider_kie.media import ENOUGH, media_of
from airflow_provider_kie.object_paths import object_path, url_of
from airflow_provider_kie.redaction import quoted

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

__all__ = ["body_of"]

#: Bytes that are read and sent at a time.
PIECE = 256 * 1024


def body_of(
    source: object, conn_id: str | None, *, file_name: str | None, upload_path: str, max_bytes: int
) -> UploadBody:
    """
    Read a file once, for its digest, and return it ready to be sent.

    :param source: a URL or a path.
    :param conn_id: the storage's Airflow connection, unless the URL names one.
    :param file_name: how KIE is to call it; by default a name made of its content.
    :param max_bytes: the largest file that is accepted.
    :raises KieValidationError: there is no such file.
    :raises KieFileTooLargeError: it is too large; nothing was sent.
    """
    check_count("max_bytes", max_bytes)
    url = url_of("source", source)
    path = object_path("source", url, conn_id)
    size, start, sha256 = 0, b"", hashlib.sha256()
    try:
        announced = path.stat().st_size
        _check_size(url, announced, max_bytes)
        for piece in _pieces(path):
            size += len(piece)
            _check_size(url, size, max_bytes)
            start = start or piece[:ENOUGH]
            sha256.update(piece)
    except (FileNotFoundError, IsADirectoryError):
        raise KieValidationError(f"source {quoted(url)} does not exist, or is a folder") from None
    if not size:
        raise KieValidationError(f"source {quoted(url)} is empty")
    media = media_of(start, name=path.name)
    digest = sha256.hexdigest()

    def read() -> Iterator[bytes]:
        held, again = b"", hashlib.sha256()
        try:
            for piece in _pieces(path):
                if held:
                    yield held
                held = piece
                again.update(piece)
        except OSError as error:
            problem = f"source {quoted(url)} could not be read while it was sent: {quoted(str(error))}"
            raise KieConnectionError(problem) from error
        if again.hexdigest() != digest:  # the last piece is kept back, so that KIE does not take the file
            raise KieValidationError(f"source {quoted(url)} changed while it was sent")
        yield held

    return UploadBody(
        file_name=file_name or f"{digest[:16]}.{media.extension}",
        upload_path=upload_path,
        size=size,
        sha256=digest,
        media_type=media.media_type,
        read=read,
    )


def _pieces(path: ObjectStoragePath) -> Iterator[bytes]:
    with path.open("rb") as file:  # type: ignore[no-untyped-call]  # Airflow's own
        while piece := file.read(PIECE):
            yield piece


def _check_size(url: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise KieFileTooLargeError(
            f"source {quoted(url)} has {size:,} bytes or more, and not more than {max_bytes:,} are allowed"
        )
