# SPDX-License-Identifier: Apache-2.0
"""Answers of the two other hosts: the one that takes uploads, and the one that has the files."""

from __future__ import annotations

from typing import Final

from airflow_provider_kie.emulator.media import png_bytes
from airflow_provider_kie.emulator.scripted import (
    HTML_HEADERS,
    JSON_HEADERS,
    PAGE,
    SERVER,
    TEXT_HEADERS,
    Answer,
    as_json,
    says,
)

__all__ = ["FILES", "UPLOADS"]


def _upload(name: str, code: int, msg: str, status: int = 200, *, success: bool = False, **data: object) -> Answer:
    body = {"success": success, "code": code, "msg": msg, **data}
    return Answer(name, 70, "upload", as_json(body), status, JSON_HEADERS)


_UPLOADED: Final = "File uploaded successfully"
_ABOUT: Final = {"success": True, "fileName": "a.png", "filePath": "kieai/1/images/a.png", "fileSize": 70}

#: Of the upload host. KIE's pages have its texts, but do not tell whether an error comes in HTTP 200 as well, as those
#: of the API do.
UPLOADS: Final = (
    _upload("upload-refused", 400, "Missing required parameter: uploadPath"),
    _upload("upload-refused-http", 400, "Missing required parameter: uploadPath", 400),
    _upload("upload-wrong-key", 401, "Authentication failed: Invalid API Key"),
    _upload("upload-wrong-key-http", 401, "Authentication failed: Invalid API Key", 401),
    _upload("upload-server-error", 500, "Internal server error"),
    _upload("upload-server-error-http", 500, "Internal server error", 500),
    _upload("upload-unsuccessful", 200, _UPLOADED, data={**_ABOUT, "downloadUrl": "https://tempfile.example/a.png"}),
    _upload("upload-without-url", 200, _UPLOADED, success=True, data=_ABOUT),
    _upload("upload-null-data", 200, _UPLOADED, success=True, data=None),
    _upload("upload-link-no-url", 200, _UPLOADED, success=True, data={**_ABOUT, "downloadUrl": "s3://kieai/1/a.png"}),
    Answer("upload-too-large", 70, "upload", PAGE.format("413 Request Entity Too Large"), 413, HTML_HEADERS),
    Answer("upload-reset", 70, "upload", "", fault="reset"),
    Answer("upload-kept-then-reset", 70, "upload", "", fault="reset", accepts=True),
)

# What S3 and R2 say about a file that is not there.
_NO_SUCH_KEY: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
)

#: Of the file host.
FILES: Final = (
    Answer("file-forbidden", 45, "file", "error code: 1010", 403, TEXT_HEADERS),
    Answer("file-not-found", 45, "file", "Not Found", 404, TEXT_HEADERS),
    Answer("file-gone", 45, "file", "Gone", 410, TEXT_HEADERS),
    Answer("file-html", 46, "file", PAGE.format("This file has expired"), headers=HTML_HEADERS),
    Answer("file-json-error", 46, "file", says(404, "file does not exist")),
    Answer("file-xml-error", 46, "file", _NO_SUCH_KEY, headers={"content-type": "application/xml", **SERVER}),
    Answer("file-other-media", 46, "file", png_bytes("other"), headers={"content-type": "image/png", **SERVER}),
    Answer("file-empty", 46, "file", "", headers={"content-type": "audio/wav", **SERVER}),
    Answer("file-cut-off", 46, "file", None, fault="truncate"),
    Answer("file-reset", 46, "file", "", fault="reset"),
    Answer("file-server-error", 46, "file", "error code: 520", 520, TEXT_HEADERS),
    Answer("file-redirect-plain", 47, "file", "", 302, {**TEXT_HEADERS, "location": "http://kie.invalid/1.wav"}),
)
