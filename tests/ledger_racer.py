# SPDX-License-Identifier: Apache-2.0
"""
One of several processes that want the same jobs, for tests/wire/test_ledger_race.py.

    python -m tests.ledger_racer LEDGER FOLDER NUMBER

Says "ready" and begins when a line comes. What it pays for is appended to FOLDER/paid.IDENTITY; how its claims of all
identities ended is in FOLDER/ends.NUMBER.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from airflow_provider_kie.ledger.storage import open_ledger
from airflow_provider_kie.times import switched

IDENTITIES = 50


def main(url: str, folder: Path, number: int) -> None:
    ledger = open_ledger(url)
    order = list(range(IDENTITIES))
    if number % 2:  # the others begin in the same order, so that they meet
        random.Random(number).shuffle(order)
    print("ready", flush=True)
    sys.stdin.readline()
    ends = []
    for one in order:
        chain = ledger.chain({"account": "race", "digest": str(one)})
        found = chain.claim("fail", patience=60)
        generation, kie_task_id, after = found.generation, found.kie_task_id, 0
        while found.kind == "claimed" and chain.is_late:  # on a busy machine
            chain.note(generation, "refused")
            after = generation
            found = chain.claim("fail", patience=60, after=after)
            generation, kie_task_id = found.generation, found.kie_task_id
        if found.kind == "claimed":
            kie_task_id = f"job-{number}-{one}"
            with (folder / f"paid.{one}").open("a") as file:
                file.write(f"{kie_task_id}\n")
            time.sleep(random.random() / 50)  # as long as KIE takes to answer
            chain.note(generation, "submitted", kie_task_id)
        ends.append([one, found.kind, kie_task_id])
    (folder / f"ends.{number}").write_text(json.dumps(ends))


if __name__ == "__main__":
    with switched(ledger_look=0.05):
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
