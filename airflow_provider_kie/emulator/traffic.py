# SPDX-License-Identifier: Apache-2.0
"""The queue of answers, and the log of requests."""

from __future__ import annotations

import difflib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_kie.emulator.answers import ANSWERS
from airflow_provider_kie.emulator.cases import CASES, SINGLES
from airflow_provider_kie.emulator.scripted import ENDPOINTS, Answer

__all__ = ["LOG_LENGTH", "AnswerQueue", "Json", "RequestLog", "find_answer"]

LOG_LENGTH: Final = 100_000
# Shorter tokens are not keys; masking them would only make the log unreadable.
_SHORTEST_SECRET: Final = 8

# "any" leaves them out, because they do not send KIE's envelope.
_OTHER_HOSTS: Final = ("upload", "file")

Json = dict[str, Any]

_PLAYABLE: Final = {**ANSWERS, **SINGLES, **{name: case.answer for name, case in CASES.items()}}


def find_answer(name: str) -> Answer:
    """Return an answer; for an unknown name, raise a ``LookupError`` with the nearest names."""
    if answer := _PLAYABLE.get(name):
        return answer
    near = difflib.get_close_matches(name, _PLAYABLE, n=3, cutoff=0.4)
    raise LookupError(f"no answer is called {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))


@dataclass(frozen=True, slots=True)
class _Queued:
    endpoint: str
    kie_task_id: str | None
    answer: Answer
    repeat: bool

    def fits(self, endpoint: str, kie_task_id: str | None) -> bool:
        here = self.endpoint == endpoint or (self.endpoint == "any" and endpoint not in _OTHER_HOSTS)
        return here and self.kie_task_id in (None, kie_task_id)

    def replaces(self, earlier: _Queued) -> bool:
        return earlier.repeat and (earlier.endpoint, earlier.kie_task_id) == (self.endpoint, self.kie_task_id)


class AnswerQueue:
    """Answers for later requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Queued] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        *names: str,
        endpoint: str | None = None,
        kie_task_id: str | None = None,
        repeat: bool = False,
    ) -> None:
        """
        Queue answers for the next calls.

        :param endpoint: which calls get them; by default the endpoint of each answer
        :param kie_task_id: only for reads of this job
        :param repeat: keep giving the last one, until something else is queued for the same calls
        """
        if endpoint not in (None, *ENDPOINTS):
            raise ValueError(f"unknown endpoint {endpoint!r}; there are {', '.join(ENDPOINTS)}")
        answers = [find_answer(name) for name in names]
        with self._lock:
            for count, answer in enumerate(answers, start=1):
                stays = repeat and count == len(answers)
                new = _Queued(endpoint or answer.endpoint, kie_task_id, answer, stays)
                self._waiting = [earlier for earlier in self._waiting if not new.replaces(earlier)]
                self._waiting.append(new)

    def take(self, endpoint: str, kie_task_id: str | None = None) -> Answer | None:
        """The queued answer for a request, if there is one."""
        with self._lock:
            for queued in self._waiting:
                if queued.fits(endpoint, kie_task_id):
                    if not queued.repeat:
                        self._waiting.remove(queued)
                    return queued.answer
        return None


class RequestLog:
    """The requests, oldest first, with keys masked."""

    def __init__(self, api_key: str, clock: Callable[[], float]) -> None:
        self._api_key = api_key
        self._clock = clock
        self._entries: deque[Json] = deque(maxlen=LOG_LENGTH)

    def add(self, entry: Json, tokens: Iterable[str] = ()) -> None:
        """
        Log a request.

        :param tokens: other values to mask, such as a wrong key
        """
        hidden = [self._api_key, *(token for token in tokens if len(token) >= _SHORTEST_SECRET)]
        self._entries.append(_redacted({**entry, "at": self._clock()}, hidden))

    def entries(self, endpoint: str | None = None) -> list[Json]:
        """
        The requests so far.

        :param endpoint: only the calls of this endpoint
        """
        return [entry for entry in self._entries.copy() if endpoint in (None, entry["endpoint"])]


def _redacted(value: Any, hidden: list[str]) -> Any:
    match value:
        case str():
            for secret in hidden:
                value = value.replace(secret, "***")
            return value
        case dict():
            return {_redacted(key, hidden): _redacted(item, hidden) for key, item in value.items()}
        case list():
            return [_redacted(item, hidden) for item in value]
    return value
