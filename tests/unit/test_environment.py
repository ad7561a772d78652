# SPDX-License-Identifier: Apache-2.0
"""One reading of the environment's proxies, the one of requests, and of the CA bundles in it."""

from __future__ import annotations

import os
import ssl

import certifi
import pytest
import requests

from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieConfigurationError
from airflow_provider_kie.hooks.environment import ca_bundle, proxy_url, ssl_context
from tests.certificates import certificate

PASSWORD = "pr0xy-8d1f6c"
SETTINGS = KieSettings("my_kie", "canary-key-0123456789")
KIE = SETTINGS.base_url
PROXY = "http://proxy.example.com:3128"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """The environment without what it says of proxies and certificates."""
    for name in [name for name in os.environ if name.lower().endswith(("_proxy", "_ca_bundle"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def environment(monkeypatch):
    def set_all(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


# --- Proxies


FILES, OTHER, SOCKS = "http://files.example.com/1.wav", "http://other.example", "socks5://proxy.example.com"


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, KIE, None),
        *(({name: PROXY}, KIE, PROXY) for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY")),
        ({"https_proxy": PROXY}, FILES, None),
        ({"http_proxy": PROXY}, KIE, None),
        ({"HTTP_PROXY": PROXY}, FILES, PROXY),
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, FILES, None),
        *(({other: OTHER, "https_proxy": PROXY}, KIE, PROXY) for other in ("all_proxy", "HTTPS_PROXY")),
        # Not set, or as good as not set.
        ({"HTTPS_PROXY": PROXY, "https_proxy": ""}, KIE, None),
        ({"https_proxy": " \n", "all_proxy": PROXY}, KIE, PROXY),
        # Hosts that are reached without one.
        *(({"https_proxy": PROXY, "NO_PROXY": hosts}, KIE, None) for hosts in (" * ", " other.example , .KIE.ai ")),
        # One that cannot work harms nobody who does not use it.
        ({"ALL_PROXY": SOCKS, "HTTPS_PROXY": PROXY}, KIE, PROXY),
        ({"ALL_PROXY": SOCKS, "NO_PROXY": "kie.ai"}, KIE, None),
        ({"http_proxy": SOCKS}, KIE, None),
    ],
)
def test_the_proxy_is_the_one_that_the_environment_names(environment, variables, url, expected):
    environment(variables)
    assert proxy_url(SETTINGS, url) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *((f" {PROXY}/\n", PROXY), (PROXY.replace("http://proxy", "HTTP://Proxy"), PROXY), (PROXY[7:], PROXY)),
        *((f"{PROXY[5:]}/", PROXY), ("proxy:3128", "http://proxy:3128"), ("localhost:3128", "http://localhost:3128")),
        *((f"{name}:3128", f"http://{name}:3128") for name in ("socks.example.com", "[::1]")),
        ("https://proxy.example.com", "https://proxy.example.com"),
        ("pröxy.example:3128", "http://xn--prxy-6qa.example:3128"),
        (f"user:{PASSWORD}@proxy:3128", f"http://user:{PASSWORD}@proxy:3128"),
        ("http://user:p@ss%21@proxy:3128", "http://user:p%40ss%21@proxy:3128"),
    ],
)
def test_a_proxy_however_it_is_written(environment, written, expected):
    environment({"https_proxy": written})
    assert proxy_url(SETTINGS, KIE) == expected


NO_PROXIES = [
    *("", "kie.ai", "*", " other.example , .kie.ai ", "API.KIE.AI", "ie.ai,kie.ai.example", "::1", "kie:2"),
    *("10.0.0.0/8,.internal", "10.0.0.0/16", "10.0.0.0/8,192.168.1.1"),
]


@pytest.mark.parametrize("no_proxy", NO_PROXIES)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_requests_itself_would_take_the_same(environment, no_proxy, name):
    environment({"https_proxy": PROXY, "all_proxy": "http://other.example.com:1", name: no_proxy})
    for url in (KIE, "http://kie:2/x", "https://10.9.9.9", "http://192.168.1.1:80", "http://[::1]:1", "https://a"):
        taken = requests.Session().merge_environment_settings(url, {}, None, None, None)["proxies"]
        assert proxy_url(SETTINGS, url) == requests.utils.select_proxy(url, taken)


