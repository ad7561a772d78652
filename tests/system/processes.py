# SPDX-License-Identifier: Apache-2.0
"""Processes of a test, by name: started, watched, killed and in the end all ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import psutil

T = TypeVar("T")

HOST: Final = "127.0.0.1"


class ProcessError(Exception):
    """Something that was waited for did not happen in time."""


def say(text: str) -> None:
    """Tell the person who watches, and when it was."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def wait_for(what: str, look: Callable[[], T], *, seconds: float, every: float = 0.3) -> T:
    """
    Look again and again until there is something to see.

    :param what: what is waited for, for the message.
    :param look: returns something true once it is there.
    :param seconds: how long to wait at most.
    :param every: seconds between two checks.
    """
    until = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > until:
            raise ProcessError(f"gave up after waiting {seconds:.0f} seconds for {what}")
        time.sleep(every)
    return found


def print_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table that Markdown understands too; a last column only if it says something."""
    columns = [column for column in zip(head, *lines, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    rows = list(zip(*columns, strict=True))
    rows.insert(1, tuple("-" * width for width in widths))
    print()
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    print(flush=True)


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def stop_by_exit(*_: object) -> None:
    """Let a termination signal end the ``with`` blocks as Ctrl+C does."""
    raise KeyboardInterrupt


class Processes:
    """
    Processes that are started, killed and in the end all ended, by pid.

    They see this program's environment, but for what configures another Airflow, and for a proxy.

    :param folder: where each one's output goes, as ``<name>.log``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        self.environment |= {"NO_PROXY": HOST, "no_proxy": HOST}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        # A child of a process that was killed alone is found by its session: its own group, its parent and, in
        # Airflow's case, even its environment say nothing about where it comes from.
        self._sessions: set[int] = set()
        self._since = time.time() - 1

    def start(
        self,
        name: str,
        command: list[str],
        *,
        user: str | None = None,
        folder: Path | None = None,
        **environment: str,
    ) -> None:
        """
        Start a process in a session of its own, so that Ctrl+C reaches only this program, which ends it in order.

        :param user: who runs it, if not this program's user.
        :param folder: where it runs, if not where its output goes.
        :param environment: variables of this process alone.
        """
        # A session that has ended may give its id to one of somebody else.
        self._sessions &= {session for _, session in self._alive()}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self.environment | environment,
                cwd=folder or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
            )
        self._running[name] = process
        self._sessions.add(process.pid)

    def pid(self, name: str) -> int:
        return self._running[name].pid

    def alive(self, name: str) -> bool:
        """Whether a process runs; one that ended by itself is an error."""
        if (code := self._running[name].poll()) is not None:
            raise ProcessError(f"{name} ended by itself with exit code {code}: see {self.folder / name}.log")
        return True

    def ended(self) -> list[str]:
        """The names of processes that ended by themselves, which are forgotten."""
        names = [name for name, process in self._running.items() if process.poll() is not None]
        for name in names:
            del self._running[name]
        return names

    def ask_to_end(self, name: str, *, number: int = signal.SIGTERM, seconds: float) -> None:
        """Let a process end in its own way, and wait until it has."""
        process = self._running.pop(name)
        process.send_signal(number)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            self._running[name] = process
            raise ProcessError(f"{name} has not ended within {seconds:g} seconds") from error

    def wait(self, name: str, *, seconds: float) -> None:
        try:
            code = self._running[name].wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"{name} has not ended within {seconds:g} seconds") from error
        del self._running[name]
        if code:
            raise ProcessError(f"{name} ended with exit code {code}: see {self.folder / name}.log")

    def family(self, name: str) -> list[psutil.Process]:
        """A process and everything below it, itself first."""
        head = psutil.Process(self._running[name].pid)
        return [head, *head.children(recursive=True)]

    def cpu_seconds(self) -> Counter[str]:
        """The CPU time of each process and of what it started, by name without number."""
        used: Counter[str] = Counter()
        for name in self._running:
            with suppress(psutil.NoSuchProcess):
                for each in self.family(name):
                    with suppress(psutil.NoSuchProcess):
                        used[name.rstrip("-0123456789")] += sum(each.cpu_times()[:4])
        return used

    def kill(self, name: str, *, alone: bool = False) -> None:
        """SIGKILL a process and everything below it; alone, as a crash of only this process would, if told so."""
        process = self._running.pop(name)
        head = psutil.Process(process.pid)
        victims = [head] if alone else [head, *head.children(recursive=True)]
        for victim in victims:  # the parent first, so that it sees no child die
            kill(victim)
        process.wait(timeout=30)

    def end_all(self, number: int = signal.SIGTERM) -> None:
        """Ask everything to end, and kill what does not, children that lost their parent included."""
        for process in self._running.values():
            process.send_signal(number)
        until = time.monotonic() + 10
        while any(process.poll() is None for process in self._running.values()) and time.monotonic() < until:
            time.sleep(0.1)
        until = time.monotonic() + 30
        while (orphans := [process for process, _ in self._alive()]) and time.monotonic() < until:
            for orphan in orphans:
                kill(orphan)
            time.sleep(0.1)
        if orphans:
            raise ProcessError(f"still running although killed: {orphans}")
        for process in self._running.values():
            process.wait(timeout=30)
        self._running.clear()

    def _alive(self) -> Iterator[tuple[psutil.Process, int]]:
        """The processes of the sessions that this program has started, and their sessions."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                session = os.getsid(process.pid)
                ours = session in self._sessions and process.create_time() >= self._since
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    yield process, session


def kill(process: psutil.Process) -> bool:
    """SIGKILL a process; False if it had ended already."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True
