# SPDX-License-Identifier: Apache-2.0
"""
KIE's common endpoints: the credit balance and temporary download links.

Sources: the pages "Get Account Credits" and "Get Download URL"; both were recorded on 2026-04-16.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from urllib.parse import quote, unquote, urlsplit

from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.envelope import Json
from airflow_provider_kie.exceptions import KieUnreadableAnswerError, KieValidationError
from airflow_provider_kie.redaction import quoted

__all__ = ["credit", "download_url", "http_url"]

_HTTP_URL = re.compile(
    r"""
    (?P<scheme>https?://)
    (?:(?P<user>[^/?#]*)@)?
    (?P<host>\[[0-9A-F:.]+] | [^/?#@:]+)
    (?P<port>:[0-9]*)?
    (?P<rest>[/?#].*)?
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_HOST = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*|\[.+]")
# What HTTP takes as it is, as requests has it. The brackets are not in RFC 3986, but everybody takes them.
_LEFT_ALONE = "!#$%&'()*+,/:;=?@[]~"
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


def credit() -> Call[float]:
    """
    Ask for the remaining credits; free of charge, and the cheapest call that needs a valid key.

    KIE documents an integer but answers fractions (5916.25, recorded 2026-04-16).
    """
    return Call("Reading the credit balance", "GET", "/api/v1/chat/credit", _parse_balance)


def download_url(url: str) -> Call[str]:
    """
    Ask for a direct link, valid for 20 minutes, to a file that KIE generated.

    :param url: the file's URL as KIE gave it; KIE answers 422 ``url is wrong`` for any other.
    :raises KieValidationError: not an http(s) URL.
    """
    written = http_url(url)
    if written is None:
        raise KieValidationError("url is not an http(s) URL")
    return Call(
        "Asking for a download link",
        "POST",
        "/api/v1/common/download-url",
        _parse_link,
        json={"url": written},
    )


def http_url(value: object) -> str | None:
    """
    Return a URL as HTTP wants it; None for what is no absolute http or https URL with a host.

    Spaces, control characters, quotes and everything that is not ASCII are percent-encoded, as UTF-8; the host is
    written in IDNA, as browsers do. What is encoded already stays as it is. The result holds nothing that libraries
    read differently, except a user's name in front of the host.

    :param value: anything, in which white space around the URL does not count.
    """
    found = _HTTP_URL.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    scheme, user, host, port, rest = found.group("scheme", "user", "host", "port", "rest")
    try:
        host = _ascii_host(host)
        user = "" if user is None else _percent_encoded(user).replace("@", "%40") + "@"
        written = f"{scheme}{user}{host}{port or ''}{_percent_encoded(rest or '')}"
        _ = urlsplit(written).port  # raises for one beyond 65535, and urlsplit for a false address in brackets
    except ValueError:  # also that of idna, and that of half a surrogate pair
        return None
    return written if _HOST.fullmatch(host) else None


def _ascii_host(host: str) -> str:
    if host.isascii() and "%" not in host:
        return host
    import idna  # not before it is needed: its tables are large

    return idna.encode(unquote(host), uts46=True, std3_rules=True).decode()


def _percent_encoded(text: str) -> str:
    return quote(_STRAY_PERCENT.sub("%25", text), safe=_LEFT_ALONE)


def _parse_balance(data: Json) -> float:
    if isinstance(data, (int, float)) and not isinstance(data, bool):
        with suppress(OverflowError):
            balance = float(data)
            if math.isfinite(balance):
                return balance
    raise KieUnreadableAnswerError(f"the balance is not a number but {quoted(str(data))}")


def _parse_link(data: Json) -> str:
    link = http_url(data)
    if link is None:
        raise KieUnreadableAnswerError("the download link is not an http(s) URL")
    return link
