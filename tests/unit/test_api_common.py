# SPDX-License-Identifier: Apache-2.0
"""The credit balance and the download link: what is sent, and what of the answers is believed."""

from __future__ import annotations

import json

import pytest

from airflow_provider_kie.api.call import Repeat
from airflow_provider_kie.api.common import credit, download_url, is_http_url
from airflow_provider_kie.api.envelope import Answer
from airflow_provider_kie.exceptions import KieUnreadableAnswerError, KieValidationError

URL = "https://tempfile.example/s/1.wav"


def answer(data: object) -> Answer:
    return Answer(200, json.dumps({"code": 200, "msg": "success", "data": data}).encode())


def sent(call):
    return call.method, call.path, call.params, call.json


def test_asking_for_the_balance_is_free():
    assert sent(credit()) == ("GET", "/api/v1/chat/credit", None, None)
    assert (credit().repeat, credit().kie_task_id, credit().recover) == (Repeat.ALWAYS, None, None)


def test_asking_for_a_link_is_free():
    call = download_url(URL)
    assert sent(call) == ("POST", "/api/v1/common/download-url", None, {"url": URL})
    assert (call.repeat, call.kie_task_id, call.recover) == (Repeat.ALWAYS, None, None)


@pytest.mark.parametrize("balance", [0, 100, -3, 5916.25, 98765432109.75, 1e300])
def test_a_balance_is_any_number(balance):
    read = credit().read(answer(balance))
    assert read == balance
    assert type(read) is float


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("100", "'100'"),
        (None, "'None'"),
        (True, "'True'"),
        (False, "'False'"),
        ([1], "'[1]'"),
        ("x" * 81, f"'{'x' * 80}'"),
        (10**400, f"'1{'0' * 79}'"),
    ],
)
def test_a_balance_is_nothing_but_a_number(data, shown):
    with pytest.raises(KieUnreadableAnswerError) as caught:
        credit().read(answer(data))
    assert caught.value.problem == f"Reading the credit balance: the balance is not a number but {shown}"


def test_a_number_beyond_all_bounds_is_no_balance():
    with pytest.raises(KieUnreadableAnswerError) as caught:
        credit().read(Answer(200, b'{"code":200,"data":1e400}'))
    assert caught.value.problem == "Reading the credit balance: the balance is not a number but 'inf'"


def test_a_link_is_given():
    assert download_url("https://a.example/1").read(answer(URL)) == URL


@pytest.mark.parametrize("data", [None, "", "x", "/s/1.wav", {"url": URL}, [URL], 1, True, "ftp://a.example/1"])
def test_a_link_is_nothing_but_an_http_url(data):
    with pytest.raises(KieUnreadableAnswerError) as caught:
        download_url(URL).read(answer(data))
    assert caught.value.problem == "Asking for a download link: the download link is not an http(s) URL"


@pytest.mark.parametrize("url", ["", "None", "/s/1.wav", "s3://bucket/1.wav", None])
def test_a_link_is_only_asked_for_a_url(url):
    with pytest.raises(KieValidationError) as caught:
        download_url(url)
    assert caught.value.problem == "url is not an http(s) URL"


@pytest.mark.parametrize(
    "value",
    [
        "http://a",
        "https://a.example/x?sig=1#y",
        "HTTPS://A.EXAMPLE",
        "https://a.example:8443/ä",
        "https://[::1]/x",
        "https://user:word@a.example/",
    ],
)
def test_an_http_url(value):
    assert is_http_url(value) is True


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        b"https://a.example",
        ["https://a.example"],
        "",
        "a.example",
        "//a.example/x",
        "https:a.example",
        "https://",
        "https:///x",
        "https://?x",
        "https://:443/",
        "ftp://a.example/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        " https://a.example",
        "https://a.example/a b",
        "https://a.example/a\nb",
        "https://a.example/\x00",
        "https://a.example/\u200b",
        "https://a.example/\ud800",
        "https://[::1/x",
    ],
)
def test_no_http_url(value):
    assert is_http_url(value) is False
