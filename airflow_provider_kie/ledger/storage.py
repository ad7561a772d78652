# SPDX-License-Identifier: Apache-2.0
"""
The ledger on files: what is written into each, and the reports over all of them.

    <ledger>/ledger.json                        the marker: a folder without it is never taken for an empty ledger
    <ledger>/<2 hex>/<entry>/0001.claimed       a chain, see rules.py; <entry> is the digest of its identity
    <ledger>/archived/<2 hex>/<family>.<id>.json  where the files of a job are stored

Nothing here is a link, the key, or what KIE answered.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote, unquote

from airflow_provider_kie import __version__
from airflow_provider_kie.exceptions import KieLedgerError
from airflow_provider_kie.ledger import rules
from airflow_provider_kie.ledger.folder import Folder
from airflow_provider_kie.ledger.rules import ATTEMPTS, Found, Op, Policy
from airflow_provider_kie.money import digest
from airflow_provider_kie.redaction import quoted, without_queries

__all__ = ["SEND_WITHIN", "Chain", "Ledger", "init_ledger", "open_ledger"]

log = logging.getLogger(__name__)

SCHEMA: Final = 1
MARKER: Final = "ledger.json"
ARCHIVED: Final = "archived"
#: Seconds after a claim within which its owner may send. Who waits for an id must have more patience than this, the
#: submit's time-outs and the note of the id together.
SEND_WITHIN: Final = 5.0
#: Seconds between two looks at a claim without an id.
LOOK_EVERY = 1.0
#: Files that a report reads at a time, and chains from one call of its progress to the next.
READERS: Final = 16
CHUNK: Final = 1_000

#: What a claim says that only keeps others out of a chain that is being deleted.
PRUNED: Final = {"pruned": True}

#: The ledgers whose marker this process has read; an open file system would not survive a fork.
_OPENED: set[tuple[str, str | None]] = set()

Progress = Callable[[int, int], object]
T = TypeVar("T")


def open_ledger(url: object, conn_id: str | None = None) -> Ledger:
    """
    Return the ledger of a folder; its marker is read once in a process.

    :param url: the URL or path of the folder.
    :param conn_id: the storage's Airflow connection, unless the URL names one.
    :raises KieLedgerError: the folder has no marker, or cannot be read.
    """
    folder = Folder(url, conn_id)
    if (folder.url, conn_id) not in _OPENED:
        folder.forget_listing(MARKER)
        marker = folder.read(MARKER)
        if marker is None:
            raise KieLedgerError(f"Ledger {quoted(folder.url)} has no readable {MARKER}")
        if not isinstance(marker.get("schema"), int) or marker["schema"] > SCHEMA:
            raise KieLedgerError(f"Ledger {quoted(folder.url)} was made by a newer version")
        _OPENED.add((folder.url, conn_id))
    return Ledger(folder)


def init_ledger(url: object, conn_id: str | None = None) -> Ledger:
    """
    Make the marker, unless it is there, and return the ledger.

    :param url: the URL or path of the folder.
    :param conn_id: the storage's Airflow connection, unless the URL names one.
    :raises KieLedgerError: the storage cannot be written, or does not refuse a second create.
    """
    folder = Folder(url, conn_id)
    if folder.is_local:
        try:
            folder.fs.makedirs(folder.path, exist_ok=True)
        except OSError as error:
            raise folder.unusable(error) from error
    marker = {"schema": SCHEMA, "created_at": _now(), "storage": folder.protocol, "provider": __version__}
    made = 0
    for _ in range(ATTEMPTS):
        answer = folder.create(MARKER, marker)
        if answer is False:
            break
        made += answer is True
    else:
        if made < 2:
            raise KieLedgerError(f"{MARKER} of ledger {quoted(folder.url)} could not be written")
        folder.remove(MARKER)
        raise KieLedgerError(
            f"The storage of ledger {quoted(folder.url)} does not refuse to create a file twice, so two tasks could "
            "submit the same job"
        )
    _OPENED.discard((folder.url, conn_id))
    return open_ledger(url, conn_id)


class Ledger:
    """
    A folder that remembers which jobs have been paid for; made by :func:`open_ledger`.

    :param folder: the folder, whose marker has been read.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.url = folder.url

    def chain(self, identity: Mapping[str, Any]) -> Chain:
        """
        Return the chain of one identity.

        :param identity: JSON values that tell this job from others.
        """
        chain = self.entry(digest(dict(identity)))
        chain.facts["identity"] = dict(identity)
        return chain

    def entry(self, entry: str) -> Chain:
        """
        Return a chain by its name.

        :param entry: ``entry`` of a body that :meth:`chains` gave.
        """
        return Chain(self._folder, entry)

    def note_archived(self, family: str, kie_task_id: str, destinations: Iterable[str]) -> bool:
        """
        Write where the files of a job are stored; a failure is only a warning.

        :param destinations: URLs in the storage.
        """
        body = {
            "schema": SCHEMA,
            "family": family,
            "kie_task_id": kie_task_id,
            "destinations": [without_queries(str(each)) for each in destinations],
            "at": _now(),
        }
        try:
            noted = self._folder.create(_archived_name(family, kie_task_id), body) is not None
        except KieLedgerError as error:
            noted = False
            log.warning("%s", error.problem)
        if not noted:
            log.warning(
                "Ledger %s may not know that the files of %s are stored.", quoted(self.url), quoted(kie_task_id)
            )
        return noted

    def archived(self, family: str, kie_task_id: str) -> dict[str, Any] | None:
        """Return what :meth:`note_archived` wrote about a job, if anything."""
        name = _archived_name(family, kie_task_id)
        self._folder.forget_listing(name)
        return self._folder.read(name)

    def archived_jobs(self) -> set[tuple[str, str]]:
        """Return family and ``kie_task_id`` of all jobs whose files are stored; for reports, as it lists them all."""
        names = (name.rpartition("/")[2].removesuffix(".json") for name in self._folder.below(ARCHIVED))
        return {(unquote(family), unquote(kie_task_id)) for family, _, kie_task_id in (n.partition(".") for n in names)}

    def chains(self, progress: Progress = lambda done, total: None) -> Iterator[list[dict[str, Any]]]:
        """
        Read the whole ledger, for reports: list once, then read many files at a time.

        :param progress: called with the number of chains that were read, and of all.
        :return: for each chain the last body of each generation, with ``entry`` (the chain's name) and ``generation``.
            An unreadable one has only these, ``state`` and ``kie_task_id`` None.
        """
        with ThreadPoolExecutor(READERS) as pool:
            folders = [name for name in self._folder.names() if re.fullmatch("[0-9a-f]{2}", name)]
            entries: dict[str, list[str]] = {}
            for names in pool.map(self._folder.below, folders):
                for path in names:
                    _, entry, name = path.split("/")[-3:]
                    entries.setdefault(entry, []).append(name)
            waiting, total = list(entries), len(entries)
            progress(0, total)
            for first in range(0, total, CHUNK):
                chunk = waiting[first : first + CHUNK]
                yield from pool.map(lambda entry: self.entry(entry).bodies(entries[entry]), chunk)
                progress(first + len(chunk), total)

    def prune(self, older_than: timedelta, progress: Progress = lambda done, total: None) -> int:
        """
        Delete the chains whose last change is older, and what is written about their archived files.

        A submit of unknown outcome stays until somebody settles it.

        :return: how many chains were deleted.
        """
        before = datetime.now(UTC) - older_than
        pruned = 0
        for bodies in self.chains(progress):
            if all(_is_over(body, before) for body in bodies) and self.entry(bodies[0]["entry"]).remove():
                pruned += 1
                for body in bodies:
                    if body["kie_task_id"]:
                        family = str(body.get("identity", {}).get("family"))
                        self._folder.remove(_archived_name(family, body["kie_task_id"]))
        return pruned


