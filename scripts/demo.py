# SPDX-License-Identifier: Apache-2.0
"""
Run the example DAG from a prompt to a song, two stored and checked WAV files and their stems, and say what happens.

Against the emulator on this machine, or, with KIE_API_KEY and KIE_SONG_PROMPT set, against api.kie.ai, where it costs
what these five jobs cost. Exits non-zero unless everything is there and is audio. What is in the archive stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import wave
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import requests

from airflow_provider_kie.emulator import KieEmulator

ROOT = Path(__file__).resolve().parent.parent
WORKPLACE = ROOT / ".demo"
ARCHIVE = WORKPLACE / "archive"
DAG_ID = "example_kie_song"
TRACKS = 2  # KIE makes two of each song
JOBS = 1 + 2 * TRACKS
JOB_SECONDS = 4.0
SECONDS_FOR_ANY_COMMAND = 1200.0
KEY, PROMPT = "KIE_API_KEY", "KIE_SONG_PROMPT"
AIRFLOW = [sys.executable, "-m", "airflow"]

# What a person wants to see of Airflow's log.
TASK = r"task_id=(\w+)(?: map_index=(\d+))?"
TASK_STARTS = re.compile(rf"\[DAG TEST\] starting {TASK}")
TASK_ENDS = re.compile(rf"\[DAG TEST\] end task {TASK}")
OUR_NEWS = re.compile(r"((?:(?:music|stems) job \w+ is|File \w+ \d+ is|WAV task|WAV file|Track|KIE has) [^\[]*[^\s\[])")


def main() -> int:
    """Run the demo; the result is the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ctrl-C does: what was started is ended first
    clear_workplace()
    try:
        with ExitStack() as stack:
            emulator = choose_kie(stack)
            run_dag(emulator)
            tracks = read_xcom("tracks")
            if len(tracks) != TRACKS:
                raise DemoError(f"the song has {len(tracks)} tracks")
            say(f"The song is music job {read_xcom('song', 'kie_task_id')}; it has {len(tracks)} tracks.")
            for index, track in enumerate(tracks):
                show_track(index, track["audio_id"])
            if emulator:
                show_price(emulator)
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


def choose_kie(stack: ExitStack) -> KieEmulator | None:
    """Return the emulator that stands in for KIE, or None for KIE itself."""
    given = [name for name in (KEY, PROMPT) if os.environ.get(name)]
    if len(given) == 1:
        raise DemoError(f"to use api.kie.ai set both {KEY} and {PROMPT}")
    if given:
        say(f"{KEY} is set: making the song at api.kie.ai, which costs credits.")
        return None
    emulator = stack.enter_context(KieEmulator(conversion_seconds=JOB_SECONDS))
    say(f"The KIE emulator listens on {emulator.url}; a job takes {JOB_SECONDS:g} seconds.")
    return emulator


def run_dag(emulator: KieEmulator | None) -> None:
    """Run the example with ``airflow dags test`` in an Airflow home of its own."""
    connection = (
        emulator.connection_json() if emulator else json.dumps({"conn_type": "kie", "password": os.environ[KEY]})
    )
    params = {} if emulator else {"prompt": os.environ[PROMPT]}
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
    for pattern, words in ((TASK_STARTS, "starts"), (TASK_ENDS, "has ended")):
        if found := pattern.search(line):
            return f"task {found[1]}{f'[{found[2]}]' if found[2] else ''} {words}"
    found = OUR_NEWS.search(line)
    return f"    {found[1]}" if found else None


def read_xcom(task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
    """Read a value back from the metadata database; the same on every Airflow."""
    query = "select value from xcom where dag_id = ? and task_id = ? and key = ? and map_index = ?"
    with closing(sqlite3.connect(WORKPLACE / "airflow.db")) as database:
        row = database.execute(query, (DAG_ID, task_id, key, map_index)).fetchone()
    if row is None:
        raise DemoError(f"there is no XCom {key!r} of task {task_id!r}, map index {map_index}")
    return json.loads(row[0])


def show_track(index: int, audio_id: str) -> None:
    """Check what was made of one track, and say what it is."""
    say(f"Track {audio_id}")
    destination = read_xcom("keep", map_index=index)
    sha256 = read_xcom("keep", "wav_file", index)["sha256"]
    say(f"  WAV: {destination}")
    say(f"       {describe_wav(Path(destination.removeprefix('file://')), sha256)}")
    stems = read_xcom("stems", map_index=index)["files"]
    if [stem["name"] for stem in stems] != ["vocal", "instrumental"]:
        raise DemoError(f"the stems of track {audio_id} are {[stem['name'] for stem in stems]}")
    for stem in stems:
        say(f"  {stem['name']}: {stem['url'].partition('?')[0]} ({describe_link(stem['url'])})")


def describe_link(url: str) -> str:
    """Check that a link leads to audio, and say what it is; without its query, which is as good as a key."""
    session = requests.Session()
    session.trust_env = not url.startswith("http://127.0.0.1:")  # no proxy leads to this machine
    try:
        answer = session.get(url, headers={"User-Agent": "Mozilla/5.0 (demo)"}, timeout=60)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise DemoError(f"a stem cannot be fetched: {type(error).__name__}") from error
    media_type = answer.headers.get("Content-Type", "")
    if not (media_type.startswith("audio/") and answer.content):
        raise DemoError(f"a stem is {media_type or 'nothing'}, {len(answer.content)} bytes")
    return f"{media_type}, {len(answer.content):,} bytes"


def show_price(emulator: KieEmulator) -> None:
    """Check that nothing was paid twice, and say what it cost."""
    if emulator.accepted_submits != JOBS:
        raise DemoError(f"{emulator.accepted_submits} jobs were paid for, but there are {JOBS}")
    say(
        f"{JOBS} jobs were submitted, each of them once, which cost {emulator.credits_spent:g} credits of the emulator."
    )


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
