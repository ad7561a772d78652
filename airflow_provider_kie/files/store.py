# SPDX-License-Identifier: Apache-2.0
"""Stores one file: downloads it to its destination, or finds that it is there already."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple, TypeAlias, TypeVar

from airflow_provider_kie.exceptions import KieDestinationExistsError, KieLinkExpiredError
from airflow_provider_kie.files.download import Downloaded, NewReader, download
from airflow_provider_kie.files.host import FileHost, Link
from airflow_provider_kie.files.reader import MediaReader
from airflow_provider_kie.files.storage import Comparison, Destination, DiffersError, PartFile
from airflow_provider_kie.media import Media
from airflow_provider_kie.redaction import quoted

__all__ = ["Place", "Stopped", "StoppedError", "Stored", "each", "store"]

log = logging.getLogger(__name__)

#: Returns where a file goes; asked with None before the download, when it returns None if that depends on the media.
Place: TypeAlias = Callable[["Media | None"], "Destination | None"]

#: Waits so many seconds at most, and returns whether to give up, because the task ends.
Stopped: TypeAlias = Callable[[float], bool]

T = TypeVar("T")


class StoppedError(Exception):
    """The task ends, so the transfer does too."""


class Stored(NamedTuple):
    """
    A file that is at its destination.

    :param destination: where.
    :param got: what came.
    :param already_there: whether it was there before.
    :param link: where it came from.
    """

    destination: Destination
    got: Downloaded
    already_there: bool
    link: Link


def store(
    host: FileHost,
    links: Callable[[], Iterator[Link]],
    place: Place,
    *,
    overwrite: bool,
    max_bytes: int,
    new_reader: NewReader = MediaReader,
    stopped: Stopped | None = None,
) -> Stored:
    """
    Store a file, whole or not at all.

    :param links: starts again with the file's link, and goes on with fresh ones as long as there are any.
    :param overwrite: replace another file.
    :param stopped: by default never.
    :raises KieError: it is not stored.
    """

    def arrive(*, replace: bool = False, again: bool = False) -> Stored:
        arrival = _Arrival(place, stopped or threading.Event().wait, replace=replace)
        seen = _LastSeen(links())
        try:
            if known := place(None):
                arrival.choose(known)
            got = download(host, seen, arrival, max_bytes=max_bytes, new_reader=new_reader)
            return Stored(arrival.destination, got, arrival.finish(got.size, overwrite=overwrite), seen.last)
        except KieLinkExpiredError as gone:
            if arrival.size_there is None:
                raise
            raise KieDestinationExistsError(
                f"A file of {arrival.size_there:,} bytes is at {quoted(arrival.destination.url)} already, and was left "
                f"as it is; whether it is the same can no longer be checked: {gone.problem}"
            ) from None
        except DiffersError as differs:
            where = arrival.destination.url
            if not overwrite:
                raise KieDestinationExistsError(
                    f"Another file is at {quoted(where)} already, and was left as it is: {differs}"
                ) from None
            log.info("Another file at %s is going to be replaced: %s.", where, differs)
            replace = True
        except KieDestinationExistsError as appeared:
            if again:
                raise
            log.info("%s; comparing with it.", appeared.problem)  # another try of the task may have stored the same
            replace = False
        finally:
            arrival.close()
        return arrive(replace=replace, again=True)

    return arrive()


def each(
    items: Sequence[T], work: Callable[[T, Stopped], Stored], workers: int, stop: threading.Event
) -> Iterator[tuple[T, Stored | Exception]]:
    """
    Do the work of each item, several at a time, and yield how each of them ended, as they end.

    :param work: takes an item, and what tells it to stop.
    :param workers: how many at a time.
    :param stop: set when the work is to stop.
    """

    def end_of(item: T) -> tuple[T, Stored | Exception]:
        try:
            return item, work(item, stop.wait)
        except Exception as error:
            return item, error

    if min(len(items), workers) <= 1:  # in this thread, where what ends the task ends the transfer at once
        yield from map(end_of, items)
        return
    with ThreadPoolExecutor(min(len(items), workers), thread_name_prefix="kie-file") as pool:
        ends = [pool.submit(end_of, item) for item in items]
        try:
            for end in as_completed(ends):
                yield end.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Arrival:
    """A sink that compares with the file at the destination, or writes a new one."""

    destination: Destination

    def __init__(self, place: Place, stopped: Stopped, *, replace: bool) -> None:
        self._place = place
        self._stopped = stopped
        self._replace = replace
        self._sink: Comparison | PartFile | None = None
        #: Bytes of the existing file that is compared, if there is one.
        self.size_there: int | None = None

    def choose(self, destination: Destination) -> None:
        """Decide for a destination, and what to do there."""
        if self._sink is not None and destination.url == self.destination.url:
            return
        self.close()
        self.destination = destination
        size_there = destination.size()
        destination.clear()
        self.size_there = None if self._replace else size_there
        self._sink = PartFile(destination) if self.size_there is None else Comparison(destination, self.size_there)

    def begin(self, size: int | None, media: Media) -> None:
        """Begin with the first byte of a file."""
        if destination := self._place(media):
            self.choose(destination)
        self._chosen.begin(size)

    def write(self, piece: bytes) -> None:
        """
        Take the next bytes.

        :raises StoppedError: the task ends.
        """
        self.pause(0)
        self._chosen.write(piece)

    def pause(self, seconds: float) -> None:
        """
        Wait.

        :raises StoppedError: the task ends.
        """
        if self._stopped(seconds):
            raise StoppedError

    def finish(self, size: int, *, overwrite: bool) -> bool:
        """Return whether the file was there already."""
        return self._chosen.finish(size, overwrite=overwrite)

    def close(self) -> None:
        """Remove what is not whole."""
        if self._sink is not None:
            self._sink.close()

    @property
    def _chosen(self) -> Comparison | PartFile:
        if self._sink is None:
            raise RuntimeError("no destination is chosen yet")
        return self._sink


class _LastSeen(Iterator[Link]):
    """An iterator over links that remembers the last one."""

    def __init__(self, links: Iterator[Link]) -> None:
        self._links = links
        self.last: Link

    def __next__(self) -> Link:
        self.last = next(self._links)
        return self.last
