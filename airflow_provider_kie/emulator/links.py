# SPDX-License-Identifier: Apache-2.0
"""
The links to the files of jobs: signed ones, ones for 20 minutes, and those that died.

A file's name is a mark of the file, and a mark of the issue of the job's links. Links that replace dead ones are of the
next issue, and lead to the same files.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from airflow_provider_kie.emulator.files import File, made_file

__all__ = ["LINK_SECONDS", "Links"]

LINK_SECONDS: Final = 20 * 60
_MARK: Final = 16


class Links:
    """The links of one emulator, as paths. Safe to use from several threads."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._clock = clock
        self._lock = threading.Lock()
        self._issues: dict[str, int] = {}
        # By the mark of a dead issue: whether its files are still there.
        self._dead: dict[str, bool] = {}
        self._lent: dict[str, _Lent] = {}

    def signed(self, kie_task_id: str, extension: str, number: int) -> str:
        """The signed link to a file; it works for any id, including those of queued answers."""
        issue = self._issues.get(kie_task_id, 0)
        name = f"{_marked(kie_task_id, number)}{_marked(kie_task_id, 'issue', issue)}.{extension}"
        return f"/s/{name}?sig={self._signature(name)}"

    def lend(self, path: str) -> str | None:
        """A link for 20 minutes to a file, whose own link may be dead; None if the file itself is not there."""
        if not path.startswith("/s/"):
            return None
        name = path.removeprefix("/s/")
        with self._lock:
            if self._is_deleted(name) or not _file(name):
                return None
            token = secrets.token_hex(16)
            self._lent[token] = _Lent(self._clock() + LINK_SECONDS, name)
        return f"/d/{token}"

    def expire(self, kie_task_id: str, *, fresh: bool) -> None:
        """
        Make the links of a job dead.

        :param fresh: whether its files stay, and its record names new links to them
        """
        with self._lock:
            issue = self._issues.get(kie_task_id, 0)
            self._dead |= {_marked(kie_task_id, "issue", each): fresh for each in range(issue + 1)}
            self._issues[kie_task_id] = issue + fresh

    def find(self, path: str, signature: str) -> File | int:
        """What a path leads to: a file, or the HTTP status of a refusal."""
        folder, _, name = path.removeprefix("/").partition("/")
        with self._lock:
            if folder == "d":
                lent = self._lent.get(name)
                if lent is None or self._clock() >= lent.until:
                    return 403
                name = lent.name
                dead = self._is_deleted(name)
            elif hmac.compare_digest(signature.encode(), self._signature(name).encode()):
                dead = _issue_of(name) in self._dead
            else:
                return 403
        return 404 if dead else _file(name) or 403

    def _is_deleted(self, name: str) -> bool:
        return not self._dead.get(_issue_of(name), True)

    def _signature(self, name: str) -> str:
        return hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest()[:32]


class _Lent(NamedTuple):
    until: float
    name: str


def _marked(*of: object) -> str:
    return hashlib.sha256("/".join(map(str, of)).encode()).hexdigest()[:_MARK]


def _issue_of(name: str) -> str:
    return name[_MARK : 2 * _MARK]


def _file(name: str) -> File | None:
    return made_file(name.rpartition(".")[2], name[:_MARK])
