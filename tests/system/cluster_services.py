# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL and Redis as processes of a test, on loopback and with data folders of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self

import psycopg
import redis
from packaging.version import Version

from tests.system.processes import HOST, ProcessError, Processes, free_port, say, wait_for

#: A program of each, and the package of Debian and its like that brings it.
NEEDED: Final = {"postgres": "postgresql", "redis-server": "redis-server"}
ADVICE: Final = (
    f"install PostgreSQL and Redis (apt-get install {' '.join(NEEDED.values())}, or elsewhere what brings the programs "
    "postgres, initdb and redis-server, and put these on PATH)"
)
IS_ROOT: Final = os.geteuid() == 0
#: PostgreSQL refuses to be run by root; its package makes this user.
USER: Final = "postgres" if IS_ROOT else None


def program(name: str) -> str | None:
    """Return where a program is; Debian and its like keep PostgreSQL's beside each other by version."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: Version(place.parent.name))
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, reversed(places))))


def install_what_is_missing() -> None:
    """
    Install the services from the distribution's packages.

    :raises ProcessError: if that cannot be done here; it says what to install.
    """
    missing = [package for name, package in NEEDED.items() if not program(name)]
    if not missing:
        return
    # Under systemd the packages would start services of their own.
    if not (IS_ROOT and shutil.which("apt-get")) or Path("/run/systemd/system").exists():
        raise ProcessError(ADVICE)
    say(f"Installing {' and '.join(missing)} from the distribution's packages.")
    # In this run level packages start no service of their own.
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *missing]):
        try:
            subprocess.run(["apt-get", *command], env=quiet, check=True, timeout=600, stdout=subprocess.DEVNULL)
        except subprocess.SubprocessError as error:
            raise ProcessError(f"apt-get failed ({error}); {ADVICE}") from error


class Services:
    """
    A database server and a broker, which can be killed and started again with what they have stored.

    They run while the context does, and leave nothing.

    :param processes: what they are started among.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.folder: Path
        self._postgres_port, self._redis_port = free_port(), free_port()

    def __enter__(self) -> Self:
        # Not below the repository: the user that runs PostgreSQL may not see that.
        self.folder = Path(tempfile.mkdtemp(prefix="kie-cluster-"))
        try:
            if USER:
                shutil.chown(self.folder, USER, USER)
            self._initialize()
            for name in NEEDED:
                say(subprocess.check_output([str(program(name)), "--version"], text=True, timeout=60).strip())
                self.start(name)
        except BaseException as error:
            self.__exit__()
            if isinstance(error, LookupError):
                raise ProcessError(f"PostgreSQL cannot be run by root, and there is no user {USER}") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.processes.end_all(signal.SIGINT)
        finally:
            shutil.rmtree(self.folder)

    @property
    def database(self) -> str:
        return f"postgresql+psycopg2://airflow@{HOST}:{self._postgres_port}/postgres?connect_timeout=10"

    @property
    def broker(self) -> str:
        return f"redis://{HOST}:{self._redis_port}/0"

    def _initialize(self) -> None:
        initdb = [str(program("initdb")), "-D", f"{self.folder}/data", "-U", "airflow", "--auth=trust", "--no-sync"]
        self.processes.start("initdb", [*initdb, "-E", "UTF8", "--locale=C"], folder=self.folder, user=USER)
        self.processes.wait("initdb", seconds=120)

    def start(self, name: str) -> None:
        port, folder = str(self._postgres_port), str(self.folder)
        redis_options = "--save", "", "--appendonly", "yes", "--appendfsync", "always"
        options = (f"listen_addresses={HOST}", "unix_socket_directories=", "max_connections=300", "fsync=off")
        commands = {
            "postgres": ["-D", f"{folder}/data", "-p", port, *(part for option in options for part in ("-c", option))],
            "redis-server": ["--bind", HOST, "--port", str(self._redis_port), "--dir", folder, *redis_options],
        }
        self.processes.start(name, [str(program(name)), *commands[name]], folder=self.folder, user=USER)
        wait_for(name, self._database_answers if name == "postgres" else self._broker_answers, seconds=60)

    def crash(self, name: str) -> None:
        """End a service as a crash would: PostgreSQL has a signal for that, since its children outlive a SIGKILL."""
        number = signal.SIGQUIT if name == "postgres" else signal.SIGKILL
        self.processes.ask_to_end(name, number=number, seconds=60)

    def messages(self) -> int:
        """How many messages no worker has got."""
        return int(redis.Redis(HOST, self._redis_port, socket_timeout=5).llen("default"))

    def forget_messages(self) -> None:
        """What a broker without persistence keeps over its crash: nothing."""
        for kept in self.folder.glob("appendonly*"):  # a file before Redis 7, and a folder since
            shutil.rmtree(kept) if kept.is_dir() else kept.unlink()

    def _database_answers(self) -> bool:
        self.processes.alive("postgres")
        try:
            psycopg.connect(self.database.replace("+psycopg2", "")).close()
        except psycopg.OperationalError:
            return False
        return True

    def _broker_answers(self) -> bool:
        self.processes.alive("redis-server")
        try:
            return bool(redis.Redis(HOST, self._redis_port, socket_timeout=5).ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
