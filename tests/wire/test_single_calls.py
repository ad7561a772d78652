# SPDX-License-Identifier: Apache-2.0
"""The single calls as docs/single-calls.md has them, against the emulator: what they give, and what is charged."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_kie.emulator.singles import SINGLE_CALLS
from airflow_provider_kie.exceptions import (
    KieConnectionError,
    KieError,
    KieInsufficientCreditsError,
)
from airflow_provider_kie.hooks.kie import KieHook
from tests.typed.in_1080p import in_1080p

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "single-calls.md").read_text()
#: The lines of code in the page's tables.
LINES = [line for row in PAGE.splitlines() if row.startswith("| ") for line in re.findall(r"`(hook\.[^`]+)`", row)]


def polled(ask: Callable[[], Any]) -> tuple[Any, int]:
    """Ask until there is an answer; return it, and how often it was asked for."""
    for count in range(1, 200):
        if (found := ask()) is not None:
            return found, count
        time.sleep(0.02)
    raise AssertionError("there never was a result")


@pytest.mark.parametrize(("resolution", "price"), [("1080p", 5.0), ("4k", 120.0)])
def test_an_upscale_is_charged_once(kie, resolution, price):
    hook = KieHook()
    url, asked = polled(lambda: hook.upscale_veo("veo-1", resolution))
    assert asked > 1
    assert len(kie.requests("single")) == asked  # none was repeated by itself
    assert kie.credits_spent == price
    assert requests.get(url, headers={"User-Agent": "kie-tests"}, timeout=10).headers["content-type"] == "video/mp4"
    assert polled(lambda: hook.upscale_veo("veo-1", resolution, 1))[0] != url  # another video of the same job
    assert kie.credits_spent == 2 * price
    codes = {request["code"] for request in kie.requests("single")}
    assert codes == ({500, 200} if resolution == "1080p" else {200, 422})


def test_the_sensor_of_the_page_waits_for_the_link(kie):
    poke = in_1080p.function
    first = poke("veo-1")
    assert (first.is_done, first.xcom_value) == (False, None)
    kie.configure(conversion_seconds=0.0)
    last = poke("veo-1")
    assert last.is_done
    assert last.xcom_value.startswith(kie.url)
    assert kie.credits_spent == 5.0


@pytest.mark.parametrize("resolution", ["1080p", "4k"])
@pytest.mark.parametrize("name", ["reset", "cut-off", "server-error-http", "html"])
def test_an_upscale_of_unknown_outcome_is_not_repeated(kie, resolution, name):
    kie.play(name, endpoint="single")
    # The number 500 is what KIE says while it renders 1080p; all else is an error.
    if (name, resolution) == ("server-error-http", "1080p"):
        assert KieHook().upscale_veo("veo-1", resolution) is None
    else:
        with pytest.raises(KieError) as caught:
            KieHook().upscale_veo("veo-1", resolution)
        assert caught.value.transient
    assert len(kie.requests("single")) == 1


def test_the_paid_get_is_not_repeated_as_a_request(kie):
    kie.play("reset", endpoint="single")
    with pytest.raises(KieConnectionError):
        KieHook().request("GET", "/api/v1/veo/get-1080p-video", params={"taskId": "veo-1"})
    assert len(kie.requests("single")) == 1


def test_a_style_is_charged_each_time(kie):
    kie.play("rate-limited", endpoint="single")
    for _ in range(2):
        assert KieHook().boost_style("slow strings") == "slow strings, warm strings, slow tempo"
    assert len(kie.requests("single")) == 3
    assert kie.credits_spent == 0.8
    kie.configure(credits=0.3)
    with pytest.raises(KieInsufficientCreditsError):
        KieHook().boost_style("slow strings")
    assert kie.credits_spent == 0.8


def test_a_recovery_has_a_record_of_its_own(kie):
    hook = KieHook()
    recovery_task_id = hook.recover_songs("music-1")
    songs, asked = polled(lambda: hook.get_recovered_songs(recovery_task_id))
    assert asked > 1
    assert [song["error"] for song in songs] == [None, None]
    assert requests.get(songs[0]["url"], headers={"User-Agent": "kie-tests"}, timeout=10).status_code == 200
    assert kie.credits_spent == 1.0


@pytest.mark.parametrize("name", ["wrong-key-echoed", "blocked", "reset"])
def test_errors_never_show_the_key_or_a_query(kie, name):
    kie.play(name, endpoint="single", repeat=True)
    for call in (
        lambda: KieHook().upscale_veo("veo-1", "1080p"),
        lambda: KieHook().boost_style("as in https://a.example/x?sig=0123abcd"),
        lambda: KieHook().request("GET", "/api/v1/voice/record-info?taskId=0123abcd"),
    ):
        with pytest.raises(KieError) as caught:
            call()
        shown = f"{caught.value} {caught.value!r} {caught.value.to_dict()}"
        assert kie.api_key not in shown
        assert "0123abcd" not in shown


def test_each_line_of_the_page_runs(kie):
    kie.configure(conversion_seconds=0.0)
    names = {
        "veo_job": "veo-1",
        "music_job": "music-1",
        "image_job": "image-1",
        "audio_id": "audio-1",
        "voice_url": "https://a.example/voice.mp3",
        "verify_url": "https://a.example/phrase.mp3",
        "file_url": kie.state.file_url("image-1", "png"),
        "phrase_job": "phrase-1",
        "voice_job": "voice-1",
        "recovery": "recovery-1",
    }
    for line in LINES:
        eval(line, {"hook": KieHook(), **names})
    called = {(request["method"], request["path"]) for request in kie.requests("single")}
    assert called == {(row.method, row.path) for row in SINGLE_CALLS}
    assert {request["code"] for request in kie.requests("single")} - {200, 422, 500} == set()
