# SPDX-License-Identifier: Apache-2.0
"""The pretend KIE without HTTP: conversions and their files, credits and the submit limit."""

from __future__ import annotations

import hashlib
import hmac
import math
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Final, TypedDict
from urllib.parse import urlsplit

from airflow_provider_kie.emulator.answers import ANSWERS, FAULTS, Answer
from airflow_provider_kie.emulator.traffic import AnswerQueue, Json, RequestLog

__all__ = [
    "LIMIT_WINDOW",
    "LINK_SECONDS",
    "METHOD_NOT_ALLOWED",
    "NOT_FOUND",
    "NO_PERMISSION",
    "PRICE",
    "Conversion",
    "EmulatorState",
    "Settings",
    "SettingsArguments",
    "Verdict",
]

PRICE: Final = 0.4
LIMIT_WINDOW: Final = 10.0
LINK_SECONDS: Final = 20 * 60


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


@dataclass(frozen=True, slots=True)
class Settings:
    """
    How this KIE behaves.

    :param conversion_seconds: how long a conversion stays ``PENDING``
    :param conflict_names_id: whether the 409 for a track that was converted before names the earlier id
    :param conflict_after_failure: whether a track whose conversion failed is refused too (KIE's way is not known)
    :param submits_per_window: accepted submits per 10 seconds; ``None`` for no limit
    :param credits: the balance
    :param fault_share: the share of API calls, 0 to 1, that meet a random one of
        :data:`~airflow_provider_kie.emulator.answers.FAULTS` instead of an answer
    :param fault_seed: makes the choice of faults repeatable
    """

    conversion_seconds: float = 3.0
    conflict_names_id: bool = True
    conflict_after_failure: bool = True
    submits_per_window: int | None = 20
    credits: float = 5916.25
    fault_share: float = 0.0
    fault_seed: int = 0

    def __post_init__(self) -> None:
        limit = self.submits_per_window
        right = {
            "conversion_seconds": _is_amount(self.conversion_seconds),
            "conflict_names_id": isinstance(self.conflict_names_id, bool),
            "conflict_after_failure": isinstance(self.conflict_after_failure, bool),
            "submits_per_window": limit is None or (isinstance(limit, int) and _is_amount(limit)),
            "credits": _is_amount(self.credits),
            "fault_share": _is_amount(self.fault_share) and self.fault_share <= 1,
            "fault_seed": isinstance(self.fault_seed, int),
        }
        if wrong := [f"{name}={getattr(self, name)!r}" for name, is_right in right.items() if not is_right]:
            raise ValueError(f"wrong settings: {', '.join(wrong)}")

    def changed(self, changes: Mapping[str, object]) -> Settings:
        """These settings with some of them changed; unknown names and wrong values are a ``ValueError``."""
        known = [field.name for field in fields(self)]
        if unknown := sorted(set(changes) - set(known)):
            raise ValueError(f"unknown settings {', '.join(unknown)}; there are {', '.join(known)}")
        return replace(self, **changes)  # type: ignore[arg-type]  # __post_init__ checks the types