class Chain:
    """
    The files of one identity.

    :param folder: the ledger's folder.
    :param entry: the chain's name, a digest.
    """

    def __init__(self, folder: Folder, entry: str) -> None:
        self._folder = folder
        self.entry = entry
        self._path = f"{entry[:2]}/{entry}"
        #: What every file of this claimant repeats: ``identity``, ``task``, ``guarded``, ``reuse``, ``max_tries``.
        self.facts: dict[str, Any] = {}
        #: Monotonic time before the last attempt to claim.
        self.claimed_at = 0.0
        self._token = secrets.token_hex(8)
        #: The entries of others that this one has read, by generation: who goes on with one keeps what it says.
        self._read: dict[int, dict[str, Any]] = {}

    @property
    def is_late(self) -> bool:
        """Whether the claim is too old to be sent: note ``refused``, and claim the next generation."""
        return time.monotonic() - self.claimed_at > SEND_WITHIN

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
        create; so no file that somebody has written anew is ever deleted.
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
                answer = now - since.setdefault((op.generation, op.state), now) < patience
                if answer:
                    time.sleep(LOOK_EVERY * (1 + random.random() / 4))

    def _body(self, op: Op) -> dict[str, Any]:
        body = {"schema": SCHEMA, **self.facts, **self._read.get(op.generation, {}), **(op.facts or {})}
        return body | {"state": op.state, "token": self._token, "kie_task_id": op.kie_task_id, "at": _now()}

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


def _is_over(body: Mapping[str, Any], before: datetime) -> bool:
    """Return whether a generation may be deleted: settled, and unchanged since then."""
    if body["state"] == "claimed" and not body.get("pruned"):
        return False
    try:
        return datetime.fromisoformat(body["at"]) < before
    except (KeyError, TypeError, ValueError):
        return False


def _archived_name(family: str, kie_task_id: str) -> str:
    folder = hashlib.sha256(f"{family}.{kie_task_id}".encode()).hexdigest()[:2]
    return f"{ARCHIVED}/{folder}/{quote(family, safe='')}.{quote(kie_task_id, safe='')}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
