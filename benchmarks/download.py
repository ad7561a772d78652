# SPDX-License-Identifier: Apache-2.0
"""
The archive's download beside curl and beside a whole body in memory, which is how ``HttpToS3Operator`` reads.

Every transfer runs in a fresh process against a file server in another one, and writes a local file. Measured is the
transfer alone, without the start of Python or curl. curl checks nothing, so it stands there a second time with
``sha256sum`` behind it. The first table holds the server to the rate of a network, which is what a real file host is;
in the second it sends as fast as it can. The processor's seconds are there because they hardly depend on what else the
machine does.

Run it with ``python -m benchmarks.download [--quick]``; curl and sha256sum must be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks import table

if TYPE_CHECKING:
    from airflow_provider_kie.files.storage import Destination
    from airflow_provider_kie.files.store import Stored

MB = 1_000_000
NETWORK = 100  # MB/s
WAYS = ("curl", "curl and sha256sum", "this provider", "whole body in memory")
#: With three files at a time, which share the rate.
THREE_WAYS = ("curl, three files", "this provider, three files")
HEADER: Final = ["MB", "way", "MB/s", "of curl", "CPU, ms per MB", "peak memory, MB"]
#: From where, with the rate in MB/s; 0 is as fast as it can.
HOSTS: Final = {f"at {NETWORK} MB/s": NETWORK, "from this machine itself": 0}


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.download", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller files, one round")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
    elif options.way:
        print(json.dumps(IN_PROCESS[options.way](options.url)))
    else:
        sizes, rounds = ((5, 50), 1) if options.quick else ((5, 50, 500), 3)
        for name, rate in HOSTS.items():
            rows = [row for size in sizes for row in compare(size, rate, rounds, WAYS)]
            print(f"\n{name}:", table(HEADER, *rows), sep="\n", flush=True)
        rows = [row for size in sizes for row in compare(size, NETWORK, rounds, THREE_WAYS, files=3)]
        print(f"\nthree files at a time, at {NETWORK} MB/s together:", table(HEADER, *rows), sep="\n", flush=True)


def compare(size: int, rate: int, rounds: int, ways: tuple[str, ...], files: int = 1) -> list[list[str]]:
    """Measure files of one size, one way after the other in each round, and return the rows of the table."""
    found: dict[str, list[Transfer]] = {way: [] for way in ways}
    with server(size, rate // files) as url:
        for _ in range(rounds):
            for way in ways:
                found[way].append(measure(way, url))
    size *= files
    rates = {way: size / statistics.median(each.seconds for each in results) for way, results in found.items()}
    return [
        [
            str(size // files),
            way,
            f"{rates[way]:.0f}",
            f"{rates[way] / rates[ways[0]]:.2f}",
            f"{statistics.median(each.cpu for each in results) / size * 1000:.1f}",
            f"{max(each.memory for each in results):.0f}",
        ]
        for way, results in found.items()
    ]


class Transfer(NamedTuple):
    """What one transfer took: seconds, seconds of the processor, and megabytes of memory at the peak."""

    seconds: float
    cpu: float
    memory: float


def measure(way: str, url: str) -> Transfer:
    """Measure one transfer in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.download", "--way", way, "--url", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)  # noqa: S603 - our own
    return Transfer(*json.loads(done.stdout.splitlines()[-1]))


