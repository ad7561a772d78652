# SPDX-License-Identifier: Apache-2.0
"""The emulated KIE without HTTP: jobs and their files, credits and the submit limit."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from airflow_provider_kie.emulator.answers import ANSWERS, FAULTS
from airflow_provider_kie.emulator.callbacks import Callbacks
from airflow_provider_kie.emulator.envelope import Envelope
from airflow_provider_kie.emulator.families import FAMILIES, Row, family_named
from airflow_provider_kie.emulator.links import Links
from airflow_provider_kie.emulator.records import Job, Stage
from airflow_provider_kie.emulator.results import PAUSED, model_named
from airflow_provider_kie.emulator.scripted import Answer
from airflow_provider_kie.emulator.settings import Settings, SettingsArguments
from airflow_provider_kie.emulator.traffic import AnswerQueue, Json, RequestLog
from airflow_provider_kie.emulator.uploads import UploadEnvelope, UploadForm, Uploads

__all__ = ["PRICE", "EmulatorState", "Settings", "SettingsArguments"]

#: Credits for a WAV conversion.
PRICE: Final = FAMILIES["wav"].price

# The checked fields of a submit that are texts.
_TEXTS: Final = ("callBackUrl", "taskId", "audioId", "model", "prompt")


class EmulatorState:
    """The state of the emulator. Safe to use from several threads."""

    def __init__(
        self,
        *,
        api_key: str = "kie-emulator-key",
        settings: Settings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not api_key:
            raise ValueError("the emulator needs an API key")
        self.api_key = api_key
        self.base_url = "http://127.0.0.1"
        self.stopping = threading.Event()
        self._clock = clock
        self._secret = secrets.token_bytes(16)
        self._initial = settings or Settings()
        self._lock = threading.RLock()
        self.callbacks = Callbacks(self.record_info, lambda: self.settings)
        self.reset()

    def reset(self) -> None:
        """Forget everything, and return to the initial settings."""
        with self._lock:
            self.settings = self._initial
            self._chance = random.Random(self._initial.fault_seed)
            self.accepted_submits = 0
            self.credits_spent = 0.0
            self._jobs: dict[str, Job] = {}
            self.callbacks.clear()
            self._once: dict[tuple[str, ...], Job] = {}
            self._accepted_at: deque[float] = deque()
            self.started: dict[tuple[str, ...], float] = {}
            self.links = Links(self._secret, self._clock)
            self.uploads = Uploads()
            self.answers = AnswerQueue()
            self.log = RequestLog(self.api_key, self._clock)

    def configure(self, /, **changes: object) -> None:
        """Change settings (see :class:`Settings`); running jobs keep their time."""
        with self._lock:
            self.settings = self.settings.changed(changes)
            self._chance = random.Random(self.settings.fault_seed)

    def answer_for(self, endpoint: str, kie_task_id: str | None) -> Answer | None:
        """The answer to send instead of the emulator's own: a queued one, or a random fault."""
        if queued := self.answers.take(endpoint, kie_task_id):
            return queued
        faults = FAULTS.get(endpoint)
        with self._lock:
            if faults and self._chance.random() < self.settings.fault_share:
                return ANSWERS[self._chance.choice(faults)]
        return None

    # --- The endpoints

    def submit(self, body: object, family: str = "wav") -> Envelope:
        """
        POST to the submit path of a family.

        :param body: the parsed JSON body; anything but an object counts as unreadable
        """
        row = family_named(family)
        if not isinstance(body, dict):
            return Envelope(400, "Format Error - The parameter is not in JSON format")
        if refused := _refusal(row, body):
            return refused
        with self._lock:
            if refused := self._conflict(row, body):
                return refused
            if self._window_is_full():
                return Envelope(429, "Rate limit exceeded")
            if refused := self.charge(_price(row, body)):
                return refused
            job = self._create(row, body)
            self.accepted_submits += 1
            self._accepted_at.append(self._clock())
        ids = (row.id_key, "recordId") if row.on_market else (row.id_key,)
        return Envelope(data=dict.fromkeys(ids, job.kie_task_id), accepted=True)

    def record_info(self, kie_task_id: str | None, family: str = "wav") -> Envelope:
        """GET of the query path of a family, which finds only jobs of that path."""
        row = family_named(family)
        if not kie_task_id:
            return Envelope(422, f"Please enter {row.id_key}.")
        job = self.job_at(row, kie_task_id)
        if job is None:
            return Envelope() if row.unknown is None else Envelope(422, row.unknown.format(kie_task_id))
        stage: Stage = "pending" if self._clock() < job.ready_at else "failed" if job.fails else "done"
        return Envelope(data=family_named(job.family).record(job, stage, partial(self.file_url, kie_task_id)))

    def credit(self) -> Envelope:
        """GET /api/v1/chat/credit."""
        return Envelope(data=self.settings.credits)

    def download_url(self, body: object) -> Envelope:
        """POST /api/v1/common/download-url: a link for 20 minutes to a file of this emulator."""
        url = body.get("url") if isinstance(body, dict) else None
        parts = urlsplit(url if isinstance(url, str) else "")
        path = self.links.lend(parts.path) if f"{parts.scheme}://{parts.netloc}" == self.base_url else None
        return Envelope(data=self.base_url + path) if path else Envelope(422, "url is wrong")

    def upload(self, form: UploadForm) -> UploadEnvelope:
        """POST to the upload host."""
        return self.uploads.keep(form, self.base_url, self._clock())

    # --- For single calls

    def charge(self, price: float) -> Envelope | None:
        """Take the price of a call from the balance; return the refusal if it is too low."""
        with self._lock:
            if self.settings.credits < price:
                return Envelope(402, "Insufficient Credits")
            self.credits_spent = round(self.credits_spent + price, 4)
            self.settings = replace(self.settings, credits=round(self.settings.credits - price, 4))
        return None

    def start(self, *what: str) -> None:
        """Start something that takes as long as a job, unless it has started already."""
        with self._lock:
            self.started.setdefault(what, self._clock())

    def is_ready(self, *what: str) -> bool:
        """Whether something that was started is ready."""
        with self._lock:
            now = self._clock()
            return now - self.started.get(what, now) >= self.settings.conversion_seconds

    # --- Jobs and their files

    def job_at(self, row: Row, kie_task_id: str) -> Job | None:
        """The job that a read at the family's query path finds."""
        with self._lock:
            job = self._jobs.get(kie_task_id)
        return job if job and family_named(job.family).query == row.query else None

    def create_job(self, family: str, body: Mapping[str, object], *, finished: bool = False) -> str:
        """
        Start a job, or return the existing one if there may be only one; neither counts as a submit.

        :return: the KIE task id
        """
        row = family_named(family)
        with self._lock:
            return (self._earlier(row, body) or self._create(row, body, finished=finished)).kie_task_id

    def create_conversion(
        self,
        music_task_id: str,
        audio_id: str,
        callback_url: str = "https://example.com/callback",
        *,
        finished: bool = False,
    ) -> str:
        """
        Start the conversion of a track, or return the existing one; neither counts as a submit.

        :return: the KIE task id
        """
        body = {"taskId": music_task_id, "audioId": audio_id, "callBackUrl": callback_url}
        return self.create_job("wav", body, finished=finished)

    def file_url(self, kie_task_id: str, extension: str, number: int = 0) -> str:
        """The signed link to a file; it works for any id, including those of queued answers."""
        return self.base_url + self.links.signed(kie_task_id, extension, number)

    def wav_url(self, kie_task_id: str) -> str:
        """The signed link to a WAV file."""
        return self.file_url(kie_task_id, "wav")

    def _window_is_full(self) -> bool:
        now, limit = self._clock(), self.settings.submits_per_window
        while self._accepted_at and now - self._accepted_at[0] >= self.settings.window_seconds:
            self._accepted_at.popleft()
        return limit is not None and len(self._accepted_at) >= limit

    def _earlier(self, row: Row, body: Mapping[str, object]) -> Job | None:
        return self._once.get(_once_key(row, body)) if row.once else None

    def _conflict(self, row: Row, body: Mapping[str, object]) -> Envelope | None:
        earlier = self._earlier(row, body)
        if earlier is None:
            return None
        if earlier.fails and not self.settings.conflict_after_failure:
            del self._once[_once_key(row, body)]
            return None
        return Envelope(*row.conflict, {row.id_key: earlier.kie_task_id} if self.settings.conflict_names_id else None)

    def _create(self, row: Row, body: Mapping[str, object], *, finished: bool = False) -> Job:
        now = self._clock()
        within = body.get("input") if row.on_market else body
        job = Job(
            kie_task_id=secrets.token_hex(16),
            family=row.name,
            input=dict(within) if isinstance(within, Mapping) else {},
            model=_model(body) if row.on_market else "",
            callback_url=str(body.get("callBackUrl") or ""),
            price=_price(row, body),
            created_at=now,
            ready_at=now if finished else now + self.settings.conversion_seconds,
        )
        self._jobs[job.kie_task_id] = job
        self.callbacks.expect(job, job.ready_at - now)
        if row.once:
            self._once[_once_key(row, body)] = job
        return job

    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they were accepted."""
        with self._lock:
            return list(self._jobs.values())

    def summary(self) -> Json:
        """A short summary for people."""
        with self._lock:
            return {
                "accepted_submits": self.accepted_submits,
                "reads": len(self.log.entries("record-info")),
                "requests": len(self.log.entries()),
                "credits_spent": self.credits_spent,
                "conversions": sum(job.family == "wav" for job in self._jobs.values()),
                "jobs": len(self._jobs),
                "queued_answers": len(self.answers),
                "settings": asdict(self.settings),
            }


def _refusal(row: Row, body: Mapping[str, object]) -> Envelope | None:
    for name in row.required:
        if not _is_given(name, body.get(name)):
            return Envelope(422, row.refusal(name))
    if row.on_market and PAUSED.fullmatch(_model(body)):
        return Envelope(500, "This interface is temporarily paused")
    parent = body.get("taskId")
    if row.unknown_parent and isinstance(parent, str) and parent.startswith("unknown"):
        return Envelope(422, row.unknown_parent)
    return None


def _is_given(name: str, value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and name not in _TEXTS


def _model(body: Mapping[str, object]) -> str:
    return str(body.get("model") or "")


def _price(row: Row, body: Mapping[str, object]) -> float:
    return model_named(_model(body)).price if row.on_market else row.price


def _once_key(row: Row, body: Mapping[str, object]) -> tuple[str, ...]:
    return (row.name, *(str(body.get(name)) for name in row.once))
