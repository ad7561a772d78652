# SPDX-License-Identifier: Apache-2.0
"""Settings for behaviour of KIE that is unknown, or that a test wants to change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, TypedDict

__all__ = ["MANNERS", "Settings", "SettingsArguments"]

#: How callbacks are sent. "late" comes after three pauses; "stages" sends the stages of a song before its end;
#: "changed-body" has other links than the record, "camel", "snake" and "top-level" other keys than KIE's pages.
MANNERS: Final = (
    *("right", "unsigned", "wrong-signature", "hex-signature", "stale-signature", "changed-body"),
    *("late", "twice", "never", "stages", "camel", "snake", "top-level"),
)


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


@dataclass(frozen=True, slots=True)
class Settings:
    """
    How the emulator behaves.

    :param conversion_seconds: how long a job of any family runs
    :param conflict_names_id: whether the refusal of a duplicate (409 for a track that was converted before) names the
        earlier id
    :param conflict_after_failure: whether a duplicate is also refused after the first job failed; KIE's way is unknown
    :param submits_per_window: accepted submits per window; ``None`` for no limit
    :param window_seconds: the length of that window
    :param credits: the balance
    :param fault_share: the share of API calls, 0 to 1, that meet a random one of
        :data:`~airflow_provider_kie.emulator.answers.FAULTS` instead of an answer
    :param fault_seed: seed of the random faults
    :param callbacks: how callbacks are sent, one of :data:`MANNERS`
    :param webhook_hmac_key: signs callbacks; without one they are not signed
    :param callback_pause: seconds until a callback that was not answered with 200 is repeated
    """

    conversion_seconds: float = 3.0
    conflict_names_id: bool = True
    conflict_after_failure: bool = True
    submits_per_window: int | None = 20
    window_seconds: float = 10.0
    credits: float = 5916.25
    fault_share: float = 0.0
    fault_seed: int = 0
    callbacks: str = "right"
    webhook_hmac_key: str = ""
    callback_pause: float = 1.0

    def __post_init__(self) -> None:
        limit = self.submits_per_window
        right = {
            "conversion_seconds": _is_amount(self.conversion_seconds),
            "conflict_names_id": isinstance(self.conflict_names_id, bool),
            "conflict_after_failure": isinstance(self.conflict_after_failure, bool),
            "submits_per_window": limit is None or (isinstance(limit, int) and _is_amount(limit)),
            "window_seconds": _is_amount(self.window_seconds),
            "credits": _is_amount(self.credits),
            "fault_share": _is_amount(self.fault_share) and self.fault_share <= 1,
            "fault_seed": isinstance(self.fault_seed, int),
            "callbacks": self.callbacks in MANNERS,
            "webhook_hmac_key": isinstance(self.webhook_hmac_key, str),
            "callback_pause": _is_amount(self.callback_pause),
        }
        if wrong := [f"{name}={getattr(self, name)!r}" for name, is_right in right.items() if not is_right]:
            raise ValueError(f"wrong settings: {', '.join(wrong)}")

    def changed(self, changes: Mapping[str, object]) -> Settings:
        """These settings with some of them changed; unknown names and wrong values are a ``ValueError``."""
        known = [field.name for field in fields(self)]
        if unknown := sorted(set(changes) - set(known)):
            raise ValueError(f"unknown settings {', '.join(unknown)}; there are {', '.join(known)}")
        return replace(self, **changes)  # type: ignore[arg-type]  # __post_init__ checks the types


class SettingsArguments(TypedDict, total=False):
    """The settings as keyword arguments, which an editor can complete."""

    conversion_seconds: float
    conflict_names_id: bool
    conflict_after_failure: bool
    submits_per_window: int | None
    window_seconds: float
    credits: float
    fault_share: float
    fault_seed: int
    callbacks: str
    webhook_hmac_key: str
    callback_pause: float
