# SPDX-License-Identifier: Apache-2.0
"""The upload host: takes a file as a form, answers with an envelope of its own, and serves the file for anyone."""

from __future__ import annotations

import mimetypes
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

# Starlette needs it for forms, and would only say so when the first one comes.
import python_multipart  # noqa: F401
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from airflow_provider_kie.emulator.envelope import Envelope
from airflow_provider_kie.emulator.files import File
from airflow_provider_kie.emulator.media import KINDS
from airflow_provider_kie.emulator.traffic import Json

__all__ = [
    "MOST_BYTES",
    "MOST_FILES",
    "UPLOADED",
    "UPLOAD_METHOD_NOT_ALLOWED",
    "UPLOAD_NO_PERMISSION",
    "UPLOAD_PATH",
    "UploadEnvelope",
    "UploadForm",
    "Uploads",
    "read_form",
]

UPLOAD_PATH: Final = "/api/file-stream-upload"
#: Where uploaded files are served.
UPLOADED: Final = "/u/"
#: How much is kept; the oldest files go first, the newest stays whatever its size.
MOST_FILES: Final = 64
MOST_BYTES: Final = 256 * 1024 * 1024

# KIE puts the number of the account in front of the path (recorded).
_ACCOUNT: Final = "kieai/1"


@dataclass(frozen=True, slots=True)
class UploadEnvelope(Envelope):
    """The upload host's envelope: with ``success``, and without ``data`` in an error; texts from KIE's page."""

    @property
    def http_status(self) -> int:
        """An error has its number as HTTP status (so KIE's page; never recorded)."""
        return self.code

    def body(self) -> Json:
        """The JSON body."""
        success = self.code == 200
        data = {"data": self.data} if success else {}
        return {"success": success, "code": self.code, "msg": self.msg, **data}


UPLOAD_NO_PERMISSION: Final = UploadEnvelope(401, "Authentication failed: Invalid API Key")
UPLOAD_METHOD_NOT_ALLOWED: Final = UploadEnvelope(405, "Method Not Allowed")


@dataclass(frozen=True, slots=True)
class UploadForm:
    """An upload's fields."""

    file_name: str = ""
    upload_path: str = ""
    file: File | None = None

    def facts(self) -> Json:
        """What the log tells about it; not the content."""
        size, sha256 = (len(self.file.content), self.file.sha256) if self.file else (None, None)
        return {"fileName": self.file_name, "uploadPath": self.upload_path, "size": size, "sha256": sha256}


async def read_form(request: Request) -> UploadForm:
    """The form of a request; an empty one if it cannot be read."""
    try:
        async with request.form() as form:
            return await _parsed(form)
    except (HTTPException, MultiPartException):
        return UploadForm()


async def _parsed(form: FormData) -> UploadForm:
    sent, file_name, upload_path = form.get("file"), form.get("fileName"), form.get("uploadPath")
    name = file_name if isinstance(file_name, str) else ""
    file = None
    if isinstance(sent, UploadFile):
        # KIE makes up a name where none is asked for; the extension stays, because it tells the media type.
        name = name or secrets.token_hex(8) + PurePosixPath(sent.filename or "").suffix
        file = File.of(await sent.read(), _media_type(name))
    return UploadForm(name, upload_path if isinstance(upload_path, str) else "", file)


def _media_type(name: str) -> str:
    kind = KINDS.get(name.rpartition(".")[2].lower())
    return kind.media_type if kind else mimetypes.guess_type(name)[0] or "application/octet-stream"


class Uploads:
    """The uploaded files, by their path. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, File] = {}

    def keep(self, form: UploadForm, base_url: str, now: float) -> UploadEnvelope:
        """
        Keep a file, instead of an earlier one of the same path and name.

        :param base_url: where it will be served
        :param now: seconds since the epoch
        """
        if form.file is None:
            return _missing("file")
        if not form.upload_path.strip("/ "):
            return _missing("uploadPath")
        path = "/".join((_ACCOUNT, *_steps(form.upload_path), *_steps(form.file_name)))
        with self._lock:
            self._files.pop(path, None)
            self._files[path] = form.file
            self._drop_oldest()
        data = {
            "success": True,
            "fileName": form.file_name,
            "filePath": path,
            "downloadUrl": base_url + UPLOADED + quote(path),
            "fileSize": len(form.file.content),
            "mimeType": form.file.media_type,
            "uploadedAt": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        return UploadEnvelope(msg="File uploaded successfully", data=data)

    def find(self, path: str) -> File | None:
        """The file at the path of its link."""
        return self._files.get(path.removeprefix(UPLOADED))

    def _drop_oldest(self) -> None:
        size = sum(len(file.content) for file in self._files.values())
        while len(self._files) > 1 and (len(self._files) > MOST_FILES or size > MOST_BYTES):
            size -= len(self._files.pop(next(iter(self._files))).content)


def _missing(name: str) -> UploadEnvelope:
    return UploadEnvelope(400, f"Missing required parameter: {name}")


def _steps(path: str) -> list[str]:
    """The parts of a path that a client does not take out of a URL."""
    return [step for step in path.split("/") if step not in ("", ".", "..")]
