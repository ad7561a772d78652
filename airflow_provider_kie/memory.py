# SPDX-License-Identifier: Apache-2.0
"""
What a try knows of the job that its task has paid for: by Airflow's task state store, by a ledger, or by both.

What either knows counts, and :mod:`airflow_provider_kie.money` decides what it allows. A ledger is also asked right
before each request that submits, because another task may want the same job at the same moment.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.exceptions import KieError, KieLinkExpiredError, named
from airflow_provider_kie.money import (
    INPUT,
    NEVER,
    RESUBMIT,
    Entry,
    Outcome,
    State,
    TaskKey,
    outcome_of,
    stops_after_unknown,
)
from airflow_provider_kie.waiting.verdict import Done

if TYPE_CHECKING:
    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.api.job import KieJob
    from airflow_provider_kie.durable import StoredEntry
    from airflow_provider_kie.ledger.rules import Found, Policy
    from airflow_provider_kie.ledger.storage import Chain, Ledger
    from airflow_provider_kie.waiting.verdict import Failed, Verdict

__all__ = ["AlreadySubmittedError", "LedgerEntry", "Memory", "open_memory"]

log = logging.getLogger(__name__)

#: How long KIE keeps the files of a job.
FILES_LAST = timedelta(days=14)
#: Seconds that opening a connection to KIE and the note after the submit may take together.
NOTE_SECONDS = 40.0


class AlreadySubmittedError(Exception):
    """Another claim came first, so nothing is sent; ``entry`` is what is known of its job."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.kie_task_id)
        self.entry = entry


class LedgerEntry:
    """
    The entry of a job in a ledger, for one try.

    :param policy: what an unknown outcome allows: ``"fail"`` or ``"resubmit"``.
    :param patience: seconds to wait for the id of a job that somebody else is submitting: more than that can take.
    """

    def __init__(self, ledger: Ledger, chain: Chain, *, policy: Policy, patience: float) -> None:
        self._ledger = ledger
        self._chain = chain
        self._policy = policy
        self._patience = patience
        self._generation = 0
        self._may_send = False
        #: The last generation that is over, as far as this try knows.
        self._over = 0
        #: What the entry says, if it is not a claim of this try.
        self.found: Found | None = None

    def load(self) -> Entry | None:
        """
        Return what is known of the job; None if nothing is, in which case it is claimed for this try.

        Waits for the id of a job that another one is just submitting.
        """
        found = self._chain.claim(self._policy, self._patience, after=self._over)
        self._generation = found.generation
        self._may_send = found.kind == "claimed"
        self.found = None if self._may_send else found
        return None if self._may_send else _entry_of(found)

    def open_next(self, closing: str) -> None:
        """
        Claim another submit, after a decision that what this entry says is no reason not to.

        :param closing: the state that closes the entry: ``"failed"`` or ``"forgotten"``.
        :raises AlreadySubmittedError: another claim came first.
        """
        if self._may_send:
            return
        if self.found is not None and self.found.kind == "unknown" and closing == "failed" and self._policy != RESUBMIT:
            raise AlreadySubmittedError(_entry_of(self.found))  # another submit than the one that has failed
        # Where an unknown outcome allows another submit, an id that comes late must still count.
        stays_open = self.found is not None and self.found.kind == "unknown" and self._policy == RESUBMIT
        if self.found is not None and not stays_open:
            self._chain.note(self._generation, closing, self.found.kie_task_id)
        self._over = self._generation
        self._claim()

    def before_send(self) -> None:
        """
        Make sure that this try may send a submit now: one claim allows one request, soon.

        :raises AlreadySubmittedError: another claim came first.
        """
        if self._may_send and self._chain.is_late:
            self._give_back()
        if not self._may_send:
            self._claim()
        self._may_send = False

    def after_error(self, error: KieError) -> None:
        """Write what an error says about the request that was sent."""
        outcome = outcome_of(error)
        if outcome is Outcome.REFUSED:
            self._give_back()
        elif outcome is Outcome.UNKNOWN and self._policy == RESUBMIT:
            self._over = self._generation

    def release(self) -> None:
        """Write that nothing was sent under the claim of this try, if that is so."""
        if self._may_send:
            self._give_back()

    def mark_sent(self) -> None:
        """Note that a request may have been sent under the claim, even by a hook that does not ask before."""
        self._may_send = False

    def learn(self, kie_task_id: str) -> None:
        """Write a job that only the other memory knows into the claim of this try."""
        if self._may_send:
            self.commit(kie_task_id)

    def commit(self, kie_task_id: str) -> None:
        """Write the id; a failure does not fail the task, because the job is paid for."""
        self._may_send = False
        self._chain.note(self._generation, "submitted", kie_task_id)

    def archived(self, job: KieJob) -> Sequence[str]:
        """Return where the files of a job were stored."""
        kept = self._ledger.archived(job["family"], job["kie_task_id"]) or {}
        return [str(destination) for destination in kept.get("destinations", [])]

    def end(self, kie_task_id: str, job: KieJob | None) -> None:
        """
        Write how a job has ended.

        :param job: the finished job; None for one that has failed.
        """
        found = self._chain.look(0.0)
        if found.kind == "job" and found.kie_task_id == kie_task_id:
            facts = {"credits": job["credits"], "complete_time": job["complete_time"]} if job else {}
            self._chain.note(found.generation, "finished" if job else "failed", kie_task_id, **facts)

    def _claim(self) -> None:
        if (entry := self.load()) is not None:
            raise AlreadySubmittedError(entry)

    def _give_back(self) -> None:
        self._chain.note(self._generation, "refused")
        self._over, self._may_send = self._generation, False


