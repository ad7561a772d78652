# SPDX-License-Identifier: Apache-2.0
"""The functions behind the commands ``ledger …`` of :mod:`airflow_provider_kie.cli`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from airflow_provider_kie import terminal
from airflow_provider_kie.exceptions import KieError, KieValidationError
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.ledger import report, settle
from airflow_provider_kie.ledger.storage import Ledger, family_of, init_ledger, open_ledger
from airflow_provider_kie.money import TaskKey
from airflow_provider_kie.redaction import quoted, redact
from airflow_provider_kie.terminal import Invocation, Result

__all__ = ["init", "list_entries", "list_expiring", "prune", "reading", "show", "sum_up"]


def init(run: Invocation) -> Result:
    """Make a ledger."""
    ledger = init_ledger(run.args.url)
    terminal.say("The ledger is ready. Name it in the connection's field 'ledger', or in the tasks' argument 'ledger'.")
    return {"ledger": redact(ledger.url)}


#: Entries that 'show' names, of those of a batch.
MOST_OTHERS = 10


def list_entries(run: Invocation) -> list[Result]:
    """List the submits that a ledger knows of."""
    with reading() as progress:
        rows = report.entries(_ledger(run.args), progress)
        return [row for row in rows if run.args.state in (None, row["state"])]


def show(run: Invocation) -> Result:
    """Show the entry of a job or of a task instance."""
    ledger, which = _ledger(run.args), run.args.which
    if len(which) not in (1, 3):
        raise KieValidationError("name either a KIE_TASK_ID, or DAG, RUN and TASK")
    with reading() as progress:
        if len(which) == 3:
            task = TaskKey(which[0], which[1], which[2], run.args.map_index)
            found = [
                (bodies, settle.current(bodies) or bodies[-1]) for bodies in settle.of_task(ledger, task.ids, progress)
            ]
        else:
            found = _of_job(ledger, which[0], progress)
    if not found:
        raise KieError(f"The ledger knows nothing of {quoted(' '.join(which))}")
    for _, other in found[1:MOST_OTHERS]:
        terminal.say(f"Entry {other['entry']} is about it too, and {other['state']}.")
    if len(found) > MOST_OTHERS:
        terminal.say(f"So are {len(found) - MOST_OTHERS:,} others.")
    bodies, body = found[0]
    family, kie_task_id = family_of(body), body["kie_task_id"]
    kept = ledger.archived(str(family), kie_task_id) if kie_task_id else None
    of_each = ("generation", "state", "kie_task_id", "at")
    return {
        **report.row_of(body, archived=kept is not None),
        "destinations": kept["destinations"] if kept else None,
        "generations": [{name: each.get(name) for name in of_each} for each in bodies],
    }


def _of_job(ledger: Ledger, kie_task_id: str, progress: report.Progress) -> list[tuple[list[Any], dict[str, Any]]]:
    progress(0, 0)
    return [
        (bodies, body) for bodies in ledger.chains(progress) for body in bodies if body["kie_task_id"] == kie_task_id
    ]


def sum_up(run: Invocation) -> list[Result]:
    """Sum up what jobs have cost."""
    since = run.args.since and datetime.combine(run.args.since, datetime.min.time(), UTC)
    with reading() as progress:
        return [*report.spend(_ledger(run.args), run.args.by, since, progress)]


def list_expiring(run: Invocation) -> list[Result]:
    """List the jobs whose files nobody has stored, and KIE deletes soon."""
    with reading() as progress:
        return [*report.expiring(_ledger(run.args), run.args.within, progress)]


def prune(run: Invocation) -> Result:
    """Delete old entries."""
    ledger, older_than = _ledger(run.args), run.args.older_than
    before = (datetime.now(UTC) - older_than).isoformat(timespec="seconds")
    terminal.say(f"Entries without a change since {before} are deleted; submits of unknown outcome stay.")
    with reading() as progress:
        deleted = ledger.prune(older_than, progress)
    return {"ledger": redact(ledger.url), "before": before, "deleted": deleted}


@contextmanager
def reading() -> Iterator[report.Progress]:
    """Say on standard error how far a ledger is read."""
    with terminal.ProgressLine() as line:

        def show(done: int, total: int) -> None:
            if total:
                line.show(f"Reading the ledger's {total:,} entries", f"{done:,} are read")
            else:
                line.show("Reading the ledger", "its folders are listed")

        yield show


def _ledger(args: Namespace) -> Ledger:
    url = args.ledger or KieHook(args.conn_id).settings.ledger
    if url is None:
        raise KieValidationError("The connection names no ledger; name one with --ledger URL", conn_id=args.conn_id)
    return open_ledger(url)
