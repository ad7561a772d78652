# SPDX-License-Identifier: Apache-2.0
"""
The destination of one file, in any storage that Airflow supports: all of the file is visible, or nothing.

A file is written beside its destination, under a hidden name that the next try of the same task can derive, and moved
into place when it is complete. It counts as stored when the storage shows all of it under the final name, because some
libraries return before the storage has finished. An existing file is compared while the bytes arrive, without a second
copy.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.exceptions import KieDestinationExistsError, KieDownloadError, KieValidationError
from airflow_provider_kie.object_paths import object_path, url_of
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.times import times

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

__all__ = ["Comparison", "Destination", "DiffersError", "PartFile"]

log = logging.getLogger(__name__)

#: Bytes per part of an upload; 10,000 parts, the most for an object in S3, are 156 GiB.
BLOCK = 16 * 1024 * 1024
#: How many earlier tries are searched for leftovers.
MOST_TRIES = 10
#: Storages whose own move is a rename: one step, whatever the size.
_WITH_RENAME = {"file", "local", "ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs"}
#: Storages with real folders. In the others a missing folder need not be created, and a missing bucket should not be
#: created by accident.
_WITH_FOLDERS = _WITH_RENAME | {"memory"}


class DiffersError(Exception):
    """The file at the destination differs from the download."""


class Destination:
    """
    Where one file is stored.

    :param conn_id: the storage's Airflow connection, unless the URL names one.
    :param owner: identifies the task instance.
    :param attempt: the number of the try; an earlier one may still be running, and must not move this one's file.
    :raises KieValidationError: the URL cannot name a file, or no installed provider supports its scheme.
    """

    def __init__(self, destination: object, conn_id: str | None, owner: str, attempt: int = 1) -> None:
        self.url = url = url_of("destination", destination)
        path = object_path("destination", url, conn_id)
        scheme = url.partition("://")[0] if "://" in url else "file"
        self.fs: Any = path.fs
        self.storage_path = path
        protocol = self.fs.protocol
        # The library for SFTP does not name its protocol.
        self._protocols = {scheme, *((protocol,) if isinstance(protocol, str) else protocol)}
        self.path: str = self.fs._strip_protocol(path.path)  # noqa: SLF001 - fsspec has no other name for it
        self.folder, _, self.name = self.path.rpartition("/")
        mark = hashlib.sha256(f"{owner}\n{self.path}".encode()).hexdigest()[:16]
        self._parts = [f"{self.folder}/.kie-{mark}-{number}.part" for number in range(1, attempt + 1)]
        self.part_path = self._parts[-1]

    def size(self) -> int | None:
        """
        Return the size of the existing file, or None if there is none.

        :raises KieValidationError: it is a folder.
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
        """Remove what killed workers of earlier tries left beside the destination."""
        for path in self._parts[-MOST_TRIES:]:
            self.remove(path)

    def remove(self, path: str, only_if: Callable[[dict[str, Any]], bool] = bool) -> None:
        """
        Remove a file, if it exists; a failure is only a warning, because the stored file is another one.

        :param only_if: a condition on what the storage reports about the file.
        """
        try:
            # Without this check a bucket with versions would record deletions of files that never existed.
            there = self._info(path)
            if there is not None and only_if(there):
                self.fs.rm_file(path)
        except FileNotFoundError:
            pass
        except Exception:
            log.warning("%s may be left in the storage.", path, exc_info=True)

    def open(self, path: str, mode: str) -> Any:
        """Open a file of the storage."""
        try:
            return self.fs.open(path, mode, block_size=BLOCK)
        except FileNotFoundError:
            if mode == "rb" or not self._protocols & _WITH_FOLDERS:
                raise
        self.fs.makedirs(self.folder, exist_ok=True)
        return self.fs.open(path, mode, block_size=BLOCK)

    def replace(self, content: bytes) -> None:
        """Write a small file in one step, as an object storage does anyway, so that a killed worker leaves no half."""
        rename = _own_move(self.fs) if self._protocols & _WITH_RENAME else None
        with self.open(self.part_path if rename else self.path, "wb") as file:
            file.write(content)
        if rename:
            rename(self.part_path, self.path)

    def move(self, size: int, *, overwrite: bool) -> None:
        """
        Move the file that was written beside the destination into place, and wait until the storage shows it.

        :param overwrite: replace another file.
        :raises KieDownloadError: it is not complete; what was moved is removed again.
        :raises KieDestinationExistsError: another file is there.
        """
        written = self._info(self.part_path)
        if _size(written) != size:
            # Also if a second worker runs the same try, because each disturbs the other's file.
            raise KieDownloadError(f"{size:,} bytes were written, but the storage has {_amount(written)}")
        before = self._info(self.path)
        if before is not None and not overwrite:
            raise KieDestinationExistsError(f"During the download another file appeared at {quoted(self.url)}")
        try:
            self._start_move()
            self._wait_until_there(size, before)
        except BaseException:
            self.remove(self.part_path)  # first, so that a copy that is still running loses its source
            # Neither the earlier file, nor one that is complete or that somebody else stored.
            self.remove(self.path, only_if=lambda there: there != before and there["size"] < size)
            raise

    def _start_move(self) -> None:
        """Start the move; a copy may still run when this returns, so the part must stay."""
        if self._protocols & _WITH_RENAME and (rename := _own_move(self.fs)):
            rename(self.part_path, self.path)
            return
        try:
            self.fs.cp_file(self.part_path, self.path)
        except NotImplementedError:  # such as Google's zonal buckets
            self.fs.mv(self.part_path, self.path)

    def _wait_until_there(self, size: int, before: dict[str, Any] | None) -> None:
        """Check until all of the file is under the final name, in place of the earlier one."""
        from tenacity import Retrying, retry_if_result, stop_after_delay, wait_random_exponential

        def missing(there: dict[str, Any] | None) -> bool:
            # If time stamps are coarse, an earlier file may look the same; but a part that is gone has been renamed.
            return _size(there) != size or (there == before and self._info(self.part_path) is not None)

        def give_up(last: RetryCallState) -> None:
            there = last.outcome.result() if last.outcome else None
            old = " of the file that is to be replaced" if before and there == before else ""
            raise KieDownloadError(
                f"{size:,} bytes were written beside {quoted(self.url)} and moved there, but {times().move_within:g} "
                f"seconds later the storage has {_amount(there)}{old}"
            )

        Retrying(
            retry=retry_if_result(missing),
            stop=stop_after_delay(times().move_within),
            wait=wait_random_exponential(multiplier=0.1, max=times().longest_move_look),
            retry_error_callback=give_up,
        )(self._info, self.path)

    def _info(self, path: str) -> dict[str, Any] | None:
        self.fs.invalidate_cache(self.folder)
        try:
            return dict(self.fs.info(path))
        except FileNotFoundError:
            return None


