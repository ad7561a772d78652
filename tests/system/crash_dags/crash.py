# SPDX-License-Identifier: Apache-2.0
"""
The DAGs of the crash test: the operator as it is, and a hook of Airflow's that kills its process at chosen points.

A hook, because no killer outside can hit the instant between KIE's answer and the stored id.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kie.durable import StoredEntry
from airflow_provider_kie.ledger.entry import LedgerEntry
from airflow_provider_kie.memory import Memory
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.operators.submit import SubmitOperator
from airflow_provider_kie.operators.wav import ConvertToWavOperator
from airflow_provider_kie.times import switched

CRASHES = os.environ.get("KIE_CRASH_LOG", os.devnull)
SEED = os.environ.get("KIE_CRASH_SEED", "1")
LEDGER = os.environ.get("KIE_CRASH_LEDGER")
MAPPED = int(os.environ.get("KIE_CRASH_MAPPED", "200"))
#: The share of the mapped tasks that die at each of the two instants on their first and on their second try.
SHARE = 0.1
#: What counts until the process dies.
LAST = ExitStack()


def die(point: str, track: str, kie_task_id: object) -> NoReturn:
    """Write down when, and KIE's id, and end this process as a power cut would: no handler, no clean-up."""
    with Path(CRASHES).open("a") as log:
        log.write(f"{point} {track} {time.time()} {kie_task_id}\n")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


#: point: what is patched in the task's process, and whether it is still carried out before the process dies.
POINTS: dict[str, tuple[type, str, bool]] = {
    "answered": (StoredEntry, "commit", False),
    "kept": (StoredEntry, "commit", True),
    "resumed": (SubmitOperator, "execute_complete", False),
    "claimed": (LedgerEntry, "before_send", True),
    "unnoted": (LedgerEntry, "commit", False),
    "noted": (LedgerEntry, "commit", True),
    "held": (Memory, "hold", True),
}


def arm(point: str, track: str) -> None:
    if point == "held":
        LAST.enter_context(switched(rate_limit=0))  # so that the submit waits for its turn
    owner, name, carried_out = POINTS[point]
    function = getattr(owner, name)

    def dying(*args: object, **kwargs: object) -> NoReturn:
        if carried_out:
            function(*args, **kwargs)
        die(point, track, args[1] if name == "commit" else "-")

    setattr(owner, name, dying)


def crash_on_first_try(context: Any) -> None:
    if context["ti"].try_number == 1 and context["params"]["point"]:
        arm(context["params"]["point"], context["params"]["track"])


def crash_by_chance(context: Any) -> None:
    ti = context["ti"]
    chance = random.Random(f"{SEED} {ti.task_id} {ti.map_index} {ti.try_number}").random()
    if ti.try_number <= 2 and chance < 2 * SHARE:
        arm("answered" if chance < SHARE else "kept", context["task"].audio_id)


COMMON: dict[str, Any] = {"schedule": None, "start_date": datetime(2026, 1, 1), "catchup": False}
TASK: dict[str, Any] = {"poll_interval": 2, "timeout": 600, "retry_delay": timedelta(seconds=1)}

FIRST: dict[str, Any] = {"retries": 3, "pre_execute": crash_on_first_try}

ONE_EACH: dict[str, dict[str, Any]] = {
    "sync": {},
    "deferrable": {"deferrable": True},
    "not_durable": {"durable": False},
}
for mode, arguments in ONE_EACH.items():
    with DAG(f"crash_{mode}", params={"track": "track", "point": ""}, **COMMON):
        ConvertToWavOperator(
            task_id="convert",
            music_task_id="music",
            audio_id="{{ params.track }}",
            **FIRST,
            **TASK,
            **arguments,
        )
REMEMBERED_BY: dict[str, dict[str, Any]] = {"market": {}}
if LEDGER:
    REMEMBERED_BY["ledger"] = {"durable": False, "ledger": LEDGER}
for name, mode in product(REMEMBERED_BY, ("sync", "deferrable")):
    with DAG(f"crash_{name}_{mode}", params={"track": "track", "point": ""}, **COMMON):
        KieJobOperator(
            task_id="convert",
            model="google/nano-banana",
            input={"prompt": "{{ params.track }}"},
            deferrable=mode == "deferrable",
            **REMEMBERED_BY[name],
            **FIRST,
            **TASK,
        )

if LEDGER:
    with DAG("crash_ledger_shared", max_active_runs=2, **COMMON):
        KieJobOperator.partial(
            task_id="convert",
            model="google/nano-banana",
            deferrable=True,
            ledger=LEDGER,
            reuse="input",
            retries=20,
            **TASK,
        ).expand(input=[{"prompt": f"shared-{number % max(1, MAPPED // 2)}"} for number in range(MAPPED)])

with DAG("crash_mapped", **COMMON):
    for mode, deferrable in (("sync", False), ("deferrable", True)):
        tracks = [f"mapped-{number}" for number in range(int(deferrable), MAPPED, 2)]
        ConvertToWavOperator.partial(
            task_id=mode,
            music_task_id="music",
            deferrable=deferrable,
            retries=20,
            pre_execute=crash_by_chance,
            **TASK,
        ).expand(audio_id=tracks)
