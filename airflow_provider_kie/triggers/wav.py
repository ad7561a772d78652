# SPDX-License-Identifier: Apache-2.0
"""The trigger that waits for a WAV conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.api.wav import row_of
from airflow_provider_kie.triggers.event import write_wav_event
from airflow_provider_kie.triggers.job import KieJobTrigger

if TYPE_CHECKING:
    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.hooks.kie_async import KieAsyncHook

__all__ = ["WavConversionTrigger"]


class WavConversionTrigger(KieJobTrigger):
    """
    Wait for a WAV conversion on the triggerer's event loop, and fire exactly one event, whatever happens.

    Its path, arguments and event are those of the versions without other families, because all three are stored.

    :param kie_task_id: the WAV task.
    :param kie_conn_id: the Airflow connection of type ``kie``.
    :param poll_interval: seconds between two polls; each is jittered by a tenth.
    :param deadline: when the wait ends, in epoch seconds; None for ``timeout`` seconds from when the trigger starts.
    :param timeout: seconds for the whole wait.
    :param exponential_backoff: double the interval from poll to poll.
    :param max_wait: upper limit of the doubled interval, in seconds.
    :param route: how the conversion was submitted, ``"wav"`` or ``"jobs"``; None for the connection's ``wav_route``.
    """

    _write_event = staticmethod(write_wav_event)

    def __init__(
        self,
        kie_task_id: str,
        kie_conn_id: str,
        poll_interval: float,
        deadline: float | None,
        timeout: float,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        route: str | None = None,
    ) -> None:
        super().__init__(
            kie_task_id,
            kie_conn_id,
            poll_interval,
            deadline,
            timeout,
            exponential_backoff,
            max_wait,
            family=WAV.name,
        )
        self.route = route

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments with which the trigger is built again."""
        path, arguments = super().serialize()
        del arguments["family"]
        # Workers and triggerers are not upgraded at the same moment, so a new argument is stored only if it is set.
        return path, arguments | ({"route": self.route} if self.route else {})

    def _row_to_read(self, row: Family, hook: KieAsyncHook) -> Family:
        return row_of(self.route or hook.settings.wav_route)
