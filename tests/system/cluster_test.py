# SPDX-License-Identifier: Apache-2.0
"""
Break the parts of a cluster one by one, and show that every job is paid for once and ends.

Real processes on loopback (PostgreSQL, Redis, API server, DAG processor, two schedulers, two triggerers, two Celery
workers) with folders of their own, and the emulator in place of KIE. Exits non-zero unless each row of the table is as
promised and nothing is left running.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Any, Final

import psutil
import redis
from sqlalchemy.exc import SQLAlchemyError

from tests.system.airflow_processes import HAS_STORE, tell_configuration
from tests.system.cluster import HELD, OPTIONS, WORKERS, Cluster
from tests.system.cluster_plan import ROWS, Row
from tests.system.cluster_services import install_what_is_missing
from tests.system.cluster_stage import Stage, name_of
from tests.system.processes import ProcessError, print_table, say

HEAD: Final = (
    *("broken", "accepted submits", "submits sent", "429s", "tries", "ends", "seconds to recover", "seconds in all"),
    *("waits by triggerer", ""),
)


#: What goes wrong when something is not there that a row relies on.
ERRORS: Final = (
    *(ProcessError, subprocess.SubprocessError, SQLAlchemyError, psutil.Error, redis.RedisError),
    *(OSError, LookupError, ValueError),
)
#: Where KIE tells of a job, by the task of the DAGs.
RECORDS: Final = {"wav": "/api/v1/wav/record-info", "market": "/api/v1/jobs/recordInfo"}
#: Seconds after the last row in which a submit that comes late would be heard.
SECONDS_AFTER: Final = 15.0


def carry_out(stage: Stage, row: Row, memory: str) -> tuple[str, ...]:
    """Run a DAG, break what the row says, and return its line of the table."""
    cluster, run_id, count = stage.cluster, stage.run_id, stage.count
    say(f"{row.name}:")
    stage.emulator.configure(conversion_seconds=row.conversion)
    revived = Counter(cluster.revived)
    if row.point:
        cluster.processes.ask_to_end(WORKERS[1], seconds=120)
        (HELD / "wanted").touch()
    row.prepare(stage)
    started, cpu, starts = time.time(), cluster.cpu_seconds(), cluster.starts()
    cluster.trigger(row.dag_id, run_id, point=row.point)
    row.strike(stage)
    stage.until("the end of the run", lambda: cluster.run_state(run_id) in ("success", "failed"))
    if row.measured:
        used = {part: seconds / (2 * count) for part, seconds in (cluster.cpu_seconds() - cpu).most_common()}
        say(f"  CPU seconds a job: {', '.join(f'{part} {seconds:.2f}' for part, seconds in used.items())}")
        new = cluster.starts() - starts
        say(f"  {new['number']} starts of tasks held a slot for {new['seconds'] / new['number']:.1f} s on average")
    return judge(stage, row, memory, time.time() - started, cluster.revived - revived)


def judge(stage: Stage, row: Row, memory: str, seconds: float, revived: Counter[str]) -> tuple[str, ...]:
    tasks = stage.cluster.task_instances(stage.run_id)
    names = {name_of(stage.run_id, ti) for ti in tasks}
    found = stage.cluster.xcom(stage.run_id, "kie_task_id")
    ids = {f"{stage.run_id}-{task}-{n}": kie_task_id for (task, n), kie_task_id in found.items()}
    jobs = {kie_task_id: job for job, kie_task_id in ids.items()}
    heard = [(call, job) for call in stage.emulator.requests() if (job := job_of(call, jobs)) in names]
    submits = [(call, job) for call, job in heard if call["endpoint"] == "submit"]
    accepted = Counter(job for call, job in submits if call["accepted"])
    ends = Counter(str(ti["state"]) for ti in tasks)
    stopped, again = row.stopped.get(memory, 0), row.again.get(memory, 0)
    refused = sum(call["code"] == 429 for call, _ in submits)
    doubles = row.doubles.get(memory, again)
    twice, more = accepted.total() - len(names), len(submits) - refused - len(names)
    recovered = recoveries(stage, tasks, heard)
    without = [job for job in stage.states("success") if job_at_kie(stage, job, ids.get(job)) != job]
    silent = [job for job, seconds in recovered.items() if seconds == inf]
    untold = [job for job in stage.states("failed") if not is_told(stage, job)]
    promises = {
        f"{len(names - set(accepted))} jobs without a submit": names == set(accepted),
        f"{twice} paid twice instead of {again}": again in (None, twice),
        f"{more} submits more than jobs instead of {doubles}": doubles in (None, more),
        f"ends are {dict(ends)} with {stopped} to fail": ends == +Counter(failed=stopped, success=len(names) - stopped),
        "others failed than those that were held": set(stage.states("failed")) <= stage.hit.keys(),
        f"{len(untold)} failed without saying that they are paid for": not untold,
        f"{len(without)} without the id of their job": not without,
        f"{len(silent)} not heard of again": not silent,
        f"ended by themselves: {dict(revived)}": {name.rstrip("-0123456789") for name in revived} <= row.revives,
    }
    stage.submits = len(submits)
    wrong = [words for words, kept in promises.items() if not kept]
    say(f"  {'WRONG: ' + '; '.join(wrong) if wrong else 'right'}" + (f"; revived: {dict(revived)}" if revived else ""))
    return (
        row.name,
        f"{accepted.total()} for {len(names)} jobs",
        str(len(submits)),
        str(refused),
        str(sum(ti["try_number"] for ti in tasks)),
        ", ".join(f"{n} {state}" for state, n in sorted(ends.items(), reverse=True)),
        f"{max(recovered.values()):.0f}" if recovered else "-",
        f"{seconds:.0f}",
        " -> ".join(
            ", ".join(f"{n} on {name}" for name, n in sorted(waits.items())) or "none" for waits in stage.waits
        ),
        "WRONG" if wrong else "",
    )


def job_of(call: dict[str, Any], jobs: dict[str, str]) -> str | None:
    """Which job a request is about."""
    if call["endpoint"] == "record-info":
        return jobs.get(call["params"].get("taskId"))
    body = call["json"]
    return body.get("audioId") or body.get("input", {}).get("prompt") if isinstance(body, dict) else None


def job_at_kie(stage: Stage, job: str, kie_task_id: str | None) -> str | None:
    """Which job KIE has by the id that a job's task has kept."""
    if kie_task_id is None:
        return None
    record = stage.emulator.record(RECORDS[job.split("-")[-2]], kie_task_id)
    return str(record.get("musicId") or json.loads(json.loads(record["param"])["input"])["prompt"])


