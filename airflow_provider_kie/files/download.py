# SPDX-License-Identifier: Apache-2.0
"""
Downloads a file from a file host into a sink: in pieces, checked on arrival, resumed after a break.

A transfer resumes only if the host confirms that the file is unchanged (``If-Range`` with a strong validator, RFC 9110
section 13.1.5); otherwise it starts over, and so does its sink. :mod:`airflow_provider_kie.files.reader` decides what a
file is, :mod:`airflow_provider_kie.files.host` which hosts may be contacted.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, NoReturn, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

import requests

from airflow_provider_kie.exceptions import (
    KieConnectionError,
    KieDownloadError,
    KieFileCutOffError,
    KieFileTooLargeError,
    KieLinkExpiredError,
    KieWrongFileError,
)
from airflow_provider_kie.files.host import FileHost, Link, first_bytes, pieces_of, validator_of
from airflow_provider_kie.files.reader import MediaReader
from airflow_provider_kie.files.riff import WavHeader, shown
from airflow_provider_kie.files.tally import Breaks, Digest, Progress
from airflow_provider_kie.media import Media
from airflow_provider_kie.redaction import quoted, redact
from airflow_provider_kie.times import times

__all__ = ["Downloaded", "Sink", "download"]

log = logging.getLogger(__name__)

#: Damaged but complete downloads, after which the file at KIE itself counts as damaged.
MOST_DAMAGED_FILES = 2
#: Longest pause before a repeat, in seconds.
LONGEST_PAUSE = 30.0

#: The statuses of a whole file; 203 if a proxy may have changed it (RFC 9110, section 15.3.4).
_WHOLE = (200, 203)
#: The statuses of an expired or withdrawn link, and those for which a repeat may help.
_EXPIRED = (401, 403, 404, 410)
_PASSING = (408, 425, 429)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Sink(Protocol):
    """Where the bytes go. Its errors end the transfer."""

    def begin(self, size: int | None, media: Media) -> None:
        """Prepare for the first byte of the file; called again when the transfer starts over."""

    def write(self, piece: bytes) -> None:
        """Store the next bytes."""

    def pause(self, seconds: float) -> None:
        """Wait before the next request."""


class Downloaded(NamedTuple):
    """
    A complete file.

    :param size: in bytes.
    :param sha256: of all bytes, in hex.
    :param media: what it is.
    :param header: its WAV header, if it is a WAV file.
    """

    size: int
    sha256: str
    media: Media
    header: WavHeader | None


#: Makes what reads a file, of its media type as the host names it and the last part of its link.
NewReader: TypeAlias = Callable[[str, str], MediaReader]


def download(
    host: FileHost, links: Iterator[Link], sink: Sink, *, max_bytes: int, new_reader: NewReader = MediaReader
) -> Downloaded:
    """
    Download a whole file. What is odd about it is logged as a warning.

    :raises KieError: the file is incomplete, a wrong one or too large, or its link does not work.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="sha256") as pool:
        return _Transfer(host, links, sink, max_bytes, new_reader, pool).run()


class _BrokeOffError(Exception):
    """The transfer broke off and may resume."""

    def __init__(self, why: str, code: int | None = None, pause: float | None = None) -> None:
        super().__init__(why)
        self.code = code
        self.pause = pause


class _ExpiredError(Exception):
    """The link does not work any more."""

    def __init__(self, status: int, start: bytes) -> None:
        super().__init__(f"HTTP {status}; {shown(start)}")
        self.status = status


