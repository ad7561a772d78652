# SPDX-License-Identifier: Apache-2.0
"""The manifest of a job: where its files come from, and what it gave besides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.exceptions import KieDestinationExistsError
from airflow_provider_kie.files.storage import Destination, PartFile
from airflow_provider_kie.redaction import quoted, values_without_queries

if TYPE_CHECKING:
    from airflow_provider_kie.api.job import KieJob

__all__ = ["OF_A_FILE", "manifest_of", "write"]

#: The facts of a job that become part of its manifest.
_FACTS = ("family", "model", "kie_task_id", "status", "credits", "create_time", "complete_time", "result", "tracks")
#: The facts of a stored file that do not change from try to try.
OF_A_FILE = ("destination", "name", "index", "size", "sha256", "media_type")


def manifest_of(job: KieJob, files: Sequence[Mapping[str, Any]], input_sha256: str | None) -> dict[str, Any]:
    """
    Return the manifest of a job, in JSON values.

    :param files: the facts of its stored files.
    :param input_sha256: the digest of its input, if it is known.
    """
    known: Mapping[str, Any] = {**job}
    facts = {name: values_without_queries(known[name]) for name in _FACTS}
    stored = [{name: file[name] for name in OF_A_FILE} for file in files]
    return {"schema": 1, **facts, "input_sha256": input_sha256, "files": stored}


def write(destination: Destination, manifest: Mapping[str, Any], *, overwrite: bool) -> None:
    """
    Store a manifest, in place of an earlier one of the same job; an equal one is left alone.

    :raises KieDestinationExistsError: another file is there.
    """
    content = json.dumps(manifest, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
    size = destination.size()
    destination.clear()
    if size is not None and (size == len(content) or not overwrite):
        with destination.open(destination.path, "rb") as file:
            found = file.read()
        if found == content:
            return
        if not overwrite and not _is_about(found, manifest["kie_task_id"]):
            url = quoted(destination.url)
            raise KieDestinationExistsError(f"Another file is at {url} already, and was left as it is")
    part = PartFile(destination)
    try:
        part.begin(len(content))
        part.write(content)
        part.finish(len(content), overwrite=True)
    finally:
        part.close()


def _is_about(content: bytes, kie_task_id: str) -> bool:
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("kie_task_id") == kie_task_id
