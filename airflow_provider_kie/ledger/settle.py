# SPDX-License-Identifier: Apache-2.0
"""What is settled by hand: the entries that a task instance has made, and the states that a user adds to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from airflow_provider_kie.exceptions import KieLedgerError
from airflow_provider_kie.ledger.report import Progress, silent
from airflow_provider_kie.ledger.rules import CLOSED
from airflow_provider_kie.ledger.storage import Ledger

__all__ = ["adopt", "current", "forget", "of_task", "standing"]

Body: TypeAlias = dict[str, Any]


def of_task(
    ledger: Ledger, task: Mapping[str, Any], progress: Progress = silent, *, entry: str | None = None
) -> list[list[Body]]:
    """
    Return the chains that a task instance has made, as :meth:`Ledger.chains` does, the latest first.

    Where it reuses what is its own, its chain is known. Otherwise the whole ledger is read.

    :param task: the ids of the task instance, as entries have them.
    :param entry: only this chain of them.
    :raises KieLedgerError: the ledger cannot be read.
    """
    if entry:
        bodies = ledger.entry(entry).bodies()
        return [bodies] if any(body.get("task") == dict(task) for body in bodies) else []
    own = ledger.chain(task).bodies()
    if standing(own):
        return [own]
    progress(0, 0)
    made = (bodies for bodies in ledger.chains(progress) if any(body.get("task") == dict(task) for body in bodies))
    return sorted(made, key=lambda bodies: max(str(body.get("at", "")) for body in bodies), reverse=True)


def standing(bodies: list[Body]) -> list[Body]:
    """Return the generations of a chain that forbid another submit."""
    return [body for body in bodies if body["state"] not in CLOSED]


def current(bodies: list[Body]) -> Body | None:
    """Return the generation that a task would go on with, or could not decide about; None if nothing stands."""
    stands = standing(bodies)
    return next((body for body in stands if body["state"] != "claimed"), stands[-1] if stands else None)


def adopt(ledger: Ledger, claim: Body, kie_task_id: str, **facts: Any) -> Body:
    """
    Write a job into a claim without an id, so that the next try goes on with it.

    That try follows a clear, which must not count as consent to pay again. So ``max_tries`` is removed: without it a
    clear counts as a retry.

    :param facts: what is known of the job besides.
    :raises KieLedgerError: it could not be written.
    """
    return _note(ledger, claim, "submitted", kie_task_id, max_tries=None, **facts)


def forget(ledger: Ledger, body: Body) -> Body:
    """
    Close a generation, so that another job may be submitted; what it says is kept.

    :raises KieLedgerError: it could not be written.
    """
    return _note(ledger, body, "forgotten", body["kie_task_id"])


def _note(ledger: Ledger, body: Body, state: str, kie_task_id: str | None, **facts: Any) -> Body:
    chain = ledger.entry(body["entry"])
    chain.bodies()  # what the chain has read is repeated in what it writes
    if not chain.note(body["generation"], state, kie_task_id, **facts):
        raise KieLedgerError(f"The entry could not be written, or another one is {state} there")
    return {**body, **facts, "state": state, "kie_task_id": kie_task_id}
