# SPDX-License-Identifier: Apache-2.0
"""Runs commands of the provider in this process, where others run them in one of their own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_kie import cli, terminal

#: An exit code, standard output and standard error.
Ended = tuple[int, str, str]

# Airflow 2.11 tells of each connection that it looks up.
LOG_OF_AIRFLOW_2 = re.compile(r"^\[[^]]+\] \{\w+\.py:\d+\} (INFO|WARNING - empty cryptography key) .*\n", re.MULTILINE)


@contextmanager
def stdout_to_claim() -> Iterator[None]:
    """Give this process the standard output that others have, and take it back; pytest's is something else."""
    before, fd = sys.stdout, os.dup(1)
    try:
        with open(1, "w", closefd=False) as sys.stdout:
            yield
    finally:
        sys.stdout = before
        os.dup2(fd, 1)
        os.close(fd)
        terminal.claim_stdout.cache_clear()


def in_this_process(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """
    Return what runs a command, as ``python -m airflow_provider_kie`` does.

    :param capfd: pytest's.
    """

    def command(*argv: str) -> Ended:
        capfd.readouterr()
        with stdout_to_claim(), pytest.raises(SystemExit) as ended:
            cli.main(argv)
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, LOG_OF_AIRFLOW_2.sub("", err)

    return command
