# SPDX-License-Identifier: Apache-2.0
"""
One try of a batch in a process of its own, which a test kills at any moment.

    python -m tests.batch_runner CLASS ARGUMENTS SCALE

ARGUMENTS are the operator's, as JSON. KIE's window of 10 seconds, and the patience with a claim, are scaled by SCALE.
Prints what the batch has pushed, as its last line.
"""

from __future__ import annotations

import json
import sys

from airflow_provider_kie.hooks import pacing
from airflow_provider_kie.ledger import chain
from airflow_provider_kie.operators import batch
from tests.task_instance import TaskInstance


def main(name: str, arguments: str, scale: float) -> None:
    pacing.RATE_WINDOW *= scale
    chain.NOTE_SECONDS = -8.0  # of twice the time-out of 3 seconds and the 5 of a claim, 3 are left
    ti = TaskInstance()
    operator = getattr(batch, name)(task_id="batch", **json.loads(arguments))
    try:
        operator.execute({"ti": ti})
    finally:
        print(json.dumps(ti.pushed.get("batch")), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
