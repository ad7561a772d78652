# SPDX-License-Identifier: Apache-2.0
"""What the two transports share: their User-Agent, and the error of a request without an answer."""

from __future__ import annotations

import platform
from functools import cache
from urllib.parse import urlsplit

from airflow_provider_kie import __version__
from airflow_provider_kie.compat import airflow_version
from airflow_provider_kie.connection import KieSettings
from airflow_provider_kie.exceptions import KieConnectionError, KieConnectionNotFoundError

__all__ = [
    "BROKE_OFF",
    "CONNECT_TIMEOUT",
    "COULD_NOT_CONNECT",
    "NOT_TRUSTED",
    "NO_CERTIFICATES",
    "TIMED_OUT",
    "no_answer",
    "no_connection",
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


def no_connection(conn_id: str) -> KieConnectionNotFoundError:
    """Return the error of a connection that is not defined or could not be read."""
    return KieConnectionNotFoundError("The Airflow connection is not defined or cannot be read", conn_id=conn_id)


def no_answer(settings: KieSettings, what: str, sent: bool, base_url: str | None = None) -> KieConnectionError:
    """
    Return the error of a request without an answer.

    :param what: what happened, as one of this module's constants.
    :param sent: False when the request certainly never reached KIE.
    :param base_url: the host, if it is not that of the API.
    """
    return KieConnectionError(
        f"No answer from {urlsplit(base_url or settings.base_url).netloc}: {what}", sent=sent, conn_id=settings.conn_id
    )
