# SPDX-License-Identifier: Apache-2.0
"""The functions behind the commands of :mod:`airflow_provider_kie.cli`; each returns the command's result."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_kie import durable, terminal
from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.families import FAMILIES, JOBS, WAV, find_family
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.job import CALLBACK, KieJob, Submitted
from airflow_provider_kie.api.wav import as_conversion
from airflow_provider_kie.compat import TaskStateStore, airflow_version, find_task_state_store
from airflow_provider_kie.exceptions import (
    KieError,
    KieMaybeSubmittedError,
    KieNotFoundError,
    KieValidationError,
    label,
    named,
)
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.money import Outcome, identity_of, outcome_of
from airflow_provider_kie.operators.job import STORE_KEY as JOB_KEY
from airflow_provider_kie.operators.wav import STORE_KEY as WAV_KEY
from airflow_provider_kie.redaction import harmless, quoted, redact
from airflow_provider_kie.terminal import Invocation, Result
from airflow_provider_kie.waiting.course import Pause
from airflow_provider_kie.waiting.verdict import Done, Failed, Judge, conclude

__all__ = ["adopt", "check", "convert", "families", "forget", "show", "show_entry", "submit", "wait"]

HELD_BACK = "Waiting for KIE's answer, which names the job. Press Ctrl-C again to stop without it."
MAYBE_SUBMITTED = (
    "KIE may have accepted the submit. Look at https://kie.ai/logs: if the conversion is listed, wait for its id. If "
    "not, run the same command again; KIE's documentation says that it refuses a second conversion of a track."
)
MAYBE_CHARGED = (
    "KIE may have accepted the submit, and charged it. Look at https://kie.ai/logs before you run the command again. "
    "To wait for a job that is listed there: "
)
NOTHING_REMEMBERED = (
    "This command looks nothing up and remembers nothing, so that it submits again when it is run again."
)


# --- Jobs at KIE


def check(run: Invocation) -> Result:
    """Read the credits, which takes a working host and key."""
    hook = KieHook(run.args.conn_id)
    base_url, balance = hook.settings.base_url, hook.get_credits()
    return {"conn_id": run.args.conn_id, "base_url": base_url, "key_accepted": True, "credits": balance}


def families(run: Invocation) -> list[Result]:
    """List the families of jobs, which takes no connection."""
    return [
        {
            "family": row.name,
            "submit": row.submit,
            "second_submit": "guarded" if row.guarded else "charged",
            "files": " ".join(dict.fromkeys(name for name, _ in row.files)) or None,
            "poll_interval": row.interval,
        }
        for row in FAMILIES.values()
    ]


def show(run: Invocation) -> Result:
    """Read a job."""
    row = _row(run.args, default=WAV.name)
    return _shown(row, _read(KieHook(run.args.conn_id), row, run.args.kie_task_id))


def wait(run: Invocation) -> Result:
    """Wait for a job."""
    row = _row(run.args, default=WAV.name)
    _set_interrupt_hint(run, row, run.args.kie_task_id)
    return _wait(run, KieHook(run.args.conn_id), row, run.args.kie_task_id)


def convert(run: Invocation) -> Result:
    """Submit a WAV conversion."""
    args, hook = run.args, KieHook(run.args.conn_id)
    track = (args.music_task_id, args.audio_id, args.callback_url)
    return _submit(run, hook, hook.wav_route(None), lambda: hook.submit_wav_conversion(*track))


def submit(run: Invocation) -> Result:
    """Submit a job of any family, or show what would be sent."""
    args, hook = run.args, KieHook(run.args.conn_id)
    row = _row(args)
    call = hook.submit_call(input=args.input, model=args.model, family=row.name, callback_url=args.callback_url)
    if args.dry_run:
        return _dry_run(hook, row, args, call)
    return {"family": row.name, **_submit(run, hook, row, lambda: hook.call(call))}


def _row(args: Namespace, default: str | None = None) -> Family:
    if args.model and args.family not in (None, JOBS.name):
        raise KieValidationError(f"--model goes with family {quoted(JOBS.name)}, and not with {quoted(args.family)}")
    name = JOBS.name if args.model else args.family or default
    if name is None:
        raise KieValidationError("either --model or --family is needed")
    return find_family(name)


def _read(hook: KieHook, row: Family, kie_task_id: str) -> KieJob:
    job = hook.get_job(kie_task_id, row.name)
    if job is None:
        problem = f"KIE does not know this {label(row.tag)}; one that is new may take a minute to become visible"
        raise KieNotFoundError(problem, kie_task_id=kie_task_id, conn_id=hook.kie_conn_id, family=row.tag)
    return job


def _shown(row: Family, job: KieJob) -> Result:
    return as_conversion(job) if row.name == WAV.name else job


def _set_interrupt_hint(run: Invocation, row: Family, kie_task_id: str) -> None:
    again = run.command_line(
        "wait", harmless(kie_task_id), *_family_option(row), "--conn-id", harmless(run.args.conn_id)
    )
    run.if_interrupted = f"{label(row.tag)} {quoted(kie_task_id)} goes on at KIE; wait for it again with: {again}"


def _family_option(row: Family) -> list[str]:
    return [] if row.name == WAV.name else ["--family", row.name]


def _wait(run: Invocation, hook: KieHook, row: Family, kie_task_id: str) -> Result:
    def report(pause: Pause) -> None:
        line.show(f"{named(row.tag, kie_task_id)}: {pause.reason}", f"up to {pause.left:.0f} seconds left")

    times = {"poll_interval": run.args.poll_interval, "timeout": run.args.timeout}
    with terminal.ProgressLine() as line:
        end = hook.wait(row, kie_task_id, **times, report=report)
    if isinstance(end, Done) and end.warning:
        terminal.say(end.warning)
    return _shown(row, conclude(end))


def _submit(run: Invocation, hook: KieHook, row: Family, send: Callable[[], Submitted]) -> Result:
    again = run.command_line("wait", "ID", *_family_option(row), "--conn-id", harmless(run.args.conn_id))
    perhaps = MAYBE_SUBMITTED if row.guarded else MAYBE_CHARGED + again
    with terminal.hold_back_ctrl_c(HELD_BACK):
        run.if_interrupted = perhaps
        try:
            submitted = send()
        except KieError as error:
            outcome = outcome_of(error)
            if outcome is Outcome.ACCEPTED:
                _announce(run, row, str(error.existing_kie_task_id))
            if outcome is Outcome.UNKNOWN:
                about = {"conn_id": error.conn_id, "family": row.tag, "next_step": perhaps}
                raise KieMaybeSubmittedError(error.problem, **about) from error
            raise
        _announce(run, row, submitted.kie_task_id)
    return {**submitted._asdict(), **(_wait(run, hook, row, submitted.kie_task_id) if run.args.wait else {})}


def _announce(run: Invocation, row: Family, kie_task_id: str) -> None:
    """Print the id at once, because any later step may fail."""
    _set_interrupt_hint(run, row, kie_task_id)
    terminal.say(f"kie_task_id: {kie_task_id}")
    if row.tag:
        terminal.say(f"family: {row.name}")


def _dry_run(hook: KieHook, row: Family, args: Namespace, call: Call[Submitted]) -> Result:
    body = dict(call.json or {})
    if isinstance(url := body.get(CALLBACK), str):
        body[CALLBACK] = redact(url)
    return {
        "method": call.method,
        "path": call.path,
        "body": body,
        "identity": identity_of(hook.settings.payer, hook.settings.base_url, row, args.model, args.input),
        "remembered": NOTHING_REMEMBERED,
    }


# --- The entries of task instances


def show_entry(run: Invocation) -> Result:
    """Show the entry of a task instance."""
    key, entry = _only_entry(_store(run.args), run.args)
    return {"key": key, **entry}


def adopt(run: Invocation) -> Result:
    """Let the next try of a task instance resume a job."""
    args, store = run.args, _store_of_inactive_task(run.args)
    key, entry = _only_entry(store, args)
    hook, row = KieHook(args.conn_id), find_family(entry.get("family", WAV.name if key == WAV_KEY else JOBS.name))
    for name, own in {"account": hook.settings.payer, "base_url": hook.settings.base_url}.items():
        if entry.get(name, own) != own:
            of = f"the task submitted with {name} {quoted(entry[name])}, and this connection has {quoted(own)}"
            raise KieValidationError(f"{of}: name the task's connection with --conn-id", conn_id=args.conn_id)
    job = _read(hook, row, args.kie_task_id)
    _refuse_another_job(row, job, entry)
    if (before := entry.get("kie_task_id")) and before != job["kie_task_id"]:
        terminal.say(f"It replaces {named(row.tag, before)}, which is paid for too.")
    entry = durable.adopt(store, key, entry, job["kie_task_id"])
    what = f"{named(row.tag, job['kie_task_id'])}, whose status is {job['status']}"
    terminal.say(f"The next try goes on with {what}. Clear the task to start it.")
    return {"key": key, **entry}


def _refuse_another_job(row: Family, job: KieJob, entry: dict[str, Any]) -> None:
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
    """Delete the entries of a task instance."""
    store = _store_of_inactive_task(run.args)
    found = _entries(store, run.args)
    for key in found:
        store.delete(key)
    terminal.say(
        "This is forgotten. The next try submits again, AND PAYS AGAIN if KIE has accepted the earlier submit."
    )
    return [{"key": key, **(entry if isinstance(entry, dict) else {"value": entry})} for key, entry in found.items()]


def _store(args: Namespace) -> TaskStateStore:
    try:
        store = find_task_state_store(args.dag_id, args.run_id, args.task_id, args.map_index)
    except LookupError:
        hint = "DAG, RUN and TASK are ids, and a mapped task needs --map-index"
        raise KieError(f"Airflow has no task instance {_describe(args)}; {hint}") from None
    except SQLAlchemyError as error:
        where = "run this where Airflow's own commands can reach it"
        raise KieError(f"Airflow's metadata database gave no answer ({type(error).__name__}); {where}") from error
    if store is None:
        why = f"Airflow {airflow_version} stores nothing from one try to the next; Airflow 3.3 and later do"
        raise KieError(f"There is no entry to settle: {why}")
    return store


def _store_of_inactive_task(args: Namespace) -> TaskStateStore:
    store = _store(args)
    if store.is_active:
        raise KieError(f"{_describe(args)} is under way; wait for it to end, or mark it as failed, then run this again")
    return store


def _entries(store: TaskStateStore, args: Namespace) -> dict[str, Any]:
    kept = {key: store.get(key) for key in (JOB_KEY, WAV_KEY)}
    found = {key: entry for key, entry in kept.items() if entry is not None}
    if not found:
        instead = "To wait for a job that KIE's website lists, use a KieJobSensor or a WavConversionSensor"
        raise KieError(f"Nothing is remembered for {_describe(args)}, so its next try submits. {instead}")
    return found


def _only_entry(store: TaskStateStore, args: Namespace) -> tuple[str, dict[str, Any]]:
    found = _entries(store, args)
    if len(found) > 1:
        raise KieError(
            f"Both {' and '.join(found)} are remembered for {_describe(args)}; delete one on the task's page"
        )
    ((key, entry),) = found.items()
    if not isinstance(entry, dict) or "kie_task_id" not in entry:  # a worker's own store leaves only a reference
        raise KieError(
            f"The entry {key} of {_describe(args)} cannot be read here; only a task, or 'forget', can use it"
        )
    return key, entry


def _describe(args: Namespace) -> str:
    index = f"[{args.map_index}]" if args.map_index >= 0 else ""
    return f"{harmless(args.task_id)}{index} of DAG {harmless(args.dag_id)}, run {harmless(args.run_id)}"
