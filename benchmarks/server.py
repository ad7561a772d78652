# SPDX-License-Identifier: Apache-2.0
"""
A minimal KIE that only knows ``record-info``, in a process of its own, so fast that it is not what gets measured.

An id says when its conversion finishes, so the server keeps nothing about it and can be restarted at any time:
``at-<epoch milliseconds>-<number>`` at that instant; ``held-<number>`` when somebody released it, spread over the
seconds that the release asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = "127.0.0.1"
#: Conversions with numbers that differ by this share the instant at which they finish after a release.
STEPS_OF_A_RELEASE: Final = 1000
RECORD_INFO: Final = "/api/v1/wav/record-info"
_BODY: Final = (
    '{"code":200,"msg":"success","data":{"taskId":"%s","musicId":"e231aaaa-0000-4000-8000-00008cadc7dc",'
    '"callbackUrl":"https://api.example.com/callback","musicIndex":0,"completeTime":%s,"response":%s,'
    '"successFlag":"%s","createTime":"2026-01-01 00:00:00","errorCode":null,"errorMessage":null}}'
)
_FILE: Final = '{"audioWavUrl":"http://127.0.0.1/s/%s.wav"}'


class Conversions:
    """Which conversion is finished, and how much was asked."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.reads = 0
        self.seen: set[str] = set()
        self.released_at: float | None = None
        self.spread = 1.0

    def is_finished(self, kie_task_id: str, now: float) -> bool:
        """Tell from its id whether a conversion is finished."""
        kind, _, rest = kie_task_id.partition("-")
        if kind == "at":
            return now * 1000 >= int(rest.partition("-")[0])
        if self.released_at is None:
            return False
        return now >= self.released_at + self.spread * (int(rest) % STEPS_OF_A_RELEASE) / STEPS_OF_A_RELEASE

    def record(self, kie_task_id: str) -> str:
        """Return the body of KIE's answer to a read."""
        self.reads += 1
        self.seen.add(kie_task_id)
        if self.is_finished(kie_task_id, time.time()):
            return _BODY % (kie_task_id, '"2026-01-01 00:10:00"', _FILE % kie_task_id, "SUCCESS")
        return _BODY % (kie_task_id, "null", "null", "PENDING")

    def answer(self, target: str) -> str:
        """Return the body for the target of a request."""
        path, _, query = target.partition("?")
        if path == RECORD_INFO:
            return self.record(query.removeprefix("taskId="))
        if path == "/release":
            self.spread = float(parse_qs(query)["over"][0])
            self.released_at = time.time()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        return json.dumps({"reads": self.reads, "conversions": len(self.seen), "cpu": cpu})


class Http(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, for requests without a body; nothing is checked."""

    def __init__(self, conversions: Conversions) -> None:
        self.conversions = conversions
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom to answer."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        *heads, self.buffer = (self.buffer + data).split(b"\r\n\r\n")
        for head in heads:
            target = head[: head.index(b"\r\n")].split(b" ")[1].decode()
            body = self.conversions.answer(target).encode()
            answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            # A call for statistics is part of the measurement, and must not wait as calls of KIE do.
            self.send(answer % (len(body), body), self.conversions.latency if target.startswith(RECORD_INFO) else 0.0)

    def send(self, answer: bytes, delay: float) -> None:
        """Send an answer after some seconds."""
        if delay:
            asyncio.get_running_loop().call_later(delay, self.transport.write, answer)
        else:
            self.transport.write(answer)


@dataclass(frozen=True)
class Server:
    """A running server, seen from another process."""

    port: int

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{HOST}:{self.port}"

    def statistics(self) -> dict[str, Any]:
        """Return the reads so far, of how many conversions, and the seconds of CPU."""
        return self.ask("/statistics")

    def ask(self, target: str) -> dict[str, Any]:
        """Return the JSON behind a target."""
        connection = HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request("GET", target)
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()


@contextmanager
def serving(latency: float = 0.0) -> Iterator[Server]:
    """Run the server while the block lasts, away from the core of what is measured."""
    from benchmarks.host import cores, keep_on  # not there when this file runs as a script

    command = [sys.executable, "-m", "benchmarks.server", "--latency", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)  # noqa: S603 - a constant
    keep_on(process.pid, *cores()[:-1])
    try:
        assert process.stdout is not None  # noqa: S101 - for the type checker: a pipe was asked for
        yield Server(int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


async def _serve(latency: float, port: int) -> None:
    conversions = Conversions(latency)
    server = await asyncio.get_running_loop().create_server(lambda: Http(conversions), HOST, port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A minimal KIE for benchmarks.")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0 takes a free port, which is printed")
    args = parser.parse_args()
    asyncio.run(_serve(args.latency, args.port))


if __name__ == "__main__":
    main()
