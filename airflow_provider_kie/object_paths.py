# SPDX-License-Identifier: Apache-2.0
"""URLs and paths of files in any storage that Airflow supports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_provider_kie.api.fields import is_blank, pushed_nothing
from airflow_provider_kie.exceptions import KieValidationError
from airflow_provider_kie.redaction import quoted

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

__all__ = ["object_path", "url_of"]


def url_of(field: str, given: object) -> str:
    """
    Return the URL or path of a file as text.

    :raises KieValidationError: it is neither, empty, or names a folder.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    if is_blank(given):
        raise pushed_nothing(field)
    if not isinstance(given, (str, os.PathLike, ObjectStoragePath)):
        raise KieValidationError(f"{field} is a {type(given).__name__}, but must be a URL or a path")
    url = str(given)
    if url.endswith(("/", "\\")) or url.rpartition("/")[2] in (".", ".."):
        raise KieValidationError(f"{field} {quoted(url)} names a folder; add the name of the file")
    return url


def object_path(field: str, url: str, conn_id: str | None) -> ObjectStoragePath:
    """
    Return the path that a URL stands for, with its storage ready for use.

    :param conn_id: the storage's Airflow connection, unless the URL names one.
    :raises KieValidationError: no installed provider supports its scheme.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    scheme = url.partition("://")[0] if "://" in url else "file"
    try:
        path = ObjectStoragePath(url, **({} if is_blank(conn_id) else {"conn_id": conn_id}))
        _ = path.fs
    except (ValueError, ImportError) as error:
        raise KieValidationError(
            f"{field} {quoted(url)} cannot be used: {error}. Storage {quoted(scheme)} needs its "
            "Airflow provider, for S3 apache-airflow-providers-amazon[s3fs]"
        ) from error
    return path
