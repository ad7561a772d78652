# SPDX-License-Identifier: Apache-2.0
"""The connection ``kie``: which values work, how the others are refused, and that no secret is ever shown."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import quote

import airflow
import certifi
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from airflow_provider_kie import connection
from airflow_provider_kie.connection import (
    DEFAULT_BASE_URL,
    DEFAULT_CALLBACK_URL,
    DEFAULT_UPLOAD_HOST,
    EXTRA_FIELDS,
    KieSettings,
)
from airflow_provider_kie.exceptions import KieConfigurationError, KieConnectionNotFoundError, KieError
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.hooks.kie_async import KieAsyncHook
from tests.tables import each

CONN_ID = "my_kie"
KEY = "sk-3c9f7a1e5b2d4086"
PROXY_PASSWORD = "pr0xy-8d1f6c"
PROXY = f"http://user:{PROXY_PASSWORD}@proxy.example.com:3128"
SECRETS = (KEY, PROXY_PASSWORD)


def read(
    extra: dict[str, Any] | None = None,
    *,
    password: str | None = KEY,
    host: str | None = None,
    schema: str | None = None,
    port: int | None = None,
) -> KieSettings:
    """Check a connection that has what Airflow's has, without Airflow's own checks."""
    found = SimpleNamespace(password=password, host=host, schema=schema, port=port, extra=json.dumps(extra or {}))
    return KieSettings.from_connection(CONN_ID, found, extra or {})


def assert_no_secret(*texts: str) -> None:
    for text in texts:
        shown = [secret for secret in SECRETS if secret in text]
        assert not shown, text


def refused(field: str, extra: dict[str, Any] | None = None, **fields: Any) -> str:
    """Return the message of a refusal, which names the connection and the field and shows no secret."""
    with pytest.raises(KieConfigurationError) as caught:
        read({"proxy": PROXY, **(extra or {})}, **fields)
    error = caught.value
    message = str(error)
    assert repr(CONN_ID) in message
    assert f"Field {field!r}" in message
    assert error.conn_id == CONN_ID
    assert_no_secret(message, repr(error), json.dumps(error.to_dict()))
    # A traceback prints these too, and Python's own messages quote the value.
    assert error.__cause__ is None
    assert error.__context__ is None
    return message


# --- The API key


@pytest.mark.parametrize("key", ["12345678", KEY, "eyJhbGciOi.eyJzdW.SflKxwRJ_-", "a+b/c+d==", "~._-~._-", "k" * 5000])
def test_a_key_is_taken_as_it_is(key: str) -> None:
    found = read(password=key)
    assert (found.api_key, found.conn_id) == (key, CONN_ID)


NO_KEYS = [
    *(" ", f" {KEY}", f"{KEY}\r\n", f"{KEY}\nX-Evil: 1", f"Bearer {KEY}", f'"{KEY}"', f"{KEY},{KEY}", f"{KEY}=x"),
    *("=", f"{KEY}\u200b", f"\ufeff{KEY}", f"{KEY}\u00a0", f"{KEY}\x00", f"{KEY}é", "ключ", "١٢٣", "key🔑", "***"),
]


@pytest.mark.parametrize(
    ("key", "says"),
    each(
        ("https://kie.ai/api-key", [None, ""]),
        ("fewer than 8 characters", ["0", "1234567"]),  # it could not be hidden safely in what is logged
        ("is not an API key", NO_KEYS),
    ),
)
def test_what_can_be_no_key_is_refused(key: str | None, says: str) -> None:
    message = refused("password", password=key)
    assert says in message
    assert len(key or "") < 4 or str(key).strip() not in message


# --- The base URL


@pytest.mark.parametrize(
    ("host", "schema", "port", "base_url"),
    [
        (None, None, None, DEFAULT_BASE_URL),
        ("", "", None, DEFAULT_BASE_URL),
        # A bare host is reached over https.
        ("api.kie.ai", "", None, "https://api.kie.ai"),
        ("api.kie.ai", "https", None, "https://api.kie.ai"),
        ("kie_mirror.internal", None, None, "https://kie_mirror.internal"),
        # A whole base URL, as the form asks for.
        ("https://api.kie.ai//", None, None, "https://api.kie.ai"),
        (" https://api.kie.ai \n", None, None, "https://api.kie.ai"),
        ("https://api.kie.ai", "http", None, "https://api.kie.ai"),
        # The port stands in the host, or in a field of its own; the host's counts.
        ("api.kie.ai:8443", None, None, "https://api.kie.ai:8443"),
        ("api.kie.ai", None, 1, "https://api.kie.ai:1"),
        ("https://api.kie.ai/", None, 65535, "https://api.kie.ai:65535"),
        ("https://api.kie.ai:", None, 8443, "https://api.kie.ai:8443"),
        ("https://api.kie.ai:8443", None, 9000, "https://api.kie.ai:8443"),
        ("https://[2001:db8::1]", None, 8443, "https://[2001:db8::1]:8443"),
        ("2001:db8::1", None, 8443, "https://[2001:db8::1]:8443"),  # Airflow drops the brackets of a URI
        # Plain http is fine as long as nothing leaves this machine.
        ("http://LOCALHOST:8080", None, None, "http://localhost:8080"),
        ("http://127.8.9.10", None, 8080, "http://127.8.9.10:8080"),
        ("http://[::1]:8080", None, None, "http://[::1]:8080"),
        ("127.0.0.1", "http", 8080, "http://127.0.0.1:8080"),
        # International names are spelled as requests and aiohttp do.
        ("ÄPI.kie.ai:8443", None, None, "https://xn--pi-uia.kie.ai:8443"),
        ("https://straße.example", None, 8443, "https://xn--strae-oqa.example:8443"),
        ("http://１２７.0.0.1:8080", None, None, "http://127.0.0.1:8080"),
    ],
)
def test_the_base_url_is_put_together(host: str | None, schema: str | None, port: int | None, base_url: str) -> None:
    assert read(host=host, schema=schema, port=port).base_url.lower() == base_url


NO_BASE_URLS = [
    *("https://", "/", "   ", "https://api.kie.ai/api/v1/", "api.kie.ai/api", "https://api.kie.ai?a=b"),
    *("https://api.kie.ai#top", f"https://user:{KEY}@api.kie.ai", f"https://{KEY}@api.kie.ai", f":{KEY}@api.kie.ai"),
    *("https://api.kie.ai:port", "https://api.kie.ai:99999", "https://api.kie.ai:0", "https://api kie.ai"),
    *(
        "https://api.kie.ai\\@evil.example",
        "https://☃.kie.ai",
        f"https://{'ä' * 70}.kie.ai",
        "https://api.kie.ai\u2100",
    ),
    *("https://[::1", "https://[fe80::1%25eth0]", "ftp://api.kie.ai", "://api.kie.ai"),
    *("api.\nkie.ai", "https://api.kie.ai\t.evil.example"),
]


@pytest.mark.parametrize(
    ("host", "schema"), [*((host, None) for host in NO_BASE_URLS), ("api.kie.ai", "ftp"), ("api.kie.ai", "api/v1")]
)
def test_a_host_that_is_no_base_url_is_refused(host: str, schema: str | None) -> None:
    assert DEFAULT_BASE_URL in refused("host", host=host, schema=schema)


ELSEWHERE = [
    ("kie.internal", "http"),
    *((f"http://{host}", None) for host in ("api.kie.ai", "10.0.0.7", "[2001:db8::1]:8080", "0.0.0.0:8080")),
    *((f"http://{host}", None) for host in ("localhost.example.com", "127.0.0.1.example.com")),
]


@pytest.mark.parametrize(("host", "schema"), ELSEWHERE)
@pytest.mark.parametrize("extra", [{}, {"insecure_http": "no"}])
def test_plain_http_to_another_machine_is_refused(host: str, schema: str | None, extra: dict[str, Any]) -> None:
    message = refused("host", extra, host=host, schema=schema)
    assert "plain http" in message
    assert "'insecure_http'" in message


@pytest.mark.parametrize(("host", "schema"), ELSEWHERE)
def test_plain_http_works_when_it_is_wanted(host: str, schema: str | None) -> None:
    assert read({"insecure_http": True}, host=host, schema=schema).base_url.startswith("http://")


@pytest.mark.parametrize(
    "host",
    [
        *(
            "https://api.kie.ai",
            "api.kie.ai:8443",
            "https://api.kie.ai:443",
            "http://[::1]:8080",
            "https://api.kie.ai:",
        ),
        *("https://ÄPI.kie.ai", "https://straße.example:8443", "https://API.kie.ai", "Api.Kie.AI:8443"),
    ],
)
def test_the_key_is_sent_to_the_base_url(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, {"password": KEY, "host": host})
    hook = KieHook(CONN_ID)
    request = requests.Request("GET", hook.settings.base_url + "/api/v1/chat/credit")
    assert hook.get_conn().prepare_request(request).headers.get("Authorization") == f"Bearer {KEY}"


# --- The extra fields

CA_BUNDLE = certifi.where()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        *(("callback_url", empty, DEFAULT_CALLBACK_URL) for empty in (None, "")),
        ("callback_url", "https://hooks.example.com/kie?run=1&t=a%20b", "https://hooks.example.com/kie?run=1&t=a%20b"),
        ("callback_url", "https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
        ("callback_url", "https://ä.example/größe?a=b", "https://xn--4ca.example/größe?a=b"),
        *(("timeout", empty, 30.0) for empty in (None, "")),
        ("timeout", 0.25, 0.25),
        ("timeout", 600, 600.0),
        ("timeout", " 12.5 ", 12.5),
        *(("proxy", empty, None) for empty in (None, "")),
        ("proxy", PROXY, PROXY),
        ("proxy", "https://proxy.example.com", "https://proxy.example.com"),
        ("proxy", "http://pröxy.example:3128/", "http://xn--prxy-6qa.example:3128"),
        ("proxy", "http://team@proxy.example.com", "http://team:@proxy.example.com"),
        ("proxy", "http://a%5Cb:c@d%c3%bc@proxy.example.com", "http://a%5Cb:c%40d%C3%BC@proxy.example.com"),
        *(("wav_route", given, given or "wav") for given in (None, "wav", "jobs")),
        *(("verify", empty, True) for empty in (None, "")),
        *(("verify", path, path) for path in (CA_BUNDLE, str(Path(CA_BUNDLE).parent))),
        *(("verify", true, True) for true in (True, "true", " TRUE ", "yes", "on", "1", 1)),
        *(("verify", false, False) for false in (False, "false", "False", "no", "off", "0", 0)),
    ],
)
def test_an_extra_field_works(field: str, value: Any, expected: Any) -> None:
    found = getattr(read({field: value}), field)
    assert found == expected
    assert type(found) is type(expected)


NO_URL = ("text, not", [1, 1.5, True, ["https://a.example"], {"url": "https://a.example"}])
BAD_URLS = (
    "must be a URL that starts with http:// or https://",
    [
        *("hooks.example.com/kie", "/kie", "https://", "https:///kie", "https://:8080", "ftp://a.example"),
        *("https://a.example/with space", "https://a.example/\nX-Evil: 1", " https://a.example", "https://[::1"),
        *("https://a.example:port", "https://a.example:99999", "https://a.example:0", "https://☃.example"),
        *("https://%61.example", "https://ä%2Eexample", "https://[fe80::1%25eth0]"),
        f"http://{PROXY_PASSWORD}\\user:pw@a.example",
    ],
)
NOT_FOR_HTTP = (
    "has a colon in its user, or a character that is not in Latin-1",
    [PROXY.replace("user", "us%3Aer"), PROXY.replace("user", "имя"), PROXY.replace("user", "%E2%82%AC")],
)
NO_NUMBER = (
    "must be a number of seconds above 0 and up to 600",
    [0, -1, 600.5, 10**400, "0", "ten", "30s", "nan", "inf", float("nan"), float("inf"), True, [], KEY],
)
NO_FLAG = ("must be true or false", ["maybe", "2", 2, -1, 1.5, [], [True], "truee"])
NO_VERIFY = (
    "true, false or the path of a CA bundle that exists",
    ["/no/such/ca.pem", "maybe", "\x00", "x" * 10_000, 2, 1.5, [CA_BUNDLE], KEY],
)
NO_HMAC_KEY = ("is not a key: it has fewer than 8 characters", ["short", "long-enough but", KEY[:7]])
NO_PART_OF_PATH = (
    "must have 22 to 128 characters, each a letter, a digit, - or _",
    ["x" * 21, "x" * 129, "a/" * 20, "ä" * 30, "x" * 30 + "\n", "x y" * 10, "../" * 10, "%41" * 10],
)
PROXY_ALONE = (
    BAD_URLS[0],
    [*(f"{PROXY}{more}" for more in ("/wpad.dat", "?a=b", "#top")), f"socks5://{PROXY[7:]}", PROXY[7:]],
)


EXTRA_WITHIN = ("", ['{"proxy": "http://127.0.0.1:9"}', {"proxy": "http://127.0.0.1:9"}])
WRONG = [
    *(("callback_url", NO_URL), ("callback_url", BAD_URLS), ("extra", EXTRA_WITHIN)),
    *(("proxy", NO_URL), ("proxy", BAD_URLS), ("proxy", NOT_FOR_HTTP), ("proxy", PROXY_ALONE)),
    *(("timeout", NO_NUMBER), ("verify", NO_VERIFY), ("insecure_http", NO_FLAG)),
    *(("webhook_hmac_key", NO_URL), ("webhook_hmac_key", NO_HMAC_KEY)),
    *(("callback_secret", NO_URL), ("callback_secret", NO_PART_OF_PATH)),
    *((extra.name, ("", [{"of": "a kind that no field takes"}])) for extra in EXTRA_FIELDS),
    ("proxy", ("", ["http://:password@127.0.0.1:9"])),
    ("wav_route", ("must be one of wav, jobs", ["market", "WAV"])),
    ("upload_host", ("must be a base URL", ["up.example.com", "https://up.example.com/path"])),
    ("upload_host", ("is plain http", ["http://up.example.com"])),
    ("pacing", ("must be a URL that starts with redis://", ["localhost:6379", "mysql://db", "redis:6379"])),
]


def test_another_upload_host_and_a_shared_pace_are_taken():
    usual = read()
    assert (usual.upload_host, usual.pacing) == (DEFAULT_UPLOAD_HOST, None)
    assert read({"upload_host": " https://up.example.com/ "}).upload_host == "https://up.example.com"
    plain = {"upload_host": "http://up.example.com", "insecure_http": True}
    assert read(plain).upload_host == "http://up.example.com"
    for url in ("redis://127.0.0.1", "rediss://127.0.0.1", "postgresql://127.0.0.1/db", "postgres://127.0.0.1/db"):
        assert read({"pacing": url}).pacing == url


@pytest.mark.parametrize(
    ("field", "why", "value"), [(field, why, value) for field, (why, values) in WRONG for value in values]
)
def test_an_extra_field_that_cannot_work_is_refused(field: str, why: str, value: Any) -> None:
    assert why in refused(field, {field: value})


@pytest.mark.parametrize("unknown", [{"team": "sound"}, {"extra__kie__timeout": 1}, {"webhook_hmac_keys": [1]}])
def test_a_key_of_the_extra_that_is_no_field_is_ignored(unknown: dict[str, Any]) -> None:
    assert read(unknown) == read()


@pytest.mark.parametrize(
    ("typed", "keys"),
    [(None, ()), ("", ()), ("one-key-of-kie", ("one-key-of-kie",)), (" new-key1  old-key1 ", ("new-key1", "old-key1"))],
)
def test_two_webhook_keys_count_while_one_is_changed(typed: str | None, keys: tuple[str, ...]) -> None:
    assert read({"webhook_hmac_key": typed}).webhook_hmac_keys == keys


PART = "xJ3-kQ_9vB2mN7pR4sT6wZ"


@pytest.mark.parametrize(
    "url", ["https://hooks.example.com/kie/kie_default", "https://hooks.example.com/kie/kie_default/"]
)
def test_the_callback_secret_ends_the_callback_url(url: str) -> None:
    found = read({"callback_url": url, "callback_secret": PART})
    assert found.callback_url == f"https://hooks.example.com/kie/kie_default/{PART}"
    assert found.callback_secret == PART


def test_a_callback_secret_alone_changes_nothing_that_is_sent() -> None:
    assert read({"callback_secret": PART}).callback_url == DEFAULT_CALLBACK_URL


@pytest.mark.parametrize("url", ["https://hooks.example.com/kie?family=veo", "https://hooks.example.com/kie#x"])
def test_a_callback_secret_after_a_query_is_refused(url: str) -> None:
    assert "query or a fragment" in refused("callback_url", {"callback_url": url, "callback_secret": PART})


# --- What is shown


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ANY_URL = st.builds("{}://{}{}".format, st.sampled_from(["http", "https", "ftp"]), st.text(), st.text())
WITH_A_SECRET = st.sampled_from([*SECRETS, PROXY]) | st.builds(PROXY.replace, st.just("proxy.example.com"), st.text())
ANY_EXTRA = st.fixed_dictionaries(
    {},
    optional={"callback_url": ANY_JSON | ANY_URL}
    | {extra.name: ANY_JSON | ANY_URL | WITH_A_SECRET for extra in EXTRA_FIELDS if extra.name != "callback_url"},
)


@settings(max_examples=200, deadline=None)
@given(
    extra=ANY_EXTRA,
    password=st.none() | st.just(KEY) | st.text() | st.text().map(KEY.__add__),
    host=st.none() | st.text() | ANY_URL | st.text().map(f"https://:{KEY}@".__add__),
    schema=st.none() | st.text() | st.sampled_from(["http", "https"]),
    port=st.none() | st.integers(1, 65535),
)
@example(extra={}, password=KEY, host=f"https://:{KEY}@api.kie.ai", schema=None, port=None)
@example(extra={"proxy": f"//{PROXY}"}, password=KEY, host=None, schema=None, port=None)
@example(extra={"verify": "\ud800"}, password=KEY, host="[", schema="http", port=1)
def test_whatever_is_typed_in_shows_no_secret(extra: dict[str, Any], **fields: Any) -> None:
    """It gives settings, or one clear refusal."""
    try:
        found = read(extra, **fields)
    except KieConfigurationError as refusal:
        assert_no_secret(str(refusal), repr(refusal))
        named = re.match(r"Field '(\w+)' .* \(connection 'my_kie'\)\.", str(refusal))
        assert named
        assert named[1] in {"password", "host", *(extra.name for extra in EXTRA_FIELDS)}
        return
    assert_no_secret(repr(found))
    assert found.api_key == fields["password"]
    assert found.base_url.startswith(("http://", "https://"))
    assert 0 < found.timeout <= 600
    assert isinstance(found.verify, (bool, str))


# --- The forms in which Airflow takes a connection

FORMS: dict[str, tuple[str | dict[str, Any], dict[str, Any]]] = {
    "JSON, only the key": ({"password": KEY}, {}),
    "JSON, host and port": (
        {"password": KEY, "host": "127.0.0.1", "schema": "http", "port": "8080"},
        {"base_url": "http://127.0.0.1:8080"},
    ),
    "JSON, extra as object": (
        {"password": KEY, "extra": {"timeout": 5, "verify": False, "proxy": PROXY}},
        {"timeout": 5.0, "verify": False, "proxy": PROXY},
    ),
    "JSON, extra as text": ({"password": KEY, "extra": '{"timeout": 5}'}, {"timeout": 5.0}),
    "JSON, extra null": ({"password": KEY, "extra": None}, {}),
    # Fields that nobody filled in arrive as null.
    "JSON, extra of the form": ({"password": KEY, "extra": {extra.name: None for extra in EXTRA_FIELDS}}, {}),
    "URI, only the key": (f"kie://:{KEY}@", {}),
    "URI, host and port": (f"kie://:{KEY}@api.kie.ai:8443", {"base_url": "https://api.kie.ai:8443"}),
    "URI, host and slash": (f"kie://:{KEY}@api.kie.ai/", {"base_url": "https://api.kie.ai"}),
    "URI, base URL and port": (f"kie://https://:{KEY}@api.kie.ai:8443", {"base_url": "https://api.kie.ai:8443"}),
    "URI, http to this machine": (f"kie://http://:{KEY}@[::1]:8080", {"base_url": "http://[::1]:8080"}),
    "URI, scheme at the end": (f"kie://:{KEY}@[::1]:8080/http", {"base_url": "http://[::1]:8080"}),
    "URI, quoted key": ("kie://:a%2Bb%2Fc%2Bd%3D@", {"api_key": "a+b/c+d="}),
    "URI, extra in the query": (
        f"kie://:{KEY}@?timeout=5&verify=false&callback_url=https%3A%2F%2Fa.example%2Fkie%3Fa%3Db",
        {"timeout": 5.0, "verify": False, "callback_url": "https://a.example/kie?a=b"},
    ),
    "URI, insecure_http in the query": (
        f"kie://http://:{KEY}@kie.internal:8080?insecure_http=true",
        {"base_url": "http://kie.internal:8080"},
    ),
    "URI, extra as JSON": (f"kie://:{KEY}@?__extra__=%7B%22timeout%22%3A+5%7D", {"timeout": 5.0}),
}


def define(monkeypatch: pytest.MonkeyPatch, form: str | dict[str, Any]) -> None:
    text = form if isinstance(form, str) else json.dumps({"conn_type": "kie", **form})
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", text)


async def assert_settings(expected: KieSettings) -> None:
    """Of the connection as it is defined, on the worker and in the triggerer."""
    assert KieHook(CONN_ID).settings == expected
    async with KieAsyncHook.connect(CONN_ID) as hook:
        assert hook.settings == expected


async def refused_alike(error: type[KieError], match: str) -> str:
    """Return the message with which the worker and the triggerer refuse the connection as it is defined."""
    with pytest.raises(error, match=match) as worker:
        _ = KieHook(CONN_ID).settings
    with pytest.raises(error) as triggerer:
        async with KieAsyncHook.connect(CONN_ID):
            pass
    assert str(worker.value) == str(triggerer.value)
    assert repr(CONN_ID) in str(worker.value)
    assert_no_secret(str(worker.value), repr(worker.value))
    return str(worker.value)


@pytest.mark.parametrize(("form", "expected"), FORMS.values(), ids=FORMS)
async def test_every_form_of_a_connection_works(
    form: str | dict[str, Any], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, form)
    await assert_settings(KieSettings(**{"conn_id": CONN_ID, "api_key": KEY, **expected}))


@pytest.mark.parametrize(
    ("form", "field"),
    [
        *((form, "password") for form in ("kie://", f"kie://{KEY}@", f"kie://:{KEY}%0A@", {"login": KEY})),
        (f"kie://:{KEY}@api.kie.ai/api/v1", "host"),
        ({"password": KEY, "host": f"https://:{KEY}@api.kie.ai"}, "host"),
        (f"kie://:{KEY}@?timeout=soon", "timeout"),
        (f"kie://:{KEY}@?wav_route=market", "wav_route"),
        ({"password": KEY, "extra": {"proxy": [PROXY]}}, "proxy"),
    ],
)
async def test_a_wrong_value_is_refused_alike(
    form: str | dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(monkeypatch, form)
    await refused_alike(KieConfigurationError, f"Field '{field}'")


def test_the_connection_test_of_the_form_gives_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    define(monkeypatch, {"password": KEY, "extra": {"timeout": "soon"}})
    passed, message = KieHook(CONN_ID).test_connection()
    assert not passed
    assert "'timeout'" in message
    # Airflow makes up an id for the test; the user would not find it.
    assert CONN_ID not in message


async def test_a_missing_connection_is_named() -> None:
    await refused_alike(KieConnectionNotFoundError, "is not defined")


# --- The form of Airflow 2.11 and 3.1


class StandInField:
    """What Airflow 3.1 puts in the place of a WTForms field; it takes these arguments and no others."""

    def __init__(
        self, label: Any = None, validators: Any = None, description: str = "", default: Any = None, widget: Any = None
    ) -> None:
        self.field_class, self.args = type(self), (label,)
        self.kwargs = {"description": description} | ({"widget": widget} if widget else {})


@pytest.fixture
def form_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real libraries where they are installed, else stand-ins with the names that Airflow 3.1 replaces."""
    fields, widgets = ("BooleanField", "PasswordField", "StringField"), ("BS3PasswordFieldWidget", "BS3TextFieldWidget")
    members: dict[str, dict[str, Any]] = {
        "wtforms": {name: type(name, (StandInField,), {}) for name in fields},
        "flask_babel": {"lazy_gettext": str},
        "flask_appbuilder": {},
        "flask_appbuilder.fieldwidgets": {name: type(name, (), {}) for name in widgets},
    }
    for name in () if find_spec("flask_appbuilder") else members:
        module = ModuleType(name)
        vars(module).update(members[name])
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Flask-AppBuilder itself
@pytest.mark.usefixtures("form_libraries")
def test_the_older_form_shows_every_field() -> None:
    shown = {
        name: (
            (field.field_class.__name__, type(field.kwargs.get("widget")).__name__),
            # Flask-Babel's lazy text would need a running web server to be read.
            str(getattr(field.args[0], "_args", field.args)[0]),
            field.kwargs["description"],
        )
        for name, field in KieHook.get_connection_form_widgets().items()
    }
    text = ("StringField", "BS3TextFieldWidget")
    looks = dict.fromkeys(
        ("proxy", "pacing", "webhook_hmac_key", "callback_secret"), ("PasswordField", "BS3PasswordFieldWidget")
    ) | {"insecure_http": ("BooleanField", "NoneType")}
    assert shown == {e.name: (looks.get(e.name, text), e.label, e.description) for e in EXTRA_FIELDS}


