# SPDX-License-Identifier: Apache-2.0
"""
The proxy and the trusted certificates, from the connection or else from the environment.

Both transports and the file hosts follow the rules of requests. The libraries must not read the environment themselves,
because they read it differently, and would also take credentials from a netrc file: requests prefers these to the key,
and aiohttp rejects having both. Invalid settings are refused before anything is sent.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies

import certifi
from requests.utils import should_bypass_proxies

from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieConfigurationError
from airflow_provider_kie.hooks.transport import NO_CERTIFICATES, no_answer
from airflow_provider_kie.hosts import spell_proxy
from airflow_provider_kie.redaction import quoted

__all__ = ["ca_bundle", "proxy_url", "ssl_context"]

_WRONG_PATH = (FileNotFoundError, NotADirectoryError, PermissionError, ssl.SSLError)
# How OpenSSL finds a certificate in a folder.
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+")


def proxy_url(settings: KieSettings, url: str) -> str | None:
    """
    Return the proxy for a URL: the connection's, else the environment's.

    :raises KieConfigurationError: the environment names an invalid proxy.
    """
    if settings.proxy:
        return settings.proxy
    exceptions = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if exceptions.strip() == "*" or should_bypass_proxies(url, no_proxy=None):
        return None
    proxies = getproxies()
    for name in (urlsplit(url).scheme, "all"):
        if value := proxies.get(name, "").strip():
            return _sound_proxy(value, _proxy_variable(name), settings)
    return None


def _sound_proxy(value: str, source: str, settings: KieSettings) -> str:
    scheme, has_scheme, _ = value.partition("://")
    if has_scheme and scheme.lower().startswith("socks"):
        problem = (
            "names a SOCKS proxy, which the triggerer cannot use; name an HTTP proxy, there or in the connection's "
            "field 'proxy', or name the host in NO_PROXY"
        )
        raise KieConfigurationError(f"{source} {problem}", conn_id=settings.conn_id)
    spelled, problem = spell_proxy(value if has_scheme else f"http://{value.removeprefix('//')}")
    if problem:
        raise KieConfigurationError(f"{source} {problem}", conn_id=settings.conn_id)
    return spelled


def _proxy_variable(name: str) -> str:
    """Return the name of the variable that Python took a proxy from: lower case wins."""
    names = [each for each in os.environ if each.lower() == f"{name}_proxy" and os.environ[each].strip()]
    if names:
        return f"Environment variable {quoted(max(names))}"
    return f"The system's setting of a proxy for {quoted(name)}"


class _Bundle(NamedTuple):
    """A file or folder of CA certificates, and what named it."""

    path: str
    source: str


def _bundle(settings: KieSettings) -> _Bundle | None:
    if isinstance(settings.verify, str):
        return _Bundle(settings.verify, "Field 'verify' of the Airflow connection")
    if not settings.verify:
        return None
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(name, "").strip():
            return _Bundle(path, f"Environment variable {quoted(name)}")
    return _Bundle(certifi.where(), "The Python package 'certifi'")


def ca_bundle(settings: KieSettings) -> str | bool:
    """Return the file or folder of CA certificates to trust, or False for none."""
    bundle = _bundle(settings)
    return bundle.path if bundle else False


def ssl_context(settings: KieSettings, url: str) -> ssl.SSLContext | bool:
    """
    Return how to check the certificates for a URL. Files that have changed are read again.

    :return: True if there is nothing to check, False if checking is turned off.
    :raises KieConfigurationError: the CA bundle holds no certificates.
    :raises KieConnectionError: the CA bundle could not be read this time.
    """
    if not any(way.startswith("https://") for way in (url, proxy_url(settings, url) or "")):
        return True
    bundle = _bundle(settings)
    if bundle is None:
        return False
    try:
        return _load(bundle.path, _state(bundle.path))
    except OSError as error:
        if isinstance(error, _WRONG_PATH) or error.errno == errno.ENAMETOOLONG:
            problem = f"{bundle.source} does not lead to CA certificates"
            raise KieConfigurationError(problem, conn_id=settings.conn_id) from error
        # For example too many open files: the setting is right, and the error may pass.
        raise no_answer(settings, NO_CERTIFICATES, sent=False) from error


_State: TypeAlias = tuple[tuple[int, int, int], ...]


def _state(bundle: str) -> _State:
    """Return a value that changes with a file, or with anything in a folder."""
    path = Path(bundle)
    files = [path, *(each for each in sorted(path.iterdir()) if each.exists())] if path.is_dir() else [path]
    return tuple((found.st_mtime_ns, found.st_size, found.st_ino) for found in (each.stat() for each in files))


@lru_cache(maxsize=8)
def _load(bundle: str, state: _State) -> ssl.SSLContext:
    """Read a bundle once for each state, for thousands of waits to share."""
    path = Path(bundle)
    if not path.is_dir():
        return ssl.create_default_context(cafile=bundle)
    if not any(_HASHED_NAME.fullmatch(each.name) for each in path.iterdir()):
        raise FileNotFoundError("no certificate has a name that OpenSSL looks for")
    return ssl.create_default_context(capath=bundle)
