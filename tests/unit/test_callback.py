# SPDX-License-Identifier: Apache-2.0
"""What a callback says, and whether its signature holds."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_kie.api.callback import (
    LARGEST_BODY,
    WINDOW,
    Callback,
    CallbackRefusedError,
    parse,
    signature_is_valid,
)
from airflow_provider_kie.api.families import FAMILIES

# The vector that was computed from KIE's rule.
KEY = "test-webhook-key"
ID = "988e0000000000000000000000c8d3aa"
AT = "1769670760"
SIGNATURE = "XmwIN7C4DLWnWf6DukRJNQchD6Pl2WHL3MJOoiGAYlk="
NOW = float(AT)


def body(data: object = None, **top: object) -> bytes:
    return json.dumps({"code": 200, "msg": "success", "data": data, **top}).encode()


# --- The signature


def test_the_signature_of_the_vector_holds() -> None:
    assert signature_is_valid([KEY], ID, AT, SIGNATURE, NOW)


@pytest.mark.parametrize("seconds", [-WINDOW, WINDOW])
def test_a_signature_holds_within_the_window(seconds: int) -> None:
    assert signature_is_valid([KEY], ID, AT, SIGNATURE, NOW + seconds)
    assert not signature_is_valid([KEY], ID, AT, SIGNATURE, NOW + seconds + (1 if seconds > 0 else -1))


def test_either_of_two_keys_counts() -> None:
    assert signature_is_valid(["the-new-key", KEY], ID, AT, SIGNATURE, NOW)
    assert signature_is_valid([KEY, "the-new-key"], ID, AT, SIGNATURE, NOW)
    assert not signature_is_valid([], ID, AT, SIGNATURE, NOW)


HEX = base64.b64decode(SIGNATURE).hex()
OF_THE_BODY = base64.b64encode(hmac.new(KEY.encode(), body({"task_id": ID}), hashlib.sha256).digest()).decode()


@pytest.mark.parametrize(
    ("kie_task_id", "timestamp", "signature"),
    [
        *((ID, AT, wrong) for wrong in (None, "", HEX, OF_THE_BODY, SIGNATURE[:-1], SIGNATURE + "=", SIGNATURE * 2)),
        *((ID, AT, wrong) for wrong in (SIGNATURE.lower(), f" {SIGNATURE}", "ä", "\ud800", "x" * 100_000)),
        *((ID, wrong, SIGNATURE) for wrong in (None, "", "0", "-1", AT + ".0", f" {AT}", "+" + AT, "1_769_670_760")),
        *((ID, wrong, SIGNATURE) for wrong in ("now", "٣" * 10, "9" * 5000, "1e9", AT[:-1], AT + "0")),
        *((wrong, AT, SIGNATURE) for wrong in ("", ID.upper(), ID[:-1], "another")),
    ],
)
def test_any_other_signature_does_not(kie_task_id: str, timestamp: str | None, signature: str | None) -> None:
    assert not signature_is_valid([KEY], kie_task_id, timestamp, signature, NOW)


# --- The body, by the families' dialects (kie-families, section 4)

DIALECTS = {
    "song": ({"callbackType": "complete", "task_id": ID, "data": [{"id": "s", "audio_url": "https://x"}]}, "music"),
    "song that failed": ({"callbackType": "error", "task_id": ID, "data": None}, "music"),
    "lyrics": ({"callbackType": "complete", "task_id": ID, "data": [{"text": "la", "title": "La"}]}, "music"),
    "WAV": ({"audioWavUrl": "https://x", "task_id": ID}, "wav"),
    "WAV, Chinese page": ({"audio_wav_url": "https://x", "task_id": ID}, "wav"),
    "WAV, OpenAPI": ({"audioWavUrl": "https://x", "task_id": ID, "taskId": ID}, "wav"),
    "WAV, one integrator": ({"response": {"audioWavUrl": "https://x"}, "task_id": ID}, "wav"),
    "WAV that failed": ({"audioWavUrl": None, "task_id": ID}, "wav"),
    "stems": ({"task_id": ID, "vocal_separation_info": {"vocal_url": "https://x"}}, "stems"),
    "stems, advanced": ({"task_id": ID, "vocal_removal_info": {"origin_data": []}}, "stems"),
    "MIDI": ({"taskId": ID, "state": "complete", "instruments": []}, "midi"),
    "music video": ({"task_id": ID, "video_url": "https://x"}, "music-video"),
    "cover": ({"taskId": ID, "images": ["https://x"]}, "cover-image"),
    "4o": ({"taskId": ID, "info": {"result_urls": ["https://x"]}}, "4o-image"),
    "Flux": ({"taskId": ID, "info": {"resultImageUrl": "https://x", "originImageUrl": "https://y"}}, "flux-kontext"),
    "Veo": ({"taskId": ID, "promptJson": "{}", "fallbackFlag": False, "info": {"resultUrls": ["https://x"]}}, "veo"),
    "Veo, older": ({"taskId": ID, "info": {"resultUrls": '["https://x"]', "resolution": "1080p"}}, "veo"),
    "Runway": ({"task_id": ID, "video_id": "v", "video_url": "https://x", "image_url": "https://y"}, "runway"),
    "Aleph": ({"task_id": ID, "result_video_url": "https://x", "result_image_url": "https://y"}, "aleph"),
    "Market": ({"taskId": ID, "model": "m/x", "state": "success", "resultJson": "{}", "param": "{}"}, "jobs"),
    "Market that failed": ({"taskId": ID, "model": "m/x", "state": "fail", "failCode": "500"}, "jobs"),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_names_the_job_and_the_likeliest_family(dialect: str) -> None:
    data, family = DIALECTS[dialect]
    said = parse(None, body(data))
    assert said.kie_task_ids == (ID,)
    assert said.families[0] == family
    assert said.is_end
    # What the body looks like is a guess, so that every family of another path is tried after it.
    assert {FAMILIES[name].query for name in said.families} == {row.query for row in FAMILIES.values()}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_family_of_the_url_is_the_only_one(dialect: str) -> None:
    assert parse("mashup", body(DIALECTS[dialect][0])).families == ("mashup",)


@pytest.mark.parametrize("data", [None, [], "", {"task_id": None}, {"task_id": ""}, {"taskId": []}])
def test_an_id_at_the_top_counts_where_there_is_no_other(data: object) -> None:
    assert parse(None, body(data, taskId=ID)).kie_task_ids == (ID,)


def test_several_ids_are_told_in_the_order_in_which_they_may_be_signed() -> None:
    said = parse(None, body({"taskId": "b", "task_id": "a"}, taskId="c"))
    assert said.kie_task_ids == ("a", "b", "c")


def test_an_id_may_be_a_number() -> None:
    assert parse(None, body({"task_id": 17})).kie_task_ids == ("17",)


@pytest.mark.parametrize(
    ("data", "is_end"),
    [
        *(({"callbackType": stage, "task_id": ID}, False) for stage in ("text", "first", "TEXT", " first ")),
        *(({"callback_type": stage, "task_id": ID}, True) for stage in ("complete", "error", "", None, 1)),
        *(({"state": state, "model": "m", "taskId": ID}, False) for state in ("waiting", "queuing", "generating")),
        *(({"state": state, "model": "m", "taskId": ID}, True) for state in ("success", "fail", "new word")),
    ],
)
def test_a_stage_before_the_end_is_told(data: object, is_end: bool) -> None:
    assert parse(None, body(data)).is_end is is_end


@pytest.mark.parametrize("data", [{"taskId": ID, "voiceId": "v"}, {"taskId": ID, "validate_info": "la"}])
def test_a_voice_is_no_job_of_a_family(data: object) -> None:
    assert parse(None, body(data)).families == ()


DEEP = b'{"data":' + b"[" * 50_000 + b"]" * 50_000 + b"}"


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        *((each, "not JSON") for each in (b"", b"{", b"task_id=1", b"\xff\xfe", b'{"data":NaN}', b"1" * 5_000)),
        *((each, "not a JSON object") for each in (b"[]", b"1", b"null", b'"x"', json.dumps([ID]).encode())),
        *((each, "names no job") for each in (b"{}", body(), body([ID]), body({"id": ID}), body({"taskId": True}))),
        *((body({"taskId": wrong}), "names no job") for wrong in ("a b", "../x", "x" * 129, "\x00", {"a": 1}, 1.5)),
        (body({"task_id": ID, "x": "x" * LARGEST_BODY}), "more than 64 KiB"),
        (DEEP, "more than 64 KiB"),
        (body({"task_id": ID, "x": json.loads("[" * 40 + "]" * 40)}), "more than 32 levels"),
        (b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "not JSON|levels"),
    ],
)
def test_a_body_that_is_no_callback_is_refused_without_quoting_it(refused: bytes, why: str) -> None:
    with pytest.raises(CallbackRefusedError, match=why) as caught:
        parse(None, refused)
    assert ID not in str(caught.value)


# --- Whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(ID),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["task_id", "taskId", "data", "info", "response", "callbackType", "state", "model", "audioWavUrl", "video_url"]
)
LIKE_KIE = st.recursive(
    JSON, lambda inner: st.dictionaries(NAMES, inner, max_size=6) | st.lists(inner, max_size=2), max_leaves=8
)
BODIES = st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))


def assert_read_or_refused(made_up: bytes) -> None:
    try:
        said = parse(None, made_up)
    except CallbackRefusedError:
        return
    assert isinstance(said, Callback)
    assert said.kie_task_ids
    assert all(len(each) <= 128 and each.isascii() for each in said.kie_task_ids)
    assert set(said.families) <= set(FAMILIES)


@settings(max_examples=500, deadline=None)
@given(made_up=BODIES | LIKE_KIE.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
@example(made_up=b'{"task_id": "' + b"\\ud800" * 10 + b'"}')
@example(made_up=b'{"task_id": ' + b"1" * 4_000 + b"}")
def test_made_up_bodies_raise_nothing_but_a_refusal(made_up: bytes) -> None:
    assert_read_or_refused(made_up)


def test_ten_thousand_damaged_callbacks_raise_nothing_but_a_refusal() -> None:
    chance = random.Random(27)
    whole = [body(data, taskId=ID) for data, _ in DIALECTS.values()]
    for _ in range(10_000):
        damaged = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(damaged))
            damaged[at : at + chance.randint(0, 9)] = chance.choice(
                [chance.randbytes(3), b'"', b"{", b"[1]", b"", b"null"]
            )
        assert_read_or_refused(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(kie_task_id=st.text(max_size=50), timestamp=st.none() | st.text(max_size=20), signature=st.none() | st.text())
def test_a_made_up_signature_is_wrong_and_raises_nothing(
    kie_task_id: str, timestamp: str | None, signature: str | None
) -> None:
    assert not signature_is_valid([KEY], kie_task_id, timestamp, signature, NOW)
