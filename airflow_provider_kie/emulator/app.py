# SPDX-License-Identifier: Apache-2.0
"""The emulator over HTTP: KIE's API, its file host, and the control routes."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_provider_kie.emulator.answers import ANSWERS
from airflow_provider_kie.emulator.control import control_routes
from airflow_provider_kie.emulator.envelope import METHOD_NOT_ALLOWED, NO_PERMISSION, NOT_FOUND, Envelope
from airflow_provider_kie.emulator.families import FAMILIES, Row
from airflow_provider_kie.emulator.files import File, serve
from airflow_provider_kie.emulator.replies import Reply, expose_transport, reply_with
from airflow_provider_kie.emulator.scripted import TEXT_HEADERS, Answer
from airflow_provider_kie.emulator.singles import SINGLE_CALLS, Single, answer_to
from airflow_provider_kie.emulator.state import EmulatorState
from airflow_provider_kie.emulator.uploads import (
    UPLOAD_METHOD_NOT_ALLOWED,
    UPLOAD_NO_PERMISSION,
    UPLOAD_PATH,
    UPLOADED,
    UploadForm,
    read_form,
)

__all__ = ["ApiRequest", "KieApp", "create_app"]

# KIE's edge rejects clients with the default User-Agents of Python's libraries.
_BLOCKED_AGENTS: Final = ("python-urllib", "python-requests", "python/")
_FILES: Final = ("/s/", "/d/", UPLOADED)
# Of the file host.
_REFUSALS: Final = {403: b"Forbidden", 404: b"Not Found"}


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to KIE's API, upload host or file host, parsed; of an upload, the body is what the log tells."""

    request: Request
    body: object
    endpoint: str | None
    row: Row | None
    token: str
    form: UploadForm = field(default_factory=UploadForm)

    @property
    def path(self) -> str:
        """The path without the query."""
        return str(self.request.scope["path"])

    @property
    def family(self) -> str:
        """The name of the family at this path."""
        return self.row.name if self.row else ""

    @property
    def asked(self) -> Mapping[str, object] | None:
        """The fields of the call; None for a body that is not an object."""
        if self.request.method == "GET":
            return self.request.query_params
        return self.body if isinstance(self.body, dict) else None

    @property
    def asked_id(self) -> str | None:
        """The KIE task id that a read or a single call asks for."""
        if self.endpoint == "single":
            asked = self.asked or {}
            named = asked.get("taskId", asked.get("task_id"))
            return named if isinstance(named, str) else None
        if self.row is None or self.endpoint != "record-info":
            return None
        return self.request.query_params.get(self.row.id_key)


class _Endpoint(NamedTuple):
    name: str
    method: str
    answer: Callable[[EmulatorState, ApiRequest], Envelope]
    row: Row | None = None
    wrong_method: Envelope = METHOD_NOT_ALLOWED
    wrong_key: Envelope = NO_PERMISSION


_API: Final = "/api/v1/"
_ENDPOINTS: Final = {
    _API + "chat/credit": _Endpoint("credit", "GET", lambda kie, c: kie.credit()),
    _API + "common/download-url": _Endpoint("download-url", "POST", lambda kie, c: kie.download_url(c.body)),
    UPLOAD_PATH: _Endpoint(
        name="upload",
        method="POST",
        answer=lambda kie, c: kie.upload(c.form),
        wrong_method=UPLOAD_METHOD_NOT_ALLOWED,
        wrong_key=UPLOAD_NO_PERMISSION,
    ),
}
for _row in FAMILIES.values():
    _ENDPOINTS[_row.submit] = _Endpoint("submit", "POST", lambda kie, c: kie.submit(c.body, c.family), _row)
    # The music families share one path for reads; the first row keeps it.
    _read_it = _Endpoint("record-info", "GET", lambda kie, c: kie.record_info(c.asked_id, c.family), _row)
    _ENDPOINTS.setdefault(_row.query, _read_it)


def _answer_single(single: Single, kie: EmulatorState, call: ApiRequest) -> Envelope:
    return answer_to(single, kie, call.asked)


for _single in SINGLE_CALLS:
    _ENDPOINTS[_single.path] = _Endpoint("single", _single.method, partial(_answer_single, _single))


