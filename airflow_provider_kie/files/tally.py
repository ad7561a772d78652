# SPDX-License-Identifier: Apache-2.0
"""What is kept of the bytes of a transfer as they come: their digest, and what the log is told."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Digest", "Progress"]

#: The transfer's, so that its lines stand together.
log = logging.getLogger("airflow_provider_kie.files.download")

#: Pieces that may wait for their turn to be hashed.
MOST_PENDING = 16
#: Seconds between two lines about the progress.
PROGRESS_SECONDS = 10.0


class Digest:
    """The sha256 of what came, worked out in another thread while the next pieces are on their way."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._sha256 = hashlib.sha256()
        self._pending: deque[Future[None]] = deque()

    def update(self, piece: bytes) -> None:
        """
        Add the next bytes.

        :param piece: the bytes, which nobody changes any more.
        """
        self._pending.append(self._pool.submit(self._sha256.update, piece))
        if len(self._pending) > MOST_PENDING:
            self._pending.popleft().result()

    def hexdigest(self) -> str:
        """Return the digest, once all of it is worked out."""
        while self._pending:
            self._pending.popleft().result()
        return self._sha256.hexdigest()


class Progress:
    """Tells the log now and then how far a transfer is."""

    def __init__(self) -> None:
        self._started = self._told = time.monotonic()

    def note(self, received: int, total: int | None) -> None:
        """Tell it if it is time to."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            share = f" ({received / total:.0%} of {_megabytes(total)})" if total else ""
            log.info("Downloaded %s%s, %s/s.", _megabytes(received), share, _megabytes(received / self._elapsed(now)))

    def end(self, received: int) -> None:
        """Tell it at the end."""
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
