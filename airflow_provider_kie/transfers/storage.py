# SPDX-License-Identifier: Apache-2.0
"""
A place for one file in any storage that Airflow knows, which shows the whole file or nothing.

A file is written beside its destination, under a hidden name that the next try of the same task knows, and moved into
place when all of it has come. What is there already is compared while the bytes come in, without a second copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_kie.exceptions import KieDestinationExistsError, KieDownloadError, KieValidationError
from airflow_provider_kie.redaction import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Comparison", "DiffersError", "Part", "Place", "asset_uri"]

log = logging.getLogger(__name__)

#: Bytes that an object storage takes at a time; 10,000 of them, the most that S3 takes for an object, are 160 GiB.
BLOCK = 16 * 1024 * 1024
#: Tries back to which a part is looked for.
MOST_TRIES = 10
#: Storages with real folders. In the others a folder that is missing needs no making, and a bucket that is missing
#: should not be made by accident.
_WITH_FOLDERS = {"file", "local", "memory", "ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs"}


def asset_uri(destination: str) -> str:
    """
    Return a destination as an asset's URI: without a connection id, and with a scheme also for a local path.

    :param destination: an ``ObjectStoragePath`` URL.
    """
    parts = urlsplit(destination)
    if not parts.scheme:
        return f"file://{destination}"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class DiffersError(Exception):
    """What is at the destination is not the file that comes."""


class Place:
    """
    Where one file goes.

    :param destination: an ``ObjectStoragePath`` URL.
    :param conn_id: the storage's Airflow connection, unless the URL names one.
    :param owner: what tells this task instance from others.
    :param attempt: the number of the try; an earlier one may still live, and must not move this one's file.
    :raises KieValidationError: the URL can not name a file, or no installed provider knows its scheme.
    """

    def __init__(self, destination: object, conn_id: str | None, owner: str, attempt: int = 1) -> None:
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        if destination is None or str(destination).strip() in ("", "None"):
            raise KieValidationError("destination is empty; the task that should provide it pushed nothing")
        if not isinstance(destination, (str, os.PathLike, ObjectStoragePath)):
            raise KieValidationError(f"destination is a {type(destination).__name__}, but must be a URL or a path")
        destination = str(destination)
        if destination.endswith(("/", "\\")) or destination.rpartition("/")[2] in (".", ".."):
            raise KieValidationError(f"destination {quoted(destination)} names a folder; add the name of the file")
        self.url = destination
        try:
            path = ObjectStoragePath(destination, **({"conn_id": conn_id} if conn_id else {}))
            self.fs: Any = path.fs
        except (ValueError, ImportError) as error:
            scheme = urlsplit(destination).scheme or "file"
            raise KieValidationError(
                f"destination {quoted(destination)} can not be used: {error}. Storage {quoted(scheme)} needs its "
                "Airflow provider, for S3 apache-airflow-providers-amazon[s3fs]"
            ) from error
        self.storage_path = path
        self.path: str = self.fs._strip_protocol(path.path)  # noqa: SLF001 - what all of fsspec calls it
        self.folder, _, self.name = self.path.rpartition("/")
        mark = hashlib.sha256(f"{owner}\n{self.path}".encode()).hexdigest()[:16]
        self._parts = [f"{self.folder}/.kie-{mark}-{number}.part" for number in range(1, attempt + 1)]
        self.part_path = self._parts[-1]

    def size(self) -> int | None:
        """
        Return the bytes of what is there, or None if nothing is.

        :raises KieValidationError: a folder is there.
        """
        if not self.name:
            raise KieValidationError(f"destination {quoted(self.url)} names a folder; add the name of the file")
        info = self._info(self.path)
        if info is None:
            return None
        if info.get("type") == "directory":
            raise KieValidationError(f"destination {quoted(self.url)} is a folder; add the name of the file")
        return int(info["size"])

    def clear(self) -> None:
        """Remove what earlier tries left beside the destination, if a killed worker left something."""
        for path in self._parts[-MOST_TRIES:]:
            self.remove(path)

    def remove(self, path: str) -> None:
        """
        Remove a file, if it is there.

        :param path: its path.
        """
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(path)

    @contextlib.contextmanager
    def part(self) -> Iterator[Part]:
        """Hold a file beside the destination; whatever happens, it is gone afterwards."""
        part = Part(self)
        try:
            yield part
        finally:
            part.discard()

    def open(self, path: str, mode: str) -> Any:
        """
        Open a file of the storage.

        :param path: its path.
        :param mode: ``rb`` or ``wb``.
        """
        try:
            return self.fs.open(path, mode, block_size=BLOCK)
        except FileNotFoundError:
            if mode == "rb" or not self._has_folders():
                raise
        self.fs.makedirs(self.folder, exist_ok=True)
        return self.fs.open(path, mode, block_size=BLOCK)

    def move(self, size: int, *, overwrite: bool) -> None:
        """
        Show the file that was written beside the destination.

        :param size: bytes that were written.
        :param overwrite: also in place of something else.
        """
        info = self._info(self.part_path)
        if info is None or int(info["size"]) != size:
            # Also what a second worker does that runs the same try: each would disturb the other's file.
            there = "nothing" if info is None else f"{int(info['size']):,} bytes"
            raise KieDownloadError(f"{size:,} bytes were written, but the storage has {there}")
        if not overwrite and self._info(self.path) is not None:
            raise KieDestinationExistsError(f"While the file came, something else appeared at {quoted(self.url)}")
        if _has_own_move(self.fs):
            self.fs.mv(self.part_path, self.path)
        else:  # the base class's mv takes brackets in names for patterns
            self.fs.cp_file(self.part_path, self.path)
            self.fs.rm_file(self.part_path)

    def _info(self, path: str) -> dict[str, Any] | None:
        self.fs.invalidate_cache(self.folder)
        try:
            info: dict[str, Any] = self.fs.info(path)
        except FileNotFoundError:
            return None
        return info

    def _has_folders(self) -> bool:
        protocol = self.fs.protocol
        return bool(_WITH_FOLDERS & set((protocol,) if isinstance(protocol, str) else protocol))


class Part:
    """
    A sink beside the destination.

    :param place: the destination.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._file: Any = None

    def begin(self, size: int | None) -> None:
        """
        Take the file from its first byte on.

        :param size: not used.
        """
        self.discard()
        self._file = self._place.open(self._place.part_path, "wb")

    def write(self, piece: bytes) -> None:
        """
        Take the next bytes.

        :param piece: the bytes.
        """
        self._file.write(piece)

    def publish(self, size: int, *, overwrite: bool) -> None:
        """
        Move the file into place.

        :param size: bytes that were written.
        :param overwrite: also in place of something else.
        """
        self._file.close()
        self._file = None  # not before it is closed: an upload that can not be ended is given up instead
        self._place.move(size, overwrite=overwrite)

    def discard(self) -> None:
        """Remove what was written; trouble with that must not hide why."""
        file, self._file = self._file, None
        try:
            if file is not None:
                _abandon(file)
            self._place.remove(self._place.part_path)
        except Exception:
            log.warning("%s may be left in the storage.", self._place.part_path, exc_info=True)


