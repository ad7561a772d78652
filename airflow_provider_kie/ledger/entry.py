# SPDX-License-Identifier: Apache-2.0
"""The entry of a job in a ledger, for one try of a task: what is known of the job, and who may send a submit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_kie.exceptions import KieError, KieLedgerError
from airflow_provider_kie.ledger.rules import CLOSED, Found, Policy, current
from airflow_provider_kie.money import RESUBMIT, Entry, Outcome, State, outcome_of
from airflow_provider_kie.times import times

if TYPE_CHECKING:
    from airflow_provider_kie.api.job import KieJob
    from airflow_provider_kie.ledger.chain import Chain
    from airflow_provider_kie.ledger.storage import Ledger

__all__ = ["AlreadySubmittedError", "LedgerEntry"]

#: How often a claim is tried that turns out to be late.
MOST_CLAIMS = 3


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
        return self._load("fail")  # what an unknown outcome allows depends on what the entry says

    def look(self) -> list[dict[str, Any]]:
        """
        Find what is known of the job, without a claim and without waiting for anybody's id.

        :return: the last body of each generation, see :meth:`Chain.bodies`.
        :raises KieLedgerError: the entry cannot be read.
        """
        bodies = self._chain.bodies()
        generation, state = current(f"{body['generation']:04d}.{body['state']}" for body in bodies)
        body = next((body for body in bodies if body["generation"] == generation), None)
        kind: Literal["closed", "job", "unknown"] = "closed"
        if state not in CLOSED:
            kind = "job" if body and body["kie_task_id"] else "unknown"
        self.found, self._generation = Found(kind, generation, state, body), generation
        return bodies

    def look_again(self) -> list[dict[str, Any]]:
        """Return what :meth:`look` does, while this try holds a claim."""
        return self._chain.bodies()

    @property
    def known(self) -> Entry | None:
        """What a look has found; None for nothing."""
        return None if self.found is None or self.found.kind == "closed" else self._entry_of(self.found)

    def pass_over(self, generation: int) -> None:
        """
        Count the claim that a look has found as over, because its outcome stays unknown and the policy allows another.

        :param generation: the claim with which the caller has had patience.
        :raises AlreadySubmittedError: the policy forbids that, an id was written, or there is another claim.
        """
        found = self.found
        if found and found.kind == "closed":
            return
        if found is None or found[1:3] != (generation, "claimed") or self._policy != RESUBMIT:
            raise AlreadySubmittedError(self.known or Entry(State.CLAIMED, self._identity))
        self._over = self._generation

    def open_next(self, closing: str) -> None:
        """
        Claim another submit, after a decision that what this entry says is no reason not to.

        :param closing: the state that closes the entry: ``"failed"`` or ``"forgotten"``.
        :raises AlreadySubmittedError: another claim came first, or the decision was about another job than the entry.
        """
        if self._may_send:
            return
        if self.found is not None:
            is_unknown, entry = self.found.kind == "unknown", self._entry_of(self.found)
            same_job = closing == "failed" or entry.identity == self._identity
            if is_unknown and same_job and self._policy != RESUBMIT:
                raise AlreadySubmittedError(entry)
            # Where an unknown outcome allows another submit, an id that comes late must still count.
            if not is_unknown or self._policy != RESUBMIT:
                self._chain.note(self._generation, closing, self.found.kie_task_id)
        self._over = self._generation
        self._claim()

    def before_send(self) -> None:
        """
        Make sure that this try may send a submit now: one claim allows one request, soon.

        :raises AlreadySubmittedError: another claim came first.
        :raises KieLedgerError: claims take longer than a submit may come after one.
        """
        self.claim()
        self.mark_sent()

    def claim(self) -> int:
        """Do what :meth:`before_send` does, but leave the claim to be used, or given back; return its generation."""
        for _ in range(MOST_CLAIMS):
            if self._may_send and self._chain.is_late:
                self._give_back()
            if not self._may_send:
                self._claim()
            if not self._chain.is_late:
                return self._generation
        self._give_back()
        raise KieLedgerError(
            f"The ledger has taken more than {times().send_within:g} seconds for each of {MOST_CLAIMS} claims"
        )

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

    def take(self, kie_task_id: str) -> None:
        """Go on with the job that a look has not found, because its id could not be written; write it now."""
        self.commit(kie_task_id)
        if self.found:
            body = {**(self.found.body or {}), "kie_task_id": kie_task_id}
            self.found = self.found._replace(kind="job", state="submitted", body=body)

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

    def _load(self, policy: Policy) -> Entry | None:
        found = self._chain.claim(policy, self._patience, after=self._over)
        self._generation = found.generation
        self._may_send = found.kind == "claimed"
        self.found = None if self._may_send else found
        return None if self._may_send else self._entry_of(found)

    def _claim(self) -> None:
        if (entry := self._load(self._policy)) is not None:
            raise AlreadySubmittedError(entry)

    def _give_back(self) -> None:
        self._chain.note(self._generation, "refused")
        self._over, self._may_send = self._generation, False

    @property
    def _identity(self) -> dict[str, str]:
        return dict(self._chain.facts["identity"])

    def _entry_of(self, found: Found) -> Entry:
        body = found.body or {}
        state = State.SUBMITTED if found.kind == "job" else State.CLAIMED
        max_tries, kie_task_id = body.get("max_tries"), body.get("kie_task_id")
        return Entry(
            state,
            dict(body.get("identity") or self._identity),  # a claim without content counts as one of the same job
            kie_task_id if isinstance(kie_task_id, str) and kie_task_id else None,
            max_tries if isinstance(max_tries, int) else None,
            guarded=body.get("guarded", True) is True,
        )
