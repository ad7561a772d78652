# SPDX-License-Identifier: Apache-2.0
"""One entry of the ledger: carries out the rules on its files, and what is written into each."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast

from airflow_provider_kie.exceptions import KieLedgerError
from airflow_provider_kie.ledger import rules
from airflow_provider_kie.ledger.folder import Folder
from airflow_provider_kie.ledger.rules import Found, Op, Policy
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.times import times

__all__ = ["SCHEMA", "Chain", "longest_submit", "now"]

log = logging.getLogger(__name__)

SCHEMA: Final = 1
#: Seconds that opening a connection to KIE and the note after the submit may take together.
NOTE_SECONDS: Final = 40.0
#: What a claim says that only keeps others out of a chain that is being deleted.
PRUNED: Final = {"pruned": True}

T = TypeVar("T")


def longest_submit(timeout: float) -> float:
    """
    Return the seconds after a claim in which its submit has ended and its outcome is noted, unless its owner died.

    :param timeout: seconds for one request to KIE.
    """
    longest = times().longest_submit
    return times().send_within + 2 * timeout + NOTE_SECONDS if longest is None else longest


class Chain:
    """
    The files of one identity.

    :param folder: the ledger's folder.
    :param entry: the chain's name, a digest.
    :param within: the folder of the chains of its kind, with a slash at its end.
    """

    def __init__(self, folder: Folder, entry: str, within: str = "") -> None:
        self._folder = folder
        self.entry = entry
        self._path = f"{within}{entry[:2]}/{entry}"
        #: What every file of this claimant repeats: ``identity``, ``task``, ``guarded``, ``reuse``, ``max_tries``.
        self.facts: dict[str, Any] = {}
        #: Monotonic time before the last attempt to claim.
        self.claimed_at = 0.0
        self._token = ""
        #: The entries of others that this one has read, by generation: who goes on with one keeps what it says.
        self._read: dict[int, dict[str, Any]] = {}

    @property
    def is_late(self) -> bool:
        """Whether the claim is too old to be sent: note ``refused``, and claim the next generation."""
        return time.monotonic() - self.claimed_at > times().send_within

    def look(self, patience: float = 0.0) -> Found:
        """
        Look at the chain, and wait for the id of a claim that has none.

        :param patience: seconds to wait.
        :raises KieLedgerError: the chain cannot be read.
        """
        return self._run(rules.look(), patience)

    def claim(self, policy: Policy, patience: float, after: int = 0) -> Found:
        """
        Claim the next submit, unless there is a job, or somebody else has claimed it and the patience is over.

        The caller of a claim sends at most once, unless it :attr:`is_late`, and notes the outcome.

        :param patience: seconds to wait for the id of somebody else's claim; more than a submit can take.
        :param after: the last generation of which the caller knows that it is over, see :func:`rules.claim`.
        :raises KieLedgerError: the chain cannot be read or written; nothing was sent.
        """
        self._token = secrets.token_hex(8)
        return self._run(rules.claim(self._token, policy, after), patience)

    def note(self, generation: int, state: str, kie_task_id: str | None = None, **facts: Any) -> bool:
        """
        Write a later state; a failure is only a warning, because it must not end a paid job.

        :param facts: what the state says besides, such as ``credits``.
        :return: whether the ledger has what is said here.
        """
        try:
            noted = self._run(rules.note(generation, state, kie_task_id, facts), 0.0)
        except KieLedgerError as error:
            noted = False
            log.warning("%s", error.problem)
        if not noted:
            known = f", with id {quoted(kie_task_id)}" if kie_task_id else ""
            log.warning("Ledger %s may not know that the job is %s%s.", quoted(self._folder.url), state, known)
        return noted

    def bodies(self, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """
        Return the last body of each generation, as :meth:`Ledger.chains` does.

        :param names: the names of the chain's files, if they are known.
        """
        last = dict(sorted(rules.parsed(self._names() if names is None else names), key=rules.by_rank))
        unread = {"kie_task_id": None}
        return [
            (self._read_body(generation, state) or unread)
            | {"entry": self.entry, "generation": generation, "state": state}
            for generation, state in sorted(last.items())
        ]

    def remove(self) -> bool:
        """
        Delete the chain; return False if somebody claims it at the same moment.

        An own claim keeps others out until all is gone. The first claim goes last, as it is what everybody tries to
        create; so no file that somebody has written since is ever deleted.
        """
        lock = max((generation for generation, _ in rules.parsed(self._names())), default=0) + 1
        if not self._folder.create(self._name(lock, "claimed"), self._body(Op("create", lock, "claimed")) | PRUNED):
            return False
        last = {self._name(lock, "claimed"): 1, self._name(1, "claimed"): 2}
        paths = [self._name(generation, state) for generation, state in rules.parsed(self._names())]
        for path in sorted(paths, key=lambda path: last.get(path, 0)):
            self._folder.remove(path)
        if self._folder.is_local:
            with suppress(OSError):  # somebody has begun a new chain
                self._folder.fs.rmdir(f"{self._folder.path}/{self._path}")
        return True

    def _run(self, steps: Generator[Op, Any, T], patience: float) -> T:
        """Carry out the steps of a rule."""
        since: dict[tuple[int, str], float] = {}
        answer: Any = None
        while True:
            try:
                op: Op = steps.send(answer)
            except StopIteration as stop:
                return cast(T, stop.value)
            if op.do == "create":
                if op.state == "claimed":
                    self.claimed_at = time.monotonic()
                answer = self._folder.create(self._name(op.generation, op.state), self._body(op))
            elif op.do == "list":
                answer = self._names()
            elif op.do == "read":
                answer = self._read_body(op.generation, op.state)
            else:
                now = time.monotonic()
                if (op.generation, op.state) not in since and patience:
                    log.info("This job is claimed already; waiting for its id for %.0f seconds at most.", patience)
                answer = now - since.setdefault((op.generation, op.state), now) < patience
                if answer:
                    time.sleep(times().ledger_look * (1 + random.random() / 4))

    def _body(self, op: Op) -> dict[str, Any]:
        body = {"schema": SCHEMA, **self.facts, **self._read.get(op.generation, {}), **(op.facts or {})}
        token = self._token or secrets.token_hex(8)
        return body | {"state": op.state, "token": token, "kie_task_id": op.kie_task_id, "at": now()}

    def _read_body(self, generation: int, state: str) -> dict[str, Any] | None:
        body = self._folder.read(self._name(generation, state))
        if body is None or "token" not in body or not isinstance(body.get("kie_task_id", 0), str | None):
            return None
        self._read[generation] = body
        return body

    def _names(self) -> list[str]:
        return self._folder.names(self._path)

    def _name(self, generation: int, state: str) -> str:
        return f"{self._path}/{generation:04d}.{state}"


def now() -> str:
    """Return the time as a text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
