# SPDX-License-Identifier: Apache-2.0
"""
The functions behind the commands ``jobs …`` of :mod:`airflow_provider_kie.cli`.

They settle what a task instance has paid for, wherever that is remembered: in Airflow's task state store, in a ledger,
or in both.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_kie import durable, terminal
from airflow_provider_kie.api.families import JOBS, WAV, find_family
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.job import KieJob
from airflow_provider_kie.api.wav import as_conversion
from airflow_provider_kie.cli_jobs import read_job
from airflow_provider_kie.cli_ledger import reading
from airflow_provider_kie.compat import TaskStateStore, airflow_version, find_task_state_store
from airflow_provider_kie.connection import DEFAULT_TIMEOUT, KieSettings
from airflow_provider_kie.exceptions import KieConnectionNotFoundError, KieError, KieValidationError, named
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.ledger import settle
from airflow_provider_kie.ledger.chain import longest_submit
from airflow_provider_kie.ledger.storage import Ledger, open_ledger
from airflow_provider_kie.money import NEVER, TaskKey
from airflow_provider_kie.operators.job import STORE_KEY as JOB_KEY
from airflow_provider_kie.operators.wav import STORE_KEY as WAV_KEY
from airflow_provider_kie.redaction import harmless, quoted
from airflow_provider_kie.terminal import Invocation, Result
from airflow_provider_kie.waiting.verdict import Failed, Judge

__all__ = ["adopt", "forget", "show"]


class _Remembered(NamedTuple):
    """What is remembered of a task instance: by key in the store, and in chains in the ledger."""

    store: TaskStateStore | None
    stored: dict[str, Any]
    ledger: Ledger | None
    chains: list[list[dict[str, Any]]]

    def only_stored(self, args: Namespace) -> tuple[str, dict[str, Any]] | None:
        """Return key and entry of the store."""
        if len(self.stored) > 1:
            both = " and ".join(self.stored)
            raise KieError(f"Both {both} are remembered for {_describe(args)}; delete one on the task's page")
        for key, entry in self.stored.items():
            if not isinstance(entry, dict) or "kie_task_id" not in entry:  # a worker's own store leaves a reference
                where = f"The entry {key} of {_describe(args)} cannot be read here"
                raise KieError(f"{where}; only a task, or 'forget', can use it")
            return key, entry
        return None

    def noted(self) -> dict[str, Any] | None:
        """Return what the latest entry of the ledger says."""
        return settle.current(self.chains[0]) if self.chains else None


def show(run: Invocation) -> Result:
    """Show what is remembered of a task instance."""
    found = _remembered(run.args)
    return _shown(found.only_stored(run.args), found.noted())


def _shown(stored: tuple[str, dict[str, Any]] | None, noted: dict[str, Any] | None) -> Result:
    in_ledger = {"key": "ledger", **_flat(noted)} if noted else {}
    if stored is None:
        return in_ledger
    return {"key": stored[0], **stored[1], **({"ledger": in_ledger} if noted else {})}


def _flat(noted: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of a ledger in the form of one in the store."""
    own = ("entry", "generation", "state", "kie_task_id", "at", "max_tries", "reuse", "guarded")
    return {**(noted.get("identity") or {}), **{name: noted[name] for name in own if name in noted}}


def adopt(run: Invocation) -> Result:
    """Let the next try of a task instance resume a job."""
    args, found = run.args, _remembered(run.args, settling=True)
    stored, noted, hook = found.only_stored(args), found.noted(), KieHook(args.conn_id)
    known = [*([stored[1]] if stored else []), *([_flat(noted)] if noted else [])]
    row = _row_of(known[0])
    if noted and not noted.get("identity"):
        raise KieError("The entry of the ledger cannot be read, so only 'forget' can settle it")
    for entry in known:
        _refuse_another_account(hook, entry)
    job = read_job(hook, row, args.kie_task_id)
    for entry in known:
        _refuse_another_job(row, job, entry)
    if noted and found.ledger:
        noted = _adopt_in_ledger(found.ledger, noted, row, job)
    if stored and found.store:
        if (before := stored[1].get("kie_task_id")) and before != job["kie_task_id"]:
            terminal.say(f"It replaces {named(row.tag, before)}, which is paid for too.")
        stored = stored[0], durable.adopt(found.store, *stored, job["kie_task_id"])
    what = f"{named(row.tag, job['kie_task_id'])}, whose status is {job['status']}"
    if noted and noted.get("reuse") == NEVER and not stored:
        terminal.say(f"The ledger knows {what}. With reuse='never' a clear submits again: wait for it with a sensor.")
    else:
        terminal.say(f"The next try goes on with {what}. Clear the task to start it.")
    return _shown(stored, noted)


def _adopt_in_ledger(ledger: Ledger, noted: dict[str, Any], row: Family, job: KieJob) -> dict[str, Any]:
    if noted["kie_task_id"] == job["kie_task_id"]:
        return noted
    if noted["state"] != "claimed":
        problem = f"The ledger knows {named(row.tag, noted['kie_task_id'])} for this task, which 'forget' would close"
        raise KieValidationError(problem, kie_task_id=job["kie_task_id"], family=row.tag)
    facts = {"credits": job["credits"], "complete_time": job["complete_time"]}
    return settle.adopt(ledger, noted, job["kie_task_id"], **facts)


def _row_of(entry: Mapping[str, Any]) -> Family:
    return find_family(entry.get("family", WAV.name if "music_task_id" in entry else JOBS.name))