class Comparison:
    """
    A sink that compares what comes with what is at the destination, and keeps nothing.

    :param place: the destination.
    :param size: bytes of what is there.
    """

    def __init__(self, place: Place, size: int) -> None:
        self._place = place
        self._size = size
        self._compared = 0
        self._file: Any = None

    def __enter__(self) -> Comparison:
        """Open the file when the first bytes come, not before."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def begin(self, size: int | None) -> None:
        """
        Compare from the first byte on.

        :param size: bytes of the file that comes, where the host said it.
        :raises DiffersError: not those of the one that is there.
        """
        if size is not None and size != self._size:
            raise DiffersError(f"it has {self._size:,} bytes, not {size:,}")
        self.__exit__()
        self._compared = 0
        self._file = self._place.open(self._place.path, "rb")

    def write(self, piece: bytes) -> None:
        """
        Compare the next bytes.

        :param piece: the bytes.
        :raises DiffersError: others are there.
        """
        if self._file.read(len(piece)) != piece:
            raise DiffersError(f"it differs after byte {self._compared:,}")
        self._compared += len(piece)

    def end(self) -> None:
        """
        Check that no more is there than came.

        :raises DiffersError: there is more.
        """
        if self._compared != self._size:
            raise DiffersError(f"it has {self._size:,} bytes, not {self._compared:,}")


def _has_own_move(fs: Any) -> bool:
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]  # fsspec has no types

    return type(fs).mv is not AbstractFileSystem.mv


def _abandon(file: Any) -> None:
    """Close a file without finishing its upload where the storage can do so."""
    from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]  # fsspec has no types

    if isinstance(file, AbstractBufferedFile):
        try:
            file.discard()
        finally:
            file.closed = True  # else its destructor uploads what is left of it
    else:
        file.close()
