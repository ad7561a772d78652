# SPDX-License-Identifier: Apache-2.0
"""The control routes below ``/_emulator``: for tests in other processes and other languages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from airflow_provider_kie.emulator.answers import ANSWERS
from airflow_provider_kie.emulator.cases import CASES, SINGLES
from airflow_provider_kie.emulator.state import EmulatorState

__all__ = ["control_routes"]

_DONE = {"ok": True}


class _Control:
    def __init__(self, state: EmulatorState) -> None:
        self.state = state

    def summary(self, body: dict[str, Any]) -> Any:
        return self.state.summary()

    def requests(self, body: dict[str, Any]) -> Any:
        return self.state.log.entries()

    def callbacks(self, body: dict[str, Any]) -> Any:
        return self.state.callbacks.sent()

    def answers(self, body: dict[str, Any]) -> Any:
        return [{"name": a.name, "case": a.case, "endpoint": a.endpoint} for a in ANSWERS.values()]

    def cases(self, body: dict[str, Any]) -> Any:
        cases = [{"name": c.name, "case": c.number, "family": c.family, "meaning": c.meaning} for c in CASES.values()]
        return cases + [{"name": a.name, "case": a.case, "family": None, "meaning": None} for a in SINGLES.values()]

    def play(self, body: dict[str, Any]) -> Any:
        names, kie_task_id, repeat = body.get("answers"), body.get("kie_task_id"), body.get("repeat", False)
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise ValueError("answers must be a list of names")
        if not (kie_task_id is None or isinstance(kie_task_id, str)) or not isinstance(repeat, bool):
            raise ValueError("kie_task_id must be a string, repeat true or false")
        self.state.answers.add(*names, endpoint=body.get("endpoint"), kie_task_id=kie_task_id, repeat=repeat)
        return _DONE

    def configure(self, body: dict[str, Any]) -> Any:
        self.state.configure(**body)
        return self.state.summary()["settings"]

    def reset(self, body: dict[str, Any]) -> Any:
        self.state.reset()
        return _DONE


def control_routes(state: EmulatorState) -> list[Route]:
    """The routes that watch and steer a state."""
    control = _Control(state)
    return [
        _route("GET", "/_emulator", control.summary),
        _route("GET", "/_emulator/requests", control.requests),
        _route("GET", "/_emulator/answers", control.answers),
        _route("GET", "/_emulator/callbacks", control.callbacks),
        _route("GET", "/_emulator/cases", control.cases),
        _route("POST", "/_emulator/answers", control.play),
        _route("POST", "/_emulator/settings", control.configure),
        _route("POST", "/_emulator/reset", control.reset),
    ]


def _route(method: str, path: str, act: Callable[[dict[str, Any]], Any]) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            body = await request.json() if await request.body() else {}
            if not isinstance(body, dict):
                raise ValueError("the body must be a JSON object")  # noqa: TRY004  reported like any wrong value
            return _json(act(body))
        except (ValueError, LookupError) as error:
            return _json({"error": str(error.args[0])}, status=422)

    return Route(path, endpoint, methods=[method])


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, media_type="application/json")
