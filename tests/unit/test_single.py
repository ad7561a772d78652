# SPDX-License-Identifier: Apache-2.0
"""The single calls: what is sent, how often, and what their answers mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api import single
from airflow_provider_kie.api.call import Call, Repeat
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.emulator.cases import SINGLES
from airflow_provider_kie.emulator.singles import SINGLE_CALLS

# Made again for each test, so that a fault in their making shows.
IN_1080P = partial(single.upscale_veo, "a6", "1080p")
IN_4K = partial(single.upscale_veo, "a6", "4k")
STYLE = partial(single.boost_style, "slow strings")
RECOVER = partial(single.recover_songs, "a1")
RECOVERED = partial(single.recovered_songs, "r1")


def outcome(call: Callable[[], Call[Any]], code: int, data: object = None, msg: str = "...", status: int = 200) -> Any:
    return read(call, Response(status, json.dumps({"code": code, "msg": msg, "data": data}).encode()))


def read(call: Callable[[], Call[Any]], answer: Response) -> Any:
    try:
        return call().read(answer)
    except e.KieError as error:
        return type(error)


@pytest.mark.parametrize(
    ("name", "call", "meaning"),
    [
        ("recovery-no-parent", RECOVER, e.KieValidationError),
        ("veo-1080p-rendering", IN_1080P, None),
        ("veo-1080p-processing", IN_1080P, None),
        ("veo-1080p-done", IN_1080P, "https://t.example/hd.mp4"),
        ("veo-4k-begun", IN_4K, None),
        ("veo-4k-processing", IN_4K, None),
        ("veo-4k-done", IN_4K, "https://t.example/4k.mp4"),
        ("veo-4k-refused", IN_4K, e.KieValidationError),
        ("recovery-not-visible", RECOVERED, None),
        ("recovery-running", RECOVERED, None),
        ("style-boosted", STYLE, "Warm strings"),
        ("style-empty", STYLE, e.KieJobFailedError),
    ],
)
def test_a_case(name: str, call: Callable[[], Call[Any]], meaning: object) -> None:
    assert read(call, Response(200, SINGLES[name].render("a6"))) == meaning


@pytest.mark.parametrize(
    ("method", "path", "repeat"),
    [
        *(("get", path, Repeat.ALWAYS) for path in ("/api/v1/chat/credit", "/api/v1/veo/get-720p-video")),
        *(("get", f"/api/v1/veo/get-1080p-video{more}", Repeat.NEVER_TWICE) for more in ("", "?taskId=a6", "?x=/")),
        ("GET", "//api/v1//veo/Get-1080p-video//", Repeat.NEVER_TWICE),
        ("POST", "/api/v1/generate/generate-persona", Repeat.NEVER_TWICE),
    ],
)
def test_a_request_is_repeated_only_where_that_is_free(method: str, path: str, repeat: Repeat) -> None:
    call = single.request(method, path, {"a": "b"}, {"c": 1})
    assert (call.method, call.path, call.repeat) == (method.upper(), path, repeat)
    assert (call.params, call.json) == ({"a": "b"}, {"c": 1})
    assert call.purpose.startswith(f"{method.upper()} {path.partition('?')[0]}")
    assert outcome(lambda: call, 200, [1]) == [1]


def test_what_is_sent() -> None:
    calls = [make() for make in (IN_1080P, IN_4K, STYLE, RECOVER, RECOVERED)]
    assert [(call.method, call.path, call.params, call.json) for call in calls] == [
        ("GET", "/api/v1/veo/get-1080p-video", {"taskId": "a6", "index": "0"}, None),
        ("POST", "/api/v1/veo/get-4k-video", None, {"taskId": "a6", "index": 0}),
        ("POST", "/api/v1/style/generate", None, {"content": "slow strings"}),
        ("POST", "/api/v1/suno/recovery", None, {"task_id": "a1"}),
        ("GET", "/api/v1/suno/recovery/record-info", {"task_id": "r1"}, None),
    ]
    # What is paid is never repeated after an unknown outcome.
    assert [call.repeat for call in calls] == [*[Repeat.NEVER_TWICE] * 4, Repeat.ALWAYS]
    assert {(call.method, call.path) for call in calls} <= {(row.method, row.path) for row in SINGLE_CALLS}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: single.upscale_veo("a6", "8k"), "resolution is '8k', but there are only 1080p and 4k"),
        (lambda: single.upscale_veo("a6", "4k", -1), "index is -1, but videos are counted from 0"),
        (lambda: single.upscale_veo("", "4k"), "kie_task_id is empty"),
        (lambda: single.boost_style(" "), "content is empty"),
        (lambda: single.boost_style(["a"]), "content must be a text, not list"),  # type: ignore[arg-type]
        (lambda: single.recover_songs("https://a.example/1"), "music_task_id is 'https://a.example/1', a URL"),
        (lambda: single.recovered_songs("None"), "recovery_task_id is empty"),
    ],
)
def test_wrong_arguments_are_named(call: Any, says: str) -> None:
    with pytest.raises(e.KieValidationError) as caught:
        call()
    assert says in str(caught.value)


@pytest.mark.parametrize("call", [IN_1080P, IN_4K], ids=["1080p", "4k"])
def test_an_upscale_that_is_not_under_way(call: Callable[[], Call[Any]]) -> None:
    assert outcome(call, 401) is e.KieAuthenticationError
    assert outcome(call, 402) is e.KieInsufficientCreditsError
    assert outcome(call, 422, msg="Record does not exist") is e.KieValidationError
    assert outcome(call, 500, msg="This interface is temporarily paused") is e.KieValidationError
    assert outcome(call, 501, msg="Generation failed") is e.KieJobFailedError
    # Something between KIE and us.
    assert read(call, Response(500, b"")) is e.KieServerError
    assert read(call, Response(502, b"<html>")) is e.KieServerError


def test_texts_of_two_clients_for_an_upscale_that_runs() -> None:
    assert outcome(IN_1080P, 422, msg="Records are being generated") is None
    assert outcome(IN_4K, 422, msg="4k is processing. Please check back shortly.") is None
    assert outcome(IN_1080P, 500, msg="busy", status=500) is None


def test_500_means_rendering_for_1080p_alone() -> None:
    """Of 4K nobody has seen that, and another call may cost 120 credits."""
    assert outcome(IN_1080P, 500, msg="Server exception") is None
    assert outcome(IN_4K, 500, msg="Server exception") is e.KieServerError


def test_a_link_that_cannot_be_used_is_an_error() -> None:
    answer = {"resultUrl": "s3://bucket/v.mp4?X-Amz-Signature=0123abcd"}
    with pytest.raises(e.KieUnreadableAnswerError) as caught:
        IN_1080P().read(Response(200, json.dumps({"code": 200, "data": answer}).encode()))
    assert "veo job 'a6'" in str(caught.value)
    assert "0123abcd" not in repr(caught.value.to_dict())


def test_a_style_that_is_missing_says_why() -> None:
    with pytest.raises(e.KieJobFailedError, match="too short"):
        STYLE().read(Response(200, SINGLES["style-empty"].render()))
    assert outcome(STYLE, 200, None) is e.KieJobFailedError
    assert outcome(STYLE, 200, {"result": ["a"]}) is e.KieJobFailedError


@pytest.mark.parametrize("data", [{"task_id": "r1"}, {"taskId": "r1"}])
def test_a_recovery_gives_an_id_of_its_own(data: object) -> None:
    assert outcome(RECOVER, 200, data) == "r1"
    assert outcome(RECOVER, 200, {}) is e.KieUnreadableAnswerError
    assert outcome(RECOVER, 500, msg="Server exception") is e.KieServerError


def test_recovered_songs() -> None:
    songs = [
        {"id": "s1", "audio_url": "https://t.example/1.m4a", "status": "success", "error": ""},
        {"id": "s2", "audio_url": "", "status": "failed", "error": "clip_error"},
    ]
    expected = [
        {"audio_id": "s1", "url": "https://t.example/1.m4a", "error": None},
        {"audio_id": "s2", "url": None, "error": "clip_error"},
    ]
    assert outcome(RECOVERED, 200, songs) == expected
    assert outcome(RECOVERED, 200, {"data": songs}) == expected
    assert outcome(RECOVERED, 200, None) is None
    assert outcome(RECOVERED, 500, msg="all songs failed") is e.KieServerError


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (("GE T", "/api/v1/x", None, None), "'GE T'"),
        (("GET", "api/v1/x", None, None), "'api/v1/x'.* does not start with"),
        (("POST", "/api/v1/x", None, {"weight": float("nan")}), "json can"),
    ],
)
def test_a_request_that_cannot_be_one_is_refused(asked, problem):
    with pytest.raises(e.KieValidationError, match=problem):
        single.request(*asked)


@pytest.mark.parametrize(
    ("call", "about"),
    [
        (IN_1080P, ("Asking for the Veo video in 1080p", "a6", "veo")),
        (IN_4K, ("Asking for the Veo video in 4k", "a6", "veo")),
        (STYLE, ("Boosting the style", None, None)),
        (RECOVER, ("Recovering the songs", "a1", "music")),
        (RECOVERED, ("Reading the recovered songs", "r1", "recovery")),
    ],
)
def test_an_error_says_what_it_is_about(call, about):
    sent = call()
    with pytest.raises(e.KieInsufficientCreditsError) as caught:
        sent.read(Response(200, b'{"code": 402, "msg": "no credits"}'))
    assert (caught.value.problem.partition(":")[0], caught.value.kie_task_id, caught.value.family) == about


@pytest.mark.parametrize(
    ("index", "link"), [(0, "https://t.example/0.mp4"), (1, "https://t.example/1.mp4"), (2, "https://t.example/0.mp4")]
)
def test_the_link_of_the_video_that_was_asked_for(index, link):
    links = {"resultUrls": ["https://t.example/0.mp4", "https://t.example/1.mp4"]}
    assert outcome(partial(single.upscale_veo, "a6", "4k", index), 200, links) == link
