# SPDX-License-Identifier: Apache-2.0
"""
The ledger as a whole: its marker, where the files of jobs are stored, and the reports.

    <ledger>/ledger.json                        the marker: a folder without it is never taken for an empty ledger
    <ledger>/<2 hex>/<entry>/0001.claimed       a chain, see rules.py; <entry> is the digest of its identity
    <ledger>/archived/<2 hex>/<family>.<id>.json  where the files of a job are stored
    <ledger>/events/<2 hex>/<entry>/0001.claimed  the chain of the news that a job has ended

Nothing here is a link, the key, or what KIE answered.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, unquote

from airflow_provider_kie import __version__
from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.exceptions import KieLedgerError
from airflow_provider_kie.ledger.chain import SCHEMA, Chain, now
from airflow_provider_kie.ledger.folder import Folder
from airflow_provider_kie.ledger.rules import ATTEMPTS, current
from airflow_provider_kie.money import digest
from airflow_provider_kie.redaction import quoted, without_queries

__all__ = ["Ledger", "family_of", "init_ledger", "open_ledger"]

log = logging.getLogger(__name__)

MARKER: Final = "ledger.json"
ARCHIVED: Final = "archived"
EVENTS: Final = "events"
#: Files that a report reads at a time, and chains from one call of its progress to the next.
READERS: Final = 16
CHUNK: Final = 1_000

#: The ledgers whose marker this process has read; an open file system would not survive a fork.
_OPENED: set[tuple[str, str | None]] = set()

Progress = Callable[[int, int], object]


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
    marker = {"schema": SCHEMA, "created_at": now(), "storage": folder.protocol, "provider": __version__}
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

    def event(self, uri: str, kie_task_id: str) -> Chain:
        """
        Return the chain of the news of a job's end: ``finished`` once it is told. No report of jobs has it.

        :param uri: the asset that tells it.
        """
        about: dict[str, Any] = {"event": uri, "kie_task_id": kie_task_id}
        chain = Chain(self._folder, digest(about), within=f"{EVENTS}/")
        chain.facts["identity"] = about
        return chain

    def unsettled(self) -> list[dict[str, Any]]:
        """Return the claims of submits without an id, as :meth:`chains` does; only they are read."""
        return self._claims("")

    def untold(self) -> list[dict[str, Any]]:
        """Return the claims of :meth:`event` that nobody has finished."""
        return self._claims(f"{EVENTS}/")

    def _claims(self, within: str) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(READERS) as pool:
            claims = [entry for entry, names in self._listed(pool, within).items() if current(names)[1] == "claimed"]
            read = pool.map(lambda entry: Chain(self._folder, entry, within).bodies(), claims)
            return [bodies[-1] for bodies in read if bodies]  # none of a chain that was pruned meanwhile

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
            "at": now(),
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
            entries = self._listed(pool)
            waiting, total = list(entries), len(entries)
            progress(0, total)
            for first in range(0, total, CHUNK):
                chunk = waiting[first : first + CHUNK]
                yield from pool.map(lambda entry: self.entry(entry).bodies(entries[entry]), chunk)
                progress(first + len(chunk), total)

    def _listed(self, pool: ThreadPoolExecutor, within: str = "") -> dict[str, list[str]]:
        """Return the names of the files of each chain."""
        folders = [f"{within}{name}" for name in self._folder.names(within) if re.fullmatch("[0-9a-f]{2}", name)]
        entries: dict[str, list[str]] = {}
        for names in pool.map(self._folder.below, folders):
            for path in names:
                _, entry, name = path.split("/")[-3:]
                entries.setdefault(entry, []).append(name)
        return entries

    def prune(self, older_than: timedelta, progress: Progress = lambda done, total: None) -> int:
        """
        Delete the chains whose last change is older, and what is written about archived files and told events.

        A submit of unknown outcome stays until somebody settles it.

        :return: how many chains were deleted.
        """
        before = datetime.now(UTC) - older_than
        old = (bodies for bodies in self.chains(progress) if _is_over(bodies, before))
        with ThreadPoolExecutor(READERS) as pool:
            events = [Chain(self._folder, entry, f"{EVENTS}/") for entry in self._listed(pool, f"{EVENTS}/")]
            list(pool.map(lambda event: _is_over(event.bodies(), before) and event.remove(), events))
            return sum(pool.map(self._remove, old))

    def _remove(self, bodies: list[dict[str, Any]]) -> bool:
        if not self.entry(bodies[0]["entry"]).remove():
            return False
        for body in bodies:
            if body["kie_task_id"]:
                self._folder.remove(_archived_name(str(family_of(body)), body["kie_task_id"]))
        return True


def _is_over(bodies: list[dict[str, Any]], before: datetime) -> bool:
    """Return whether a chain may be deleted: settled, and unchanged since then."""
    try:
        _, state = current(f"{body['generation']:04d}.{body['state']}" for body in bodies)
        old = all(datetime.fromisoformat(body["at"]) < before for body in bodies)
    except (KieLedgerError, KeyError, TypeError, ValueError):  # of a newer version, or damaged
        return False
    return old and (state != "claimed" or bodies[-1].get("pruned") is True)


def family_of(body: Mapping[str, Any]) -> str | None:
    """Return the family of a job. WAV conversions are kept without one, and are of one family by either route."""
    identity = body.get("identity") or {}
    return WAV.name if "music_task_id" in identity else identity.get("family")


def _archived_name(family: str, kie_task_id: str) -> str:
    folder = hashlib.sha256(f"{family}.{kie_task_id}".encode()).hexdigest()[:2]
    return f"{ARCHIVED}/{folder}/{quote(family, safe='')}.{quote(kie_task_id, safe='')}.json"
