# SPDX-License-Identifier: Apache-2.0
"""What a command owes to who calls it: a clean standard output, news on standard error, an answer to Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any, TextIO

__all__ = ["FORMATS", "ProgressLine", "claim_stdout", "hold_back_ctrl_c", "print_result", "say"]

#: Seconds between two lines of progress with the same news, where a line can not be rewritten.
PROGRESS_SECONDS = 60.0


def _as_table(result: Mapping[str, Any]) -> str:
    width = max(map(len, result))
    return "\n".join(f"{name:{width}} | {_as_cell(value)}" for name, value in result.items())


def _as_cell(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


#: The forms of a result, by name.
FORMATS: dict[str, Callable[[Mapping[str, Any]], str]] = {"table": _as_table, "json": partial(json.dumps, indent=2)}


def say(text: str) -> None:
    """
    Print a line on standard error, at once.

    :param text: the line. That nobody reads it must not keep the result back.
    """
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


def print_result(result: Mapping[str, Any], form: str) -> None:
    """
    Print a result on standard output.

    :param result: JSON scalars by name.
    :param form: one of :data:`FORMATS`.
    :raises BrokenPipeError: nobody reads it.
    """
    stdout = claim_stdout()
    try:
        print(FORMATS[form](result), file=stdout, flush=True)
    except BrokenPipeError:
        # What is left in the buffer would be tried again at the end of the process, and Python 3.13 complains of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise


@contextmanager
def hold_back_ctrl_c(notice: str) -> Iterator[None]:
    """
    Let what must not be broken off end before Ctrl-C counts; a second one counts at once.

    :param notice: says so to who pressed.
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
        """
        Show how it goes.

        :param news: is shown at once where it changes.
        :param more: changes all the time.
        """
        text, now = f"{news}; {more}", time.monotonic()
        if self._width:
            self._rewrite(text)
        elif news != self._last_news or now >= self._silent_until:
            self._last_news, self._silent_until = news, now + PROGRESS_SECONDS
            say(text)

    def _rewrite(self, text: str) -> None:
        # The cursor goes back to the start, so that whoever writes next writes over the line.
        print(f"\r{text[: self._width]:{self._width}}\r", end="", file=sys.stderr, flush=True)
