# SPDX-License-Identifier: Apache-2.0
"""A file host on a raw socket that can be told to do everything that file hosts do wrong."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import re
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MODIFIED = "Wed, 01 Jan 2025 00:10:00 GMT"
DATE = "Sun, 22 Nov 2026 10:00:00 GMT"


@dataclass
class Request:
    """What was asked."""

    target: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def start(self) -> int | None:
        """Where the range that is asked for starts."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else None


@dataclass
class Act:
    """
    How one request is answered.

    :param body: what the host has; None for the server's file.
    :param status: the status, where it does not follow from the request.
    :param headers: headers besides.
    :param length: ``right``, ``none``, ``chunked`` (no length either), or a number of bytes that are too many.
    :param cut: share of the body that is sent.
    :param end: ``close`` after the body, ``reset`` the connection, or ``hold`` it open.
    :param ranges: whether ranges are served.
    :param etag: the file's ETag; None for none.
    :param modified: the file's Last-Modified; None for none.
    :param zipped: send it compressed.
    :param blind: serve a range without a look at ``If-Range``.
    """

    body: bytes | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    length: str | int = "right"
    cut: float = 1.0
    end: str = "close"
    ranges: bool = True
    etag: str | None = '"one"'
    modified: str | None = None
    zipped: bool = False
    blind: bool = False


class FileServer:
    """
    Serves ``file`` the way the next act says; the last act is repeated.

    :param file: what it has.
    :param host: the address on which it listens.
    :param certificate: speak TLS with this certificate and its key.
    """

    def __init__(self, file: bytes = b"", host: str = "127.0.0.1", certificate: Path | None = None) -> None:
        self.file = file
        self.acts: list[Act] = [Act()]
        self.requests: list[Request] = []
        self.connections = 0
        self.released = threading.Event()
        self._socket = socket.create_server((host, 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self.present(certificate)

    def __enter__(self) -> FileServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._socket.close()

    def present(self, certificate: Path) -> None:
        """Speak TLS with this certificate from the next connection on."""
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate)

    def play(self, *acts: Act) -> None:
        """Answer in this way from now on."""
        self.acts = list(acts)

    @property
    def starts(self) -> list[int | None]:
        """Where each request wanted to start."""
        return [request.start for request in self.requests]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with plain, contextlib.suppress(OSError):  # a client that does not like the certificate hangs up
            self._talk(self._tls.wrap_socket(plain, server_side=True) if self._tls else plain)

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (more := connection.recv(65536)):
                        return
                    head += more
                first, *lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
                pairs = (line.split(": ", 1) for line in lines)
                request = Request(first.split(" ")[1], {name.lower(): value for name, value in pairs})
                self.requests.append(request)
                act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
                self._answer(connection, request, act)
            except OSError:
                return

    def _answer(self, connection: socket.socket, request: Request, act: Act) -> None:
        whole = self.file if act.body is None else act.body
        status, body, headers = self._choose(request, act, whole)
        if act.zipped:
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        if act.length == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        elif act.length != "none":
            headers["Content-Length"] = str(len(body) + (0 if act.length == "right" else int(act.length)))
        headers |= act.headers
        text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"HTTP/1.1 {status} Something\r\n{text}\r\n".encode("latin-1"))
        sent = body[: int(len(body) * act.cut)]
        if act.length == "chunked":
            for start in range(0, len(sent), 100_000):
                piece = sent[start : start + 100_000]
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            if act.cut == 1.0:
                connection.sendall(b"0\r\n\r\n")
        else:
            connection.sendall(sent)
        if act.end == "hold":
            self.released.wait(60)
        elif act.end == "reset":
            _reset(connection)

    @staticmethod
    def _choose(request: Request, act: Act, whole: bytes) -> tuple[int, bytes, dict[str, str]]:
        headers = {"Content-Type": "audio/wav", "Date": DATE, "Connection": "close"}
        headers |= {"ETag": act.etag} if act.etag else {}
        headers |= {"Last-Modified": act.modified} if act.modified else {}
        unchanged = act.blind or request.headers.get("if-range") in (None, act.etag, act.modified)
        if act.status is None and act.ranges and request.start is not None and unchanged:
            if request.start >= len(whole):
                return 416, b"", headers | {"Content-Range": f"bytes */{len(whole)}"}
            part = whole[request.start :]
            return 206, part, headers | {"Content-Range": f"bytes {request.start}-{len(whole) - 1}/{len(whole)}"}
        return act.status or 200, whole, headers


def _reset(connection: socket.socket) -> None:
    """Reset the connection once the other side has what was sent; it would lose it otherwise."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        (unsent,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))
        if not unsent:
            break
        time.sleep(0.001)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Serve = Callable[..., FileServer]
