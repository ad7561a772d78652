# SPDX-License-Identifier: Apache-2.0
"""
What the commit d3aa978 has stored is read, and what it has to read is written as it knows it.

Workers and triggerers are not replaced in one moment, so both directions count. The literals below are what that commit
wrote on Airflow 3.3.2.
"""

from __future__ import annotations

import json
from pkgutil import resolve_name

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.api.wav import as_conversion
from airflow_provider_kie.durable import StoredEntry
from airflow_provider_kie.money import Resume, Submit, next_try
from airflow_provider_kie.triggers.event import read_event, write_wav_event
from airflow_provider_kie.triggers.wav import WavConversionTrigger
from airflow_provider_kie.waiting.verdict import Done, Failed

TRIGGER = """["airflow_provider_kie.triggers.wav.WavConversionTrigger", {"kie_task_id": "988e00aa", "kie_conn_id":
"kie_default", "poll_interval": 10.0, "deadline": 1790000000.0, "timeout": 3600.0, "exponential_backoff": true,
"max_wait": 300.0}]"""
START_TRIGGER_ARGS = """{"trigger_cls": "airflow_provider_kie.triggers.wav.WavConversionTrigger", "trigger_kwargs":
{"kie_task_id": "{{ ti.xcom_pull(task_ids='submit', key='return_value', map_indexes=-1) }}", "kie_conn_id":
"kie_default", "poll_interval": 60.0, "deadline": null, "timeout": 604800.0, "exponential_backoff": false, "max_wait":
null}, "next_method": "execute_complete", "next_kwargs": null, "timeout": 604920.0}"""
SUCCESS = """{"status": "success", "conversion": {"kie_task_id": "988e00aa", "music_id": "e231", "music_index": 0,
"status": "SUCCESS", "wav_url": "https://tempfile.example/s/1.wav", "create_time": "2025-07-29T10:35:37+00:00",
"complete_time": null, "error_code": null, "error_message": null}, "warning": "odd"}"""
FAILURE = """{"status": "failed", "error": {"type": "KieConversionFailedError", "problem": "The conversion failed with
 status GENERATE_WAV_FAILED: code 500", "code": 500, "kie_task_id": "988e00aa", "conn_id": "kie_default",
"retry_after": null, "existing_kie_task_id": null}}""".replace("\n status", " status")
SERIALIZED_LINKS = {"KIE logs": "_link_KieLogsLink", "WAV file": "_link_WavFileLink"}
TRACK = {"music_task_id": "music", "audio_id": "track"}


def test_a_stored_trigger_is_built_and_written_the_same():
    path, arguments = json.loads(TRIGGER)
    assert resolve_name(path)(**arguments).serialize() == (path, arguments)


def test_a_trigger_of_a_serialized_dag_is_built():
    stored = json.loads(START_TRIGGER_ARGS)
    trigger = resolve_name(stored["trigger_cls"])(**stored["trigger_kwargs"])
    assert set(trigger.serialize()[1]) == set(stored["trigger_kwargs"])


def test_a_success_is_read_and_written_the_same():
    event = json.loads(SUCCESS)
    end = read_event(event)
    assert isinstance(end, Done)
    assert as_conversion(end.job) == event["conversion"]
    assert write_wav_event(end) == event


def test_a_failure_is_read_and_written_the_same():
    event = json.loads(FAILURE)
    end = read_event(event)
    assert isinstance(end, Failed)
    assert type(end.error) is e.KieConversionFailedError
    assert write_wav_event(end) == event


def test_no_event_of_a_wav_conversion_has_a_new_key():
    known = set(json.loads(FAILURE)["error"])
    trigger = WavConversionTrigger("988e00aa", "kie_default", 10.0, None, 3600.0)
    assert set(trigger.serialize()[1]) == set(json.loads(TRIGGER)[1])
    for error in (e.KieNotFoundError("x", family=WAV.tag), e.KieUnreadableAnswerError("x", family=WAV.tag)):
        assert set(write_wav_event(Failed(error))["error"]) == known


@pytest.mark.parametrize(
    ("kept", "decision"),
    [
        (TRACK | {"kie_task_id": "988e00aa"}, Resume("988e00aa")),
        (TRACK | {"kie_task_id": None}, Submit()),
        ({"music_task_id": "music", "audio_id": "another", "kie_task_id": "988e00aa"}, Submit()),
    ],
)
def test_a_store_entry_means_what_it_meant(kept, decision):
    class Store(dict):
        def set(self, key, value, *, retention):
            self[key] = value

    store = Store(kie_wav_conversion=kept)
    stored = StoredEntry({"task_state_store": store}, WAV, "kie_wav_conversion", TRACK)
    assert next_try(WAV, stored.load(), TRACK) == decision
    stored.commit("new-id")
    assert store["kie_wav_conversion"].items() >= (TRACK | {"kie_task_id": "new-id"}).items()


def test_the_links_of_a_serialized_dag_exist():
    from airflow_provider_kie.operators.wav import ConvertToWavOperator

    links = {link.name: f"_link_{type(link).__name__}" for link in ConvertToWavOperator.operator_extra_links}
    assert links == SERIALIZED_LINKS