class Memory:
    """
    What a try knows of the job of its task.

    :param store: the entry in Airflow's task state store, where there is one.
    :param ledger: the entry in a ledger, if one is configured.
    :param task: the task instance; None if nothing is stored anywhere.
    """

    def __init__(self, row: Family, store: StoredEntry, ledger: LedgerEntry | None, task: TaskKey | None) -> None:
        self._row = row
        self._store = store
        self.ledger = ledger
        self.task = task if ledger or store.persistent else None
        self.identity = store.identity
        self._kept: Entry | None = None

    @property
    def persistent(self) -> bool:
        """Whether a retry finds what this try writes."""
        return self._store.persistent or self.ledger is not None

    def was_cleared_since(self, entry: Entry | None) -> bool:
        """Return whether the task was cleared after an entry was written; False if unknown."""
        return self._store.was_cleared_since(entry)

    def load(self) -> Entry | None:
        """Return what is known of an earlier submit."""
        self._kept = kept = self._store.load()
        noted = self.ledger.load() if self.ledger else None
        if self.ledger is None or (kept and noted and kept.kie_task_id == noted.kie_task_id):
            return kept
        if _weight(noted) >= _weight(kept):
            if kept and kept.kie_task_id and noted:
                log.warning(
                    "The ledger names %s, and Airflow's task state store %s: the ledger counts.",
                    *(named(self._row.tag, entry.kie_task_id) for entry in (noted, kept)),
                )
            return noted
        log.warning("Airflow's task state store knows of a submit that the ledger does not know: it counts.")
        return kept

    def refuse_deleted(self, verdict: Verdict | None) -> None:
        """
        Check that KIE has not deleted the files of a job that this task did not submit itself.

        :raises KieLinkExpiredError: it has, by their age.
        """
        found = self.ledger.found if self.ledger else None
        if found is None or found.body is None or not isinstance(verdict, Done) or not verdict.job["files"]:
            return
        owner = TaskKey(**found.body["task"]) if found.body.get("task") else None
        if owner == self.task or _age(found.body) < FILES_LAST:
            return
        job = verdict.job
        kept = self.ledger.archived(job) if self.ledger else None
        where = f" They were stored at {', '.join(kept)}." if kept else ""
        error = KieLinkExpiredError(
            f"The job was submitted on {found.body['at'][:10]}, so KIE has deleted its files.{where}",
            kie_task_id=job["kie_task_id"],
            family=self._row.tag,
        )
        forget = f": `{owner.command('forget')}`" if owner else ""
        error.next_step = f"To pay for the same job once more, let the ledger forget it{forget}, and clear this task."
        raise error

    def begin(self, earlier: Failed | None) -> None:
        """
        Write the intent to submit, wherever that is remembered.

        :param earlier: the failure of the job that is known, if that is why another one is submitted.
        :raises AlreadySubmittedError: another claim came first.
        """
        if self.ledger:
            self.ledger.open_next("failed" if earlier else "forgotten")
        self._store.begin()

    def mark_resumed(self, entry: Entry) -> None:
        """Write that this try resumes a job."""
        if self._kept is not None and self._kept.kie_task_id == entry.kie_task_id:
            self._store.mark_resumed(entry)
        elif entry.kie_task_id:
            self._store.commit(entry.kie_task_id)
        if self.ledger and entry.kie_task_id:
            self.ledger.learn(entry.kie_task_id)

    def mark_refused(self) -> None:
        """Write that the submit was refused; into the ledger that is written with each request."""
        self._store.mark_refused()

    def mark_sent(self) -> None:
        """Note that a submit may have been sent, however it was."""
        if self.ledger:
            self.ledger.mark_sent()

    def end(self, kie_task_id: str, job: KieJob | None) -> None:
        """Write how a job has ended, see :meth:`LedgerEntry.end`."""
        if self.ledger:
            self.ledger.end(kie_task_id, job)

    def release(self) -> None:
        """Give back a claim under which nothing was sent."""
        if self.ledger:
            self.ledger.release()

    def commit(self, kie_task_id: str) -> None:
        """Write the id of the job that is paid for."""
        self._store.commit(kie_task_id)
        if self.ledger:
            self.ledger.commit(kie_task_id)