def test_the_connections_own_proxy_comes_first(environment):
    environment({"https_proxy": "socks5://proxy.example.com", "no_proxy": "*"})
    assert proxy_url(KieSettings("my_kie", "canary-key", proxy=PROXY), KIE) == PROXY


NO_URL = "must be a URL that starts with http:// or https://"
WITH_PASSWORD = f"user:{PASSWORD}@proxy.example.com"


@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY", "Https_Proxy"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        *((f"{scheme}://{WITH_PASSWORD}", "names a SOCKS proxy") for scheme in ("socks4", "SOCKS5", "socks")),
        *((f"http://{WITH_PASSWORD}{tail}", NO_URL) for tail in (":port", ":99999", "\nx.com")),
        *((f"http://user:{PASSWORD}{odd}@proxy.example.com:3128", NO_URL) for odd in ("#x", "/x", " x")),
        *((odd, NO_URL) for odd in (f"ftp://{WITH_PASSWORD}", f"user:{PASSWORD}/x@proxy.example.com:3128")),
        *((odd, NO_URL) for odd in (f"http://TEAM\\{WITH_PASSWORD}", f"http://user:{PASSWORD}@", "http://")),
        *((f"http{odd}proxy.example.com:3128", NO_URL) for odd in (":/", ":", ";//", "s://https://")),
        *(
            (odd, NO_URL)
            for odd in ("http://[::1", "::1", "proxy.example.com:port", "http://wpad.example.com/wpad.dat")
        ),
        (
            f"http://user:{PASSWORD}€@proxy.example.com",
            "has a colon in its user, or a character that is not in Latin",
        ),
    ],
)
def test_a_proxy_that_cannot_work_names_its_variable(environment, name, value, why):
    environment({name: value})
    with pytest.raises(KieConfigurationError) as refused:
        proxy_url(SETTINGS, KIE)
    said = str(refused.value)
    assert said.startswith(f"Environment variable {name!r} {why}")
    assert "(connection 'my_kie')" in said
    assert PASSWORD not in said + repr(refused.value.__context__)


def test_a_proxy_of_the_system_is_blamed_on_the_system(monkeypatch):
    """macOS and Windows know proxies that no variable names."""
    monkeypatch.setattr("airflow_provider_kie.hooks.environment.getproxies", lambda: {"https": "socks://127.0.0.1:9"})
    with pytest.raises(KieConfigurationError, match=r"^The system's setting of a proxy for 'https' names a SOCKS"):
        proxy_url(SETTINGS, KIE)


# --- CA bundles


@pytest.fixture
def bundle(tmp_path):
    return certificate(tmp_path / "ca.pem", "kie.example")


def certificates_of(context):
    return context.cert_store_stats()["x509"]


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("around", ["{}", " {}\n"])
def test_a_bundle_of_the_environment_is_used(environment, bundle, name, around):
    environment({name: around.format(bundle)})
    assert ca_bundle(SETTINGS) == str(bundle)
    assert certificates_of(ssl_context(SETTINGS, KIE)) == 1


@pytest.mark.parametrize(
    ("variables", "verify", "expected"),
    [
        ({}, True, certifi.where()),
        ({"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": " "}, True, certifi.where()),
        ({"REQUESTS_CA_BUNDLE": " ", "CURL_CA_BUNDLE": "/second.pem"}, True, "/second.pem"),
        ({"REQUESTS_CA_BUNDLE": "/first.pem", "CURL_CA_BUNDLE": "/second.pem"}, True, "/first.pem"),
        ({"REQUESTS_CA_BUNDLE": "/first.pem"}, "/own.pem", "/own.pem"),
        ({"REQUESTS_CA_BUNDLE": "/first.pem"}, False, False),
    ],
)
def test_which_bundle_counts(environment, variables, verify, expected):
    environment(variables)
    assert ca_bundle(KieSettings("my_kie", "canary-key", verify=verify)) == expected


