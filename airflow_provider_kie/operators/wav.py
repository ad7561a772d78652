# SPDX-License-Identifier: Apache-2.0
"""The operators that submit a WAV conversion and that fetch its URL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, XComArg, conf

from airflow_provider_kie.api.call import check_id
from airflow_provider_kie.api.wav import convert_to_wav
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.durable import Memory
from airflow_provider_kie.exceptions import final
from airflow_provider_kie.links.kie import KieLogsLink, WavFileLink
from airflow_provider_kie.templates import as_rendered
from airflow_provider_kie.triggers.wav import ENDED_BY_AIRFLOW, NO_CANCEL, deferral, ended_by_airflow, verdict_of
from airflow_provider_kie.waiting import WORTH_A_NEW_SUBMIT, Done, Failed, Verdict, as_seconds, conclude, finished

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.hooks.kie import KieHook

__all__ = ["ConvertToWavOperator", "WavUrlOperator"]


class _KieOperator(BaseOperator):
    """What the operators share."""

    kie_conn_id: str
    operator_extra_links = (KieLogsLink(), WavFileLink())
    #: For the link, once this run of the task has it.
    wav_url: str = ""

    @cached_property
    def hook(self) -> KieHook:
        """The hook, imported when it is needed, to keep the parsing of DAG files fast."""
        from airflow_provider_kie.hooks.kie import KieHook

        return KieHook(self.kie_conn_id)

    def _finish(self, context: Context, verdict: Done | Failed) -> str:
        conversion = conclude(verdict)
        if isinstance(verdict, Done) and verdict.warning:
            self.log.warning("WAV task %s: %s", conversion["kie_task_id"], verdict.warning)
        context["ti"].xcom_push(key="wav_conversion", value=dict(conversion))
        self.log.info("WAV task %s is finished.", conversion["kie_task_id"])
        self.wav_url = str(conversion["wav_url"])
        return self.wav_url


class ConvertToWavOperator(_KieOperator):
    """
    Submit the WAV conversion of one track, and wait for it unless told otherwise.

    Pushes ``kie_task_id`` to XCom as soon as it is known. When it waited, it pushes ``wav_conversion`` and returns
    the WAV URL; when it did not, it returns the KIE task id, for a
    :class:`~airflow_provider_kie.sensors.wav.WavConversionSensor` to wait for.

    :param music_task_id: the music task that made the track. (templated)
    :param audio_id: the track: ``response.sunoData[].id`` of the music task. (templated)
    :param callback_url: where KIE reports the end besides; default is the connection's. (templated)
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param wait_for_completion: wait for the file; otherwise return after the submit.
    :param deferrable: wait in the triggerer instead of a worker slot.
    :param poll_interval: seconds or a ``timedelta`` between two looks at KIE.
    :param timeout: seconds or a ``timedelta`` to wait at the most; more than the 10 minutes after which KIE itself
        gives up.
    :param durable: on Airflow 3.3 and later, keep the KIE task id in the task's state store, so that a retry goes on
        with the conversion that an earlier try submitted, in every mode. Below 3.3 only KIE's own refusal of a
        second conversion guards a retry, so there a time-out is not retried: its ``kie_task_id`` would be lost.
    """

    template_fields: Sequence[str] = ("music_task_id", "audio_id", "callback_url", "kie_conn_id")

    def __init__(
        self,
        *,
        music_task_id: str | XComArg,
        audio_id: str | XComArg,
        callback_url: str | XComArg | None = None,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta = 30.0,
        timeout: float | timedelta = 3600.0,
        durable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.music_task_id = as_rendered(music_task_id)
        self.audio_id = as_rendered(audio_id)
        self.callback_url = as_rendered(callback_url)
        self.kie_conn_id = as_rendered(kie_conn_id)
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = as_seconds("poll_interval", poll_interval)
        self.timeout = as_seconds("timeout", timeout)
        self.durable = durable
        self._kie_task_id: str | None = None

    def execute(self, context: Context) -> str:
        """
        Submit, or go on with what an earlier try submitted; push the id; wait as told.

        :param context: Airflow's context.
        :raises KieValidationError: an argument is wrong; nothing was noted or sent.
        """
        # Needed only after the submit, when it is too late to complain; a cluster policy may have changed them.
        wait: dict[str, Any] = {name: as_seconds(name, getattr(self, name)) for name in ("poll_interval", "timeout")}
        track = check_id("music_task_id", self.music_task_id), check_id("audio_id", self.audio_id)
        memory = Memory(context if self.durable else None, *track)
        verdict = self._take_up(context, memory)
        if verdict is None or isinstance(verdict, Failed):
            self._submit(context, memory, verdict)
        kie_task_id = str(self._kie_task_id)
        if not self.wait_for_completion:
            return kie_task_id
        if isinstance(verdict, Done):
            return self._finish(context, verdict)
        if self.deferrable:
            self.defer(**deferral(kie_task_id=kie_task_id, kie_conn_id=self.kie_conn_id, **wait))
        return self._end_wait(context, self.hook.wait_for_verdict(kie_task_id, **wait))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """
        Go on after the trigger's event.

        :param context: Airflow's context.
        :param event: the trigger's event.
        """
        return self._end_wait(context, verdict_of(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> str:
        """
        Go on after the deferral, also where Airflow ended it, whose own error would be retried without the id.

        :param next_method: what to call.
        :param next_kwargs: with what.
        :param context: Airflow's context.
        """
        if next_method != ENDED_BY_AIRFLOW:
            url: str = super().resume_execution(next_method, next_kwargs, context)
            return url
        ti = context["ti"]
        kie_task_id = ti.xcom_pull(task_ids=self.task_id, key="kie_task_id", map_indexes=ti.map_index)
        return self._end_wait(context, ended_by_airflow(kie_task_id, self.kie_conn_id, next_kwargs))

    def on_kill(self) -> None:
        """Say what goes on after a user killed the task."""
        if self._kie_task_id:
            self.log.warning(NO_CANCEL, self._kie_task_id)

    def _take_up(self, context: Context, memory: Memory) -> Verdict | None:
        """Return how the earlier try's conversion stands: a failure that a new submit may cure, or None for none."""
        kie_task_id = memory.recall()
        if kie_task_id is None:
            return None
        self._know(context, kie_task_id)
        verdict = self.hook.look(kie_task_id, patient=True)
        if not isinstance(verdict, Failed):
            self.log.info("Going on with WAV task %s, which an earlier try submitted.", kie_task_id)
        elif isinstance(verdict.error, WORTH_A_NEW_SUBMIT):
            self.log.warning(
                "The track is submitted anew, because the earlier try's conversion ended: %s", verdict.error
            )
        else:
            raise verdict.error
        return verdict

    def _submit(self, context: Context, memory: Memory, earlier: Failed | None) -> None:
        # What cannot be sent must not leave a note, so it is checked before the hook does so.
        convert_to_wav(self.music_task_id, self.audio_id, self.callback_url or self.hook.settings.callback_url)
        memory.reserve()
        submitted = self.hook.submit_wav_conversion(self.music_task_id, self.audio_id, self.callback_url)
        memory.keep(submitted.kie_task_id)
        self._know(context, submitted.kie_task_id)
        if earlier and earlier.error.kie_task_id == submitted.kie_task_id:
            raise earlier.error  # KIE names the failed conversion again instead of starting another
        self.log.info("Track %s is converted by WAV task %s.", self.audio_id, submitted.kie_task_id)

    def _know(self, context: Context, kie_task_id: str) -> None:
        self._kie_task_id = kie_task_id
        context["ti"].xcom_push(key="kie_task_id", value=kie_task_id)

    def _end_wait(self, context: Context, verdict: Done | Failed) -> str:
        remembers = Memory(context if self.durable else None).lasts
        if isinstance(verdict, Failed) and not (remembers or isinstance(verdict.error, WORTH_A_NEW_SUBMIT)):
            # A retry would clear the id from XCom and submit again, which KIE may refuse without naming it.
            verdict = Failed(final(verdict.error))
        return self._finish(context, verdict)


class WavUrlOperator(_KieOperator):
    """
    Push the WAV URL of a finished conversion to XCom.

    Does not wait: a conversion that still runs is an error that Airflow's ``retries`` may cure; a failed one is
    final.

    :param kie_task_id: the WAV task: the id that KIE's ``/wav/generate`` gave, not the music task's. (templated)
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    """

    template_fields: Sequence[str] = ("kie_task_id", "kie_conn_id")

    def __init__(
        self, *, kie_task_id: str | XComArg, kie_conn_id: str | XComArg = DEFAULT_CONN_ID, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.kie_task_id = as_rendered(kie_task_id)
        self.kie_conn_id = as_rendered(kie_conn_id)

    def execute(self, context: Context) -> str:
        """
        Read the conversion and return its URL.

        :param context: Airflow's context.
        :raises KieNotReadyError: the conversion still runs.
        """
        return self._finish(context, finished(self.kie_task_id, self.hook.look(self.kie_task_id, patient=True)))
