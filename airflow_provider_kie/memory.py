# SPDX-License-Identifier: Apache-2.0
"""
What a try knows of the job that its task has paid for: by Airflow's task state store, by a ledger, or by both.

What either knows counts, and :mod:`airflow_provider_kie.money` decides what it allows. A ledger is also asked right
before each request that submits, because another task may want the same job at the same moment.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.api.common import FILES_LAST
from airflow_provider_kie.api.fields import is_blank
from airflow_provider_kie.exceptions import KieError, KieLinkExpiredError, KieValidationError, named
from airflow_provider_kie.ledger.entry import LedgerEntry
from airflow_provider_kie.money import (
    FAIL,
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
    from airflow_provider_kie.connection import KieSettings
    from airflow_provider_kie.durable import StoredEntry
    from airflow_provider_kie.ledger.rules import Policy
    from airflow_provider_kie.waiting.verdict import Failed, Verdict

__all__ = ["Memory", "ledger_of", "open_memory"]

log = logging.getLogger(__name__)


class Memory:
    """
    What a try knows of the job of its task.

    :param store: the entry in Airflow's task state store, where there is one.
    :param ledger: the entry in a ledger, if one is configured.
    :param task: the task instance.
    :param max_tries: the task instance's, which a clear raises and a retry does not; None if unknown.
    :param policy: what an unknown outcome allows.
    """

    def __init__(
        self,
        row: Family,
        store: StoredEntry,
        ledger: LedgerEntry | None,
        task: TaskKey | None,
        max_tries: int | None,
        policy: Policy,
    ) -> None:
        self._row = row
        self._store = store
        self.ledger = ledger
        self.task = task if ledger or store.persistent else None
        self.identity = store.identity
        self._max_tries = max_tries
        self._policy = policy
        self._kept: Entry | None = None
        #: The error of a submit of this try whose outcome is unknown.
        self._lost: KieError | None = None
        #: Nothing is on its way, and no intent stands: a request is held back, or was refused.
        self.is_held_back = False

    @property
    def owner(self) -> TaskKey | None:
        """The task instance by which the entry is settled: the one that wrote it."""
        found = self.ledger.found if self.ledger else None
        ids = (found.body or {}).get("task") if found else None
        return replace(self.task, **ids) if ids and self.task else self.task

    @property
    def persistent(self) -> bool:
        """Whether a retry finds what this try writes."""
        return self._store.persistent or self.ledger is not None

    def was_cleared_since(self, entry: Entry | None) -> bool:
        """Return whether the task was cleared after an entry was written; False if unknown."""
        return entry is not None and entry.was_cleared(self._max_tries)

    def load(self) -> Entry | None:
        """Return what is known of an earlier submit."""
        self._kept = kept = self._store.load()
        noted = self.ledger.load() if self.ledger else None
        if self.ledger is None or (kept and kept.kie_task_id and noted and kept.kie_task_id == noted.kie_task_id):
            return kept
        if _weight(noted) >= _weight(kept):
            if kept and kept.kie_task_id and noted:
                log.warning(
                    "The ledger names %s, and Airflow's task state store %s: the ledger counts.",
                    *(named(self._row.tag, entry.kie_task_id) for entry in (noted, kept)),
                )
            return noted
        log.warning("Airflow's task state store knows of a submit that does not stand in the ledger: it counts.")
        return kept

    def refuse_deleted(self, verdict: Verdict | None) -> None:
        """
        Check that KIE has not deleted the files of a job that this task did not submit itself.

        :raises KieLinkExpiredError: it has, by their age.
        """
        found = self.ledger.found if self.ledger else None
        if found is None or found.body is None or not isinstance(verdict, Done) or not verdict.job["files"]:
            return
        if self.owner == self.task or _age(found.body) < FILES_LAST:
            return
        job = verdict.job
        kept = self.ledger.archived(job) if self.ledger else None
        where = f" They were stored at {', '.join(kept)}." if kept else ""
        error = KieLinkExpiredError(
            f"The job was submitted on {found.body['at'][:10]}, so KIE has deleted its files.{where}",
            kie_task_id=job["kie_task_id"],
            family=self._row.tag,
        )
        forget = f": `{self.owner.command('forget')}`" if self.owner else ""
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

    def before_send(self) -> None:
        """
        Make sure that a submit may be sent now.

        :raises KieError: an earlier one may have been accepted, and the policy forbids another.
        :raises AlreadySubmittedError: another claim came first.
        """
        self._stop_after_a_loss()
        if self.is_held_back:
            if self.ledger:
                self.ledger.claim()  # may wait for somebody else's claim, so before the intent stands again
            self._store.begin()
            self.is_held_back = False
        if self.ledger:
            self.ledger.before_send()

    def hold(self) -> None:
        """
        Take back the intent to submit, as long as the request is held back.

        :raises KieError: an earlier one may have been accepted, and the policy forbids another.
        """
        self._stop_after_a_loss()
        if not self.is_held_back:
            self.release()
            self.mark_not_sent()
            self.is_held_back = True

    def after_error(self, error: KieError) -> None:
        """Take note of the error of a submit; after a refusal a repetition counts as held back."""
        if self.ledger:
            self.ledger.after_error(error)
        outcome = outcome_of(error)
        if outcome is Outcome.UNKNOWN:
            self._lost = error
        elif outcome is Outcome.REFUSED:
            self.mark_not_sent()
            self.is_held_back = True

    def _stop_after_a_loss(self) -> None:
        if self._lost and self._policy == FAIL:
            raise self._lost

    def mark_resumed(self, entry: Entry) -> None:
        """Write that this try resumes a job, where that is known."""
        if self._kept is not None and self._kept.kie_task_id == entry.kie_task_id:
            self._store.mark_resumed(entry)

    def share(self, kie_task_id: str) -> None:
        """Write a job that this try goes on with into the memory that does not know it."""
        if self._kept is None or self._kept.kie_task_id != kie_task_id:
            self._store.commit(kie_task_id)
        if self.ledger:
            self.ledger.learn(kie_task_id)

    def mark_not_sent(self) -> None:
        """
        Write that no submit was accepted, unless an earlier one may have been.

        Into the ledger that is written with each request.
        """
        kept = self._kept
        was_unknown = kept is not None and kept.state is State.CLAIMED and self._policy == RESUBMIT
        if self._lost is None and not was_unknown:
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
        if self.ledger:  # first, because others may wait for it
            self.ledger.commit(kie_task_id)
        self._store.commit(kie_task_id)


def ledger_of(given: object, settings: KieSettings) -> str | None:
    """
    Return the folder of the ledger that a task uses; None for no ledger.

    :param given: the task's argument: a URL or a path, False for none, or nothing for the connection's.
    :raises KieValidationError: it is True.
    """
    if given is True:
        raise KieValidationError("ledger is True, but must be a URL or a path, or False for none")
    if given is False:
        return None
    return settings.ledger if is_blank(given) else str(given)


def open_memory(
    row: Family,
    store: StoredEntry,
    task: TaskKey | None,
    ledger_url: str | None,
    *,
    max_tries: int | None,
    reuse: str,
    on_unknown_submit: str | None,
    timeout: float,
) -> Memory:
    """
    Return what a try knows.

    :param ledger_url: the ledger's folder; None for no ledger.
    :param max_tries: the task instance's.
    :param timeout: seconds for one request to KIE.
    :raises KieLedgerError: the ledger cannot be used.
    """
    policy: Policy = "fail" if stops_after_unknown(row.guarded, on_unknown_submit) else "resubmit"
    if ledger_url is None:
        return Memory(row, store, None, task, max_tries, policy)
    from airflow_provider_kie.ledger.chain import longest_submit
    from airflow_provider_kie.ledger.storage import open_ledger  # late: it imports storages

    facts = {
        "identity": store.identity,
        "task": task and task.ids,
        "guarded": row.guarded,
        "reuse": reuse,
        "max_tries": max_tries,
    }
    ledger = open_ledger(ledger_url)
    chain = ledger.chain(_chain_key(reuse, task, store.identity, max_tries))
    chain.facts |= facts
    patience = longest_submit(timeout)
    entry = LedgerEntry(ledger, chain, policy=policy, patience=patience)
    return Memory(row, store, entry, task, max_tries, policy)


def _chain_key(reuse: str, task: TaskKey | None, identity: Mapping[str, str], max_tries: int | None) -> dict[str, Any]:
    """Return what a chain is about: the job; or the task instance, whatever its input, at most up to its next clear."""
    if reuse == INPUT or task is None:
        return dict(identity)
    return task.ids | ({"max_tries": max_tries} if reuse == NEVER else {})


def _weight(entry: Entry | None) -> int:
    """Return how much an entry forbids: nothing, a submit of unknown outcome, or a job."""
    if entry is None or entry.state in (State.REFUSED, State.FAILED):
        return 0
    return 2 if entry.kie_task_id else 1


def _age(body: Mapping[str, Any]) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(body["at"])