class _Transfer:
    """The transfer of one file, over as many requests as it takes."""

    def __init__(
        self,
        host: FileHost,
        links: Iterator[Link],
        sink: Sink,
        max_bytes: int,
        new_reader: NewReader,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._host = host
        self._links = links
        self._sink = sink
        self._max_bytes = max_bytes
        self._new_reader = new_reader
        self._pool = pool
        self._link = next(links)
        self._breaks = Breaks()
        self._damaged_files = 0
        # Size and digest of what ended where the host had not announced it.
        self._end_seen: tuple[int, str] | None = None
        self._reset()

    def run(self) -> Downloaded:
        while True:
            try:
                with self._host.ask(self._link, self._range_headers()) as response:
                    if self._accept(response):
                        self._receive(response)
                return self._finish()
            except _ExpiredError as error:
                if not self._take_next_link(str(error)):
                    problem = f"The link to {urlsplit(self._link.url).hostname} does not work: {error}"
                    raise KieLinkExpiredError(problem, code=error.status) from None
            except (KieWrongFileError, KieFileCutOffError) as error:
                if not self._take_other_file(error.problem):
                    raise
            except (_BrokeOffError, KieConnectionError) as error:
                self._note_break(error)

    # --- State

    def _reset(self, media_type: str = "") -> None:
        """Return to the first byte."""
        self._received = 0
        self._total: int | None = None
        self._validator: str | None = None
        self._encoded = False
        self._begun = False
        self._held = bytearray()  # what came before it was known what the file is
        self._reader = self._new_reader(media_type, urlsplit(self._link.url).path.rpartition("/")[2])
        self._digest = Digest(self._pool)
        self._progress = Progress()

    def _take_next_link(self, why: str) -> bool:
        """Switch to a fresh link; return False if there is none, or after too many without a new byte."""
        link = next(self._links, None) if self._breaks.allow_another_link() else None
        if link is None:
            return False
        log.warning("The link does not work (%s); going on with a fresh one.", redact(why))
        if urlsplit(link.url)[:3] != urlsplit(self._link.url)[:3]:
            self._reset()  # a validator is valid for one URL only, whatever its signature
        self._link = link
        return True

    def _take_other_file(self, why: str) -> bool:
        """Start over with a fresh link: KIE's links have been seen to return web pages, and copies can be damaged."""
        self._damaged_files += self._reader.recognized
        if self._damaged_files >= MOST_DAMAGED_FILES or not self._take_next_link(why):
            return False
        self._reset()
        return True

    def _note_break(self, error: _BrokeOffError | KieConnectionError) -> None:
        may_go_on = self._breaks.allow_another_break()
        where = str(error) if isinstance(error, _BrokeOffError) else error.problem
        if self._received:
            of_all = f" of {self._total:,}" if self._total is not None else ""
            where = f"{where}, after {self._received:,}{of_all} bytes"
        if not may_go_on:
            raise KieDownloadError(f"{where}; given up after {self._breaks.count} breaks", code=error.code) from error
        asked = error.pause if isinstance(error, _BrokeOffError) else None
        pause = times().first_download_pause * 2.0 ** (self._breaks.in_a_row - 1) if asked is None else asked
        if not self._may_resume():
            self._reset()
        log.warning("%s; %s.", redact(where), f"going on at {self._received:,}" if self._received else "starting over")
        self._sink.pause(min(pause, LONGEST_PAUSE) * random.uniform(1.0, 1.3))

    def _may_resume(self) -> bool:
        return bool(self._received and self._validator and not self._encoded)

    def _range_headers(self) -> dict[str, str]:
        if not self._may_resume():
            return {}
        return {"Range": f"bytes={self._received}-", "If-Range": str(self._validator)}

    # --- Status and headers

    def _accept(self, response: requests.Response) -> bool:
        """Begin, resume or refuse by status and headers; return False if the file is already complete."""
        status = response.status_code
        if status == 206 and self._received:
            self._continue(response)
        elif status in _WHOLE:
            if self._received:
                log.warning("The file host sends the file from its start again; starting over.")
            self._begin(response)
        elif status == 416 and self._is_complete(response):
            self._total = self._received  # the host confirms that a file of unknown length is complete
            return False
        elif status in (206, 416):
            has = quoted(response.headers.get("Content-Range", "no range"))
            announced = "an unknown number of" if self._total is None else f"{self._total:,}"
            self._start_over(f"After {self._received:,} of {announced} bytes the host answers HTTP {status}, {has}")
        else:
            self._refuse(response)
        return True

    def _is_complete(self, response: requests.Response) -> bool:
        """Return whether a refused range confirms that a file of unknown length is complete."""
        end = response.headers.get("Content-Range") == f"bytes */{self._received}"
        return end and self._received > 0 and self._total is None

    def _begin(self, response: requests.Response) -> None:
        headers = response.headers
        self._reset(headers.get("Content-Type", ""))
        self._encoded = headers.get("Content-Encoding", "").lower() not in ("", "identity")
        chunked = "Transfer-Encoding" in headers  # a length beside it does not count (RFC 9112, section 6.3)
        length = headers.get("Content-Length", "").strip()
        if length.isdecimal() and not self._encoded and not chunked:
            self._total = int(length)
            self._check_size(self._total)
        # With a file that a proxy changed, the validator may be that of the original.
        self._validator = validator_of(headers) if response.status_code == 200 else None

    def _continue(self, response: requests.Response) -> None:
        """Check that a part is the requested one, of the same file."""
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        validator = str(self._validator)
        now = response.headers.get("ETag" if validator.startswith('"') else "Last-Modified")
        changed = now is not None and now != validator
        encoded = response.headers.get("Content-Encoding", "").lower() not in ("", "identity")
        if found is None or int(found[1]) != self._received or changed or encoded:
            self._start_over("the file changed" if changed else "the host sent another part than the requested one")
        total = None if found[3] == "*" else int(found[3])
        if total is not None and self._total is not None and total != self._total:
            self._start_over(f"the file had {self._total:,} bytes and now has {total:,}")
        if total is not None:
            self._total = total
            self._check_size(total)

    def _start_over(self, why: str) -> NoReturn:
        self._reset()
        raise _BrokeOffError(why)

    def _refuse(self, response: requests.Response) -> NoReturn:
        status = response.status_code
        start = first_bytes(response)
        if status in _EXPIRED:
            raise _ExpiredError(status, start)
        problem = f"The file host answered HTTP {status}; {shown(start)}"
        if status in _PASSING or status >= 500:
            seconds = response.headers.get("Retry-After", "")
            raise _BrokeOffError(problem, status, float(seconds) if re.fullmatch(r"\d{1,4}", seconds) else None)
        raise KieDownloadError(problem, code=status)

    # --- The body

    def _receive(self, response: requests.Response) -> None:
        for piece in pieces_of(response, decode=self._encoded):
            self._received += len(piece)
            self._breaks.note(self._received)
            self._check_size(self._received)
            if self._total is not None and self._received > self._total:
                self._start_over("more bytes came than announced")
            self._reader.feed(piece)
            self._digest.update(piece)
            self._keep(piece)
            self._progress.note(self._received, self._total)
        if self._total is not None and self._received < self._total:
            raise _BrokeOffError("The transfer broke off")

    def _keep(self, piece: bytes) -> None:
        """Pass the bytes on, but not before they have proved to be those of a file."""
        if self._begun:
            self._sink.write(piece)
            return
        self._held += piece
        if media := self._reader.media:
            self._sink.begin(self._total, media)
            self._begun = True
            self._sink.write(bytes(self._held))
            self._held.clear()

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            has = f"{size:,}" if self._total is not None else f"more than {self._max_bytes:,}"
            raise KieFileTooLargeError(f"The file has {has} bytes, and not more than {self._max_bytes:,} are allowed")

    def _finish(self) -> Downloaded:
        length_known = self._total is not None
        try:
            header = self._reader.finish(self._received, length_known=length_known)
        except KieDownloadError as error:
            ends = self._reader.length_is_open and not self._may_resume()
            if ends or isinstance(error, KieFileCutOffError):
                raise
            raise _BrokeOffError(error.problem) from error  # without a length, a break looks like the end
        except KieWrongFileError:
            if not length_known and not self._received:
                raise _BrokeOffError("Nothing came") from None
            raise
        if not (length_known or self._reader.says_where_it_ends or self._ends_here_again()):
            raise _BrokeOffError("The file host does not say where the file ends")
        if not self._begun:
            self._keep(b"")
        self._progress.end(self._received)
        if self._reader.oddities:
            log.warning("The file came whole, but %s.", "; ".join(self._reader.oddities))
        media = cast("Media", self._reader.media)
        return Downloaded(self._received, self._digest.hexdigest(), media, header)

    def _ends_here_again(self) -> bool:
        """Return whether a file of unknown length came twice with the same end, which a break would hardly repeat."""
        before, self._end_seen = self._end_seen, (self._received, self._digest.hexdigest())
        return before == self._end_seen
