# SPDX-License-Identifier: Apache-2.0
"""What a batch says about itself: its progress, its causes of failure with counts, and its summary."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kie.exceptions import KieValidationError
from airflow_provider_kie.redaction import quoted

if TYPE_CHECKING:
    from airflow_provider_kie.batch.items import Item

__all__ = ["ALL", "ANY", "Report", "causes_of", "check_fail_if", "cost_of", "fails", "settling", "summary_of"]

ANY: Final = "any"
ALL: Final = "all"
#: Causes that an error names.
MOST_CAUSES: Final = 5


class Report:
    """
    The progress of a try, for the log.

    :param items: all items, which change.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._started = time.monotonic()
        self._done_before = _done(Counter(item.end for item in items))

    def line(self) -> str:
        """Return the log line."""
        ends = Counter(item.end for item in self._items)
        done = _done(ends)
        left = len(self._items) - done
        here = done - self._done_before
        seconds = (time.monotonic() - self._started) * left / here if here else None
        known, unknown = _credits(self._items)
        return (
            f"{sum(item.kie_task_id is not None for item in self._items):,} of {len(self._items):,} items are "
            f"submitted, {ends['running']:,} run, {ends['succeeded']:,} succeeded, {ends['failed']:,} failed, "
            f"{ends['unknown']:,} unknown; {_cost(known, unknown)}; "
            + ("time left is not known yet." if seconds is None else f"about {_duration(seconds)} left.")
        )


def summary_of(items: Sequence[Item], manifest: str) -> dict[str, Any]:
    """
    Return what a batch pushes to XCom.

    What has not succeeded counts as failed, unless its outcome is unknown; so does what was not submitted.

    :param manifest: where that is.
    """
    ends = Counter(item.end for item in items)
    known, _ = _credits(items)
    return {
        "total": len(items),
        "succeeded": ends["succeeded"],
        "failed": len(items) - ends["succeeded"] - ends["unknown"],
        "unknown": ends["unknown"],
        "credits": known,
        "manifest": manifest,
    }


def causes_of(items: Sequence[Item]) -> str:
    """Return why items did not succeed, the most frequent cause first, each with its count and one example."""
    examples: dict[str, Item] = {}
    counts: Counter[str] = Counter()
    for item in items:
        if item.end == "succeeded":
            continue
        cause = type(item.error).__name__ if item.error else item.end
        counts[cause] += 1
        examples.setdefault(cause, item)
    told = []
    for cause, count in counts.most_common(MOST_CAUSES):
        item = examples[cause]
        why = f": {item.error.problem}" if item.error else ""
        told.append(f"{count:,} x {cause} (such as item {item.line}{why})")
    others = sum(counts.values()) - sum(count for _, count in counts.most_common(MOST_CAUSES))
    return "; ".join([*told, *([f"{others:,} for other causes"] if others else [])])


def settling(items: Sequence[Item]) -> str:
    """Return what a user can do about an item whose outcome is unknown; an empty text if there is none."""
    example = next((item for item in items if item.end == "unknown" and item.error), None)
    return f"Item {example.line}: {example.error.next_step}" if example and example.error else ""


def cost_of(items: Sequence[Item]) -> str:
    """Return what the items have cost, as far as KIE says."""
    return _cost(*_credits(items))


def check_fail_if(value: object) -> None:
    """
    Check when a batch fails.

    :raises KieValidationError: neither ``"any"``, ``"all"`` nor a share from 0 up to below 1.
    """
    is_share = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1
    if value not in (ANY, ALL) and not is_share:
        raise KieValidationError(f"fail_if is {quoted(value)}, but must be 'any', 'all' or a share such as 0.01")


def fails(summary: dict[str, Any], fail_if: str | float) -> bool:
    """
    Return whether a batch fails.

    :param summary: see :func:`summary_of`.
    """
    total: int = summary["total"]
    missing: int = total - summary["succeeded"]
    if not missing:
        return False
    if isinstance(fail_if, str):
        return fail_if == ANY or missing == total
    return missing / total > fail_if


def _done(ends: Counter[Any]) -> int:
    return ends["succeeded"] + ends["failed"] + ends["unknown"]


def _credits(items: Sequence[Item]) -> tuple[float | None, int]:
    """Return the credits that KIE reported, None if it did for no item, and for how many jobs it did not."""
    jobs = {item.kie_task_id: item.credits for item in items if item.kie_task_id}  # equal items may share one
    known = [each for each in jobs.values() if each is not None]
    return (round(sum(known), 4) if known else None), len(jobs) - len(known)


def _cost(known: float | None, silent: int) -> str:
    if not silent:
        return f"{known or 0:g} credits"
    return f"{known or 0:g} credits, besides those of {silent:,} jobs for which KIE has not named any"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