def _refuse_another_account(hook: KieHook, entry: Mapping[str, Any]) -> None:
    for name, own in {"account": hook.settings.payer, "base_url": hook.settings.base_url}.items():
        if entry.get(name, own) != own:
            of = f"the task submitted with {name} {quoted(entry[name])}, and this connection has {quoted(own)}"
            raise KieValidationError(f"{of}: name the task's connection with --conn-id", conn_id=hook.kie_conn_id)


def _refuse_another_job(row: Family, job: KieJob, entry: Mapping[str, Any]) -> None:
    about: dict[str, Any] = {"kie_task_id": job["kie_task_id"], "family": row.tag}
    verdict = Judge(row, job["kie_task_id"], "").judge(job, 0.0)
    if isinstance(verdict, Failed):
        problem = f"{verdict.error.problem}. The next try would submit again; use 'forget' for that"
        raise KieValidationError(problem, **about)
    known = {"model": job["model"], "audio_id": as_conversion(job)["music_id"] if row.name == WAV.name else None}
    for name, its in known.items():
        if its and entry.get(name) and entry[name] != its:
            problem = f"The task submitted with {name} {quoted(entry[name])}, and this job has {quoted(its)}"
            raise KieValidationError(problem, **about)


def forget(run: Invocation) -> list[Result]:
    """Forget what a task instance has paid for."""
    found = _remembered(run.args, settling=True)
    forgotten: list[Result] = []
    if found.ledger:
        for body in [each for chain in found.chains for each in settle.standing(chain)]:
            settle.forget(found.ledger, body)
            forgotten.append({"key": "ledger", **_flat(body)})
    if found.store:
        for key, entry in found.stored.items():
            found.store.delete(key)
            forgotten.append({"key": key, **(entry if isinstance(entry, dict) else {"value": entry})})
    terminal.say(
        "This is forgotten. The next try submits again, AND PAYS AGAIN if KIE has accepted the earlier submit."
    )
    return forgotten


def _remembered(args: Namespace, *, settling: bool = False) -> _Remembered:
    """
    Find what is remembered of a task instance.

    :param settling: it is going to be changed, so the task must not run.
    """
    settings = _settings(args)
    url = args.ledger or (settings.ledger if settings else None)
    ledger, no_task, stored = open_ledger(url) if url else None, None, {}
    try:
        store = _store(args)
    except LookupError:
        hint = "DAG, RUN and TASK are ids, and a mapped task needs --map-index"
        store, no_task = None, KieError(f"Airflow has no task instance {_describe(args)}; {hint}")
    if store:
        stored = {key: entry for key in (JOB_KEY, WAV_KEY) if (entry := store.get(key)) is not None}
    if store and settling and store.is_active:
        raise KieError(f"{_describe(args)} is under way; wait for it to end, or mark it as failed, then run this again")
    chains: list[list[dict[str, Any]]] = []
    if ledger:
        task = TaskKey(args.dag_id, args.run_id, args.task_id, args.map_index)
        with reading() as progress:
            found = settle.of_task(ledger, task.ids, progress, entry=args.entry)
        chains = [bodies for bodies in found if settle.standing(bodies)]
        if not args.entry and any("ordinal" in body for bodies in chains for body in bodies):
            raise KieError(
                f"{_describe(args)} is a batch of many jobs: name the item by --entry, from the manifest; "
                "'ledger list --state unknown' lists those of unknown outcome"
            )
    if settling and store is None:  # so Airflow cannot say here whether the task runs
        _refuse_while_submitting(chains, args, settings.timeout if settings else DEFAULT_TIMEOUT)
    if not stored and not chains:
        raise no_task or _nothing(args, store, ledger)
    return _Remembered(store, stored, ledger, chains)


def _nothing(args: Namespace, store: TaskStateStore | None, ledger: Ledger | None) -> KieError:
    if store is None and ledger is None:
        why = f"Airflow {airflow_version} stores nothing from one try to the next; Airflow 3.3 and later do"
        return KieError(f"There is no entry to settle: {why}, and so does a ledger, of which none is named")
    shared = "An entry that tasks share belongs to the one that submitted: see 'ledger list --state unknown'. "
    instead = "To wait for a job that KIE's website lists, use a KieJobSensor or a WavConversionSensor"
    problem = f"Nothing is remembered for {_describe(args)}, so its next try submits"
    return KieError(f"{problem}. {shared if ledger else ''}{instead}")


def _store(args: Namespace) -> TaskStateStore | None:
    try:
        return find_task_state_store(args.dag_id, args.run_id, args.task_id, args.map_index)
    except SQLAlchemyError as error:
        where = "run this where Airflow's own commands can reach it"
        raise KieError(f"Airflow's metadata database gave no answer ({type(error).__name__}); {where}") from error


def _settings(args: Namespace) -> KieSettings | None:
    try:
        return KieHook(args.conn_id).settings
    except KieConnectionNotFoundError:
        terminal.say(f"There is no connection {quoted(args.conn_id)} that may name a ledger.")
        return None


def _refuse_while_submitting(chains: list[list[dict[str, Any]]], args: Namespace, timeout: float) -> None:
    seconds = longest_submit(timeout)
    since = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    if any(body["state"] == "claimed" and body.get("at", "") > since for chain in chains for body in chain):
        raise KieError(f"{_describe(args)} may be submitting just now; run this again in {seconds:.0f} seconds")


def _describe(args: Namespace) -> str:
    index = f"[{args.map_index}]" if args.map_index >= 0 else ""
    return f"{harmless(args.task_id)}{index} of DAG {harmless(args.dag_id)}, run {harmless(args.run_id)}"
