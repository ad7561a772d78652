# SPDX-License-Identifier: Apache-2.0
"""What the two transports share: how they introduce themselves, whom they trust, and what they say of silence."""

from __future__ import annotations

import os
import platform
import ssl
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
from airflow import __version__ as airflow_version

from airflow_provider_kie import __version__
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieConfigurationError, KieConnectionError, KieConnectionNotFoundError

__all__ = [
    "BROKE_OFF",
    "CONNECT_TIMEOUT",
    "COULD_NOT_CONNECT",
    "NOT_TRUSTED",
    "TIMED_OUT",
    "ca_bundle",
    "no_answer",
    "no_connection",
    "proxy_url",
    "ssl_context",
    "user_agent",
]

#: Seconds for opening a connection, where the request's own limit is not shorter.
CONNECT_TIMEOUT = 10.0

COULD_NOT_CONNECT = "could not connect"
NO_CERTIFICATES = "the CA certificates could not be read, or this process has too many open files"
NOT_TRUSTED = "the TLS connection failed; see the extra field 'verify' for hosts with a CA of their own"
TIMED_OUT = "timed out"
BROKE_OFF = "the connection broke off"


@cache
def user_agent() -> str:
    """Return the User-Agent; KIE's edge answers 403 to the default ones of Python's libraries."""
    return f"airflow-provider-kie/{__version__} (Airflow/{airflow_version}; Python/{platform.python_version()})"


def ca_bundle(verify: bool | str) -> str | bool:
    """
    Return the CA bundle that both transports use, or False for none.

    :param verify: the connection's setting.
    """
    if verify is not True:
        return verify
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()


def ssl_context(settings: KieSettings) -> ssl.SSLContext | bool:
    """
    Return how to check the host's certificate: True where there is none, False for not at all. Reads files.

    :param settings: the connection.
    :raises KieConfigurationError: the CA bundle holds no certificates.
    :raises KieConnectionError: it could not be read this time.
    """
    if not settings.base_url.startswith("https://"):
        return True
    bundle = ca_bundle(settings.verify)
    if not isinstance(bundle, str):
        return False
    try:
        return _load_bundle(bundle)
    except (FileNotFoundError, NotADirectoryError, PermissionError, ssl.SSLError) as error:
        raise KieConfigurationError(
            "Field 'verify' of the Airflow connection does not lead to CA certificates", conn_id=settings.conn_id
        ) from error
    except OSError as error:
        # Such as too many open files: not the connection's fault, and it may pass.
        raise no_answer(settings, NO_CERTIFICATES, sent=False) from error


@cache
def _load_bundle(bundle: str) -> ssl.SSLContext:
    is_folder = os.path.isdir(bundle)
    return ssl.create_default_context(cafile=None if is_folder else bundle, capath=bundle if is_folder else None)


def proxy_url(settings: KieSettings, url: str) -> str | None:
    """
    Return the proxy that leads to a URL: the connection's, else the environment's.

    Neither library may look at the environment itself: both would also take credentials from a netrc file, which
    requests prefers to the key and aiohttp refuses beside it.

    :param settings: the connection.
    :param url: what is asked for.
    """
    if settings.proxy:
        return settings.proxy
    address = urlsplit(url)
    if proxy_bypass(address.netloc):
        return None
    proxies = getproxies()
    return proxies.get(address.scheme) or proxies.get("all")


def no_connection(conn_id: str) -> KieConnectionNotFoundError:
    """
    Return the error of a connection that Airflow does not know, or could not read.

    :param conn_id: the connection that was asked for.
    """
    return KieConnectionNotFoundError("The Airflow connection is not defined or can not be read", conn_id=conn_id)


def no_answer(settings: KieSettings, what: str, sent: bool) -> KieConnectionError:
    """
    Return the error of a request that got no answer.

    :param settings: the connection that was used.
    :param what: what happened, in one of this module's words, so that both transports say the same.
    :param sent: False when the request certainly never reached KIE.
    """
    return KieConnectionError(
        f"No answer from {urlsplit(settings.base_url).netloc}: {what}", sent=sent, conn_id=settings.conn_id
    )
