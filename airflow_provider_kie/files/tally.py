# SPDX-License-Identifier: Apache-2.0
"""The digest of a transfer, its progress in the log, and when it is given up."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from airflow_provider_kie.times import times

__all__ = ["Breaks", "Digest", "Progress"]

#: The logger of the transfer, so that its lines appear together.
log = logging.getLogger("airflow_provider_kie.files.download")

#: Pieces that may wait for their turn to be hashed.
MOST_PENDING = 16
#: Breaks in a row without a new byte, and breaks in total, after which a transfer is given up.
MOST_BREAKS_IN_A_ROW, MOST_BREAKS = 5, 50
#: Links in a row without a new byte, after which the file counts as deleted.
MOST_LINKS_IN_VAIN = 3


class Digest:
    """The SHA-256 of the download, computed in another thread while the next pieces arrive."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._sha256 = hashlib.sha256()
        self._pending: deque[Future[None]] = deque()

    def update(self, piece: bytes) -> None:
        """
        Add the next bytes.

        :param piece: the bytes, which must not change afterwards.
        """
        self._pending.append(self._pool.submit(self._sha256.update, piece))
        if len(self._pending) > MOST_PENDING:
            self._pending.popleft().result()

    def hexdigest(self) -> str:
        """Return the digest, once it is complete."""
        while self._pending:
            self._pending.popleft().result()
        return self._sha256.hexdigest()


class Breaks:
    """
    Counts how often a transfer broke off, or its link did not work, without a new byte.

    A transfer that starts over makes progress only beyond the most bytes that any of its requests received.
    """

    def __init__(self) -> None:
        self.count = self.in_a_row = 0
        self._links_in_vain = 0
        self._furthest = self._furthest_by_break = self._furthest_by_link = 0

    def note(self, received: int) -> None:
        """Note how many bytes a request has brought the transfer to."""
        self._furthest = max(self._furthest, received)

    def allow_another_break(self) -> bool:
        """Count a break; return whether to go on."""
        self.count += 1
        self.in_a_row = 1 if self._furthest > self._furthest_by_break else self.in_a_row + 1
        self._furthest_by_break = self._furthest
        return self.in_a_row <= MOST_BREAKS_IN_A_ROW and self.count <= MOST_BREAKS

    def allow_another_link(self) -> bool:
        """Count a link that does not work; return whether to try a fresh one."""
        self.count += 1
        self._links_in_vain = 0 if self._furthest > self._furthest_by_link else self._links_in_vain + 1
        self._furthest_by_link = self._furthest
        return self._links_in_vain < MOST_LINKS_IN_VAIN and self.count <= MOST_BREAKS


class Progress:
    """Logs the progress of a transfer now and then."""

    def __init__(self) -> None:
        self._started = self._logged_at = time.monotonic()

    def note(self, received: int, total: int | None) -> None:
        """Log the progress if the last line is old enough."""
        now = time.monotonic()
        if now - self._logged_at >= times().download_lines:
            self._logged_at = now
            share = f" ({received / total:.0%} of {_megabytes(total)})" if total else ""
            log.info("Downloaded %s%s, %s/s.", _megabytes(received), share, _megabytes(received / self._elapsed(now)))

    def end(self, received: int) -> None:
        """Log the total."""
        seconds = self._elapsed(time.monotonic())
        log.info(
            "Downloaded %s (100%%) in %.1f seconds, %s/s.",
            _megabytes(received),
            seconds,
            _megabytes(received / seconds),
        )

    def _elapsed(self, now: float) -> float:
        return max(now - self._started, 1e-6)


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"
