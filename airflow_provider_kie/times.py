# SPDX-License-Identifier: Apache-2.0
"""
The times by which this package waits, as one frozen value that counts for the whole process.

In life it is never replaced. Tests, ours and those of users by the fixture ``kie_emulator``, let another one count by
:func:`switched`. So a time is read where it is needed, and not when a module is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Times", "switched", "times"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """All times that a test may want to change, in seconds, and the limit that goes with its window."""

    # --- Waiting for a job

    #: For so long an answer that may still settle is read again before it counts as final.
    grace: float = 60.0
    #: Between the readings of such an answer.
    settling_pause: float = 5.0
    #: Shortest pause between two reads, whatever interval was asked for.
    shortest_poll_pause: float = 0.1
    #: Without a poll after a worker deferred. Airflow fails a task whose trigger fires before the scheduler has
    #: recorded the deferral ("finished with state success, but the task instance's state attribute is queued":
    #: apache/airflow #66374, #67287, #72716; seen on 3.3.2).
    after_deferral: float = 5.0

    # --- Calls to KIE, and the connection

    #: How many new generations KIE accepts in its window, and that window.
    rate_limit: int = 20
    rate_window: float = 10.0
    #: Calls are spread over so long after the pause for a rate limit.
    rate_jitter: float = 2.0
    #: Shortest pause for a rate limit, whatever KIE asks for.
    shortest_rate_pause: float = 1.0
    #: Before the first repeat after any other error; each further pause is twice as long.
    first_repeat_pause: float = 1.0
    #: Before a repeat during maintenance.
    maintenance_pause: float = 30.0
    #: Longest pause before a repeat, and the longest for a rate limit that another call ran into.
    longest_repeat_pause: float = 60.0
    #: For so long new waits reuse the look-up of a connection.
    lookup_reuse: float = 5.0
    #: After so long a caller treats a look-up as hung. The next attempt starts another one.
    longest_lookup: float = 30.0

    # --- Files

    #: Before the first repeat of a broken download; doubled with each break in a row.
    first_download_pause: float = 1.0
    #: Between two lines of the log about a download.
    download_lines: float = 10.0
    #: A moved file must be complete within so long.
    move_within: float = 60.0
    #: Longest pause between two looks at a moved file.
    longest_move_look: float = 5.0

    # --- The ledger

    #: After a claim its owner may send within so long.
    send_within: float = 5.0
    #: After a claim its submit has ended and its outcome is noted within so long; None: by the time-out of requests.
    longest_submit: float | None = None
    #: Between two looks at a claim without an id.
    ledger_look: float = 1.0

    # --- The receiver of callbacks

    #: Until KIE is asked to repeat a callback. It waits 15, by another of its pages 10.
    callback_answer: float = 9.0
    #: For the body of a callback to come.
    callback_body: float = 4.0
    #: For so long a job that is unknown or still runs is read again, because its record may come after its callback.
    record_settling: float = 5.0
    #: Between the readings of such a job.
    record_pause: float = 2.0
    #: For one request to Airflow.
    airflow_request: float = 5.0
    #: For all requests that make an event, such as those for a new token and for the asset.
    event_within: float = 3 * airflow_request
    #: After so long the owner of a claim of an event that this process has seen is not sending any longer.
    take_over: float = send_within + event_within
    #: For so long the list of a ledger's claims is used again.
    claims_reuse: float = 60.0


#: The value that counts is the last one.
_IN_FORCE: Final = [Times()]


def times() -> Times:
    """Return the value that counts now."""
    return _IN_FORCE[-1]


@contextmanager
def switched(**changes: float | None) -> Iterator[Times]:
    """
    Let a value count that differs in some fields, for all threads of the process, until the context ends.

    Also decorates a function, but no coroutine function: it counts while the function runs.

    :param changes: fields of :class:`Times`.
    """
    _IN_FORCE.append(replace(times(), **changes))  # type: ignore[arg-type]  # rate_limit is an int
    try:
        yield times()
    finally:
        _IN_FORCE.pop()
