# SPDX-License-Identifier: Apache-2.0
"""The console of the commands: the result on standard output, messages on standard error, and Ctrl-C."""

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

#: Seconds between two lines with the same progress, if a line cannot be rewritten.
PROGRESS_SECONDS = 60.0


#: The output formats, the same as those of Airflow's own commands.
FORMATS = ("table", "json", "yaml", "plain")

Result: TypeAlias = Mapping[str, Any]


class Invocation:
    """A command under way."""

    def __init__(self, program: str, args: Namespace) -> None:
        self.program = program
        self.args = args
        #: What to tell the user after an interruption.
        self.if_interrupted = "Nothing was submitted."

    def command_line(self, *words: str) -> str:
        """Return the command line for a next step."""
        return f"{self.program} {shlex.join(words)}"


def say(text: str) -> None:
    """Print a line on standard error, at once. A closed standard error must not lose the result."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@cache
def claim_stdout() -> TextIO:
    """
    Return standard output for the result only: from now on, everything else written there goes to standard error.

    Airflow logs to standard output through handlers that differ by version, some of which already hold the stream, and
    even at the very end of the process. So the file descriptor is replaced, below all handlers and for good.
    """
    sys.stdout.flush()
    stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    os.dup2(2, 1)
    return stdout


def print_result(result: Result | Sequence[Result], form: str) -> None:
    """
    Print a result on standard output, formatted as by Airflow's own commands.

    :raises BrokenPipeError: standard output is closed.
    """
    stdout = claim_stdout()
    from airflow.cli.simple_table import AirflowConsole

    try:
        with redirect_stdout(stdout):  # the console checks whether it is a terminal
            is_list = not isinstance(result, Mapping)
            # KIE's texts are not markup.
            console = AirflowConsole(show_header=is_list, markup=False, emoji=False, highlight=False)
            if form in ("table", "plain"):
                print_rows = console.print_as_table if form == "table" else console.print_as_plain_table
                print_rows(_as_rows(result))
            else:
                print_data = console.print_as_json if form == "json" else console.print_as_yaml
                print_data(result)  # type: ignore[arg-type]  # any JSON is fine for these formats
            stdout.flush()
    except BrokenPipeError:
        # Python would flush the rest of the buffer again at exit, and 3.13 reports the failure.
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
    Delay Ctrl-C until the end of the block; a second one interrupts at once.

    :raises KeyboardInterrupt: at the end, if Ctrl-C was pressed.
    """
    pressed = False

    def hold(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        os.write(2, f"\n{notice}\n".encode())  # print is not reentrant

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


class ProgressLine:
    """Progress on standard error: on a terminal one line that is rewritten, elsewhere a line now and then."""

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
        """Show the progress."""
        text, now = f"{news}; {more}", time.monotonic()
        if self._width:
            self._rewrite(text)
        elif news != self._last_news or now >= self._silent_until:
            self._last_news, self._silent_until = news, now + PROGRESS_SECONDS
            say(text)

    def _rewrite(self, text: str) -> None:
        # The cursor goes back to the start, so that the next text is written over the line.
        print(f"\r{text[: self._width]:{self._width}}\r", end="", file=sys.stderr, flush=True)