class SettingsArguments(TypedDict, total=False):
    """The same as keyword arguments, so that an editor can complete them."""

    conversion_seconds: float
    conflict_names_id: bool
    conflict_after_failure: bool
    submits_per_window: int | None
    credits: float
    fault_share: float
    fault_seed: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """One WAV conversion."""

    kie_task_id: str
    music_task_id: str
    audio_id: str
    callback_url: str
    created_at: float
    ready_at: float

    @property
    def track(self) -> tuple[str, str]:
        """What may be converted only once."""
        return self.music_task_id, self.audio_id

    @property
    def fails(self) -> bool:
        """Whether it ends in failure, as the name of its music task can ask for."""
        return self.music_task_id.startswith("fail")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What KIE says: the envelope, and whether the call started a conversion."""

    code: int = 200
    msg: str = "success"
    data: object = None
    accepted: bool = False

    @property
    def http_status(self) -> int:
        """Most errors travel inside HTTP 200; these do not."""
        return self.code if self.code in (404, 405, 429) else 200

    def envelope(self) -> Json:
        """The body. A refused key has no ``data``, as recorded from the real service."""
        body = {"code": self.code, "msg": self.msg}
        return body if self.code == 401 else {**body, "data": self.data}


NO_PERMISSION: Final = Verdict(401, "You do not have access permissions")
NOT_FOUND: Final = Verdict(404, "Not Found")
METHOD_NOT_ALLOWED: Final = Verdict(405, "Method Not Allowed")


class EmulatorState:
    """
    Everything the emulator knows. Safe to use from several threads.

    :param api_key: the only key that is accepted
    :param settings: starting values, to which :meth:`reset` returns
    :param clock: seconds since the epoch
    """

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
        self.reset()

    def reset(self) -> None:
        """Forget everything, and return to the settings of the start."""
        with self._lock:
            self.settings = self._initial
            self._chance = random.Random(self._initial.fault_seed)
            self.accepted_submits = 0
            self._conversions: dict[str, Conversion] = {}
            self._by_track: dict[tuple[str, str], Conversion] = {}
            self._accepted_at: deque[float] = deque()
            self._links: dict[str, float] = {}
            self.answers = AnswerQueue()
            self.log = RequestLog(self.api_key, self._clock)

    def configure(self, /, **changes: object) -> None:
        """Change settings (see :class:`Settings`); running conversions keep their time."""
        with self._lock:
            self.settings = self.settings.changed(changes)
            self._chance = random.Random(self.settings.fault_seed)

    def answer_for(self, endpoint: str, kie_task_id: str | None) -> Answer | None:
        """The answer to give instead of an own one: a queued one, or a fault by chance."""
        if queued := self.answers.take(endpoint, kie_task_id):
            return queued
        faults = FAULTS.get(endpoint)
        with self._lock:
            if faults and self._chance.random() < self.settings.fault_share:
                return ANSWERS[self._chance.choice(faults)]
        return None

    # The four endpoints

    def submit(self, body: object) -> Verdict:
        """
        POST /api/v1/wav/generate.

        :param body: the parsed JSON body; anything but an object counts as not readable
        """
        if not isinstance(body, dict):
            return Verdict(400, "Format Error - The parameter is not in JSON format")
        for name in ("callBackUrl", "taskId", "audioId"):
            if not (isinstance(body.get(name), str) and body[name].strip()):
                return Verdict(422, f"Please enter {name}.")
        music_task_id, audio_id = body["taskId"], body["audioId"]
        if music_task_id.startswith("unknown"):
            return Verdict(422, "Record does not exist")
        with self._lock:
            earlier = self._by_track.get((music_task_id, audio_id))
            if earlier and earlier.fails and not self.settings.conflict_after_failure:
                del self._by_track[earlier.track]
            elif earlier:
                data = {"taskId": earlier.kie_task_id} if self.settings.conflict_names_id else None
                return Verdict(409, "WAV record already exists", data)
            if self._window_is_full():
                return Verdict(429, "Rate limit exceeded")
            if self.settings.credits < PRICE:
                return Verdict(402, "Insufficient Credits")
            kie_task_id = self.create_conversion(music_task_id, audio_id, body["callBackUrl"])
            self.accepted_submits += 1
            self._accepted_at.append(self._clock())
            self.settings = replace(self.settings, credits=round(self.settings.credits - PRICE, 4))
        return Verdict(data={"taskId": kie_task_id}, accepted=True)

    def record_info(self, kie_task_id: str | None) -> Verdict:
        """GET /api/v1/wav/record-info."""
        if not kie_task_id:
            return Verdict(422, "Please enter taskId.")
        with self._lock:
            conversion = self._conversions.get(kie_task_id)
        return Verdict(data=conversion and self._record(conversion))

    def credit(self) -> Verdict:
        """GET /api/v1/chat/credit."""
        return Verdict(data=self.settings.credits)

    def download_url(self, body: object) -> Verdict:
        """POST /api/v1/common/download-url: a link for 20 minutes to a file of this emulator."""
        url = body.get("url") if isinstance(body, dict) else None
        if not (isinstance(url, str) and self._is_own_file(url)):
            return Verdict(422, "url is wrong")
        token = secrets.token_hex(16)
        with self._lock:
            self._links[token] = self._clock() + LINK_SECONDS
        return Verdict(data=f"{self.base_url}/d/{token}")

    # Conversions and their files

    def create_conversion(
        self,
        music_task_id: str,
        audio_id: str,
        callback_url: str = "https://example.com/callback",
        *,
        finished: bool = False,
    ) -> str:
        """
        Start the conversion of a track, or find the one that exists; neither counts as a submit.

        :return: the KIE task id
        """
        with self._lock:
            if earlier := self._by_track.get((music_task_id, audio_id)):
                return earlier.kie_task_id
            now = self._clock()
            conversion = Conversion(
                kie_task_id=secrets.token_hex(16),
                music_task_id=music_task_id,
                audio_id=audio_id,
                callback_url=callback_url,
                created_at=now,
                ready_at=now if finished else now + self.settings.conversion_seconds,
            )
            self._conversions[conversion.kie_task_id] = self._by_track[conversion.track] = conversion
        return conversion.kie_task_id

    def wav_url(self, kie_task_id: str) -> str:
        """The signed link to a file; every id has one, so that queued answers can be followed too."""
        name = hashlib.sha256(kie_task_id.encode()).hexdigest()[:32]
        return f"{self.base_url}/s/{name}.wav?sig={self._signature(name)}"

    def file_is_signed(self, name: str, signature: str) -> bool:
        """Whether a link to a file carries the signature that it was given out with."""
        return hmac.compare_digest(signature.encode(), self._signature(name).encode())

    def link_is_open(self, token: str) -> bool:
        """Whether a download link was given out, and not too long ago."""
        with self._lock:
            return self._clock() < self._links.get(token, 0.0)

    def _signature(self, name: str) -> str:
        return hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest()[:32]

    def _is_own_file(self, url: str) -> bool:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}" == self.base_url and parts.path.startswith("/s/")

    def _window_is_full(self) -> bool:
        now, limit = self._clock(), self.settings.submits_per_window
        while self._accepted_at and now - self._accepted_at[0] >= LIMIT_WINDOW:
            self._accepted_at.popleft()
        return limit is not None and len(self._accepted_at) >= limit

    def _record(self, conversion: Conversion) -> Json:
        ready = self._clock() >= conversion.ready_at
        success, failure = ready and not conversion.fails, ready and conversion.fails
        return {
            "taskId": conversion.kie_task_id,
            "musicId": conversion.audio_id,
            "callbackUrl": conversion.callback_url,
            "musicIndex": 0,
            "completeTime": int(conversion.ready_at * 1000) if ready else None,
            "response": {"audioWavUrl": self.wav_url(conversion.kie_task_id)} if success else None,
            "successFlag": "SUCCESS" if success else "GENERATE_WAV_FAILED" if failure else "PENDING",
            "createTime": int(conversion.created_at * 1000),
            "errorCode": 500 if failure else None,
            "errorMessage": "Internal Error - Please try again later." if failure else None,
        }

    def summary(self) -> Json:
        """A short account for people."""
        with self._lock:
            return {
                "accepted_submits": self.accepted_submits,
                "reads": len(self.log.entries("record-info")),
                "requests": len(self.log.entries()),
                "conversions": len(self._conversions),
                "queued_answers": len(self.answers),
                "settings": asdict(self.settings),
            }