def bad_bundle(kind, folder):
    """Return a path that leads to no certificates."""
    path = folder / "ca.pem"
    if kind == "text":
        path.write_text("see the wiki")
    elif kind in ("empty", "below a file"):
        path.touch()
    elif kind != "none":
        certificate(path, "kie.example")
    if kind == "the certificate itself":
        return path.read_text().replace("\n", " ")
    # The names of certificates in a folder have to be their hashes.
    return {"folder": folder, "below a file": path / "ca.pem"}.get(kind, path)


BAD_BUNDLES = ["none", "empty", "text", "folder", "below a file", "the certificate itself"]


@pytest.mark.parametrize("kind", BAD_BUNDLES)
def test_a_bundle_that_cannot_work_names_its_place(environment, monkeypatch, tmp_path, kind):
    path = str(bad_bundle(kind, tmp_path))
    environment({"REQUESTS_CA_BUNDLE": certifi.where()})
    with pytest.raises(KieConfigurationError, match=r"^Field 'verify' of the Airflow connection does not lead"):
        ssl_context(KieSettings("my_kie", "canary-key", verify=path), KIE)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        environment({name: path})
        with pytest.raises(KieConfigurationError, match=rf"^Environment variable '{name}' does not lead to CA"):
            ssl_context(SETTINGS, KIE)
        monkeypatch.delenv(name)


def test_a_bundle_that_is_not_needed_is_not_read(environment):
    environment({"REQUESTS_CA_BUNDLE": "/no/such/file.pem"})
    assert ssl_context(SETTINGS, "http://127.0.0.1:8080") is True
    assert ssl_context(KieSettings("my_kie", "canary-key", verify=False), KIE) is False
    with pytest.raises(KieConfigurationError):  # the proxy has a certificate as well
        ssl_context(KieSettings("my_kie", "canary-key", proxy="https://proxy.example.com"), "http://127.0.0.1:8080")


def test_a_bundle_is_read_once_until_it_changes(environment, bundle, tmp_path):
    environment({"REQUESTS_CA_BUNDLE": str(bundle)})
    before = ssl_context(SETTINGS, KIE)
    assert ssl_context(SETTINGS, KIE) is before
    more = certificate(tmp_path / "more.pem", "kie.example").read_bytes()
    bundle.write_bytes(bundle.read_bytes() + more)
    grown = ssl_context(SETTINGS, KIE)
    assert certificates_of(grown) == 2
    (tmp_path / "more.pem").replace(bundle)
    assert certificates_of(ssl_context(SETTINGS, KIE)) == 1


def test_a_symbolic_link_to_a_bundle_may_change(environment, bundle, tmp_path):
    """As Kubernetes replaces the files of a ConfigMap."""
    environment({"REQUESTS_CA_BUNDLE": str(tmp_path / "link.pem")})
    (tmp_path / "link.pem").symlink_to(bundle)
    before = ssl_context(SETTINGS, KIE)
    (tmp_path / "new.pem").symlink_to(certificate(tmp_path / "other.pem", "kie.example"))
    (tmp_path / "new.pem").replace(tmp_path / "link.pem")
    assert ssl_context(SETTINGS, KIE).get_ca_certs() != before.get_ca_certs()


def test_a_folder_is_read_again_when_it_changes(environment, bundle, tmp_path):
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / "0123abcd.0").symlink_to(bundle)
    (folder / "89abcdef.0").symlink_to("/no/such/file.pem")  # some are left over on many machines
    environment({"REQUESTS_CA_BUNDLE": str(folder)})
    before = ssl_context(SETTINGS, KIE)
    assert ssl_context(SETTINGS, KIE) is before
    bundle.write_bytes(certificate(tmp_path / "more.pem", "kie.example").read_bytes() + b"\n")
    assert isinstance(after := ssl_context(SETTINGS, KIE), ssl.SSLContext)
    assert after is not before