class PartFile:
    """Writes beside the destination, and moves into place what is whole."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._file: Any = None

    def begin(self, size: int | None) -> None:
        """Open a new file."""
        self.close()
        self._file = self._destination.open(self._destination.part_path, "wb")

    def write(self, piece: bytes) -> None:
        """Write the next bytes."""
        self._file.write(piece)

    def finish(self, size: int, *, overwrite: bool) -> bool:
        """
        Move the file into place; return False, as it was not there already.

        :param overwrite: replace another file.
        """
        self._file.close()
        self._file = None  # only after closing, because an upload that fails to close must be discarded
        self._destination.move(size, overwrite=overwrite)
        return False

    def close(self) -> None:
        """Remove what was written and not moved; a failure must not hide the original error."""
        file, self._file = self._file, None
        try:
            if file is not None:
                _abandon(file)
        except Exception:
            log.warning("The upload of %s could not be discarded.", self._destination.part_path, exc_info=True)
        self._destination.remove(self._destination.part_path)


class Comparison:
    """Compares what arrives with the existing file, and stores nothing."""

    def __init__(self, destination: Destination, size: int) -> None:
        self._destination = destination
        self._size = size
        self._compared = 0
        self._file: Any = None

    def begin(self, size: int | None) -> None:
        """
        Compare from the first byte on.

        :param size: bytes of the download, if the host announced them.
        :raises DiffersError: the existing file has another size.
        """
        if size is not None and size != self._size:
            raise DiffersError(f"it has {self._size:,} bytes, not {size:,}")
        self.close()
        self._compared = 0
        self._file = self._destination.open(self._destination.path, "rb")

    def write(self, piece: bytes) -> None:
        """
        Compare the next bytes.

        :raises DiffersError: the existing file differs.
        """
        if self._file.read(len(piece)) != piece:
            raise DiffersError(f"it differs after byte {self._compared:,}")
        self._compared += len(piece)

    def finish(self, size: int, *, overwrite: bool) -> bool:
        """
        Check that the existing file is not longer; return True, as it was there already.

        :param overwrite: not used.
        :raises DiffersError: it is longer.
        """
        if size != self._size:
            raise DiffersError(f"it has {self._size:,} bytes, not {size:,}")
        return True

    def close(self) -> None:
        """Close the existing file."""
        if self._file is not None:
            self._file.close()


def _own_move(fs: Any) -> Any:
    """Return the storage's own move; that of the base class copies, deletes at once, and reads brackets as patterns."""
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]  # fsspec has no types

    is_own = getattr(fs.mv, "__func__", None) is not AbstractFileSystem.mv
    return fs.mv if is_own else getattr(fs, "mv_file", None)  # the latter for local files, with fsspec before 2024.5


def _size(info: dict[str, Any] | None) -> int | None:
    return info["size"] if info else None


def _amount(info: dict[str, Any] | None) -> str:
    return f"{_size(info) or 0:,} bytes" if info else "nothing"


def _abandon(file: Any) -> None:
    """Close a file without finishing its upload, if the storage can do that."""
    from fsspec.spec import AbstractBufferedFile  # type: ignore[import-untyped]  # fsspec has no types

    if isinstance(file, AbstractBufferedFile):
        try:
            file.discard()
        finally:
            file.closed = True  # otherwise its destructor uploads the rest
    else:
        file.close()
