# SPDX-License-Identifier: Apache-2.0
"""The console output of the commands: a clean standard output, news on standard error, an answer to Ctrl-C."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache
from typing import Any, TextIO, TypeAlias

__all__ = ["FORMATS", "Invocation", "ProgressLine", "Result", "claim_stdout", "hold_back_ctrl_c", "print_result", "say"]

#: Seconds between two lines of progress with the same news, where a line cannot be rewritten.
PROGRESS_SECONDS = 60.0


#: The forms of a result, which are those of Airflow's own commands.
FORMATS = ("table", "json", "yaml", "plain")

Result: TypeAlias = Mapping[str, Any]


class Invocation:
    """A command under way."""

    def __init__(self, program: str, args: Namespace) -> None:
        self.program = program
        self.args = args
        #: What an interruption leaves behind.
        self.goes_on = "Nothing was submitted."

    def again(self, *words: str) -> str:
        """Return the command line that goes on from here."""
        return f"{self.program} {shlex.join(words)}"


def say(text: str) -> None:
    """Print a line on standard error, at once."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@cache
def claim_stdout() -> TextIO:
    """
    Return standard output for the result alone: from now on, all that others write there goes to standard error.

    Airflow logs to standard output, on each version through other handlers, of which some hold the stream since
    before, and even at the very end of the process. So the change lies below all of them, and stays.
    """
    sys.stdout.flush()
    stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    os.dup2(2, 1)
    return stdout


def print_result(result: Result | Sequence[Result], form: str) -> None:
    """
    Print a result on standard output, in the way of Airflow's own commands.

    :raises BrokenPipeError: nobody reads it.
    """
    stdout = claim_stdout()
    from airflow.cli.simple_table import AirflowConsole

    try:
        with redirect_stdout(stdout):  # of which the console asks whether it is a terminal
            is_list = not isinstance(result, Mapping)
            # A text of KIE's is no markup.
            console = AirflowConsole(show_header=is_list, markup=False, emoji=False, highlight=False)
            if form in ("table", "plain"):
                print_rows = console.print_as_table if form == "table" else console.print_as_plain_table
                print_rows(_as_rows(result))
            else:
                print_data = console.print_as_json if form == "json" else console.print_as_yaml
                print_data(result)  # type: ignore[arg-type]  # anything that the two formats can tell
            stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would be tried again at the end of the process, and Python 3.13 complains of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise


def _as_rows(result: Result | Sequence[Result]) -> list[dict[str, str]]:
    if isinstance(result, Mapping):
        return [{"name": name, "value": _as_cell(value)} for name, value in result.items()]
    return [{name: _as_cell(value) for name, value in each.items()} for each in result]


def _as_cell(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


@contextmanager
def hold_back_ctrl_c(notice: str) -> Iterator[None]:
    """
    Let what must not be broken off end before Ctrl-C counts; a second one counts at once.

    :raises KeyboardInterrupt: at the end, if Ctrl-C was pressed.
    """
    pressed = False

    def hold(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        os.write(2, f"\n{notice}\n".encode())  # print must not be entered twice, and may be under way

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


class ProgressLine:
    """How it goes, on standard error: on a terminal one line that is rewritten, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._width = shutil.get_terminal_size().columns - 1 if sys.stderr.isatty() else 0
        self._last_news = ""
        self._silent_until = 0.0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            self._rewrite("")

    def show(self, news: str, more: str) -> None:
        """Show how it goes."""
        text, now = f"{news}; {more}", time.monotonic()
        if self._width:
            self._rewrite(text)
        elif news != self._last_news or now >= self._silent_until:
            self._last_news, self._silent_until = news, now + PROGRESS_SECONDS
            say(text)

    def _rewrite(self, text: str) -> None:
        # The cursor goes back to the start, so that the next text is written over the line.
        print(f"\r{text[: self._width]:{self._width}}\r", end="", file=sys.stderr, flush=True)
