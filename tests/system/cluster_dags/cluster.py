# SPDX-License-Identifier: Apache-2.0
"""The DAGs of the cluster test: mapped jobs, and a hook of Airflow's that holds tasks at an instant worth a kill."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kie.durable import StoredEntry
from airflow_provider_kie.ledger.entry import LedgerEntry
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.operators.wav import ConvertToWavOperator

COUNT = int(os.environ.get("KIE_CLUSTER_COUNT", "10"))
HELD = Path(os.environ.get("KIE_CLUSTER_HELD", os.devnull))
LEDGER = os.environ.get("KIE_CLUSTER_LEDGER")
#: The only process whose tasks are held, and how many of a kind: together they fill its slots.
HOLDER = "worker-1"
OF_A_KIND = 2
SECONDS_HELD = 150.0


def wait_to_be_killed(kind: str, number: int) -> None:
    """Wait until the test kills this process or lets it go on, if it wants to and a place is left."""
    wanted = HELD / "wanted"
    for place in (HELD / f"{kind}-{n}" for n in range(OF_A_KIND) if wanted.exists()):
        with suppress(FileExistsError):
            place.touch(exist_ok=False)
            place.write_text(str(number))
            until = time.monotonic() + SECONDS_HELD
            while wanted.exists() and time.monotonic() < until:
                time.sleep(0.2)
            return


def hold(context: Any) -> None:
    """Hold the first tries of a few tasks before or after the note of KIE's id."""
    point, ti = context["params"]["point"], context["ti"]
    if not point or ti.try_number != 1 or os.environ.get("KIE_CLUSTER_PROCESS") != HOLDER:
        return
    owner: Any = LedgerEntry if LEDGER else StoredEntry
    commit = owner.commit

    def held(*args: object, **kwargs: object) -> None:
        if point == "noted":
            commit(*args, **kwargs)
        wait_to_be_killed(ti.task_id, ti.map_index)
        if point != "noted":
            commit(*args, **kwargs)

    owner.commit = held


TASK: dict[str, Any] = {
    "poll_interval": 2,
    "timeout": 900,
    "retries": 6,
    "retry_delay": timedelta(seconds=1),
    "pre_execute": hold,
    "ledger": LEDGER,
}
for mode in ("deferrable", "sync"):
    with DAG(f"cluster_{mode}", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, params={"point": ""}):
        names = {kind: [f"{{{{ run_id }}}}-{kind}-{number}" for number in range(COUNT)] for kind in ("wav", "market")}
        ConvertToWavOperator.partial(
            task_id="wav", music_task_id="music", deferrable=mode == "deferrable", **TASK
        ).expand(audio_id=names["wav"])
        KieJobOperator.partial(
            task_id="market", model="google/nano-banana", deferrable=mode == "deferrable", **TASK
        ).expand(input=[{"prompt": name} for name in names["market"]])
