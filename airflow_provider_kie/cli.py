# SPDX-License-Identifier: Apache-2.0
"""
The commands ``airflow kie …`` and ``python -m airflow_provider_kie …``: one table, from which both are built.

Airflow imports this module at each of its starts, so what a command needs is imported when it runs.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_kie import terminal
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.redaction import harmless, quoted

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand

    from airflow_provider_kie.hooks.kie import KieHook
    from airflow_provider_kie.waiting.course import Pause

__all__ = ["get_commands", "main"]

HELP = "Convert tracks to WAV at KIE.ai"
WITHIN_AIRFLOW = "airflow kie"
WITHOUT_AIRFLOW = "python -m airflow_provider_kie"

POLL_INTERVAL = 10.0
TIMEOUT = 3600.0

FAILURE, INTERRUPTED = 1, 130

HELD_BACK = "Waiting for KIE's answer, which names the WAV task. Press Ctrl-C again to do without it."
MAYBE_SUBMITTED = (
    "KIE may have accepted the submit. Look at https://kie.ai/logs: if the conversion is listed, wait for its id. If "
    "not, run the same command again; KIE's documentation says that it refuses a second conversion of a track."
)

Result = Mapping[str, Any]


class _Job:
    """A command under way: what was asked for, and what an interruption leaves behind."""

    def __init__(self, program: str, args: Namespace) -> None:
        self.args = args
        self._program = program
        self.goes_on = "Nothing was submitted."
        if "kie_task_id" in args:
            self.know(args.kie_task_id)

    @cached_property
    def hook(self) -> KieHook:
        from airflow_provider_kie.hooks.kie import KieHook

        # Airflow 3 looks into the metadata database only where this is set, as its own "connections" commands do.
        os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
        # Where there is no database, Airflow 2.11 says with a traceback that the connection is not in there.
        logging.getLogger("airflow.models.connection").addFilter(_without_traceback)
        return KieHook(self.args.conn_id)

    def know(self, kie_task_id: str) -> None:
        again = shlex.join(["wait", harmless(kie_task_id), "--conn-id", harmless(self.args.conn_id)])
        self.goes_on = f"WAV task {quoted(kie_task_id)} goes on at KIE; wait for it again with: {self._program} {again}"

    def wait(self, kie_task_id: str, *, poll_interval: float = POLL_INTERVAL, timeout: float = TIMEOUT) -> Result:
        from airflow_provider_kie.api.families import WAV
        from airflow_provider_kie.api.wav import as_conversion
        from airflow_provider_kie.waiting.verdict import Done, conclude

        def report(pause: Pause) -> None:
            line.show(f"WAV task {kie_task_id}: {pause.reason}", f"up to {pause.left:.0f} seconds left")

        with terminal.ProgressLine() as line:
            end = self.hook.wait(WAV, kie_task_id, poll_interval=poll_interval, timeout=timeout, report=report)
        if isinstance(end, Done) and end.warning:
            terminal.say(end.warning)
        return as_conversion(conclude(end))


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = None
    return True


# --- What the commands do


def _check(job: _Job) -> Result:
    base_url, balance = job.hook.settings.base_url, job.hook.get_credits()
    return {"conn_id": job.args.conn_id, "base_url": base_url, "key_accepted": True, "credits": balance}


def _show(job: _Job) -> Result:
    from airflow_provider_kie.exceptions import KieNotFoundError

    kie_task_id = job.args.kie_task_id
    conversion = job.hook.get_wav_conversion(kie_task_id)
    if conversion is None:
        problem = "KIE does not know this WAV task, or not yet: a new one may stay out of sight for a minute"
        raise KieNotFoundError(problem, kie_task_id=kie_task_id, conn_id=job.args.conn_id)
    return conversion


def _wait(job: _Job) -> Result:
    return job.wait(job.args.kie_task_id, poll_interval=job.args.poll_interval, timeout=job.args.timeout)


def _convert(job: _Job) -> Result:
    args = job.args
    with terminal.hold_back_ctrl_c(HELD_BACK):
        job.goes_on = MAYBE_SUBMITTED
        submitted = job.hook.submit_wav_conversion(args.music_task_id, args.audio_id, args.callback_url)
        job.know(submitted.kie_task_id)
        terminal.say(f"kie_task_id: {submitted.kie_task_id}")
    conversion = job.wait(submitted.kie_task_id) if args.wait else {}
    return {**submitted._asdict(), **conversion}


# --- The table


class _Command(NamedTuple):
    """A command; its options are what argparse's ``add_argument`` and Airflow's ``Arg`` take alike."""

    name: str
    help: str
    result: Callable[[_Job], Result]
    options: tuple[tuple[tuple[str, ...], dict[str, Any]], ...]


def _option(*flags: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return flags, settings


def _seconds(text: str) -> float:
    terminal.claim_stdout()  # because this import is that of Airflow
    from airflow_provider_kie.exceptions import KieValidationError
    from airflow_provider_kie.waiting.pace import as_seconds

    try:
        return as_seconds("value", float(text))
    except (ValueError, KieValidationError):
        raise ArgumentTypeError(f"{quoted(text)} is not a number of seconds above 0 and up to ten years") from None


_FORMS = tuple(terminal.FORMATS)
_EACH = (
    _option("--conn-id", default=DEFAULT_CONN_ID, help="the Airflow connection (default: %(default)s)"),
    _option("-o", "--output", choices=_FORMS, default=_FORMS[0], help="form of the result (default: %(default)s)"),
)
_ID = (_option("kie_task_id", metavar="ID", help="the WAV task: the id that KIE gave for the submit"),)
_SECONDS: dict[str, Any] = {"type": _seconds, "metavar": "SECONDS"}
_TIMES = (
    _option("--timeout", **_SECONDS, default=TIMEOUT, help="how long to wait at the most (default: %(default)g)"),
    _option(
        "--poll-interval", **_SECONDS, default=POLL_INTERVAL, help="how often to look (default: every %(default)g)"
    ),
)
_SUBMIT = (
    _option("music_task_id", metavar="MUSIC_TASK_ID", help="the music task that made the track"),
    _option("audio_id", metavar="AUDIO_ID", help="the track: response.sunoData[].id of the music task"),
    _option("--callback-url", help="where KIE reports the end (default: the connection's)"),
    _option("--wait", action="store_true", help="wait for the end, as the command 'wait' does by default"),
)

COMMANDS = (
    _Command("check", "check host and API key, and show the credits left (free)", _check, _EACH),
    _Command("show", "show a WAV conversion as it stands (free)", _show, _ID + _EACH),
    _Command("wait", "wait for the end of a WAV conversion, and show it (free)", _wait, _ID + _TIMES + _EACH),
    _Command("convert", "submit a WAV conversion; THIS COSTS CREDITS", _convert, _SUBMIT + _EACH),
)


# --- What is built from it


def get_commands() -> list[CLICommand]:
    """Return the commands as Airflow 3.2 and later takes them, by the provider's metadata."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    subcommands = [
        ActionCommand(
            name=command.name,
            help=command.help,
            func=partial(_run, command, WITHIN_AIRFLOW),
            args=[Arg(flags, **settings) for flags, settings in command.options],  # type: ignore[no-untyped-call]  # Airflow
        )
        for command in COMMANDS
    ]
    return [GroupCommand(name="kie", help=HELP, subcommands=subcommands)]


def main(argv: Sequence[str] | None = None) -> None:
    """
    Run a command without Airflow's own command line, and exit.

    :param argv: arguments, by default those of the process.
    """
    args = _parser().parse_args(argv)
    args.run(args)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog=WITHOUT_AIRFLOW, description=HELP)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.help)
        for flags, settings in command.options:
            subparser.add_argument(*flags, **settings)
        subparser.set_defaults(run=partial(_run, command, WITHOUT_AIRFLOW))
    return parser


def _run(command: _Command, program: str, args: Namespace) -> None:
    """Exits, because Airflow has no other way for a command to say how it ended."""
    job = _Job(program, args)
    terminal.claim_stdout()
    try:
        from airflow_provider_kie.exceptions import KieError

        try:
            terminal.print_result(command.result(job), args.output)
        except KieError as error:
            terminal.say(str(error))
            sys.exit(FAILURE)
    except BrokenPipeError:
        sys.exit(FAILURE)
    except KeyboardInterrupt:
        terminal.say(f"Interrupted. {job.goes_on}")
        sys.exit(INTERRUPTED)
    sys.exit()
