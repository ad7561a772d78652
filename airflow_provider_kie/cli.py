# SPDX-License-Identifier: Apache-2.0
"""
The commands ``airflow kie …`` and ``python -m airflow_provider_kie …``, both built from one table.

Airflow imports this module at every start, so the imports of a command are made when it runs.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_kie import terminal
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.redaction import quoted

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand

__all__ = ["get_commands", "main"]

HELP = "Submit jobs to KIE.ai, show them, and settle which of them tasks have paid for"
WITHIN_AIRFLOW = "airflow kie"
WITHOUT_AIRFLOW = "python -m airflow_provider_kie"

POLL_INTERVAL = 10.0
TIMEOUT = 3600.0

FAILURE, INTERRUPTED = 1, 130

UNITS = {"d": "days", "h": "hours", "m": "minutes"}
LONGEST = timedelta(days=3650)
STATES = ("claimed", "unknown", "submitted", "finished", "archived", "failed", "refused", "forgotten")
#: As in :mod:`airflow_provider_kie.ledger.report`, which Airflow need not import at each start.
GROUPS = ("dag", "task", "model", "family", "day")


# --- The table


class _Command(NamedTuple):
    """
    A command; both argparse's ``add_argument`` and Airflow's ``Arg`` accept its options.

    ``function`` names its module and function.
    """

    name: str
    help: str
    function: str
    options: tuple[tuple[tuple[str, ...], dict[str, Any]], ...]


class _Group(NamedTuple):
    """Commands under a name of their own."""

    name: str
    help: str
    commands: tuple[_Command | _Group, ...]


def _option(*flags: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    return flags, settings


def _seconds(text: str) -> float:
    terminal.claim_stdout()  # because the import loads Airflow, which logs there
    from airflow_provider_kie.exceptions import KieValidationError
    from airflow_provider_kie.waiting.pace import as_seconds

    try:
        return as_seconds("value", float(text))
    except (ValueError, KieValidationError):
        raise ArgumentTypeError(f"{quoted(text)} is not a number of seconds above 0 and up to ten years") from None


def _input(text: str) -> dict[str, Any]:
    try:
        given = sys.stdin.read() if text == "-" else Path(text[1:]).read_text("utf-8-sig") if text[:1] == "@" else text
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error.reason  # an OSError's text has the path
        raise ArgumentTypeError(f"{quoted(text)} cannot be read: {why}") from None
    with suppress(ValueError, RecursionError):
        if isinstance(fields := json.loads(given), dict):
            return fields
    raise ArgumentTypeError("it must be a JSON object: the fields of KIE's call")


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([dhm])", text)
    time = timedelta(**{UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < time <= LONGEST:
        raise ArgumentTypeError(f"{quoted(text)} is not a time such as 3d, 12h or 90m, above 0 and up to ten years")
    return time


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{quoted(text)} is not a date such as 2026-11-01") from None


_OUTPUT = _option("-o", "--output", choices=terminal.FORMATS, default="table", help="form of the result (%(default)s)")
_CONN = _option("--conn-id", default=DEFAULT_CONN_ID, help="the Airflow connection (default: %(default)s)")
_EACH = (_CONN, _OUTPUT)
_ID = _option("kie_task_id", metavar="ID", help="the job: the id that the submit returned")
_SECONDS: dict[str, Any] = {"type": _seconds, "metavar": "SECONDS"}
_TIMES = (
    _option("--timeout", **_SECONDS, default=TIMEOUT, help="how long to wait at most (default: %(default)g)"),
    _option(
        "--poll-interval", **_SECONDS, default=POLL_INTERVAL, help="seconds between two polls (default: %(default)g)"
    ),
)
_KIND = (
    _option("--model", help="KIE's model, for a job of its Market"),
    _option("--family", help="the family of the job, as the command 'families' lists them"),
)
_KIND_OF_ID = (*_KIND[:1], _option("--family", help=f"{_KIND[1][1]['help']} (default: wav)"))
_SUBMIT = (
    _option("--callback-url", help="where KIE reports the end (default: the connection's)"),
    _option("--wait", action="store_true", help="wait for the end"),
    *_TIMES,
)
_TRACK = (
    _option("music_task_id", metavar="MUSIC_TASK_ID", help="the music task that made the track"),
    _option("audio_id", metavar="AUDIO_ID", help="the track: response.sunoData[].id of the music task"),
)
_INPUT = (
    _option(
        "--input",
        type=_input,
        required=True,
        metavar="JSON|@FILE|-",
        help="the fields of KIE's call: a JSON object, a file that holds one, or - for standard input",
    ),
    _option("--dry-run", action="store_true", help="send nothing; show what would be sent"),
)
_MAP_INDEX = _option("--map-index", type=int, default=-1, help="the map index of the instance, if the task is mapped")
_ENTRY = _option("--entry", metavar="ENTRY", help="one item of a batch, by the entry that the manifest names for it")
_TASK = (
    _option("dag_id", metavar="DAG", help="the DAG"),
    _option("run_id", metavar="RUN", help="the id of its run"),
    _option("task_id", metavar="TASK", help="the task that submits"),
    _MAP_INDEX,
    _ENTRY,
)
_URL = _option("url", metavar="URL", help="URL or path of the folder, in any storage that Airflow supports")
_LEDGER = _option("--ledger", metavar="URL", help="the ledger's folder (default: the connection's)")
_STATE = _option(
    "--state",
    choices=STATES,
    help="only those in this state; unknown: claimed more than an hour ago without an id; archived: files are stored",
)
_WHICH = _option("which", nargs="+", metavar="ID", help="a job's KIE_TASK_ID; or DAG, RUN and TASK")
_SPEND = (
    _option(
        "--by", choices=GROUPS, required=True, help="what to sum up by; days are those on which jobs ended, in UTC"
    ),
    _option(
        "--since", type=_date, metavar="DATE", help="only jobs that ended on this day or later, such as 2026-11-01"
    ),
)
_WITHIN = _option("--within", type=_duration, metavar="TIME", required=True, help="how soon, such as 3d, 12h or 90m")
_OLDER_THAN = _option(
    "--older-than", type=_duration, metavar="TIME", required=True, help="without a change for this long, such as 90d"
)

COMMANDS: tuple[_Command | _Group, ...] = (
    _Command("check", "check host and API key, and show the credits left (free)", "cli_jobs:check", _EACH),
    _Command("families", "list the families of jobs (free)", "cli_jobs:families", (_OUTPUT,)),
    _Command("show", "show the current state of a job (free)", "cli_jobs:show", (_ID, *_KIND_OF_ID, *_EACH)),
    _Command(
        "wait", "wait for the end of a job, and show it (free)", "cli_jobs:wait", (_ID, *_KIND_OF_ID, *_TIMES, *_EACH)
    ),
    _Command("convert", "submit a WAV conversion; THIS COSTS CREDITS", "cli_jobs:convert", (*_TRACK, *_SUBMIT, *_EACH)),
    _Command("submit", "submit a job; THIS COSTS CREDITS", "cli_jobs:submit", (*_KIND, *_INPUT, *_SUBMIT, *_EACH)),
    _Group(
        "jobs",
        "settle by hand which job a task instance has paid for",
        (
            _Command("show", "show what is remembered", "cli_settle:show", (*_TASK, _LEDGER, *_EACH)),
            _Command(
                "adopt", "let the next try go on with a job (free)", "cli_settle:adopt", (*_TASK, _ID, _LEDGER, *_EACH)
            ),
            _Command(
                "forget",
                "forget the job, so that the next try submits again; THAT COSTS CREDITS, perhaps a second time",
                "cli_settle:forget",
                (*_TASK, _LEDGER, *_EACH),
            ),
        ),
    ),
    _Group(
        "ledger",
        "the ledger: which jobs were paid for, what they cost, and which files KIE is about to delete",
        (
            _Command("init", "make a ledger in an empty folder", "cli_ledger:init", (_URL, _OUTPUT)),
            _Command("list", "list all submits", "cli_ledger:list_entries", (_STATE, _LEDGER, *_EACH)),
            _Command(
                "show", "show the entry of a job or of a task", "cli_ledger:show", (_WHICH, _MAP_INDEX, _LEDGER, *_EACH)
            ),
            _Command(
                "spend", "sum up the credits, as KIE reported them", "cli_ledger:sum_up", (*_SPEND, _LEDGER, *_EACH)
            ),
            _Command(
                "expiring",
                "list the jobs whose files nobody has stored and KIE deletes soon",
                "cli_ledger:list_expiring",
                (_WITHIN, _LEDGER, *_EACH),
            ),
            _Command(
                "prune",
                "delete old entries, without asking; what is deleted is not known any more, so that a task that is "
                "run again pays again",
                "cli_ledger:prune",
                (_OLDER_THAN, _LEDGER, *_EACH),
            ),
        ),
    ),
)


# --- The two command lines


def get_commands() -> list[CLICommand]:
    """Return the commands for Airflow 3.2 and later, which finds this in the provider's metadata."""
    return [_for_airflow(_Group("kie", HELP, COMMANDS))]


