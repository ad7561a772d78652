# SPDX-License-Identifier: Apache-2.0
"""The sensor that waits for a WAV conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.api.wav import WavConversion, as_conversion, check_route, id_in
from airflow_provider_kie.links.kie import KieLogsLink, WavFileLink
from airflow_provider_kie.sensors.job import WaitSensor
from airflow_provider_kie.triggers.wav import WavConversionTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.api.job import KieJob

__all__ = ["WavConversionSensor"]


class WavConversionSensor(WaitSensor):
    """
    Wait until a WAV conversion of KIE has its file, and push the conversion to XCom.

    Poke, reschedule and deferrable mode give the same XCom, the same errors and the same time-out. Reading is
    free, so the sensor can be cleared and run again at any time. A transient error (network, rate limit, maintenance)
    never ends the wait before its ``timeout``; a failed conversion, a refused key or an id that stays unknown for a
    minute ends it at once and is not retried.

    :param kie_task_id: the WAV task: the id that the submit of the conversion returned, not the music task's; or a
        whole :class:`~airflow_provider_kie.api.job.KieJob` or conversion. (templated)
    :param route: how the conversion was submitted, ``"wav"`` or ``"jobs"``. A conversion that is unknown by this route
        is also read by the other one. Default is the connection's ``wav_route``.
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param deferrable: wait in the triggerer instead of a worker slot. A conversion that is already finished costs
        no deferral.
    :param start_from_trigger: with ``deferrable``, start in the triggerer at once, without a worker that polls first.
        Only on Airflow 3.3 and later, with an id that is a literal or the output of another task, and not for a mapped
        task; elsewhere it has no effect, and the task's log says why.
    """

    template_fields: Sequence[str] = ("kie_task_id", "kie_conn_id")
    operator_extra_links = (KieLogsLink(), WavFileLink())
    row = WAV

    def __init__(self, *, route: str | None = None, **kwargs: Any) -> None:
        self.route = check_route(route)  # before Airflow's constructor, which reads start_trigger_args
        super().__init__(**kwargs)

    def _row_to_read(self) -> Family:
        return self.hook.wav_route(self.route)

    def _trigger(self, **arguments: Any) -> WavConversionTrigger:
        return WavConversionTrigger(**arguments, route=self.route)

    def _accept_family(self, job: Mapping[str, Any]) -> None:
        id_in(job)

    def _result(self, context: Context, job: KieJob) -> WavConversion:
        conversion = as_conversion(job)
        self.file_url = str(conversion["wav_url"])
        return conversion
