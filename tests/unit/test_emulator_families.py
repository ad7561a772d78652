# SPDX-License-Identifier: Apache-2.0
"""The emulator's families: what they refuse, charge, answer and make, alone and over HTTP."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_kie.api import families as client
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.job import KieJob, read_job
from airflow_provider_kie.emulator import KieEmulator
from airflow_provider_kie.emulator.families import FAMILIES
from airflow_provider_kie.emulator.results import model_named
from airflow_provider_kie.emulator.state import EmulatorState, Settings
from tests.jobs import IMAGE_MODEL, job_of
from tests.unit.test_emulator_state import Clock

CALLBACK = "https://example.com/cb"
#: One family for each dialect, and what its file is.
DIALECTS = {
    "jobs": ("image/png", b"\x89PNG"),
    "music": ("audio/mpeg", b"ID3"),
    "stems": ("audio/mpeg", b"ID3"),
    "veo": ("video/mp4", b"\0\0\0\x1cftyp"),
    "runway": ("video/mp4", b"\0\0\0\x1cftyp"),
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> EmulatorState:
    return EmulatorState(clock=clock, settings=Settings(submits_per_window=None))


def body_of(family: str, *, model: str = IMAGE_MODEL, **changes: object) -> dict[str, object]:
    given = job_of(family, **changes)["input"]
    return {"model": model, "input": given} if family == "jobs" else {"callBackUrl": CALLBACK} | given


def read(state: EmulatorState, family: str, kie_task_id: str) -> KieJob | None:
    body = json.dumps(state.record_info(kie_task_id, family).body()).encode()
    return read_job(client.FAMILIES[family], kie_task_id).read(Response(200, body))


def made_by(state: EmulatorState, family: str, body: dict[str, object]) -> KieJob:
    job = read(state, family, state.create_job(family, body, finished=True))
    assert job is not None
    return job


PAGE = Path(__file__).resolve().parents[2] / "docs" / "emulator.md"


def test_the_page_lists_families_prices_and_second_submits() -> None:
    rows = re.findall(r"^\| (`.+?`) \| .+ \| (by model|[\d.]+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    told = {name: row[1:] for row in rows for name in re.findall("`(.+?)`", row[0])}
    second = {
        name: f"refused with {row.conflict[0]}, naming the first job" for name, row in FAMILIES.items() if row.once
    }
    assert told == {
        name: ("by model" if row.on_market else f"{row.price:g}", second.get(name, "charged again"))
        for name, row in FAMILIES.items()
    }


# What is refused


@pytest.mark.parametrize(
    ("family", "without", "says"),
    [
        ("lyrics", "callBackUrl", "Please enter callBackUrl."),
        ("replace-section", "fullLyrics", "fullLyrics cannot be blank"),
        ("jobs", "model", "Please enter model."),
    ],
)
def test_a_missing_field_is_refused_in_kies_words(state: EmulatorState, family: str, without: str, says: str) -> None:
    body = {name: value for name, value in body_of(family).items() if name != without}
    assert state.submit(body, family).body() == {"code": 422, "msg": says, "data": None}
    assert (state.accepted_submits, state.credits_spent) == (0, 0.0)


def test_unknown_parents(state: EmulatorState) -> None:
    for family in ("wav", "stems", "midi", "music-video", "cover-image"):
        refused = state.submit(body_of(family, taskId="unknown-1"), family)
        assert (family, refused.code) == (family, 422)
        assert refused.msg.lower().endswith("record does not exist")
    for family in ("runway-extend", "veo-extend", "music-extend"):
        assert state.submit(body_of(family, taskId="unknown-1"), family).accepted


def test_a_paused_model_is_refused_and_a_dead_one_fails(state: EmulatorState) -> None:
    paused = state.submit(body_of("jobs", model="sora-2-text-to-video"), "jobs")
    assert (paused.code, paused.msg) == (500, "This interface is temporarily paused")
    job = made_by(state, "jobs", body_of("jobs", model="elevenlabs/sound-effect-v2"))
    assert (job["status"], job["error_code"], job["credits"]) == ("fail", 500, 0.0)


def test_a_job_is_known_at_the_path_of_its_family_alone(state: EmulatorState) -> None:
    for family in FAMILIES:
        kie_task_id = state.create_job(family, body_of(family))
        finds_it = {other for other in FAMILIES if state.record_info(kie_task_id, other).data}
        assert finds_it == {other for other in FAMILIES if FAMILIES[other].query == FAMILIES[family].query}


# What is charged


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_submit_is_refused_or_charged_again(state: EmulatorState, family: str) -> None:
    first, second = (state.submit(body_of(family), family) for _ in range(2))
    once = {"wav": 409, "cover-image": 400}
    assert second.code == once.get(family, 200)
    assert (second.data == first.data) is (family in once)
    assert state.accepted_submits == (1 if family in once else 2)
    assert state.credits_spent == pytest.approx(5916.25 - state.credit().data)
    assert state.credits_spent > 0


def test_limit_and_balance_hold_for_all_families(clock: Clock) -> None:
    state = EmulatorState(clock=clock, settings=Settings(submits_per_window=3, credits=13.0))
    codes = [state.submit(body_of(family), family).code for family in ("lyrics", "music", "wav", "veo")]
    assert codes == [200, 200, 200, 429]
    clock.now += 10
    assert state.submit(body_of("veo"), "veo").code == 402
    assert (state.accepted_submits, state.credits_spent) == (3, 12.8)
    assert state.credit().data == pytest.approx(0.2)
    state.reset()
    assert state.credits_spent == 0


def test_a_market_job_costs_what_its_model_costs(state: EmulatorState) -> None:
    for model in ("ai-music-api/generate", "ai-music-api/convert-to-wav-format", "omnihuman-1-5/subject-detection"):
        state.submit(body_of("jobs", model=model), "jobs")
    assert state.credits_spent == 12.4


# What is made


def test_a_song_has_two_tracks_that_can_be_converted(state: EmulatorState) -> None:
    kie_task_id = state.submit(body_of("music", title="A"), "music").data["taskId"]
    state.configure(conversion_seconds=0)
    job = made_by(state, "music", body_of("music"))
    assert [file["url"].partition("?")[0][-4:] for file in job["files"]] == [".mp3", ".mp3"]
    assert len({track["audio_id"] for track in job["tracks"]}) == 2
    assert read(state, "music", job["kie_task_id"]) == job, "each reading names the same songs"
    assert kie_task_id != job["kie_task_id"]
    for track in job["tracks"]:
        source = {"taskId": track["music_task_id"], "audioId": track["audio_id"]}
        for family in ("wav", "stems"):
            assert state.submit(body_of(family, **source), family).accepted


def test_links_of_inputs_are_no_results(state: EmulatorState) -> None:
    job = made_by(state, "flux-kontext", body_of("flux-kontext", inputImage="https://example.com/in.png"))
    assert [file["url"].startswith(state.base_url) for file in job["files"]] == [True]


@pytest.mark.parametrize(
    ("model", "files"),
    [
        *((model, ["result.png"]) for model in (IMAGE_MODEL, "topaz/image-upscale", "a model\nof tomorrow")),
        *((model, ["result.mp4"]) for model in ("wan/2-6-image-to-video", "kling-3.0/video", "topaz/video-upscale")),
        ("grok-imagine/text-to-image", ["result.png"] * 6),
        ("bytedance/seedance-2", ["result.mp4", "last_frame.png"]),
        ("google/gemini-3-8-flash-tts", ["result.wav"]),
        ("elevenlabs/text-to-dialogue-v3", ["result.mp3"]),
        ("ai-music-api/convert-to-wav-format", ["result.wav"]),
        ("ai-music-api/generate", ["result.mp3"] * 2),
        ("ai-music-api/create-music-video", ["result.mp4"]),
        *((f"ai-music-api/{name}", []) for name in ("generate-lyrics", "boost-music-style")),
        ("elevenlabs/speech-to-text", []),
        ("omnihuman-1-5/subject-detection", ["mask.png"]),
        ("omnihuman-1-5/human-identification", []),
    ],
)
def test_a_market_job_makes_what_its_model_makes(state: EmulatorState, model: str, files: list[str]) -> None:
    job = made_by(state, "jobs", body_of("jobs", model=model, return_last_frame=True))
    assert [file["name"] + file["url"].partition("?")[0][-4:] for file in job["files"]] == files
    assert files or isinstance(job["result"], dict)
    assert job["credits"] == model_named(model).price
    assert len(job["tracks"]) == (2 if model.endswith("api/generate") else 0)


ECHOES = {
    "jobs": lambda record: json.loads(json.loads(record["param"])["input"]),
    "music": lambda record: json.loads(record["param"]),
    "lyrics": lambda record: json.loads(record["param"]),
    "veo": lambda record: json.loads(record["paramJson"]),
    "flux-kontext": lambda record: json.loads(record["paramJson"]),
    "runway": lambda record: record["generateParam"],
}


@pytest.mark.parametrize("family", ECHOES)
@pytest.mark.parametrize("finished", [False, True])
def test_a_record_repeats_the_request(state: EmulatorState, family: str, finished: bool) -> None:
    body = body_of(family, prompt='a "fox"', imageUrl="https://example.com/in.png")
    kie_task_id = state.create_job(family, body, finished=finished)
    echo = ECHOES[family](state.record_info(kie_task_id, family).data)
    assert echo == (body["input"] if family == "jobs" else body)


# Files


def test_the_page_tells_how_many_files_a_job_has(state: EmulatorState) -> None:
    table = PAGE.read_text().partition("### Jobs with several files")[2].partition("\n##")[0]
    rows = re.findall(r"^\| `(.+?)`(?: with `(.+?)`)? \| (.+) \|$", table, re.MULTILINE)
    assert len(rows) > 5
    for family, given, told in rows:
        fields = dict(pair.split("=") for pair in given.split(", ")) if given else {}
        job = made_by(state, family, body_of(family, **fields))
        kinds = Counter(file["url"].partition("?")[0].rpartition(".")[2].upper() for file in job["files"])
        assert (family, given, " and ".join(f"{count} {kind}" for kind, count in kinds.items())) == (
            family,
            given,
            told,
        )


# Over HTTP


@pytest.fixture(scope="module")
def emulator() -> Iterator[KieEmulator]:
    with KieEmulator(conversion_seconds=0, submits_per_window=None) as running:
        yield running


@pytest.fixture
def kie(emulator: KieEmulator) -> KieEmulator:
    emulator.reset()
    return emulator


def call(kie: KieEmulator, method: str, path: str, **options: Any) -> Any:
    headers = {"User-Agent": "kie-tests", "Authorization": f"Bearer {kie.api_key}"}
    return requests.request(method, kie.url + path, headers=headers, timeout=10, **options).json()


@pytest.mark.parametrize("family", DIALECTS)
def test_a_file_is_what_it_says(kie: KieEmulator, family: str) -> None:
    media_type, begin = DIALECTS[family]
    body = body_of(family, **({"type": "separate_vocal"} if family == "stems" else {}))
    url = made_by(kie.state, family, body)["files"][0]["url"]
    link = call(kie, "POST", "/api/v1/common/download-url", json={"url": url})["data"]
    for where in (url, link):
        fetched = requests.get(where, headers={"User-Agent": "kie-tests"}, timeout=10)
        assert (fetched.status_code, fetched.headers["content-type"]) == (200, media_type)
        assert fetched.content.startswith(begin)


def test_reads_at_a_shared_path_are_logged_by_family(kie: KieEmulator) -> None:
    for family in ("sounds", "music"):
        call(kie, "GET", FAMILIES["music"].query, params={"taskId": kie.create_job(family, prompt="a")})
    call(kie, "GET", FAMILIES["music"].query, params={"taskId": "nobodys"})
    assert [entry["family"] for entry in kie.requests("record-info")] == ["sounds", "music", "music"]


@pytest.mark.parametrize("family", ["music", "jobs", "wav"])
def test_a_lost_answer_leaves_a_job_that_is_charged(kie: KieEmulator, family: str) -> None:
    kie.play("accepted-then-500")
    assert call(kie, "POST", FAMILIES[family].submit, json=body_of(family))["code"] == 500
    assert (kie.accepted_submits, len(kie.state._jobs)) == (1, 1)
    assert kie.credits_spent > 0


@pytest.mark.parametrize("family", ["music", "jobs", "wav"])
def test_a_played_success_is_about_the_job_that_was_made(kie: KieEmulator, family: str) -> None:
    kie.play("accepted", "already-converted")
    ids = [call(kie, "POST", FAMILIES[family].submit, json=body_of(family))["data"]["taskId"] for _ in range(2)]
    assert set(ids) == set(kie.state._jobs)
    assert kie.accepted_submits == 1


def test_cases_are_listed_and_played_by_name(kie: KieEmulator) -> None:
    listed = requests.get(f"{kie.url}/_emulator/cases", timeout=10).json()
    assert {"name": "runway-queueing", "family": "runway", "meaning": "wait"} in [
        {key: value for key, value in each.items() if key != "case"} for each in listed
    ]
    kie.play("jobs-accepted", "jobs-two-images")
    kie_task_id = call(kie, "POST", FAMILIES["jobs"].submit, json=body_of("jobs"))["data"]["taskId"]
    record = call(kie, "GET", FAMILIES["jobs"].query, params={"taskId": kie_task_id})["data"]
    assert (record["taskId"], record["state"]) == (kie_task_id, "success")
    assert kie.accepted_submits == 1


def test_a_job_that_nobody_submitted(kie: KieEmulator) -> None:
    kie_task_id = kie.create_job("jobs", finished=True, model="grok-imagine/text-to-image", prompt="fail")
    record = call(kie, "GET", FAMILIES["jobs"].query, params={"taskId": kie_task_id})["data"]
    assert (record["state"], record["model"]) == ("fail", "grok-imagine/text-to-image")
    assert kie.create_job("wav", taskId="m", audioId="a") == kie.create_conversion("m", "a")
    assert (kie.accepted_submits, kie.credits_spent) == (0, 0.0)
    with pytest.raises(LookupError, match="there are jobs, music"):
        kie.create_job("films")