def is_told(stage: Stage, job: str) -> bool:
    """Whether the log of a job's task names the error with which a job ends that may be paid for."""
    _, task_id, number = job.rsplit("-", 2)
    logs = (stage.cluster.home / "logs").glob(f"*/run_id={stage.run_id}/task_id={task_id}/map_index={number}/*")
    return any("KieMaybeSubmittedError" in file.read_text() for file in logs)


def recoveries(
    stage: Stage, tasks: Sequence[dict[str, Any]], heard: Sequence[tuple[dict[str, Any], str]]
) -> dict[str, float]:
    """Seconds until each of the jobs that were hit was heard of again, by KIE or by its end."""
    signs = [(call["at"], job) for call, job in heard]
    signs += [(ti["end_date"].timestamp(), name_of(stage.run_id, ti)) for ti in tasks if ti["end_date"]]
    return {
        hit: min((at for at, job in signs if job == hit and at > since), default=inf) - since
        for hit, since in stage.hit.items()
    }


def run(args: argparse.Namespace, lines: list[tuple[str, ...]]) -> None:
    """Carry out the rows, and add their lines to the table."""
    judged: list[Stage] = []
    memory = "ledger" if args.ledger else "store" if HAS_STORE else "nothing"
    with Cluster(args.jobs, ledger=args.ledger) as cluster:
        emulator = cluster.start_all()
        for number, row in enumerate(ROWS):
            if args.only not in row.name:
                continue
            if row.skip:
                lines.append((row.name, *[""] * (len(HEAD) - 3), f"left out: {row.skip}", ""))
                continue
            stage = Stage(cluster, emulator, f"{row.dag_id}--{number}", args.jobs)
            try:
                lines.append(carry_out(stage, row, memory))
                judged.append(stage)
            except ERRORS as error:  # the other rows are worth seeing all the same
                what = (str(error) or repr(error)).splitlines()[0]
                say(f"  WRONG: {what}")
                lines.append((row.name, *[""] * (len(HEAD) - 3), what, "WRONG"))
                stage.restore()
        time.sleep(SECONDS_AFTER)
        for stage in judged:
            if late := submits_of(stage) - stage.submits:
                raise ProcessError(f"{late} more submits of {stage.run_id} were sent after it had ended")


def submits_of(stage: Stage) -> int:
    calls = (call for call in stage.emulator.requests() if call["endpoint"] == "submit")
    return sum(str(job_of(call, {})).startswith(f"{stage.run_id}-") for call in calls)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Break the parts of a cluster one by one.")
    parser.add_argument("--jobs", type=int, default=10, help="of each of two kinds in a row (default: %(default)s)")
    parser.add_argument("--ledger", action="store_true", help="let a ledger remember the jobs too")
    parser.add_argument("--only", default="", help="only rows whose name has this in it")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    tell_configuration(OPTIONS)
    lines: list[tuple[str, ...]] = []
    try:
        install_what_is_missing()
        run(args, lines)
    except ERRORS as error:
        say(f"The cluster test failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("Stopped.")
        return 130
    finally:  # whatever ended it, the rows so far are worth seeing
        if lines:
            print_table(HEAD, lines)
    wrong = not lines or any(line[-1] for line in lines)
    say("Something is WRONG; see the table and .cluster/" if wrong else "Everything is as promised.")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
