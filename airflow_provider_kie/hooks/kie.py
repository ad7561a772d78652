# SPDX-License-Identifier: Apache-2.0
"""The hook, over ``requests``; its async counterpart is :mod:`airflow_provider_kie.hooks.kie_async`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from os import PathLike
from typing import TYPE_CHECKING, Any

import requests

from airflow_provider_kie import connection
from airflow_provider_kie.api import common, single, wav
from airflow_provider_kie.api.call import Call, Repeat
from airflow_provider_kie.api.families import JOBS, WAV, find_family
from airflow_provider_kie.api.family import Family
from airflow_provider_kie.api.job import KieJob, Submitted, read_job, submit_job
from airflow_provider_kie.api.upload import LARGEST_UPLOAD, upload_file
from airflow_provider_kie.api.wav import WavConversion
from airflow_provider_kie.exceptions import KieError, KieMaybeSubmittedError, named
from airflow_provider_kie.hooks.base import KieBaseHook
from airflow_provider_kie.hooks.source import body_of
from airflow_provider_kie.money import Outcome, outcome_of, stops_after_unknown
from airflow_provider_kie.waiting.pace import as_seconds
from airflow_provider_kie.waiting.verdict import conclude

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

__all__ = ["KieHook"]


class KieHook(KieBaseHook):
    """
    Talk to KIE.ai over ``requests``.

    Every method raises a :class:`~airflow_provider_kie.exceptions.KieError` that says what went wrong and what to
    do. Free calls are repeated a few times after transient errors; a submit only if that cannot be charged twice.

    :param kie_conn_id: the Airflow connection of type ``kie``.
    """

    conn_name_attr = "kie_conn_id"
    default_conn_name = connection.DEFAULT_CONN_ID
    conn_type = connection.CONN_TYPE
    hook_name = connection.HOOK_NAME

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's extra fields for Airflow 2.11 and 3.1."""
        return connection.build_form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels of the form's standard fields for Airflow 2.11 and 3.1."""
        return connection.build_ui_field_behaviour()

    def get_conn(self) -> requests.Session:
        """Return the session; it sends the key to the connection's host and to no other."""
        return self._session

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> Any:
        """
        Send any request to KIE's API and return the envelope's ``data``, which is JSON.

        :param method: HTTP method. Everything but GET may cost credits, and so does one GET (a Veo video in 1080p).
            Such a request is repeated only if KIE certainly did nothing; otherwise the caller decides.
        :param path: path below the base URL, such as ``/api/v1/chat/credit``.
        :param params: query parameters.
        :param json: body.
        :raises KieError: the cause, as for every method.
        """
        return self.call(single.request(method, path, params, json))

    def convert_to_wav(self, music_task_id: str, audio_id: str, callback_url: str | None = None) -> str:
        """
        Submit a WAV conversion and return its KIE task id, or that of an earlier conversion that KIE names.

        :param music_task_id: the music task that made the track.
        :param audio_id: the track.
        :param callback_url: where KIE reports the end; default is the connection's.
        :raises KieAlreadyConvertedError: converted before, and KIE did not say under which id.
        """
        return self.submit_wav_conversion(music_task_id, audio_id, callback_url).kie_task_id

    def submit_wav_conversion(self, music_task_id: str, audio_id: str, callback_url: str | None = None) -> Submitted:
        """
        Do what :meth:`convert_to_wav` does, and also return whether an earlier conversion is reused.

        :param music_task_id: the music task that made the track.
        :param audio_id: the track.
        :param callback_url: where KIE reports the end; default is the connection's.
        """
        return self.submit_wav_by_route(None, music_task_id, audio_id, callback_url)

    def submit_wav_by_route(
        self, route: str | None, music_task_id: str, audio_id: str, callback_url: str | None = None
    ) -> Submitted:
        """
        Do what :meth:`submit_wav_conversion` does, by another route than the connection's.

        :param route: ``"wav"`` or ``"jobs"``, see :meth:`wav_route`.
        :param music_task_id: the music task that made the track.
        :param audio_id: the track.
        :param callback_url: where KIE reports the end; default is the connection's.
        """
        row = self.wav_route(route)
        url = callback_url or self._default_callback_url(row)
        submitted = self._submit(wav.convert_to_wav(music_task_id, audio_id, url, row))
        if submitted.reused:
            what = f"WAV task {submitted.kie_task_id}"
            self.log.warning("KIE has converted track %s before: %s is reused.", audio_id, what)
        return submitted

    def wav_route(self, route: str | None) -> Family:
        """
        Return the row of a WAV route.

        :param route: see :func:`~airflow_provider_kie.api.wav.row_of`; None for the connection's ``wav_route``.
        :raises KieValidationError: there is no such route.
        """
        return wav.row_of(route or self.settings.wav_route)

    def submit_job(
        self,
        *,
        input: Mapping[str, Any],  # noqa: A002 - KIE's own word for it
        model: str | None = None,
        family: str | None = None,
        callback_url: str | None = None,
    ) -> str:
        """
        Submit a job of any family, which is charged, and return its KIE task id.

        :param input: the fields of KIE's call, passed on unchecked.
        :param model: KIE's model, for a job of its Market.
        :param family: the family, for any other job.
        :param callback_url: where KIE reports the end; default is the field in ``input``, then the connection's.
        :raises KieMaybeSubmittedError: it may have been accepted, so another submit might be charged again.
        :raises KieError: the cause, as for every method.
        """
        call = self.submit_call(input=input, model=model, family=family, callback_url=callback_url)
        submitted = self._submit(call)
        if submitted.reused:
            self.log.warning("KIE has made the same before: %s is reused.", named(call.family, submitted.kie_task_id))
        return submitted.kie_task_id

    def _submit(self, call: Call[Submitted]) -> Submitted:
        try:
            return self.call(call)
        except KieError as error:
            guarded = call.repeat is Repeat.GUARDED
            if outcome_of(error) is not Outcome.UNKNOWN or not stops_after_unknown(guarded, on_unknown_submit=None):
                raise
            raise KieMaybeSubmittedError(error.problem, conn_id=error.conn_id, family=call.family) from error

    def submit_call(
        self,
        *,
        input: Mapping[str, Any],  # noqa: A002 - KIE's own word for it
        model: str | None = None,
        family: str | None = None,
        callback_url: str | None = None,
    ) -> Call[Submitted]:
        """
        Return what :meth:`submit_job` sends, without sending it.

        :param input: the fields of KIE's call.
        :param model: KIE's model, for a job of its Market.
        :param family: the family, for any other job.
        :param callback_url: where KIE reports the end.
        """
        row = find_family(family or JOBS.name)
        default = self._default_callback_url(row)
        return submit_job(row, input, model=model, callback_url=callback_url, default_callback_url=default)

    def _default_callback_url(self, row: Family) -> str | None:
        own = self.settings.callback_url
        return own if row.callback or own != connection.DEFAULT_CALLBACK_URL else None

    def get_job(self, kie_task_id: str, family: str = JOBS.name) -> KieJob | None:
        """
        Read a job, which is free; None for an unknown id.

        :param kie_task_id: the job.
        :param family: its family; no other family's path finds the id.
        """
        row = find_family(family)
        job = self.call(read_job(row, kie_task_id))
        return self.call(read_job(row.also, kie_task_id)) if job is None and row.also else job

    def wait_for_job(
        self,
        kie_task_id: str,
        family: str = JOBS.name,
        *,
        poll_interval: float | timedelta | None = None,
        timeout: float | timedelta = 3600.0,
    ) -> KieJob:
        """
        Wait in this process until a job has its result.

        :param kie_task_id: the job.
        :param family: its family.
        :param poll_interval: seconds or a ``timedelta`` between two polls; by default what suits the family.
        :param timeout: seconds or a ``timedelta`` to wait at most.
        :raises KieWaitTimeoutError: not finished in time; names the last status or trouble.
        """
        row = find_family(family)
        interval = row.interval if poll_interval is None else as_seconds("poll_interval", poll_interval)
        return conclude(self.wait(row, kie_task_id, poll_interval=interval, timeout=as_seconds("timeout", timeout)))

    def get_wav_conversion(self, kie_task_id: str) -> WavConversion | None:
        """
        Read a WAV conversion; None for an unknown id.

        :param kie_task_id: the WAV task.
        """
        job = self.get_job(kie_task_id, WAV.name)
        return wav.as_conversion(job) if job else None

    def upload_file(
        self,
        source: str | PathLike[str] | ObjectStoragePath,
        *,
        source_conn_id: str | None = None,
        upload_path: str = "airflow",
        file_name: str | None = None,
        max_bytes: int = LARGEST_UPLOAD,
    ) -> str:
        """
        Upload a file to KIE's file host, which is free, and return its link, which works for one to three days.

        The file is read twice: for its digest, and while it is sent. Memory stays flat whatever its size.

        :param source: a URL or a path that ``ObjectStoragePath`` takes.
        :param source_conn_id: the storage's Airflow connection; the URL may also name it.
        :param upload_path: the folder at KIE.
        :param file_name: the name at KIE; an equal one replaces the earlier file. By default it is made of the content,
            so that equal content has an equal link.
        :param max_bytes: the largest file that is accepted.
        :raises KieFileTooLargeError: the file is larger; nothing was sent.
        """
        body = body_of(source, source_conn_id, file_name=file_name, upload_path=upload_path, max_bytes=max_bytes)
        return self.call(upload_file(body))["url"]

    def get_credits(self) -> float:
        """Return the account's remaining credits."""
        return self.call(common.credit())

    def get_download_url(self, url: str) -> str:
        """
        Return a direct link to a file that KIE generated; it works for 20 minutes, so do not store it.

        :param url: the file's URL as KIE gave it.
        :raises KieValidationError: KIE answers that the URL is not one of its files.
        """
        return self.call(common.download_url(url))

    def upscale_veo(self, kie_task_id: str, resolution: str, index: int = 0) -> str | None:
        """
        Request a finished Veo video in 1080p or 4K; return its link, or None while KIE is rendering.

        The first call starts the rendering and is charged. Call again for the result, as KIE asks, every 20 to 30
        seconds. Each call sends one request; an unknown outcome is raised, not repeated.

        :param kie_task_id: the Veo job.
        :param resolution: ``1080p`` or ``4k``.
        :param index: which of the job's videos.
        :raises KieValidationError: KIE does not know the job, or there is no such resolution.
        """
        return self.call(single.upscale_veo(kie_task_id, resolution, index))

    def boost_style(self, content: str) -> str:
        """
        Let KIE elaborate a style, which is charged each time, and return the text for a song's ``style``.

        :param content: the style in a few words.
        :raises KieJobFailedError: KIE answered without a text.
        """
        return self.call(single.boost_style(content))

    def recover_songs(self, music_task_id: str) -> str:
        """
        Start to recreate the links of a finished music job's songs; return the id for :meth:`get_recovered_songs`.

        :param music_task_id: the music job.
        :raises KieValidationError: KIE does not know it.
        """
        return self.call(single.recover_songs(music_task_id))

    def get_recovered_songs(self, recovery_task_id: str) -> list[dict[str, str | None]] | None:
        """
        Read what :meth:`recover_songs` has started, which is free.

        :param recovery_task_id: the id that it returned.
        :return: for each song ``audio_id``, ``url`` and ``error``; None while it runs, and for an unknown id.
        """
        return self.call(single.recovered_songs(recovery_task_id))

    def test_connection(self) -> tuple[bool, str]:
        """Check host and key by reading the credit balance, which is free; never raises."""
        try:
            balance = self.attempt(common.credit())
        except KieError as error:
            error.conn_id = None  # the form tests under a made-up id, which would only confuse
            return False, str(error)
        except Exception as error:
            self.log.exception("The connection test failed in an unexpected way")
            return False, f"{type(error).__name__}; see the log of the process that ran the test"
        return True, f"{self.settings.base_url} accepts the key; {balance:g} credits are left."

    def wait_for_wav_conversion(
        self, kie_task_id: str, *, poll_interval: float | timedelta, timeout: float | timedelta
    ) -> WavConversion:
        """
        Wait in this process until a conversion has its file.

        :param kie_task_id: the WAV task.
        :param poll_interval: seconds or a ``timedelta`` between two polls.
        :param timeout: seconds or a ``timedelta`` to wait at most.
        :raises KieWaitTimeoutError: not finished in time; names the last status or trouble.
        """
        interval = as_seconds("poll_interval", poll_interval)
        job = self.wait_for_job(kie_task_id, WAV.name, poll_interval=interval, timeout=timeout)
        return wav.as_conversion(job)
