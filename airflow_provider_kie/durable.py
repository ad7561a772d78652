# SPDX-License-Identifier: Apache-2.0
"""
What a task remembers from one try to the next: the conversion that it has paid for.

Airflow 3.3 and later have a store for this (AIP-103) that outlives the worker; XCom does not, because it is cleared
when a retry starts. The store is used directly rather than through ``ResumableJobMixin``, which covers only the
synchronous path and loses the result when it reconnects.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

__all__ = ["Memory"]

log = logging.getLogger(__name__)

#: Renaming it would make retries that are under way forget what they paid for.
STORE_KEY = "kie_wav_conversion"
#: Longer than the 14 days for which KIE keeps a file, and said explicitly, because the clean-up of the store must not
#: come before a late retry.
RETENTION = timedelta(days=30)


class Memory:
    """
    The conversion of one track, as the task instance remembers it; remembers nothing below Airflow 3.3.

    :param context: Airflow's context; None to remember nothing.
    :param music_task_id: the music task that made the track.
    :param audio_id: the track. An entry of another track does not count: somebody has changed the task since.
    """

    def __init__(self, context: Context | None, music_task_id: str = "", audio_id: str = "") -> None:
        self._store: Any = context.get("task_state_store") if context else None
        self._track = {"music_task_id": music_task_id, "audio_id": audio_id}

    @property
    def lasts(self) -> bool:
        """Whether a retry will find what is kept now."""
        return self._store is not None

    def recall(self) -> str | None:
        """Return the KIE task id of an earlier try, if there is one."""
        kept = self._store.get(STORE_KEY) if self._store is not None else None
        if not isinstance(kept, dict) or {name: kept.get(name) for name in self._track} != self._track:
            return None
        kie_task_id = kept.get("kie_task_id")
        return kie_task_id if isinstance(kie_task_id, str) else None

    def reserve(self) -> None:
        """
        Write an entry without an id, so that what can not be written fails now, while nothing is paid.

        A try that Airflow has given up on, but that still lives, reads an empty store and may not write to it.
        """
        if self._store is not None:
            self._store.set(STORE_KEY, {**self._track, "kie_task_id": None}, retention=RETENTION)

    def keep(self, kie_task_id: str) -> None:
        """
        Remember a conversion; a store that fails does not fail the task, because the conversion is paid for.

        :param kie_task_id: the WAV task.
        """
        if self._store is None:
            return
        try:
            self._store.set(STORE_KEY, {**self._track, "kie_task_id": kie_task_id}, retention=RETENTION)
        except Exception:
            log.exception("WAV task %s is submitted, but could not be kept for a retry.", kie_task_id)
