# SPDX-License-Identifier: Apache-2.0
"""
The money rules as pure functions: what has been paid for, and what the next try may do.

*Outcomes of a submit.* Accepted: the answer names an id, whatever its result number. Refused: KIE certainly created
nothing, or nothing was sent. Unknown: anything else that happens between the first byte of the submit and its answer,
including the end of the process.

*Entry.* The intent is stored before the submit; right after it the id, or that it was refused. If that second write
fails, the outcome is unknown.

*Next try.* With an id it resumes that job. Refused and failed count as no entry. After an unknown outcome it submits
again if the family is guarded, which means that KIE refuses a second identical submit; otherwise it stops, because a
second one would be charged.

*Another submit* follows only a failure that KIE confirms, and not one that the input caused.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final, TypeAlias

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie.api import fields
from airflow_provider_kie.api.envelope import Json
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.job import CALLBACK
from airflow_provider_kie.compat import COMMAND
from airflow_provider_kie.exceptions import (
    KieError,
    KieJobFailedError,
    KieMaybeSubmittedError,
    KieNotFoundError,
)

__all__ = [
    "Entry",
    "NextTry",
    "Outcome",
    "Resume",
    "State",
    "Stop",
    "Submit",
    "TaskKey",
    "digest",
    "has_failed",
    "identity_of",
    "maybe_submitted",
    "next_try",
    "outcome_of",
    "stops_after_unknown",
    "worth_a_new_submit",
]


class Outcome(Enum):
    """The outcome of a submit that raised."""

    ACCEPTED = auto()
    REFUSED = auto()
    UNKNOWN = auto()


class State(StrEnum):
    """The state of a stored entry."""

    #: Written before the submit; alone, it means that the outcome is unknown.
    CLAIMED = "claimed"
    REFUSED = "refused"
    SUBMITTED = "submitted"
    #: Confirmed by KIE, and another submit may succeed.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """
    What is stored about the last submit of a task instance.

    :param state: the state.
    :param identity: what identifies the job, see :func:`identity_of`.
    :param kie_task_id: the job, once it is known.
    :param max_tries: the task instance's ``max_tries`` at that time; a clear raises it, a retry does not.
    :param guarded: whether KIE refuses a second identical submit.
    """

    state: State
    identity: Mapping[str, str]
    kie_task_id: str | None = None
    max_tries: int | None = None
    guarded: bool = True

    def was_cleared(self, max_tries: int | None) -> bool:
        """
        Return whether the task was cleared after this was written; False if unknown.

        :param max_tries: the task instance's, as it is now.
        """
        return self.max_tries is not None and max_tries is not None and self.max_tries != max_tries


@dataclass(frozen=True, slots=True)
class TaskKey:
    """
    The task instance that an entry belongs to.

    :param map_index: -1 for a task that is not mapped.
    :param conn_id: the connection of the task, unless it is the default one.
    :param ledger: the task's own ledger, if it is not the connection's.
    :param entry: the name of the item's entry in the ledger, for an item of a batch.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    conn_id: str | None = None
    ledger: str | None = None
    entry: str | None = None

    @property
    def ids(self) -> dict[str, str | int]:
        """The ids as they are stored."""
        return {"dag_id": self.dag_id, "run_id": self.run_id, "task_id": self.task_id, "map_index": self.map_index}

    def command(self, name: str) -> str:
        """Return the shell command that settles its entry."""
        index = ["--map-index", str(self.map_index)] if self.map_index >= 0 else []
        conn_id = ["--conn-id", self.conn_id] if self.conn_id else []
        ledger = ["--ledger", self.ledger] if self.ledger else []
        entry = ["--entry", self.entry] if self.entry else []
        ids = [self.dag_id, self.run_id, self.task_id]
        return f"{COMMAND} jobs {name} {shlex.join([*ids, *index, *conn_id, *ledger, *entry])}"


@dataclass(frozen=True, slots=True)
class Submit:
    """Submit: there is no paid job to resume."""


@dataclass(frozen=True, slots=True)
class Resume:
    """
    Resume a paid job.

    :param kie_task_id: the job.
    """

    kie_task_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """
    Do not submit: the job might be charged twice.

    :param error: why, and what to do.
    """

    error: KieError


def identity_of(
    account: str, base_url: str, row: Family, model: str | None, given: Mapping[str, Json]
) -> dict[str, str]:
    """
    Return what identifies a job: the account, the host, the family or model, and a digest of the input.

    Leaves out what changes from day to day: the callback URL, and the query of any URL.

    :param account: whose money is spent; never the key or a digest of it.
    :param given: the rendered fields of the call.
    """
    return {
        "account": account,
        "base_url": base_url,
        "family": row.name,
        "model": model or "",
        "digest": digest({name: value for name, value in given.items() if name != CALLBACK}),
    }


