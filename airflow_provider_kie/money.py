# SPDX-License-Identifier: Apache-2.0
"""
What is paid for, and what a next try may do: the money rules, as pure functions.

*Outcomes of a submit.* Accepted: an answer that names an id, whatever its number. Refused: it certainly created
nothing, or was never sent. Unknown: everything else that leaves a submit between its first byte and its answer, also
the death of the process.

*Memory.* An intent is written before the submit; right after it the id, or that it was refused. If that last write
fails, the outcome is unknown.

*Next try.* With an id it goes on with that job. Refused and failed count as no entry. After an unknown outcome it
submits again where KIE refuses a second identical submit, which the row of the family says, and stops where that would
be charged again.

*A new submit is worth it* only after a failure that KIE confirms, and not where the input was the reason.
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
    "identity_of",
    "maybe_submitted",
    "next_try",
    "outcome_of",
    "stops_after_unknown",
    "worth_a_new_submit",
]


class Outcome(Enum):
    """What is known of a submit that ended in an error."""

    ACCEPTED = auto()
    REFUSED = auto()
    UNKNOWN = auto()


class State(StrEnum):
    """What a memory knows of a job."""

    CLAIMED = "claimed"
    REFUSED = "refused"
    SUBMITTED = "submitted"
    #: KIE confirms it, and a new submit may cure it.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """
    What a memory holds of the last submit.

    :param state: how far it got.
    :param identity: what was submitted, as names and values.
    :param kie_task_id: the job, once it is known.
    :param max_tries: Airflow's number of tries at that time, which a clear raises and a retry does not.
    :param guarded: it was submitted where KIE refuses a second identical submit.
    """

    state: State
    identity: Mapping[str, str]
    kie_task_id: str | None = None
    max_tries: int | None = None
    guarded: bool = True


@dataclass(frozen=True, slots=True)
class TaskKey:
    """
    The task instance that a memory belongs to.

    :param map_index: -1 for a task that is not mapped.
    :param conn_id: the connection of the task, where it is not the default one.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    conn_id: str | None = None

    def command(self, name: str) -> str:
        """Return the command line that settles what is remembered for it, as a shell takes it."""
        index = ["--map-index", str(self.map_index)] if self.map_index >= 0 else []
        conn_id = ["--conn-id", self.conn_id] if self.conn_id and name == "adopt" else []
        return f"airflow kie jobs {name} {shlex.join([self.dag_id, self.run_id, self.task_id, *index, *conn_id])}"


@dataclass(frozen=True, slots=True)
class Submit:
    """Nothing was paid for that could be used: submit."""


@dataclass(frozen=True, slots=True)
class Resume:
    """
    Go on with a job that is paid for.

    :param kie_task_id: the job.
    """

    kie_task_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """
    Do not submit: it might be paid for again.

    :param error: why, and what to do.
    """

    error: KieError


def identity_of(
    account: str, base_url: str, row: Family, model: str | None, given: Mapping[str, Json]
) -> dict[str, str]:
    """
    Return what tells a job from every other one: the account, the host, the family or model, and the input.

    What differs from day to day is no part of it: the callback URL, and the query of any URL.

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

#: Whose money is spent, and where: KIE's guard does not reach from one account to another.
PAYER: Final = frozenset({"account", "base_url"})

#: What ``on_unknown_submit`` may say, and what ``reuse``.
RESUBMIT: Final = "resubmit"
FAIL: Final = "fail"
TASK: Final = "task"
NEVER: Final = "never"


def outcome_of(error: BaseException) -> Outcome:
    """Say what is known of a submit that raised."""
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
    Say what a try may do, after what an earlier one left in the memory.

    :param entry: what the memory holds; None for nothing.
    :param on_unknown_submit: ``"resubmit"`` or ``"fail"``; by default what the row's guard allows.
    :param reuse: ``"task"``, or ``"never"`` where a clear asks for another job.
    :param cleared: somebody has cleared the task since, so that another input is another job. What cannot be told
        counts as a retry.
    :param task: whose memory it is, for the message.
    """
    if entry is None or entry.state in (State.REFUSED, State.FAILED) or (cleared and reuse == NEVER):
        return Submit()
    guarded = row.guarded and entry.guarded
    # Entries of earlier versions know no account of a guarded job.
    known = entry.identity if guarded else dict.fromkeys(identity)
    differing = sorted(name for name, value in identity.items() if name in known and entry.identity.get(name) != value)
    if differing and (cleared or (guarded and not PAYER & set(differing))):
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
    Tell whether nothing may be submitted after a submit of unknown outcome.

    :param on_unknown_submit: ``"resubmit"`` or ``"fail"``; by default what the guard allows.
    """
    return (on_unknown_submit or (RESUBMIT if guarded else FAIL)) != RESUBMIT


def maybe_submitted(
    row: Family, problem: str, task: TaskKey | None, conn_id: str | None = None
) -> KieMaybeSubmittedError:
    """
    Return the error that stops a task, with the command lines that settle it where something is remembered.

    :param task: whose memory it is; None where nothing is remembered.
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


def worth_a_new_submit(error: KieError, *, guarded: bool) -> bool:
    """
    Tell whether a new submit may cure the end of a job, so that a retry should make one.

    :param error: how the job ended. After any end that KIE does not confirm the job may go on, and its id is worth more
        than another try; under a guard an id that KIE does not know is submitted again for free.
    """
    if guarded:
        return isinstance(error, (KieJobFailedError, KieNotFoundError))
    return isinstance(error, KieJobFailedError) and not isinstance(error, AirflowFailException)