def test_the_newer_form_shows_every_field() -> None:
    fields = connection.build_conn_fields()
    shown = {name: (of["label"], of["description"], of["schema"].get("format")) for name, of in fields.items()}
    assert shown == {e.name: (e.label, e.description, "password" if e.secret else None) for e in EXTRA_FIELDS}


def test_the_older_form_hides_what_has_no_meaning() -> None:
    look = KieHook.get_ui_field_behaviour()
    assert look["relabeling"] == {"password": "API key", "host": "Base URL"}
    assert set(look["hidden_fields"]) == {"schema", "login", "port", "extra"}
    assert look["placeholders"]["host"] == DEFAULT_BASE_URL


# --- Spellings that once went wrong


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Airflow 2.11, about the same fault
@pytest.mark.parametrize("way", ["JSON", "URI"])
@pytest.mark.parametrize(
    "extra", ["[1, 2]", '"text"', "5", "null", '"{}"', "timeout=60", "{", "\ufeff{}", f'{{"proxy": "{PROXY}",}}']
)
async def test_extra_that_is_no_object_is_refused(extra: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_json, in_uri = {"password": KEY, "extra": extra}, f"kie://:{KEY}@?__extra__={quote(extra, safe='')}"
    define(monkeypatch, in_json if way == "JSON" else in_uri)
    if Version(airflow.__version__).release[:2] == (3, 1):  # Airflow itself takes it for none at all
        await refused_alike(KieConnectionNotFoundError, CONN_ID)
    else:
        await refused_alike(KieConfigurationError, "'extra'")


@pytest.mark.parametrize("extra", ["", " \n", "{}", " {} "])
async def test_an_empty_extra_is_none(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if extra.isspace() and Version(airflow.__version__).release[:2] == (3, 1):
        pytest.skip("Airflow itself takes it for no connection at all")
    define(monkeypatch, {"password": KEY, "extra": extra})
    await assert_settings(KieSettings(CONN_ID, KEY))


@pytest.mark.parametrize("port", [-1, 0, 65536, 99999])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    assert "must be between 1 and 65535" in refused("port", host="api.kie.ai", port=port)


def test_a_port_without_a_host_is_refused() -> None:
    assert "is empty, but a port is set; put both into the base URL" in refused("host", port=8443)


@pytest.mark.parametrize(
    ("stored", "extra", "problem"),
    [*((odd, {}, "must be a JSON object") for odd in ("[1]", "{")), ("{}", {"extra": {}}, "holds another extra")],
)
def test_an_extra_of_another_shape_is_named(stored, extra, problem):
    found = SimpleNamespace(password=KEY, host=None, schema=None, port=None, extra=stored)
    with pytest.raises(KieConfigurationError, match=f"'extra' of the Airflow connection {problem}"):
        KieSettings.from_connection(CONN_ID, found, extra)
