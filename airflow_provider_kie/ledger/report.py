# SPDX-License-Identifier: Apache-2.0
"""
What a ledger says about all of its jobs: which there are, what they cost, which of them KIE is about to delete.

Each report reads the whole ledger, so none belongs on the way of a task that submits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from airflow_provider_kie.api.common import FILES_LAST
from airflow_provider_kie.ledger.storage import Ledger, family_of

__all__ = ["GROUPS", "entries", "expiring", "row_of", "silent", "spend"]

Row: TypeAlias = dict[str, Any]
Body: TypeAlias = Mapping[str, Any]
#: Called with the number of chains that were read, and of all; with 0 and 0 while they are listed.
Progress: TypeAlias = Callable[[int, int], object]

#: A claim without an id is under way until it is older than this. No submit takes that long.
UNDER_WAY: Final = timedelta(hours=1)

#: By what spending is summed up: the columns of each group.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "dag": ("dag_id",),
    "task": ("dag_id", "task_id"),
    "model": ("family", "model"),
    "family": ("family",),
    "day": ("day",),
}


def silent(done: int, total: int) -> None:
    """Say nothing about the progress."""


def entries(ledger: Ledger, progress: Progress = silent) -> Iterator[Row]:
    """
    List every submit that the ledger knows of.

    :param progress: called as the ledger is read.
    :return: dicts of JSON scalars, see :func:`row_of`.
    :raises KieLedgerError: the ledger cannot be read.
    """
    progress(0, 0)
    archived = ledger.archived_jobs()
    for bodies in ledger.chains(progress):
        for body in bodies:
            yield row_of(body, archived=(family_of(body), body["kie_task_id"]) in archived)


def row_of(body: Body, *, archived: bool) -> Row:
    """
    Return what is known of one submit.

    :param body: one of those that :meth:`~airflow_provider_kie.ledger.storage.Ledger.chains` gives.
    :param archived: the files of the job are stored.
    """
    identity, task = body.get("identity") or {}, body.get("task") or {}
    return {
        "state": _state(body, archived),
        "kie_task_id": body["kie_task_id"],
        "family": family_of(body),
        "model": identity.get("model") or None,
        **{name: task.get(name) for name in ("dag_id", "run_id", "task_id", "map_index")},
        **{name: body.get(name) for name in ("credits", "at", "complete_time", "reuse")},
        "account": identity.get("account"),
        "entry": body["entry"],
        "generation": body["generation"],
    }


def expiring(ledger: Ledger, within: timedelta, progress: Progress = silent) -> list[Row]:
    """
    List the jobs whose files nobody has stored and KIE deletes soon, the next one first.

    :param ledger: what :func:`~airflow_provider_kie.ledger.storage.open_ledger` gives.
    :param within: how soon. Jobs whose files are deleted already are left out.
    :param progress: called as the ledger is read.
    :return: dicts with ``kie_task_id`` and ``family``, which every operator takes for a job, and with ``expires_at``,
        ``state``, ``model``, ``account`` and the task that submitted the job.
    :raises KieLedgerError: the ledger cannot be read.
    """
    now = datetime.now(UTC)
    found: dict[tuple[Any, Any], Row] = {}
    for row in entries(ledger, progress):
        ended = _ended(row)
        if row["state"] in ("submitted", "finished") and row["kie_task_id"] and ended:
            expires_at = ended + FILES_LAST
            if now < expires_at <= now + within:
                told = {"expires_at": expires_at.isoformat(timespec="seconds"), **row}
                names = ("kie_task_id", "family", "expires_at", "state", "model", "account")
                task = ("dag_id", "run_id", "task_id", "map_index")
                found[row["family"], row["kie_task_id"]] = {name: told[name] for name in (*names, *task)}
    return sorted(found.values(), key=lambda row: str(row["expires_at"]))


def spend(ledger: Ledger, by: str, since: datetime | None = None, progress: Progress = silent) -> list[Row]:
    """
    Sum up the credits of all jobs, as KIE reported them.

    A job that several entries know counts once.

    :param ledger: what :func:`~airflow_provider_kie.ledger.storage.open_ledger` gives.
    :param by: one of :data:`GROUPS`.
    :param since: leave out jobs that ended before.
    :param progress: called as the ledger is read.
    :return: for each group its columns, ``jobs``, ``credits`` (None if KIE reported none at all), and
        ``credits_unknown``: for how many of the jobs it reported none.
    :raises KieLedgerError: the ledger cannot be read.
    """
    jobs: dict[tuple[Any, Any], Row] = {}
    for row in entries(ledger, progress):
        ended = _ended(row)
        if not row["kie_task_id"] or (since and (ended is None or ended < since)):
            continue
        row["day"] = ended.date().isoformat() if ended else None
        if _credits(jobs.get((row["family"], row["kie_task_id"]))) is None:
            jobs[row["family"], row["kie_task_id"]] = row
    groups: dict[tuple[Any, ...], list[float | None]] = {}
    for row in jobs.values():
        groups.setdefault(tuple(row[name] for name in GROUPS[by]), []).append(_credits(row))
    return [
        dict(zip(GROUPS[by], group, strict=True)) | _sum(groups[group])
        for group in sorted(groups, key=lambda group: [str(each or "") for each in group])
    ]


def _sum(paid: list[float | None]) -> Row:
    known = [each for each in paid if each is not None]
    unknown = len(paid) - len(known)
    return {"jobs": len(paid), "credits": math.fsum(known) if known else None, "credits_unknown": unknown}


def _credits(row: Row | None) -> float | None:
    given = row["credits"] if row else None
    return given if isinstance(given, (int, float)) and not isinstance(given, bool) else None


def _state(body: Body, archived: bool) -> str:
    if body["state"] == "claimed":
        at = _time(body.get("at"))
        return "claimed" if at and datetime.now(UTC) - at < UNDER_WAY else "unknown"
    return "archived" if archived and body["state"] in ("submitted", "finished") else str(body["state"])


def _ended(row: Row) -> datetime | None:
    """Return when a job ended, rather too early: the ledger may hear of it late, and KIE's time may lack a zone."""
    return min(filter(None, (_time(row["complete_time"]), _time(row["at"]))), default=None)


def _time(given: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
