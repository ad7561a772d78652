# SPDX-License-Identifier: Apache-2.0
"""
Run the example DAG from a submit to a stored and checked WAV file, and say what happens on the way.

Against the emulator on this machine, or, with KIE_API_KEY, KIE_MUSIC_TASK_ID and KIE_AUDIO_ID set, against
api.kie.ai, where it costs what one conversion costs. Exits non-zero unless the file is in the archive and is audio. The
archive stays for the next run, which then says that the file was already there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import wave
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from airflow_provider_kie.emulator import KieEmulator

ROOT = Path(__file__).resolve().parent.parent
WORKPLACE = ROOT / ".demo"
ARCHIVE = WORKPLACE / "archive"
DAG_ID = "example_kie_wav_archive"
CONVERSION_SECONDS = 4.0
SECONDS_FOR_ANY_COMMAND = 1200.0
AIRFLOW = [sys.executable, "-m", "airflow"]

# What a person wants to see of Airflow's log.
TASK_STARTS = re.compile(r"\[DAG TEST\] starting task_id=(\w+)")
TASK_ENDS = re.compile(r"\[DAG TEST\] end task task_id=(\w+)")
OUR_NEWS = re.compile(r"((?:WAV task|WAV file|Track|KIE has|Downloaded) [^\[]*[^\s\[])")


def main() -> int:
    """Run the demo; the result is the exit code."""
    clear_workplace()
    try:
        with ExitStack() as stack:
            connection, params = choose_kie(stack)
            run_dag(connection, params)
            say(f"XCom of task 'wait': {read_xcom('wait', 'return_value')['wav_url']}")
            destination = read_xcom("archive", "return_value")
            say(f"XCom of task 'archive': {destination}")
            wav_file = read_xcom("archive", "wav_file")
            say(f"The file there: {describe_wav(Path(destination.removeprefix('file://')), wav_file['sha256'])}")
            say("It was already there, and was left alone." if wav_file["already_there"] else "It was stored anew.")
    except DemoError as error:
        say(f"The demo failed: {error}")
        say(f"Airflow's own log is in {WORKPLACE.relative_to(ROOT) / 'airflow.log'}")
        return 1
    say("Done.")
    return 0


def clear_workplace() -> None:
    """Remove everything of an earlier run but the archive."""
    WORKPLACE.mkdir(exist_ok=True)
    for path in WORKPLACE.iterdir():
        if path.is_dir() and path != ARCHIVE:
            shutil.rmtree(path, ignore_errors=True)
        elif path != ARCHIVE:
            path.unlink()


class DemoError(Exception):
    """Something that was promised did not happen."""


def choose_kie(stack: ExitStack) -> tuple[str, dict[str, str]]:
    """Return the Airflow connection and the DAG's parameters, for KIE itself or for the emulator."""
    names = {"music_task_id": "KIE_MUSIC_TASK_ID", "audio_id": "KIE_AUDIO_ID"}
    params = {param: os.environ.get(name, "") for param, name in names.items()}
    key = os.environ.get("KIE_API_KEY")
    if key and all(params.values()):
        say("KIE_API_KEY is set: converting at api.kie.ai, which costs credits.")
        return json.dumps({"conn_type": "kie", "password": key}), params
    if key or any(params.values()):
        raise DemoError("to use api.kie.ai set all of KIE_API_KEY, KIE_MUSIC_TASK_ID and KIE_AUDIO_ID")
    emulator = stack.enter_context(KieEmulator(conversion_seconds=CONVERSION_SECONDS))
    say(f"The KIE emulator listens on {emulator.url}; a conversion takes {CONVERSION_SECONDS:g} seconds.")
    return emulator.connection_json(), {}


def run_dag(connection: str, params: dict[str, str]) -> None:
    """Run the example with ``airflow dags test`` in an Airflow home of its own."""
    environment = os.environ | {
        "AIRFLOW_HOME": str(WORKPLACE / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{WORKPLACE / 'airflow.db'}",
        "AIRFLOW_CONN_KIE_DEFAULT": connection,
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
    say("Preparing Airflow's metadata database…")
    run([*AIRFLOW, "db", "migrate"], environment)
    say(f"Running the DAG {DAG_ID}…")
    conf = json.dumps(params | {"folder": f"file://{ARCHIVE}"})
    run([*AIRFLOW, "dags", "test", DAG_ID, "--conf", conf], environment)


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run a command, keep its output in the log and show its news at once."""
    last = ""
    with (WORKPLACE / "airflow.log").open("a") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        watchdog = threading.Timer(SECONDS_FOR_ANY_COMMAND, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker: a pipe was asked for
            for line in process.stdout:
                log.write(line)
                news = news_of(line)
                if news and news != last:
                    say(f"  {news}")
                    last = news
            if process.wait(timeout=60) != 0:
                raise DemoError(f"airflow {' '.join(command[3:5])} ended with exit code {process.returncode}")
        finally:
            watchdog.cancel()
            process.kill()


def news_of(line: str) -> str | None:
    """Return what a line of Airflow's log tells a person, if anything."""
    for pattern, words in ((TASK_STARTS, "task {} starts"), (TASK_ENDS, "task {} has ended"), (OUR_NEWS, "    {}")):
        if found := pattern.search(line):
            return words.format(found[1])
    return None


def read_xcom(task_id: str, key: str) -> Any:
    """Read a value back from the metadata database; the same on every Airflow."""
    with closing(sqlite3.connect(WORKPLACE / "airflow.db")) as database:
        row = database.execute(
            "select value from xcom where dag_id = ? and task_id = ? and key = ?", (DAG_ID, task_id, key)
        ).fetchone()
    if row is None:
        raise DemoError(f"there is no XCom {key!r} of task {task_id!r}")
    return json.loads(row[0])


def describe_wav(path: Path, sha256: str) -> str:
    """Check that the file is audio and that its content is what the task said, and say what it is."""
    try:
        content = path.read_bytes()
        with wave.open(str(path)) as file:
            frames = len(file.readframes(file.getnframes())) // (file.getnchannels() * file.getsampwidth())
            seconds = frames / file.getframerate()
            shape = f"{file.getnchannels()} channels, {file.getframerate()} Hz, {8 * file.getsampwidth()} bit"
    except (OSError, wave.Error, EOFError) as error:
        raise DemoError(f"the destination is not a WAV file: {error}") from error
    if not seconds:
        raise DemoError("the WAV file holds no sound")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DemoError("the file is not the one that the task reported")
    return f"RIFF/WAVE, {shape}, {seconds:.1f} seconds, {len(content):,} bytes, sha256 {sha256[:12]}…"


def say(text: str) -> None:
    """Tell the person who watches."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
