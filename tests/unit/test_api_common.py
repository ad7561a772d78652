# SPDX-License-Identifier: Apache-2.0
"""The credit balance and the download link: what is sent, and what of the answers is believed."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.util import parse_url
from yarl import URL as YarlURL

from airflow_provider_kie.api.call import Repeat
from airflow_provider_kie.api.common import credit, download_url
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.fields import http_url
from airflow_provider_kie.exceptions import KieUnreadableAnswerError, KieValidationError
from airflow_provider_kie.hosts import split_url

URL = "https://tempfile.example/s/1.wav"


def answer(data: object) -> Response:
    return Response(200, json.dumps({"code": 200, "msg": "success", "data": data}).encode())


def sent(call):
    return call.method, call.path, call.params, call.json


def test_asking_for_the_balance_is_free():
    assert sent(credit()) == ("GET", "/api/v1/chat/credit", None, None)
    assert (credit().repeat, credit().kie_task_id, credit().recover) == (Repeat.ALWAYS, None, None)


def test_asking_for_a_link_is_free():
    call = download_url(URL)
    assert sent(call) == ("POST", "/api/v1/common/download-url", None, {"url": URL})
    assert (call.repeat, call.kie_task_id, call.recover) == (Repeat.ALWAYS, None, None)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        *((odd, repr(str(odd))) for odd in ("100", None, True, False, [1])),
        *(("x" * 201, f"'{'x' * 200}…'"), (10**400, f"'1{'0' * 199}…'")),
        ("https://a.example/my song?sig=1", "'https://a.example/my song…'"),
    ],
)
def test_anything_but_a_number_is_no_balance(data, shown):
    with pytest.raises(KieUnreadableAnswerError) as caught:
        credit().read(answer(data))
    assert caught.value.problem == f"Reading the credit balance: the balance is not a number but {shown}"


def test_a_number_beyond_all_bounds_is_no_balance():
    with pytest.raises(KieUnreadableAnswerError, match="not a number but 'inf'"):
        credit().read(Response(200, b'{"code":200,"data":1e400}'))


ODD, WRITTEN = " https://bücher.example/my song.wav?sig=ü\n", "https://xn--bcher-kva.example/my%20song.wav?sig=%C3%BC"


def test_a_link_is_written_as_http_wants_it():
    assert download_url(URL).read(answer(ODD)) == WRITTEN
    assert download_url(ODD).json == {"url": WRITTEN}


@pytest.mark.parametrize("data", [None, "", "/s/1.wav", {"url": URL}, [URL], 1, True, "ftp://a.example/1"])
def test_a_link_is_nothing_but_an_http_url(data):
    with pytest.raises(KieUnreadableAnswerError) as caught:
        download_url(URL).read(answer(data))
    assert caught.value.problem == "Asking for a download link: the download link is not an http(s) URL"


@pytest.mark.parametrize("url", ["", "None", "/s/1.wav", "s3://bucket/1.wav", None])
def test_a_link_is_only_asked_for_a_url(url):
    with pytest.raises(KieValidationError) as caught:
        download_url(url)
    assert caught.value.problem == "url is not an http(s) URL"


# --- How a URL is written


GOOD = [
    *("http://a", "https://a.example/x?sig=1#y", "HTTPS://A.EXAMPLE", "https://a.example?x=1", "https://a_b.example./"),
    "https://a.example:8443/%C3%A4?sig=a%2Fb+c%20d&x=(1,2)[3]~'*!;:@",
    *("https://[::1]:80/x", "https://user:word@a.example/"),
]


@pytest.mark.parametrize("value", GOOD)
def test_a_url_that_http_takes_stays_as_it_is(value):
    assert http_url(value) == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (" https://a.example/x\n", "https://a.example/x"),
        ("https://a.example/my song.wav?n=a b#c d", "https://a.example/my%20song.wav?n=a%20b#c%20d"),
        ("https://a.example/größe/日本.wav", "https://a.example/gr%C3%B6%C3%9Fe/%E6%97%A5%E6%9C%AC.wav"),
        ("https://a.example/x?title=größe", "https://a.example/x?title=gr%C3%B6%C3%9Fe"),
        ('https://a.example/"<{|}>^`', "https://a.example/%22%3C%7B%7C%7D%3E%5E%60"),
        ("https://a.example/a\nb\t\x00\x7f\u200b", "https://a.example/a%0Ab%09%00%7F%E2%80%8B"),
        ("https://a.example/a\\b", "https://a.example/a%5Cb"),
        ("https://a.example/100%/a%20b%2", "https://a.example/100%25/a%20b%252"),
        ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
        ("https://straße.example:8443", "https://xn--strae-oqa.example:8443"),
        ("https://b%C3%BCcher.example/x", "https://xn--bcher-kva.example/x"),
        ("https://日本。example/", "https://xn--wgv71a.example/"),
        ("https://ü:p@ss@a.example/", "https://%C3%BC:p%40ss@a.example/"),
        # Spellings of this machine, so that anyone who checks the host sees it.
        ("http://１２７.0.0.1/", "http://127.0.0.1/"),
        ("http://127。0．0｡1/", "http://127.0.0.1/"),
        ("http://ⓛocalhost/", "http://localhost/"),
        ("http://loc\u00adal\u200bhost/", "http://localhost/"),
        ("http://%6c%6Fcalhost/", "http://localhost/"),
    ],
)
def test_any_other_url_is_written_as_http_wants_it(value, written):
    assert http_url(value) == written
    assert http_url(written) == written


NO_URLS = [
    *(None, 5, b"https://a.example", ["https://a.example"], "", "a.example", "//a.example/x", "https:a.example"),
    *("https://", "https:///x", "https://?x", "https://:443/", "https://a.example:x/", "https://a.example:65536/"),
    *("https://a.example:80:90/", "ftp://a.example/x", "file:///etc/passwd", "javascript:alert(1)"),
    *("ht\ntps://a.example/", "\x00https://a.example", "https://a b/", "https://a.example\n/", "https://a.example\\b/"),
    *("https://.a.example/", "https://a.example/\ud800", "https://[::1/x", "https://[::1]x/", "https://[a]/"),
    # A host that would be another one, or more than a host, for some library.
    *("https://[fe80::1%25lo]/", "https://a.example：80/", "https://a.example／b/", "https://a.example＠127.0.0.1/"),
    *("https://a.example%2F%40127.0.0.1/", "https://a.example%00.b/", "https://%5B::1%5D/", "https://℀.example/"),
    *("https://%FF.example/", "https://xn--ä.example/"),
]


@pytest.mark.parametrize("value", NO_URLS)
def test_no_http_url(value):
    assert http_url(value) is None


HOSTS = [
    "a.example",
    "127.0.0.1",
    "[::1]",
    "１２７.0.0.1",
    "ⓛocalhost",
    "xn--",
    "user:pw",
    "80",
    "x",
    "ä",
    "日本",
    "-",
    "_",
]
ODD_LETTERS = '。．：／＠℀⁄\u00ad\u200b\ud800\x00\t\n "<{^\\'
MARKS = ["@", ":", "/", "?", "#", ".", "..", "[", "]", "%", "%2F", "%40", "%3A", "%00", "%5B", "http://", "https://"]
pieces = st.sampled_from([*HOSTS, *ODD_LETTERS, *MARKS])


@given(st.lists(pieces, max_size=8).map(lambda few: "http://" + "".join(few)))
@settings(max_examples=1000)
def test_all_libraries_see_the_same_host(text):
    written = http_url(text)
    if written is None:
        return
    assert http_url(written) == written
    assert re.fullmatch("[!-~]+", written)
    assert not set('\\"<>^`{|}') & set(written)
    host = urlsplit(written).hostname
    assert parse_url(written).host.strip("[]").lower() == host
    assert YarlURL(written).raw_host.rstrip(".") == host.rstrip(".")
    if "@" not in urlsplit(written).netloc:  # of those requests takes the user apart
        assert urlsplit(requests.Request("GET", written).prepare().url).hostname == host
    in_a_connection = split_url(text)
    assert in_a_connection is None or in_a_connection.hostname == host
