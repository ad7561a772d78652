# SPDX-License-Identifier: Apache-2.0
"""The pretend KIE without HTTP."""

from __future__ import annotations

import json

import pytest

from airflow_provider_kie.emulator import ANSWERS
from airflow_provider_kie.emulator.files import File
from airflow_provider_kie.emulator.state import EmulatorState


class Clock:
    now = 1_753_782_937.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> EmulatorState:
    return EmulatorState(clock=clock)


def track(number: int = 0, **changes: object) -> dict[str, object]:
    return {"taskId": f"music-{number}", "audioId": "audio", "callBackUrl": "https://example.com/cb", **changes}


def test_a_conversion_goes_from_pending_to_success(state: EmulatorState, clock: Clock) -> None:
    kie_task_id = state.submit(track()).data["taskId"]
    assert len(bytes.fromhex(kie_task_id)) == 16

    pending = state.record_info(kie_task_id).data
    assert pending["successFlag"] == "PENDING"
    assert pending["createTime"] == 1_753_782_937_000
    assert pending["response"] is pending["completeTime"] is pending["errorCode"] is None

    clock.now += 3.0
    done = state.record_info(kie_task_id).data
    assert done["successFlag"] == "SUCCESS"
    assert done["completeTime"] == 1_753_782_940_000
    assert done["response"] == {"audioWavUrl": state.wav_url(kie_task_id)}
    assert (done["musicId"], done["callbackUrl"]) == ("audio", "https://example.com/cb")


def test_a_music_task_called_fail_ends_in_failure(state: EmulatorState, clock: Clock) -> None:
    kie_task_id = state.submit(track(taskId="fail-1")).data["taskId"]
    assert state.record_info(kie_task_id).data["successFlag"] == "PENDING"
    clock.now += 3.0
    failed = state.record_info(kie_task_id).data
    assert (failed["successFlag"], failed["errorCode"]) == ("GENERATE_WAV_FAILED", 500)
    assert failed["response"] is None


@pytest.mark.parametrize(
    ("body", "code", "msg"),
    [
        *((None, 400, "not in JSON"), (["taskId"], 400, "not in JSON")),
        *((track(callBackUrl=given), 422, "Please enter callBackUrl.") for given in ("", None)),
        (track(audioId=7), 422, "Please enter audioId."),
        (track(taskId=" "), 422, "Please enter taskId."),
        (track(taskId="unknown-1"), 422, "Record does not exist"),
    ],
)
def test_a_wrong_submit_is_refused(state: EmulatorState, body: object, code: int, msg: str) -> None:
    verdict = state.submit(body)
    assert (verdict.code, verdict.http_status, verdict.accepted) == (code, 200, False)
    assert msg in verdict.msg
    assert verdict.body()["data"] is None
    assert state.accepted_submits == 0


def test_the_limit_counts_accepted_submits_in_ten_seconds(state: EmulatorState, clock: Clock) -> None:
    assert [state.submit(track(n)).code for n in range(20)] == [200] * 20
    refused = state.submit(track(20))
    assert (refused.code, refused.http_status, refused.accepted) == (429, 429, False)
    assert state.submit(track(0)).code == 409, "a known track is no new generation"

    clock.now += 9.9
    assert state.submit(track(20)).code == 429
    clock.now += 0.1
    assert state.submit(track(20)).code == 200, "the refused submits created nothing"

    state.configure(submits_per_window=None)
    assert {state.submit(track(n)).code for n in range(100, 150)} == {200}


def test_a_download_link_lives_for_twenty_minutes(state: EmulatorState, clock: Clock) -> None:
    link = state.download_url({"url": state.wav_url("988e00aa")}).data
    assert isinstance(link, str)
    path = link.removeprefix(state.base_url)
    clock.now += 20 * 60 - 1
    assert isinstance(state.links.find(path, ""), File)
    clock.now += 1
    assert state.links.find(path, "") == 403
    assert state.links.find("/d/never-given-out", "") == 403


@pytest.mark.parametrize("body", [{"url": "https://example.com/s/1.wav"}, {"url": 1}, {}, None, []])
def test_foreign_urls_are_refused(state: EmulatorState, body: object) -> None:
    assert state.download_url(body).body() == {"code": 422, "msg": "url is wrong", "data": None}


def test_a_conversion_without_a_submit_is_free(state: EmulatorState) -> None:
    kie_task_id = state.create_conversion("music-0", "audio", finished=True)
    assert state.record_info(kie_task_id).data["successFlag"] == "SUCCESS"
    assert state.create_conversion("music-0", "audio") == kie_task_id
    assert state.submit(track(0)).data == {"taskId": kie_task_id}
    assert (state.accepted_submits, state.credit().data) == (0, 5916.25)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("conversion_seconds", -1), ("conversion_seconds", "3"), ("credits", float("nan")), ("credits", True)),
        *(("conflict_names_id", 1), ("submits_per_window", 2.5), ("submits_per_window", -1), ("speed", 1)),
        ("window_seconds", -1),
    ],
)
def test_wrong_settings_are_named_and_change_nothing(state: EmulatorState, name: str, value: object) -> None:
    before = state.settings
    with pytest.raises(ValueError, match=name):
        state.configure(**{name: value})
    assert state.settings == before


def test_any_means_every_api_call_but_no_other_host(state: EmulatorState) -> None:
    state.answers.add("blocked", repeat=True)
    taken = [state.answers.take(endpoint, None) for endpoint in ("file", "upload", "submit", "credit")]
    assert [answer and answer.name for answer in taken] == [None, None, "blocked", "blocked"]


def test_a_misspelt_answer_suggests_similar_names(state: EmulatorState) -> None:
    with pytest.raises(LookupError, match=r"did you mean .*rate-limited"):
        state.answers.add("pending", "rate-limitted")
    with pytest.raises(ValueError, match="unknown endpoint"):
        state.answers.add("pending", endpoint="records")
    assert len(state.answers) == 0


def test_placeholders_are_filled_in_and_stay_json() -> None:
    for answer in ANSWERS.values():
        body = answer.render('a"b', "https://tempfile.example/s/1.wav?sig=1", 'k"y')
        assert not any(name in body for name in (b"<kie_task_id>", b"<wav_url>", b"<client_key>"))
    success = json.loads(ANSWERS["success"].render('a"b'))["data"]
    assert success["taskId"] == 'a"b'
    assert success["response"] == {"audioWavUrl": "https://tempfile.example/s/1.wav"}
    market = json.loads(ANSWERS["market-success"].render())["data"]["resultJson"]
    assert json.loads(market) == {"resultUrls": ["https://tempfile.example/s/1.wav"]}
    assert "sk-1234" in json.loads(ANSWERS["wrong-key-echoed"].render(client_key="sk-1234"))["msg"]
