# SPDX-License-Identifier: Apache-2.0
"""
One try of a batch in a process of its own, which a test kills at any moment.

    python -m tests.batch_runner CLASS ARGUMENTS SCALE

ARGUMENTS are the operator's, as JSON. KIE's window of 10 seconds, and the patience with a claim, are scaled by SCALE.
Prints what the batch has pushed, as its last line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.operators import batch
from airflow_provider_kie.times import switched, times
from tests.processes import ROOT
from tests.task_instance import TaskInstance

if TYPE_CHECKING:
    from airflow_provider_kie.emulator import KieEmulator


class Batch:
    """
    A batch that is killed while it submits, and goes on with its next try.

    :param operator: the name of the operator's class.
    :param arguments: its arguments.
    """

    def __init__(self, kie: KieEmulator, operator: str, arguments: dict[str, Any], scale: float) -> None:
        self._kie = kie
        self._argv = [sys.executable, "-m", "tests.batch_runner", operator, json.dumps(arguments), str(scale)]
        self._environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def is_killed(self, *, after: int, seconds: float) -> bool:
        """
        Carry out a try, and kill it with SIGKILL; return whether it was still running then.

        :param after: kill it once so many submits are accepted.
        :param seconds: and so much later.
        """
        process = subprocess.Popen(
            self._argv, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 600
        while self._kie.accepted_submits < after and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
        return process.wait(timeout=30) == -signal.SIGKILL

    def ended(self, seconds: float) -> dict[str, Any]:
        """Carry out a try to its end, and return the ``batch`` that it has pushed."""
        done = subprocess.run(
            self._argv, env=self._environment, capture_output=True, text=True, timeout=seconds, check=False
        )
        told = done.stdout.splitlines()
        pushed: dict[str, Any] | None = json.loads(told[-1]) if told else None
        assert pushed is not None, done.stderr
        return pushed


def main(argv: Sequence[str]) -> None:
    name, arguments, scale = argv
    ti = TaskInstance()
    operator = getattr(batch, name)(task_id="batch", **json.loads(arguments))
    try:
        with switched(rate_window=times().rate_window * float(scale), longest_submit=3.0):
            operator.execute({"ti": ti})
    finally:
        print(json.dumps(ti.pushed.get("batch")), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
