# SPDX-License-Identifier: Apache-2.0
"""Who pays for the items of a batch, and under which rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_kie.ledger.chain import longest_submit
from airflow_provider_kie.money import stops_after_unknown

if TYPE_CHECKING:
    from airflow_provider_kie.batch.items import Kind
    from airflow_provider_kie.connection import KieSettings
    from airflow_provider_kie.ledger.rules import Policy
    from airflow_provider_kie.ledger.storage import Ledger
    from airflow_provider_kie.money import TaskKey

__all__ = ["Payer"]


@dataclass(frozen=True, slots=True)
class Payer:
    """
    Whose submits they are, and under which rules.

    :param task: the task instance, with what its commands need besides.
    :param reuse: ``"task"`` or ``"input"``.
    :param on_unknown_submit: ``"fail"``, ``"resubmit"``, or None for what the family's guard allows.
    :param max_attempts: accepted submits of an item, over all tries of the task.
    """

    kind: Kind
    settings: KieSettings
    ledger: Ledger
    task: TaskKey
    max_tries: int | None
    reuse: str
    on_unknown_submit: str | None
    max_attempts: int

    @property
    def policy(self) -> Policy:
        """What an unknown outcome allows."""
        return "fail" if stops_after_unknown(self.kind.row.guarded, self.on_unknown_submit) else "resubmit"

    @property
    def patience(self) -> float:
        """Seconds after which a claim without an id is of unknown outcome: more than a submit can take."""
        return longest_submit(self.settings.timeout)
