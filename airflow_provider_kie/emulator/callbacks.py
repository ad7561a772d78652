# SPDX-License-Identifier: Apache-2.0
"""
KIE's callbacks: sent when a job ends, to loopback addresses and to no other host.

The payloads and the signature follow KIE's pages; nobody has a recording of one. How long KIE pauses before it repeats
a callback is unknown.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import hmac
import ipaddress
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_kie.emulator.envelope import Envelope
from airflow_provider_kie.emulator.records import Job
from airflow_provider_kie.emulator.settings import Settings
from airflow_provider_kie.emulator.traffic import Json

__all__ = ["ATTEMPTS", "Callbacks", "payload"]

#: The first attempt, and three repetitions.
ATTEMPTS: Final = 4
#: Seconds that KIE waits for the answer.
ANSWER_WITHIN: Final = 15.0
_AT_A_TIME: Final = 16

_MUSIC: Final = (
    *("music", "music-extend", "upload-cover", "upload-extend", "add-vocals", "add-instrumental"),
    *("replace-section", "mashup", "sounds"),
)

#: Makes the ``data`` of a callback from the result of the job's record, which is empty for a failure.
_Data: TypeAlias = Callable[[Json], Json]


def _staged(key: str) -> _Data:
    return lambda result: {"callbackType": "complete" if result else "error", "data": _snake(result.get(key))}


def _fields(**names: str) -> _Data:
    """Fields of the result, by other names."""
    return lambda result: {ours: result.get(theirs) for ours, theirs in names.items()}


def _within(data: _Data, **others: object) -> _Data:
    return lambda result: {"info": data(result) if result else None, **others}


#: How a family spells the id, and what else it says.
_DIALECTS: Final[Mapping[str, tuple[str, _Data]]] = {
    **dict.fromkeys(_MUSIC, ("task_id", _staged("sunoData"))),
    "lyrics": ("task_id", _staged("data")),
    "wav": ("task_id", _fields(audioWavUrl="audioWavUrl")),
    "stems": ("task_id", lambda result: {"vocal_separation_info": _snake(result) or None}),
    "midi": ("taskId", dict),
    "music-video": ("task_id", _fields(video_url="videoUrl")),
    "cover-image": ("taskId", _fields(images="images")),
    "4o-image": ("taskId", _within(_fields(result_urls="resultUrls"))),
    "flux-kontext": ("taskId", _within(_fields(originImageUrl="originImageUrl", resultImageUrl="resultImageUrl"))),
    **dict.fromkeys(
        ("veo", "veo-extend"),
        ("taskId", _within(_fields(resultUrls="resultUrls", resolution="resolution"), fallbackFlag=False)),
    ),
    **dict.fromkeys(
        ("runway", "runway-extend"),
        ("task_id", _fields(video_id="videoId", video_url="videoUrl", image_url="imageUrl")),
    ),
    "aleph": ("task_id", _fields(result_video_url="resultVideoUrl", result_image_url="resultImageUrl")),
}


def payload(job: Job, record: Json, manner: str = "right") -> Json:
    """
    The body of a callback.

    :param job: the job
    :param record: its record at the end
    :param manner: see :class:`~airflow_provider_kie.emulator.settings.Settings`
    """
    result = record.get("response") or record.get("midiData") or record.get("videoInfo") or {}
    key, tell = _DIALECTS.get(job.family, ("", dict))
    data = {key: job.kie_task_id, **tell(result)} if key else record
    failed = not result and record.get("resultJson", "") == ""
    body = {"code": 501 if failed else 200, "msg": "failed" if failed else "success", "data": data}
    if manner == "top-level":
        body |= {"taskId": job.kie_task_id, "data": {name: each for name, each in data.items() if name != key}}
    elif manner in ("camel", "snake"):
        body["data"] = (_camel if manner == "camel" else _snake)(data)
    elif manner == "changed-body":
        body = json.loads(re.sub(r"https?://[^\"\\]+", "https://evil.example/x", json.dumps(body)))
    return body


def _snake(value: Any) -> Any:
    return _renamed(value, lambda name: re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name))


def _camel(value: Any) -> Any:
    return _renamed(value, lambda name: re.sub("_([a-z])", lambda found: found[1].upper(), name))


def _renamed(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {rename(name): _renamed(each, rename) for name, each in value.items()}
    return [_renamed(each, rename) for each in value] if isinstance(value, list) else value


class _Due(NamedTuple):
    """A callback that is to be sent, the earliest first."""

    at: float
    number: int
    job: Job
    attempt: int
    stage: str


class Callbacks:
    """
    Sends callbacks from a thread of its own, which runs from :meth:`start` to :meth:`stop`.

    :param read: reads a job by id and family
    :param settings: returns the present settings
    """

    def __init__(self, read: Callable[[str, str], Envelope], settings: Callable[[], Settings]) -> None:
        self._read = read
        self._settings = settings
        self._changed = threading.Condition()
        self._due: list[_Due] = []
        self._sent: list[Json] = []
        self._number = 0
        self._thread: threading.Thread | None = None

    def expect(self, job: Job, seconds: float) -> None:
        """
        Send the callbacks of a job.

        :param seconds: until it ends
        """
        manner = self._settings().callbacks
        if manner == "never" or not _is_here(job.callback_url):
            return
        late = self._settings().callback_pause * 3 if manner == "late" else 0.0
        stages = ["text", "first", ""] if manner == "stages" and job.family in _MUSIC else [""]
        for stage in stages * (2 if manner == "twice" else 1):
            self._push(seconds + late, job, 1, stage)

    def sent(self) -> list[Json]:
        """What was sent so far, oldest first."""
        with self._changed:
            return list(self._sent)

    def clear(self) -> None:
        """Forget what was sent and what is to be sent."""
        with self._changed:
            self._due.clear()
            self._sent.clear()

    def start(self) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="kie-emulator-callbacks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more; return once the thread has ended."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread:
            thread.join()

    def _push(self, seconds: float, job: Job, attempt: int, stage: str) -> None:
        with self._changed:
            self._number += 1
            heapq.heappush(self._due, _Due(time.monotonic() + seconds, self._number, job, attempt, stage))
            self._changed.notify_all()

    def _run(self) -> None:
        mine = threading.current_thread()
        pool = ThreadPoolExecutor(_AT_A_TIME, "kie-emulator-callback")
        while True:
            with self._changed:
                if self._thread is not mine:
                    break
                wait = self._due[0].at - time.monotonic() if self._due else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                due = heapq.heappop(self._due)
            pool.submit(self._send, due)
        pool.shutdown(wait=False, cancel_futures=True)

    def _send(self, due: _Due) -> None:
        job, settings = due.job, self._settings()
        record = self._read(job.kie_task_id, job.family).data
        if self._thread is None or not isinstance(record, dict):
            return  # stopped, or forgotten meanwhile
        body = payload(job, record, settings.callbacks)
        if due.stage:
            body["data"]["callbackType"] = due.stage
        sent = {"kie_task_id": job.kie_task_id, "family": job.family, "attempt": due.attempt, "json": body}
        status, error = self._post(job, body, settings)
        with self._changed:
            self._sent.append(sent | {"http_status": status, "error": error})
        if status != 200 and due.attempt < ATTEMPTS and self._thread is not None:
            self._push(settings.callback_pause, job, due.attempt + 1, due.stage)

    def _post(self, job: Job, body: Json, settings: Settings) -> tuple[int | None, str | None]:
        parts = urlsplit(job.callback_url)
        headers = {"Content-Type": "application/json", **_signature(job.kie_task_id, settings)}
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_WITHIN)
        try:
            path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request("POST", path, json.dumps(body), headers)
            return connection.getresponse().status, None
        except (OSError, HTTPException, ValueError) as error:
            return None, type(error).__name__
        finally:
            connection.close()


def _signature(kie_task_id: str, settings: Settings) -> dict[str, str]:
    """The headers with the signature, if there is a key and nothing else is asked for."""
    manner, key = settings.callbacks, settings.webhook_hmac_key
    if not key or manner == "unsigned":
        return {}
    timestamp = str(int(time.time()) - (3_600 if manner == "stale-signature" else 0))
    if manner == "wrong-signature":
        key = f"not {key}"
    digest = hmac.new(key.encode(), f"{kie_task_id}.{timestamp}".encode(), hashlib.sha256).digest()
    signature = digest.hex() if manner == "hex-signature" else base64.b64encode(digest).decode()
    return {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": signature}


def _is_here(url: str) -> bool:
    """Whether a URL leads to this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
    return here and parts.scheme == "http" and "\\" not in url
