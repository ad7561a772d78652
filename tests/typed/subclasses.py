# SPDX-License-Identifier: Apache-2.0
"""A subclass of every public class, as a user may write it; tests/airflow/test_subclasses.py runs them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowSkipException, Context, PokeReturnValue, XComArg
from airflow.triggers.base import TriggerEvent

from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.wav import Submitted, WavConversion
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.hooks.kie_async import KieAsyncHook
from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator
from airflow_provider_kie.triggers.wav import WavConversionTrigger

T = TypeVar("T")


class StudioHook(KieHook):
    """A hook with a connection of its own, that says whose money it spends."""

    conn_name_attr = "studio_conn_id"
    default_conn_name = "studio_default"
    conn_type = "studio"
    hook_name = "Studio"

    def __init__(self, kie_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(kie_conn_id, **kwargs)
        self.tracks: list[str] = []

    def submit_wav_conversion(self, music_task_id: str, audio_id: str, callback_url: str | None = None) -> Submitted:
        self.tracks.append(audio_id)
        return super().submit_wav_conversion(music_task_id, audio_id, callback_url)


class ConvertForClient(ConvertToWavOperator):
    """Another connection, another hook, another template field, another XCom."""

    template_fields: Sequence[str] = (*ConvertToWavOperator.template_fields, "client")

    def __init__(
        self, *, client: str | XComArg, kie_conn_id: str = StudioHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(kie_conn_id=kie_conn_id, **kwargs)
        self.client = client

    @cached_property
    def hook(self) -> StudioHook:
        return StudioHook(self.kie_conn_id)

    def execute(self, context: Context) -> str:
        """Name the client before anything is paid for."""
        context["ti"].xcom_push(key="client", value=self.client)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> str:
        return f"{super().execute_complete(context, event)}#{self.client}"


# [START sensor]
class WeekdaySensor(WavConversionSensor):
    template_fields: Sequence[str] = (*WavConversionSensor.template_fields, "day")

    def __init__(self, *, day: str | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.day = day

    def poke(self, context: Context) -> bool | PokeReturnValue:
        if self.day == "Sunday":
            raise AirflowSkipException("no mastering on Sundays")
        return super().poke(context)


# [END sensor]


class MarkedSensor(WeekdaySensor):
    """A subclass of a subclass, which changes how the wait begins and ends."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.poke_interval = 0.05

    def execute(self, context: Context) -> WavConversion:
        """Mark what needed no deferral."""
        return self._marked(super().execute(context))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> WavConversion:
        return self._marked(super().execute_complete(context, event))

    def _marked(self, conversion: WavConversion) -> WavConversion:
        return {**conversion, "music_id": f"{self.day}: {conversion['music_id']}"}


class UrlWithoutQuery(WavUrlOperator):
    def execute(self, context: Context) -> str:
        """Return the URL without what may be secret."""
        return super().execute(context).partition("?")[0]


class ArchiveForClient(WavToObjectStorageOperator):
    """A destination that the constructor makes of an argument of its own."""

    template_fields: Sequence[str] = (*WavToObjectStorageOperator.template_fields, "client")

    def __init__(self, *, client: str, folder: str, **kwargs: Any) -> None:
        super().__init__(destination=f"{folder}/{client}.wav", **kwargs)
        self.client = client


class TaggedTrigger(WavConversionTrigger):
    """Another argument, and another event."""

    def __init__(self, tag: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tag = tag

    def serialize(self) -> tuple[str, dict[str, Any]]:
        path, arguments = super().serialize()
        return path, {**arguments, "tag": self.tag}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        async for event in super().run():
            yield TriggerEvent({**event.payload, "tag": self.tag})  # type: ignore[no-untyped-call]  # Airflow's own


class CountingAsyncHook(KieAsyncHook):
    def __init__(self, settings: KieSettings, check: ssl.SSLContext | bool) -> None:
        super().__init__(settings, check)
        self.calls = 0

    async def attempt(self, call: Call[T]) -> T:
        self.calls += 1
        return await super().attempt(call)
