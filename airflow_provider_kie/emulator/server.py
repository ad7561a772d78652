# SPDX-License-Identifier: Apache-2.0
"""The emulator on a real socket, in a thread of its own."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import threading
from typing import Any, Final, Self, Unpack

import uvicorn

from airflow_provider_kie.emulator.app import create_app
from airflow_provider_kie.emulator.families import family_named
from airflow_provider_kie.emulator.state import EmulatorState, Settings, SettingsArguments

__all__ = ["DEFAULT_KEY", "KieEmulator"]

DEFAULT_KEY: Final = "kie-emulator-key"
_PATIENCE: Final = 10.0


class _Server(uvicorn.Server):
    """A server that sets an event once it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listens.set()


class KieEmulator:
    """
    A KIE on loopback, for as long as its ``with`` block lasts.

    .. code-block:: python

        with KieEmulator(conversion_seconds=0.2) as kie:
            kie.play("rate-limited", "pending", endpoint="record-info")
            ...
            assert kie.accepted_submits == 1

    :param port: where to listen; 0 takes a free port
    :param host: a loopback address; anything else is refused, because the emulator must not be reachable from outside
    :param api_key: the only key that is accepted
    :param settings: see :class:`~airflow_provider_kie.emulator.state.Settings`
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        api_key: str = DEFAULT_KEY,
        **settings: Unpack[SettingsArguments],
    ) -> None:
        if not _is_loopback(host):
            raise ValueError(f"the emulator only listens on loopback, not on {host!r}")
        self.state = EmulatorState(api_key=api_key, settings=Settings().changed(settings))
        self._address = host, port
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start to listen; return once requests are answered."""
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family)
        # asyncio does this only for sockets that it created; without it each answer on a reused connection takes 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = f"[{host}]" if ":" in host else host
        port = self._socket.getsockname()[1]
        self.state.base_url = f"http://{name}:{port}"
        self.state.stopping.clear()
        config = uvicorn.Config(
            create_app(self.state),
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        # uvicorn switches these logs off too, but a later logging configuration would switch them on again.
        for name in ("uvicorn.access", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name=f"kie-emulator-{port}", daemon=True
        )
        self._thread.start()
        if not self._server.listens.wait(_PATIENCE):
            self.stop()
            raise RuntimeError(f"the emulator did not start within {_PATIENCE:.0f} s")
        self.state.callbacks.start()

    def stop(self) -> None:
        """Close every connection and the socket."""
        self.state.stopping.set()
        self.state.callbacks.stop()
        if self._server and self._thread:
            self._server.should_exit = True
            self._thread.join(_PATIENCE)
        if self._socket:
            self._socket.close()

    @property
    def url(self) -> str:
        """The base URL, for a connection's host; known once it has started."""
        return self.state.base_url

    @property
    def api_key(self) -> str:
        """The only key that is accepted."""
        return self.state.api_key

    @property
    def accepted_submits(self) -> int:
        """How many submits of any family started a job, each of which KIE would have charged."""
        return self.state.accepted_submits

    @property
    def credits_spent(self) -> float:
        """The credits that KIE would have charged for these submits and for single calls."""
        return self.state.credits_spent

    def connection_json(self) -> str:
        """A connection to this emulator, as a value of ``AIRFLOW_CONN_KIE_DEFAULT``."""
        extra = {"upload_host": self.url}
        return json.dumps({"conn_type": "kie", "password": self.api_key, "host": self.url, "extra": extra})

    def play(
        self,
        *names: str,
        endpoint: str | None = None,
        kie_task_id: str | None = None,
        repeat: bool = False,
    ) -> None:
        """
        Queue answers for the next calls.

        :param names: names from :data:`~airflow_provider_kie.emulator.ANSWERS`, or of
            :data:`~airflow_provider_kie.emulator.cases.CASES` and
            :data:`~airflow_provider_kie.emulator.cases.SINGLES`
        :param endpoint: which calls get them; by default the endpoint of each answer
        :param kie_task_id: only for reads of this job
        :param repeat: keep giving the last one, until something else is queued for the same calls
        """
        self.state.answers.add(*names, endpoint=endpoint, kie_task_id=kie_task_id, repeat=repeat)

    def requests(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """
        The requests so far, oldest first, with keys masked.

        :param endpoint: only requests to this endpoint
        """
        return self.state.log.entries(endpoint)

    def callbacks(self) -> list[dict[str, Any]]:
        """The callbacks that were sent so far, oldest first, and how each was answered."""
        return self.state.callbacks.sent()

    def create_conversion(
        self, music_task_id: str = "music-1", audio_id: str = "audio-1", *, finished: bool = False
    ) -> str:
        """
        Start a WAV conversion without a submit, and without cost.

        :param music_task_id: the music task that made the track; one that begins with ``fail`` ends in failure
        :param audio_id: the track
        :param finished: whether it has ended already
        :return: its KIE task id
        """
        return self.state.create_conversion(music_task_id, audio_id, finished=finished)

    def create_job(self, family: str, /, finished: bool = False, **input: object) -> str:  # noqa: A002  KIE's word
        """
        Start a job of any family without a submit, and without cost.

        :param family: the family's name, such as ``jobs`` or ``music``
        :param finished: whether it has ended already
        :param input: the fields of a submit; for ``jobs`` the ``model`` and the fields of ``input``. A prompt, name,
            title, text or music task that begins with ``fail`` ends in failure
        :return: its KIE task id
        :raises LookupError: there is no such family
        """
        body = {"model": input.pop("model", ""), "input": input} if family_named(family).on_market else input
        return self.state.create_job(family, body, finished=finished)

    def expire_links(self, kie_task_id: str, *, fresh: bool = False) -> None:
        """
        Make all links to the files of a job dead: the file host answers 404.

        :param kie_task_id: the job
        :param fresh: whether the files are still there. If so, the job's next record has new links to them, and
            download-url takes old links and new ones; if not, the record keeps the dead links, which download-url
            refuses
        """
        self.state.links.expire(kie_task_id, fresh=fresh)

    def configure(self, /, **settings: Unpack[SettingsArguments]) -> None:
        """
        Change settings; running jobs keep their time.

        :param settings: see :class:`~airflow_provider_kie.emulator.state.Settings`
        """
        self.state.configure(**settings)

    def reset(self) -> None:
        """Forget everything, and return to the initial settings."""
        self.state.reset()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
