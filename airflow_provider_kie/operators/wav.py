# SPDX-License-Identifier: Apache-2.0
"""The operators that submit a WAV conversion and that fetch its URL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XComArg, conf

from airflow_provider_kie.api.families import JOBS
from airflow_provider_kie.api.fields import check_id, is_blank
from airflow_provider_kie.api.wav import as_conversion, check_route, convert_to_wav, id_in, row_of
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.durable import StoredEntry
from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.links.kie import KieLogsLink, WavFileLink
from airflow_provider_kie.operators.submit import SubmitOperator
from airflow_provider_kie.tasks import JobTask, as_rendered
from airflow_provider_kie.triggers.wav import WavConversionTrigger
from airflow_provider_kie.waiting.verdict import Failed, conclude, finished

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.api.job import KieJob

__all__ = ["ConvertToWavOperator", "WavUrlOperator"]

#: The key of the conversion in the task's state store.
STORE_KEY = "kie_wav_conversion"


class _WavTask(JobTask):
    """What the WAV operators share."""

    operator_extra_links = (KieLogsLink(), WavFileLink())
    route: str | None

    @property
    def row(self) -> Family:
        """The family of the job; if the connection, and so its route, cannot be read, the one without a guard."""
        try:
            return self.hook.wav_route(self.route)
        except KieError:
            return row_of(self.route or JOBS.name)

    def _result(self, context: Context, job: KieJob) -> str:
        conversion = as_conversion(job)
        context["ti"].xcom_push(key="wav_conversion", value=dict(conversion))
        self.file_url = str(conversion["wav_url"])
        return self.file_url


class ConvertToWavOperator(_WavTask, SubmitOperator[str]):
    """
    Submit the WAV conversion of one track, and by default wait for it.

    Pushes ``kie_task_id`` to XCom as soon as it is known. When it waited, it pushes ``wav_conversion`` and returns
    the WAV URL; when it did not, it returns the KIE task id, for a
    :class:`~airflow_provider_kie.sensors.wav.WavConversionSensor` to wait for.

    :param music_task_id: the music task that made the track. (templated)
    :param audio_id: the track: ``response.sunoData[].id`` of the music task. (templated)
    :param route: ``"wav"``: by ``/wav/generate``, where KIE's documentation says that a second conversion of a track is
        refused. ``"jobs"``: by the model of KIE's Market, where it may be charged again. Default is the connection's
        ``wav_route``.
    :param callback_url: where KIE also reports the end; default is the connection's. (templated)
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param wait_for_completion: wait for the file; otherwise return after the submit.
    :param deferrable: wait in the triggerer instead of a worker slot.
    :param poll_interval: seconds or a ``timedelta`` between two polls.
    :param timeout: seconds or a ``timedelta`` to wait at most; more than the 10 minutes after which KIE itself
        gives up.
    :param durable: on Airflow 3.3 and later, keep the KIE task id in the task's state store, so that a retry resumes
        the conversion that an earlier try submitted, in every mode. Below 3.3 only KIE's own refusal of a second
        conversion guards a retry, so there a time-out is not retried: its ``kie_task_id`` would be lost.
    :param on_unknown_submit: what a try does where an earlier submit may have been accepted: ``"fail"`` (the default by
        the route ``jobs``) or ``"resubmit"`` (by the route ``wav``).
    :param ledger: URL of a folder that remembers jobs on every Airflow; by default the connection's. False for none.
        (templated)
    """

    template_fields: Sequence[str] = ("music_task_id", "audio_id", "callback_url", "ledger", "kie_conn_id")

    def __init__(
        self,
        *,
        music_task_id: str | XComArg,
        audio_id: str | XComArg,
        route: str | None = None,
        callback_url: str | XComArg | None = None,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta = 30.0,
        timeout: float | timedelta = 3600.0,
        durable: bool = True,
        on_unknown_submit: str | None = None,
        ledger: str | bool | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kie_conn_id=kie_conn_id,
            wait_for_completion=wait_for_completion,
            deferrable=deferrable,
            poll_interval=poll_interval,
            timeout=timeout,
            durable=durable,
            on_unknown_submit=on_unknown_submit,
            ledger=ledger,
            **kwargs,
        )
        self.route = check_route(route)
        self.music_task_id = as_rendered(music_task_id)
        self.audio_id = as_rendered(audio_id)
        self.callback_url = as_rendered(callback_url)

    @property
    def _callback(self) -> str | None:
        return None if is_blank(self.callback_url) else self.callback_url

    def _check(self) -> None:
        url = self._callback or self.hook.settings.callback_url
        convert_to_wav(self.music_task_id, self.audio_id, url, self.hook.wav_route(self.route))

    def _send(self) -> str:
        track = (self.music_task_id, self.audio_id, self._callback)
        if self.route is None:  # a subclass of the hook may override this method
            return self.hook.submit_wav_conversion(*track).kie_task_id
        return self.hook.submit_wav_by_route(self.route, *track).kie_task_id

    def _stored_entry(self, context: Context) -> StoredEntry:
        track = {name: check_id(name, getattr(self, name)) for name in ("music_task_id", "audio_id")}
        account = {"account": self.hook.settings.payer, "base_url": self.hook.settings.base_url}
        return StoredEntry(context if self.durable else None, self.row, STORE_KEY, track | account)

    def _trigger(self, kie_task_id: str, poll_interval: float, timeout: float) -> WavConversionTrigger:
        return WavConversionTrigger(kie_task_id, self.kie_conn_id, poll_interval, None, timeout, route=self.route)

    def _announce_submit(self, kie_task_id: str) -> None:
        self.log.info("Track %s is converted by WAV task %s.", self.audio_id, kie_task_id)

    def _why_resubmit(self, earlier: Failed) -> str:
        return f"The track is submitted again, because the earlier try's conversion ended: {earlier.error}"


class WavUrlOperator(_WavTask):
    """
    Push the WAV URL of a finished conversion to XCom.

    Does not wait: a running conversion is an error, which ``retries`` may cure; a failed one is final.

    :param kie_task_id: the WAV task: the id that the submit of the conversion returned, not the music task's; or a
        whole :class:`~airflow_provider_kie.api.job.KieJob` or conversion. (templated)
    :param route: how the conversion was submitted, ``"wav"`` or ``"jobs"``. A conversion that is unknown by this route
        is also read by the other one. Default is the connection's ``wav_route``.
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    """

    template_fields: Sequence[str] = ("kie_task_id", "kie_conn_id")

    def __init__(
        self,
        *,
        kie_task_id: str | XComArg,
        route: str | None = None,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.route = check_route(route)
        self.kie_task_id = as_rendered(kie_task_id)
        self.kie_conn_id = as_rendered(kie_conn_id)

    def execute(self, context: Context) -> str:
        """
        Read the conversion and return its URL.

        :param context: Airflow's context.
        :raises KieNotReadyError: the conversion still runs.
        """
        kie_task_id, row = id_in(self.kie_task_id), self.hook.wav_route(self.route)
        end = finished(row, kie_task_id, self.hook.poll(row, kie_task_id, retry_reads=True))
        self._log_end(end)
        return self._result(context, conclude(end))
