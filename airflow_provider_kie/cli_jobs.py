# SPDX-License-Identifier: Apache-2.0
"""The functions behind the commands of :mod:`airflow_provider_kie.cli` that deal with jobs at KIE."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from airflow_provider_kie import terminal
from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.families import FAMILIES, JOBS, WAV, find_family
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.job import CALLBACK, KieJob, Submitted
from airflow_provider_kie.api.wav import as_conversion
from airflow_provider_kie.exceptions import (
    KieError,
    KieMaybeSubmittedError,
    KieNotFoundError,
    KieValidationError,
    label,
    named,
)
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.ledger.storage import open_ledger
from airflow_provider_kie.money import Outcome, identity_of, outcome_of
from airflow_provider_kie.redaction import harmless, quoted, redact
from airflow_provider_kie.terminal import Invocation, Result
from airflow_provider_kie.waiting.course import Pause
from airflow_provider_kie.waiting.verdict import Done, conclude

__all__ = ["check", "convert", "families", "read_job", "show", "submit", "wait"]

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
    return _shown(row, read_job(KieHook(run.args.conn_id), row, run.args.kie_task_id))


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


def read_job(hook: KieHook, row: Family, kie_task_id: str) -> KieJob:
    """
    Read a job.

    :raises KieNotFoundError: KIE does not know it.
    """
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
        secret = hook.settings.callback_secret
        body[CALLBACK] = redact(url.removesuffix(secret) + "***" if secret and url.endswith(secret) else url)
    identity = identity_of(hook.settings.payer, hook.settings.base_url, row, args.model, args.input)
    return {
        "method": call.method,
        "path": call.path,
        "body": body,
        "identity": identity,
        "remembered": NOTHING_REMEMBERED,
        **({"ledger": _known_of_input(hook.settings.ledger, identity)} if hook.settings.ledger else {}),
    }


def _known_of_input(url: str, identity: dict[str, str]) -> Result | None:
    """Return what tasks with ``reuse="input"`` find in a ledger."""
    found = open_ledger(url).chain(identity).look()
    if found.kind == "closed":
        return None
    return {"state": found.state, **{name: (found.body or {}).get(name) for name in ("kie_task_id", "at", "task")}}
