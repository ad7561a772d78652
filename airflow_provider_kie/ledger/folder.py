# SPDX-License-Identifier: Apache-2.0
"""
The files of a ledger in a storage: created once, read, listed.

What the storages do unasked is known here and nowhere else. Their libraries keep listings for ever, so that also
reading says "not found" for a newer file. s3fs understands only Amazon's own wording of a refused create, and writes an
empty file without the condition. On a local disk a name would be seen before its content, and a killed process would
leave an empty file for ever; so there a file is written aside, and linked to its name once it is whole.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from airflow_provider_kie.api.fields import is_blank, pushed_nothing
from airflow_provider_kie.exceptions import KieLedgerError
from airflow_provider_kie.object_paths import object_path
from airflow_provider_kie.redaction import quoted

__all__ = ["Folder"]

#: Storages whose create is refused, in one step, if the file exists; a probe cannot see the difference.
EXCLUSIVE: Final = frozenset({"file", "local", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_LOCAL: Final = frozenset({"file", "local"})
#: Where files are written before they get their name.
_ASIDE: Final = ".written"
#: Their names: of this machine and process, and numbered.
_MARK: Final = secrets.token_hex(8)
_NUMBERS: Final = itertools.count()
#: What a local file system says that has no links.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
#: A create that raises one of these has certainly written nothing: no access, no bucket, a library without the mode.
_NOT_WRITTEN: Final = (FileNotFoundError, PermissionError, NotImplementedError, TypeError, ValueError)


class Folder:
    """
    A folder in a storage that can refuse a second create.

    :param url: the URL or path of the folder.
    :param conn_id: the storage's Airflow connection, unless the URL names one.
    :raises KieLedgerError: the storage is not one of those whose create is exclusive.
    :raises KieValidationError: no installed provider supports its scheme.
    """

    def __init__(self, url: object, conn_id: str | None = None) -> None:
        if is_blank(url):
            raise pushed_nothing("ledger")
        self.url = str(url).rstrip("/")
        self.protocol = self.url.partition("://")[0] if "://" in self.url else "file"
        if self.protocol not in EXCLUSIVE:
            raise KieLedgerError(
                f"Storage {quoted(self.protocol)} of ledger {quoted(self.url)} cannot refuse to create a file twice; "
                "use local files, S3, Google Cloud Storage or Azure"
            )
        path = object_path("ledger", self.url, conn_id)
        self.fs: Any = path.fs
        self.path: str = self.fs._strip_protocol(path.path).rstrip("/")  # noqa: SLF001 - fsspec has no other name for it
        self.is_local = self.protocol in _LOCAL

    def create(self, name: str, body: Mapping[str, Any]) -> bool | None:
        """
        Write a file that must not exist.

        :param name: relative to the folder.
        :return: False if it exists, None if nobody knows.
        :raises KieLedgerError: it is certainly not written.
        """
        content = json.dumps(body).encode()
        try:
            self._write_new(f"{self.path}/{name}", content)
        except Exception as error:
            self.forget_listing(name)
            if isinstance(error, FileNotFoundError) and self.is_local:
                return None  # the folder was pruned meanwhile
            if isinstance(error, _NOT_WRITTEN):
                raise self.unusable(error) from error
            answer = getattr(error.__cause__, "response", None) or {}
            refused = isinstance(error, FileExistsError) or answer.get("Error", {}).get("Code") == "PreconditionFailed"
            return False if refused else None  # a time-out, 5xx, or S3's 409 for two creates at once
        return True

    def _write_new(self, path: str, content: bytes) -> None:
        write = self._link_new if self.is_local else self._open_new
        try:
            write(path, content)
        except FileNotFoundError:
            if not self.is_local:  # where a missing folder is nothing, and a missing bucket must not be made
                raise
            self._make_folder(path.rpartition("/")[0])
            write(path, content)

    def _open_new(self, path: str, content: bytes) -> None:
        with self.fs.open(path, "xb") as file:
            file.write(content)

    def _link_new(self, path: str, content: bytes) -> None:
        part = Path(self.path, _ASIDE, f"{_MARK}-{os.getpid()}-{next(_NUMBERS)}")
        try:
            self._write_aside(part, content)
            os.link(part, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._open_new(path, content)
        finally:
            part.unlink(missing_ok=True)

    def _write_aside(self, part: Path, content: bytes) -> None:
        try:
            part.write_bytes(content)
        except FileNotFoundError:
            self._make_folder(str(part.parent))
            part.write_bytes(content)

    def _make_folder(self, path: str) -> None:
        parts = path.removeprefix(self.path).strip("/").split("/")
        for depth in range(len(parts)):  # not the ledger's own folder, which may be a disk that is not mounted
            with suppress(FileExistsError):
                self.fs.mkdir("/".join([self.path, *parts[: depth + 1]]), create_parents=False)

    def read(self, name: str) -> dict[str, Any] | None:
        """
        Return the content of a file; None if it is missing, damaged, or not written to its end yet.

        :raises KieLedgerError: the storage cannot be read.
        """
        try:
            # From the first byte on: reading without a start, s3fs asks for the size before.
            content = json.loads(self.fs.cat_file(f"{self.path}/{name}", start=0))
        except (FileNotFoundError, ValueError):
            return None
        except Exception as error:
            raise self.unusable(error) from error
        return content if isinstance(content, dict) else None

    def names(self, folder: str = "") -> list[str]:
        """
        Return the names in a folder, as they are now.

        :raises KieLedgerError: the storage cannot be read.
        """
        path = f"{self.path}/{folder}".rstrip("/")
        self.fs.invalidate_cache(path)
        try:
            return [each.rstrip("/").rpartition("/")[2] for each in self.fs.ls(path, detail=False)]
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self.unusable(error) from error

    def below(self, folder: str) -> list[str]:
        """
        Return the files at any depth of a folder, relative to this one, with few requests.

        :raises KieLedgerError: the storage cannot be read.
        """
        self.fs.invalidate_cache(f"{self.path}/{folder}")
        try:
            return [each.removeprefix(f"{self.path}/") for each in self.fs.find(f"{self.path}/{folder}")]
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self.unusable(error) from error

    def forget_listing(self, name: str) -> None:
        """Let the next read of a file ask the storage."""
        self.fs.invalidate_cache(f"{self.path}/{name}".rpartition("/")[0])

    def remove(self, name: str) -> None:
        """
        Delete a file, if it exists.

        :raises KieLedgerError: the storage refuses that.
        """
        try:
            self.fs.rm_file(f"{self.path}/{name}")
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self.unusable(error) from error

    def unusable(self, error: Exception) -> KieLedgerError:
        """Return the error for a storage that cannot be used."""
        return KieLedgerError(f"Ledger {quoted(self.url)} cannot be used: {type(error).__name__}: {error}")