def digest(value: Json) -> str:
    """Return the SHA-256 of a value as canonical JSON: sorted keys, UTF-8, 1.0 as 1, no query in any URL."""
    text = json.dumps(_canonical(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _canonical(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and not re.search(r"\s", value.strip()) and fields.http_url(value):
        return value.partition("?")[0]
    return value


NextTry: TypeAlias = Submit | Resume | Stop

#: The parts of an identity that say who pays. KIE's guard does not cover another account.
ACCOUNT_AND_HOST: Final = frozenset({"account", "base_url"})

#: The values of ``on_unknown_submit`` and of ``reuse``.
RESUBMIT: Final = "resubmit"
FAIL: Final = "fail"
TASK: Final = "task"
INPUT: Final = "input"
NEVER: Final = "never"


def outcome_of(error: BaseException) -> Outcome:
    """Return the outcome of a submit that raised anything, also Airflow's time-out or the end of the process."""
    if isinstance(error, KieError):
        if error.existing_kie_task_id and fields.is_id(error.existing_kie_task_id):
            return Outcome.ACCEPTED
        if error.nothing_created:
            return Outcome.REFUSED
    return Outcome.UNKNOWN


def next_try(
    row: Family,
    entry: Entry | None,
    identity: Mapping[str, str],
    *,
    on_unknown_submit: str | None = None,
    reuse: str = TASK,
    cleared: bool = False,
    task: TaskKey | None = None,
) -> NextTry:
    """
    Decide what a try may do, given the entry of an earlier one.

    :param entry: what is stored; None for nothing.
    :param on_unknown_submit: ``"resubmit"`` or ``"fail"``; by default what the row's guard allows.
    :param reuse: ``"task"``, or ``"never"`` where a clear asks for another job.
    :param cleared: the task was cleared after the entry was written, so a different input means a different job; False
        if unknown.
    :param task: the task instance of the entry, for the message.
    """
    if entry is None or entry.state in (State.REFUSED, State.FAILED) or (cleared and reuse == NEVER):
        return Submit()
    guarded = row.guarded and entry.guarded
    # Entries of earlier versions have no account.
    known = {name: value for name, value in identity.items() if name in entry.identity or name not in ACCOUNT_AND_HOST}
    differing = sorted(name for name, value in known.items() if entry.identity.get(name) != value)
    if set(differing) - ACCOUNT_AND_HOST and (guarded or cleared):
        return Submit()
    if differing:
        return Stop(_other_job(row, entry, differing, task))
    if entry.kie_task_id:
        return Resume(entry.kie_task_id)
    if not stops_after_unknown(guarded, on_unknown_submit):
        return Submit()
    problem = "An earlier try may have submitted the job, and its id is not known"
    return Stop(maybe_submitted(row, problem, task))


def stops_after_unknown(guarded: bool, on_unknown_submit: str | None) -> bool:
    """
    Return whether an unknown outcome forbids another submit.

    :param on_unknown_submit: ``"resubmit"`` or ``"fail"``; by default what the guard allows.
    """
    return (on_unknown_submit or (RESUBMIT if guarded else FAIL)) != RESUBMIT


def maybe_submitted(
    row: Family, problem: str, task: TaskKey | None, conn_id: str | None = None
) -> KieMaybeSubmittedError:
    """
    Return the error that stops a task, with the commands that settle its entry.

    :param task: the task instance of the entry; None if nothing is stored.
    """
    settle = (
        f"Look at https://kie.ai/logs. If the job is listed, go on with it: `{task.command('adopt')} KIE_TASK_ID`; "
        f"if not, let the next try submit: `{task.command('forget')}`. Then clear the task."
        if task
        else None
    )
    return KieMaybeSubmittedError(problem, conn_id=conn_id, family=row.tag, next_step=settle)


def _other_job(row: Family, entry: Entry, differing: list[str], task: TaskKey | None) -> KieMaybeSubmittedError:
    problem = f"An earlier try submitted with another {', '.join(differing)}, and its job has not failed"
    settle = (
        "To go on with that job, undo the change and clear the task. To submit the other one, which is paid for too: "
        f"`{task.command('forget')}`, and clear the task."
        if task
        else None
    )
    return KieMaybeSubmittedError(problem, kie_task_id=entry.kie_task_id, family=row.tag, next_step=settle)


def has_failed(row: Family, entry: Entry, decision: NextTry, error: KieError) -> bool:
    """
    Return whether the job of an entry has ended so that this try should submit again.

    :param decision: what :func:`next_try` says of the entry. If it is to stop, the connection may belong to another
        account, which does not know the job: then an unknown id does not mean that the job failed.
    :param error: how the job ended.
    """
    guarded = row.guarded and entry.guarded and not isinstance(decision, Stop)
    return worth_a_new_submit(error, guarded=guarded)


def worth_a_new_submit(error: KieError, *, guarded: bool) -> bool:
    """
    Return whether a retry should submit again after this error.

    :param error: how the job ended. Unless KIE confirms a failure, the job may still run, and its id is worth more than
        another try. Under a guard an unknown id is submitted again too, because that is free.
    """
    if guarded:
        return isinstance(error, (KieJobFailedError, KieNotFoundError))
    return isinstance(error, KieJobFailedError) and not isinstance(error, AirflowFailException)