def _for_airflow(entry: _Command | _Group) -> CLICommand:
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    if isinstance(entry, _Group):
        return GroupCommand(name=entry.name, help=entry.help, subcommands=[*map(_for_airflow, entry.commands)])
    return ActionCommand(
        name=entry.name,
        help=entry.help,
        func=partial(_run, entry, WITHIN_AIRFLOW),
        args=[Arg(flags, **settings) for flags, settings in entry.options],  # type: ignore[no-untyped-call]  # Airflow
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command without Airflow's own command line, and exit."""
    args = _parser().parse_args(argv)
    args.run(args)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog=WITHOUT_AIRFLOW, description=HELP)
    _fill(parser, COMMANDS)
    return parser


def _fill(parser: ArgumentParser, entries: Sequence[_Command | _Group]) -> None:
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for entry in entries:
        subparser = subparsers.add_parser(entry.name, help=entry.help, description=entry.help)
        if isinstance(entry, _Group):
            _fill(subparser, entry.commands)
            continue
        for flags, settings in entry.options:
            subparser.add_argument(*flags, **settings)
        subparser.set_defaults(run=partial(_run, entry, WITHOUT_AIRFLOW))


def _run(command: _Command, program: str, args: Namespace) -> None:
    """Run a command and exit, because an exit code is the only result that Airflow takes from it."""
    invocation = terminal.Invocation(program, args)
    terminal.claim_stdout()
    try:
        from airflow_provider_kie.compat import use_metadata_database
        from airflow_provider_kie.exceptions import KieError

        use_metadata_database()
        try:
            result = resolve_name(f"airflow_provider_kie.{command.function}")(invocation)
            terminal.print_result(result, args.output)
        except KieError as error:
            terminal.say(str(error))
            sys.exit(FAILURE)
    except BrokenPipeError:
        sys.exit(FAILURE)
    except KeyboardInterrupt:
        terminal.say(f"Interrupted. {invocation.if_interrupted}")
        sys.exit(INTERRUPTED)
    sys.exit()
