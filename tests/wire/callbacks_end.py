# SPDX-License-Identifier: Apache-2.0
"""What stands at the other end of the receiver of callbacks: a server in a thread, and the API of an Airflow."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def eventually(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return what there is to see, once there is something."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)
    return found


class Served:
    """
    An ASGI application on loopback for as long as its ``with`` block lasts.

    :param port: 0 takes a free one.
    """

    def __init__(self, app: Any, port: int = 0) -> None:
        self.app = app
        self.port = port

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=2048)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(self.app, http="h11", log_config=None, access_log=False, timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        eventually(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


class FakeAirflow:
    """
    The part of Airflow's REST API that makes events, in either dialect.

    :param old: that of 2.11, with basic authentication.
    """

    def __init__(self, *, old: bool = False) -> None:
        self.old = old
        self.url = ""
        self.things = "datasets" if old else "assets"
        self.reset()
        base = "/api/v1" if old else "/api/v2"
        self.app = Starlette(
            routes=[
                Route(f"{base}/version", self._version),
                Route("/auth/token", self._token, methods=["POST"]),
                Route(f"{base}/{self.things}", self._list),
                Route(f"{base}/{self.things}/events", self._make, methods=["POST"]),
                Route(f"{base}/{self.things}/events", self._events),
            ]
        )

    def reset(self) -> None:
        """Forget everything."""
        self.assets: dict[str, int] = {}
        self.events: list[dict[str, Any]] = []
        self.tokens = 0
        self.valid_tokens: set[str] = set()
        #: What is answered to a token that is not valid: 401 if it has run out, 403 if another key made it.
        self.denial = 401
        #: What is wrong with the next events: "down", "refused", "hang", "lost" (made, but not answered).
        self.trouble: str | None = None

    def listen(self, *uris: str) -> None:
        """Let a DAG name these assets; one more has a URI that a pattern takes for the first."""
        for uri in (*uris, uris[0].replace("_", "x")):
            self.assets[uri] = len(self.assets) + 1

    def told(self) -> Counter[str]:
        """How many events each job has."""
        return Counter(event["extra"]["kie_task_id"] for event in self.events)

    def _allowed(self, request: Request) -> bool:
        given = request.headers.get("authorization", "")
        # receiver:secret, as Basic of RFC 7617
        return given == "Basic cmVjZWl2ZXI6c2VjcmV0" if self.old else given[7:] in self.valid_tokens

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": "2.11.2" if self.old else "3.3.2", "git_version": None})

    async def _token(self, request: Request) -> Response:
        if await request.json() != {"username": "receiver", "password": "secret"}:
            return Response(status_code=401)
        self.tokens += 1
        token = f"token-{self.tokens}"
        self.valid_tokens.add(token)
        return JSONResponse({"access_token": token}, 201)

    async def _list(self, request: Request) -> Response:
        if not self._allowed(request):
            return Response(status_code=self.denial)
        found = [{"id": number, "uri": uri} for uri, number in self.assets.items()]
        return JSONResponse({self.things: found, "total_entries": len(found)})

    async def _events(self, request: Request) -> Response:
        asset = int(request.query_params["dataset_id" if self.old else "asset_id"])
        assert request.query_params["order_by"] == "-timestamp"
        offset, limit = int(request.query_params["offset"]), int(request.query_params["limit"])
        found = [event for event in reversed(self.events) if event["asset"] == asset][offset : offset + limit]
        return JSONResponse({f"{self.things[:-1]}_events": found})

    async def _make(self, request: Request) -> Response:
        if not self._allowed(request):
            return Response(status_code=self.denial)
        trouble = self.trouble
        if trouble in ("down", "refused"):
            return Response(status_code=503 if trouble == "down" else 403)
        body = await request.json()
        asset = self.assets.get(body["dataset_uri"]) if self.old else body["asset_id"]
        if asset not in self.assets.values():
            return JSONResponse({"detail": "not found"}, 404)
        if trouble != "hang":
            self.events.append({"asset": asset, "extra": {**body["extra"], "from_rest_api": True}})
        if trouble in ("hang", "lost"):
            await asyncio.sleep(30)
        return JSONResponse({"id": len(self.events)})