class KieApp:
    """Answers every request outside the control routes, with KIE's order of checks."""

    def __init__(self, state: EmulatorState) -> None:
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request."""
        try:
            call = await _read(Request(scope, receive))
        except ClientDisconnect:
            return
        played = None
        reply = self._refusal(call)
        if reply is None:
            played = self.state.answer_for(call.endpoint or "", call.asked_id)
            reply = self._played(call, played) if played else self._own(call)
        self._log(call, reply, played)
        await reply.send(call.request, send)

    def _refusal(self, call: ApiRequest) -> Reply | None:
        agent = call.request.headers.get("user-agent", "").lower()
        if not agent or agent.startswith(_BLOCKED_AGENTS):
            return self._played(call, ANSWERS["blocked"])
        if call.endpoint is None:
            return reply_with(self.state.stopping, NOT_FOUND)
        if call.endpoint == "file":
            served = call.request.method in ("GET", "HEAD")
            return None if served else reply_with(self.state.stopping, METHOD_NOT_ALLOWED)
        here = _ENDPOINTS[call.path]
        if call.request.method != here.method:
            return reply_with(self.state.stopping, here.wrong_method)
        return None if self._authorized(call) else reply_with(self.state.stopping, here.wrong_key)

    def _authorized(self, call: ApiRequest) -> bool:
        return hmac.compare_digest(call.token.encode(), self.state.api_key.encode())

    def _own(self, call: ApiRequest) -> Reply:
        if call.endpoint == "file":
            return self._file(call)
        return reply_with(self.state.stopping, _ENDPOINTS[call.path].answer(self.state, call))

    def _file(self, call: ApiRequest) -> Reply:
        stopping = self.state.stopping
        found: File | int
        if call.path.startswith(UPLOADED):
            found = self.state.uploads.find(call.path) or 404
        else:
            found = self.state.links.find(call.path, call.request.query_params.get("sig", ""))
        if isinstance(found, int):
            return Reply(stopping, _REFUSALS[found], found, TEXT_HEADERS)
        served = serve(call.request.headers, found)
        return Reply(stopping, served.body, served.status, served.headers)

    def _played(self, call: ApiRequest, answer: Answer) -> Reply:
        own = self._own(call) if answer.accepts or answer.body is None else None
        if own and answer.body is None:
            body, status, headers = own.body, own.status, own.headers
        else:
            kie_task_id = self._job_of(call, answer, own)
            body = answer.render(kie_task_id, self.state.wav_url(kie_task_id), call.token)
            status, headers = answer.status, answer.headers
        accepted = own is not None and own.accepted
        return Reply(self.state.stopping, body, status, headers, answer.fault, answer.delay, accepted)

    def _job_of(self, call: ApiRequest, answer: Answer, own: Reply | None) -> str:
        """The job that an answer is about. A client that adopts its id reads the job next, so it must exist."""
        if call.asked_id or call.row is None or not (answer.names_job and isinstance(call.body, dict)):
            return call.asked_id or "988e00aa"
        if own and own.accepted:
            return str(json.loads(own.body)["data"][call.row.id_key])
        return self.state.create_job(call.row.name, call.body)

    def _log(self, call: ApiRequest, reply: Reply, played: Answer | None) -> None:
        answered = reply.fault not in ("reset", "hang")
        entry = {
            "method": call.request.method,
            "path": call.path,
            "endpoint": call.endpoint,
            "family": self._family_of(call),
            "params": dict(call.request.query_params),
            "json": call.body,
            "authorized": self._authorized(call),
            "user_agent": call.request.headers.get("user-agent"),
            "http_status": reply.status if answered else None,
            "code": reply.code if answered else None,
            "accepted": reply.accepted,
            "answer": played.name if played else None,
        }
        self.state.log.add(entry, [call.token])

    def _family_of(self, call: ApiRequest) -> str | None:
        job = self.state.job_at(call.row, call.asked_id) if call.row and call.asked_id else None
        return job.family if job else call.family or None


async def _read(request: Request) -> ApiRequest:
    path = request.scope["path"]
    form = await read_form(request) if path == UPLOAD_PATH else UploadForm()
    body = form.facts() if path == UPLOAD_PATH else _parsed(await request.body())
    endpoint, row = ("file" if path.startswith(_FILES) else None), None
    if path in _ENDPOINTS:
        endpoint, row = _ENDPOINTS[path].name, _ENDPOINTS[path].row
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return ApiRequest(request, body, endpoint, row, token.strip() if scheme.lower() == "bearer" else "", form)


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content, parse_constant=_refuse) if content else None
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def create_app(state: EmulatorState) -> ASGIApp:
    """The emulator as an ASGI application; its faults need uvicorn."""
    app = Starlette(routes=[*control_routes(state), Route("/{path:path}", KieApp(state))])
    return expose_transport(app)
