# SPDX-License-Identifier: Apache-2.0
"""
What is paid for each item of a batch: its entry in the ledger, and its submits.

The rules are those of a single job (:mod:`airflow_provider_kie.money`, :mod:`airflow_provider_kie.ledger`). Everything
here blocks, and runs in several threads at once; each thread has a hook of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kie.api.common import FILES_LAST
from airflow_provider_kie.exceptions import (
    KieAuthenticationError,
    KieBlockedError,
    KieConfigurationError,
    KieError,
    KieFeatureDisabledError,
    KieInsufficientCreditsError,
    KieJobFailedError,
    KieKeyCapError,
    KieLedgerError,
    KieRateLimitError,
    named,
)
from airflow_provider_kie.ledger.entry import AlreadySubmittedError, LedgerEntry
from airflow_provider_kie.money import (
    FAIL,
    INPUT,
    Entry,
    Outcome,
    Resume,
    Stop,
    Submit,
    TaskKey,
    maybe_submitted,
    next_try,
    outcome_of,
)

if TYPE_CHECKING:
    from airflow_provider_kie.api.job import KieJob
    from airflow_provider_kie.batch.items import Item
    from airflow_provider_kie.batch.payer import Payer
    from airflow_provider_kie.hooks.kie import KieHook

__all__ = ["STOPS", "Submits"]

log = logging.getLogger(__name__)

#: Seconds for which a batch waits at most after KIE's rate limit, and at least before each new attempt.
LONGEST_HOLD, SHORTEST_HOLD = 3600.0, 10.0
#: Errors that every further submit would meet too.
STOPS: Final = (
    KieAuthenticationError,
    KieBlockedError,
    KieConfigurationError,
    KieFeatureDisabledError,
    KieInsufficientCreditsError,
    KieKeyCapError,
    KieLedgerError,
)


class _NotSentError(Exception):
    """Nothing more may be sent, for this item or for all."""


class Submits:
    """
    Looks up, submits and notes the jobs of items.

    :param payer: whose they are.
    """

    def __init__(self, payer: Payer) -> None:
        self.payer = payer
        self._row = payer.kind.row
        self._here = threading.local()
        #: Set when nothing more may be sent.
        self.closed = threading.Event()
        #: The lines of items whose submit is on its way.
        self.under_way: set[int] = set()

    def look_up(self, item: Item) -> Entry | None:
        """
        Find what is known of an item's job, and note it in the item; return what forbids or allows a submit.

        :raises KieLedgerError: the ledger cannot be read.
        """
        return self._look(item, self._entry(item))

    def submit(self, item: Item) -> None:
        """Submit an item's job, unless somebody else has; note in the item how that ended."""
        entry = self._entry(item)
        before = item.kie_task_id
        try:
            if item.claim_is_over:
                claim = item.claim
                self._look(item, entry)
                entry.pass_over(claim)
            kie_task_id = self._send_patiently(item, entry)
        except _NotSentError:
            return
        except AlreadySubmittedError as other:
            self._note_owner(item, entry)
            self._join(item, other.entry)
        else:
            if kie_task_id is not None:
                entry.commit(kie_task_id)
                item.accepted += kie_task_id != before
                item.kie_task_id, item.end = kie_task_id, "running"
                log.debug("Item %s: %s is submitted.", item.line, named(self._row.tag, kie_task_id))
        finally:
            entry.release()
            self.under_way.discard(item.line)

    def note_end(self, item: Item, job: KieJob | None) -> None:
        """Write how an item's job has ended; a failure is only a warning, because the job is paid for."""
        try:
            self._entry(item).end(str(item.kie_task_id), job)
        except KieLedgerError as error:
            log.warning("The end of item %s could not be written into the ledger: %s", item.line, error)

    def unknown(self, item: Item, problem: str) -> None:
        """Note that an item may have been submitted; the error names the commands that settle it."""
        item.kie_task_id = None  # any that it has is that of an earlier submit
        error = maybe_submitted(self._row, problem, self._owner_of(item), self.payer.settings.conn_id)
        item.ends("unknown", error, retry_helps=self.payer.policy == "resubmit")

    def decide(self, item: Item, known: Entry | None) -> Submit | Resume | None:
        """
        Return what may be done about an item, given what is known of it.

        :return: None if nothing may, in which case the item says why.
        """
        identity = self.payer.kind.identity(self.payer.settings, item.given)
        allowed = self.payer.on_unknown_submit
        decision = next_try(self._row, known, identity, on_unknown_submit=allowed, task=self._owner_of(item))
        if isinstance(decision, Stop):
            item.ends("unknown", decision.error)
            return None
        return decision

    def check_attempts(self, item: Item, entry: LedgerEntry) -> None:
        """
        Check that other tries have not used up what an item may have submitted.

        :raises _NotSentError: they have; the item says so.
        """
        bodies = entry.look_again()
        if any("task" not in body and body["state"] in ("submitted", "finished", "failed") for body in bodies):
            raise KieLedgerError("What is paid for an item cannot be read")
        failed = self._accepted(bodies)  # in the order of their submits
        if len(failed) < self.payer.max_attempts:
            return
        if item.error is None:
            problem = f"Its job has failed, and max_attempts={self.payer.max_attempts} allows no other"
            item.kie_task_id = failed[-1]
            item.ends("failed", KieJobFailedError(problem, kie_task_id=failed[-1], family=self._row.tag))
        item.retry_helps = False
        raise _NotSentError

    def _accepted(self, bodies: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the ids of the jobs that tries of this task have submitted."""
        own = (body for body in bodies if body.get("task") == self.payer.task.ids and body["state"] != "forgotten")
        return list(dict.fromkeys(body["kie_task_id"] for body in own if body["kie_task_id"]))

    def _look(self, item: Item, entry: LedgerEntry) -> Entry | None:
        bodies = entry.look()
        if told := self._told_alone(item, entry, bodies):
            entry.take(told)
        item.accepted = len({*self._accepted(bodies), *([told] if told else [])})
        self._note_owner(item, entry)
        found = entry.found
        item.claim = found.generation if found and found.kind == "unknown" else 0
        if found and (found.kind == "job" or found.state == "failed") and found.kie_task_id:
            item.kie_task_id = found.kie_task_id
            item.credits = (found.body or {}).get("credits")
            item.is_deleted = _is_deleted(found.body or {}, self.payer.task)
        if item.kie_task_id and item.kie_task_id == item.told.get("kie_task_id"):
            item.destinations = list(item.told["destinations"])
        return entry.known

    def _told_alone(self, item: Item, entry: LedgerEntry, bodies: Sequence[Mapping[str, Any]]) -> str | None:
        """Return an id that an earlier try could only write into its manifest; None if there is none."""
        told: str | None = item.told.get("kie_task_id")
        is_unknown = entry.found is not None and entry.found.kind == "unknown"
        if not is_unknown or item.told.get("entry") != item.entry:
            return None
        return None if told in {body["kie_task_id"] for body in bodies} else told  # that of an earlier submit

    def _note_owner(self, item: Item, entry: LedgerEntry) -> None:
        body = (entry.found.body if entry.found else None) or {}
        item.owner = body.get("task") or {}

    def _owner_of(self, item: Item) -> TaskKey:
        """Return by whose ids an item is settled: those of the task that has claimed it."""
        return replace(self.payer.task, **item.owner, entry=item.entry)

    def _send_patiently(self, item: Item, entry: LedgerEntry) -> str | None:
        """Submit an item; if KIE asks for a long pause, wait for as long, because no other item would do better."""
        until = time.monotonic() + LONGEST_HOLD
        while True:
            kie_task_id = self._send(item, entry)
            error = item.error
            if kie_task_id is not None or not isinstance(error, KieRateLimitError) or time.monotonic() > until:
                return kie_task_id
            pause = error.retry_after or SHORTEST_HOLD
            log.warning("Item %s: %s Trying again in %.0f seconds.", item.line, error, pause)
            if self.closed.wait(pause):
                return None

    def _send(self, item: Item, entry: LedgerEntry) -> str | None:
        """Submit an item, and return the id; None if there is none, in which case the item says why."""
        guard = _Guard(self, item, entry)
        try:
            with self._hook.submits_by(guard):
                return self.payer.kind.send(self._hook, item.given)
        except (AlreadySubmittedError, _NotSentError):
            raise
        except Exception as error:
            outcome = outcome_of(error)
            if outcome is Outcome.REFUSED and isinstance(error, KieError) and not guard.lost:
                item.ends("not submitted", error)
                if isinstance(error, STOPS):
                    self.closed.set()  # at once, because others are just about to be sent
                return None
            entry.mark_sent()
            if isinstance(error, KieError) and outcome is Outcome.ACCEPTED:
                log.warning("Item %s: %s", item.line, error)
                return str(error.existing_kie_task_id)
            if not isinstance(error, KieError):
                log.exception("The submit of item %s broke off.", item.line)
            problem = error.problem if isinstance(error, KieError) else f"The submit broke off ({type(error).__name__})"
            self.unknown(item, problem)
            return None

    def _join(self, item: Item, other: Entry) -> None:
        """Go on with the job of another task or try, which has claimed it first."""
        decision = self.decide(item, other)
        if isinstance(decision, Resume):
            item.kie_task_id, item.end = decision.kie_task_id, "running"
        elif decision is not None:
            self.unknown(item, "Another task or try is submitting the job, and its id is not known")

    def _entry(self, item: Item) -> LedgerEntry:
        payer = self.payer
        identity = payer.kind.identity(payer.settings, item.given)
        if payer.reuse == INPUT:
            key: dict[str, Any] = identity | ({"ordinal": item.ordinal} if item.ordinal else {})
        else:
            key = {**payer.task.ids, "digest": item.digest, "ordinal": item.ordinal}
        chain = payer.ledger.chain(key)
        item.entry = chain.entry
        chain.facts |= {
            "identity": identity,
            "task": payer.task.ids,
            "guarded": self._row.guarded,
            "reuse": payer.reuse,
            "max_tries": payer.max_tries,
            "ordinal": item.ordinal,
        }
        return LedgerEntry(payer.ledger, chain, policy=payer.policy, patience=payer.patience)

    @property
    def _hook(self) -> KieHook:
        """The hook of this thread, with the connection that the task has looked up."""
        if not hasattr(self._here, "hook"):
            from airflow_provider_kie.hooks.kie import KieHook  # late, to keep the parsing of DAG files fast

            self._here.hook = KieHook(self.payer.settings.conn_id)
            self._here.hook.settings = self.payer.settings
        hook: KieHook = self._here.hook
        return hook


def _is_deleted(body: Mapping[str, Any], task: TaskKey) -> bool:
    """Return whether KIE has deleted the files of a job that another task has submitted."""
    if body.get("task") == task.ids or not body.get("at"):
        return False
    return datetime.now(UTC) - datetime.fromisoformat(body["at"]) >= FILES_LAST


class _Guard:
    """Lets an entry of the ledger allow each request, as long as any may be sent."""

    def __init__(self, submits: Submits, item: Item, entry: LedgerEntry) -> None:
        self._submits = submits
        self._item = item
        self._entry = entry
        #: The error of a submit of unknown outcome, after which nothing more is sent unless the policy allows it.
        self.lost: KieError | None = None

    def before_send(self) -> None:
        self._check_open()
        if (generation := self._entry.claim()) > 1:
            self._submits.check_attempts(self._item, self._entry)
            if self._entry.claim() != generation:
                raise KieLedgerError("The ledger takes too long to be read between a claim and its submit")
        # The thread that ends the batch sees this submit as under way, or this one sees that it has ended.
        self._submits.under_way.add(self._item.line)
        self._check_open()
        self._entry.mark_sent()

    def hold(self) -> None:
        self._check_open()
        self._entry.release()

    def after_error(self, error: KieError) -> None:
        self._entry.after_error(error)
        outcome = outcome_of(error)
        if outcome is Outcome.UNKNOWN:
            self.lost = error
        elif outcome is Outcome.REFUSED and not self.lost:
            self._submits.under_way.discard(self._item.line)  # there is no answer to be awaited

    def _check_open(self) -> None:
        closed = self._submits.closed.is_set()
        if self.lost and (closed or self._submits.payer.policy == FAIL):
            raise self.lost
        if closed:
            raise _NotSentError