def open_memory(
    row: Family,
    store: StoredEntry,
    task: TaskKey | None,
    ledger_url: str | None,
    *,
    reuse: str,
    on_unknown_submit: str | None,
    timeout: float,
) -> Memory:
    """
    Return what a try knows.

    :param ledger_url: the ledger's folder; None for no ledger.
    :param timeout: seconds for one request to KIE.
    :raises KieLedgerError: the ledger cannot be used.
    """
    if ledger_url is None:
        return Memory(row, store, None, task)
    from airflow_provider_kie.ledger.storage import SEND_WITHIN, open_ledger  # late: it imports storages

    policy: Policy = "fail" if stops_after_unknown(row.guarded, on_unknown_submit) else "resubmit"
    facts = {
        "identity": store.identity,
        "task": task and task.ids,
        "guarded": row.guarded,
        "reuse": reuse,
        "max_tries": store.max_tries,
    }
    ledger = open_ledger(ledger_url)
    chain = ledger.chain(_chain_key(reuse, task, store))
    chain.facts |= facts
    patience = SEND_WITHIN + 2 * timeout + NOTE_SECONDS
    return Memory(row, store, LedgerEntry(ledger, chain, policy=policy, patience=patience), task)


def _chain_key(reuse: str, task: TaskKey | None, store: StoredEntry) -> dict[str, Any]:
    """Return what a chain is about: the job; or the task instance, whatever its input, at most up to its next clear."""
    if reuse == INPUT or task is None:
        return dict(store.identity)
    return task.ids | ({"max_tries": store.max_tries} if reuse == NEVER else {})


def _weight(entry: Entry | None) -> int:
    """Return how much an entry forbids: nothing, a submit of unknown outcome, or a job."""
    if entry is None or entry.state in (State.REFUSED, State.FAILED):
        return 0
    return 2 if entry.kie_task_id else 1


def _age(body: Mapping[str, Any]) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(body["at"])


def _entry_of(found: Found) -> Entry:
    body = found.body or {}
    state = State.SUBMITTED if found.kind == "job" else State.CLAIMED
    max_tries, kie_task_id = body.get("max_tries"), body.get("kie_task_id")
    return Entry(
        state,
        dict(body.get("identity") or {}),
        kie_task_id if isinstance(kie_task_id, str) and kie_task_id else None,
        max_tries if isinstance(max_tries, int) else None,
        guarded=body.get("guarded", True) is True,
    )