def with_curl(url: str, *, hashed: bool = False) -> Transfer:
    """Let curl write a file."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "file.wav")
        curl = f"curl -sS -w '%{{stderr}}%{{time_total}}' '{url}'"
        line = f"{curl} | tee '{target}' | sha256sum" if hashed else f"{curl} -o '{target}'"
        done = subprocess.run(["/bin/sh", "-c", line], check=True, capture_output=True, text=True)  # noqa: S603 - our own
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Transfer(float(done.stderr), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def with_curl_and_hash(url: str) -> Transfer:
    """Let curl write a file while sha256sum reads along."""
    return with_curl(url, hashed=True)


def with_curl_three(url: str) -> Transfer:
    """Let curl write three files at a time."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = " ".join(f"-o '{folder}/{number}' '{url}'" for number in range(3))
        started = time.perf_counter()
        subprocess.run(["/bin/sh", "-c", f"curl -sS --parallel --parallel-immediate {pairs}"], check=True)  # noqa: S603 - our own
        seconds = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Transfer(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def with_this_provider(url: str, files: int = 1) -> Transfer:
    """Do what ``KieJobToObjectStorageOperator`` does once it has the URLs."""
    from airflow_provider_kie.connection import KieSettings
    from airflow_provider_kie.files.host import FileHost, Link
    from airflow_provider_kie.files.storage import Destination
    from airflow_provider_kie.files.store import each, store

    with tempfile.TemporaryDirectory() as folder:
        places = [Destination(f"file://{folder}/{number}.wav", None, "benchmark") for number in range(files)]

        def work(place: Destination, stopped: Callable[[float], bool]) -> Stored:
            host = FileHost(KieSettings("benchmark", "no-key"))
            return store(
                host,
                lambda: iter([Link(url, True)]),
                lambda _: place,
                overwrite=False,
                max_bytes=2**40,
                stopped=stopped,
            )

        started = Started()
        for _, end in each(places, work, files, threading.Event()):
            if isinstance(end, Exception):
                raise end
        return started.ended()


def with_this_provider_three(url: str) -> Transfer:
    """Do the same with three files at a time."""
    return with_this_provider(url, files=3)


def with_whole_body(url: str) -> Transfer:
    """Read the whole body into memory and write it, as ``HttpToS3Operator`` does with ``response.content``."""
    import requests

    # The same imports as the provider's, so that the memory of the two can be compared.
    from airflow_provider_kie.files.storage import Destination

    with tempfile.TemporaryDirectory() as folder:
        place = Destination(f"file://{folder}/file.wav", None, "benchmark")
        started = Started()
        content = requests.get(url, timeout=60).content
        with place.open(place.path, "wb") as file:
            file.write(content)
        return started.ended()


IN_PROCESS = dict(zip(WAYS, (with_curl, with_curl_and_hash, with_this_provider, with_whole_body), strict=True)) | dict(
    zip(THREE_WAYS, (with_curl_three, with_this_provider_three), strict=True)
)


class Started:
    """The begin of a transfer in this process."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def ended(self) -> Transfer:
        """Return what it took."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return Transfer(time.perf_counter() - self._wall, time.process_time() - self._cpu, memory)


@contextlib.contextmanager
def server(size: int, rate: int) -> Iterator[str]:
    """Run a file server in a process of its own and give the URL of its file."""
    command = [sys.executable, "-m", "benchmarks.download", "--serve", str(size), str(rate)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    try:
        assert process.stdout is not None  # noqa: S101 - for the type checker: a pipe was asked for
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def serve(size: int, rate: int) -> None:
    """Serve a WAV file of so many megabytes to anybody, several at a time."""
    audio = size * MB - 44
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", audio + 36, b"WAVE", b"fmt ", 16, 1, 2, 48_000, 192_000, 4, 16,
                       b"data", audio)  # fmt: skip
    listener = socket.create_server(("127.0.0.1", 0))
    with tempfile.TemporaryFile() as file:
        file.write(head)
        for _ in range(size):
            file.write(os.urandom(MB))
        file.truncate(size * MB)
        file.flush()
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/file.wav", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection, file.fileno(), size, rate), daemon=True).start()


def answer(connection: socket.socket, file: int, size: int, rate: int) -> None:
    """Answer one request."""
    with connection, contextlib.suppress(OSError):
        connection.recv(65536)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % (size * MB)
        )
        send(connection, file, size * MB, rate * MB)


def send(connection: socket.socket, file: int, size: int, rate: int) -> None:
    """Send a file, not faster than so many bytes a second unless the rate is 0."""
    started, sent = time.perf_counter(), 0
    while sent < size:
        sent += os.sendfile(connection.fileno(), file, sent, min(size - sent, 256 * 1024 if rate else 2**30))
        if rate:
            time.sleep(max(0.0, sent / rate - (time.perf_counter() - started)))


if __name__ == "__main__":
    main()
