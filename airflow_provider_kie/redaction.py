# SPDX-License-Identifier: Apache-2.0
"""Redaction of outside text: keeps the credentials and signatures of URLs out of messages and logs."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["harmless", "printable", "quoted", "redact", "values_without_queries", "without_queries"]

# Any scheme and its two slashes, also as JSON escapes them. The length limit keeps the search linear.
_START = r"\b[a-z][a-z0-9+.-]{0,30}:(?:\\*/){2}"
_USER_INFO = re.compile(rf"(?P<start>{_START})[^\s/@\"'<>]+@", re.IGNORECASE)
# Paths and queries may contain raw spaces, so a query extends to its last "=" or "&", unless another URL begins first.
_URL_TAIL = re.compile(rf"(?P<url>{_START}[^?#]*)[?#](?:(?:(?!://).)*[=&])?\S*", re.IGNORECASE)
_HTTP_QUERY = re.compile(r"(?P<url>\bhttps?://[^\s?#\"'<>]*)[?#][^\s\"'<>]*", re.IGNORECASE)
_LONGEST_QUOTE = 500
# The search for URLs takes quadratic time.
_LONGEST_READ = 2_000

# The start of a query or fragment, also in a URL that is percent-encoded as a whole.
_ARGUMENT_TAIL = re.compile(r"[?#]|%(?:25)*(?:3F|23)", re.IGNORECASE)
_ARGUMENT_USER = re.compile(r"((?:\\*/){2})[^/]*@")
_ARGUMENT_HOST = re.compile(r"((?:\\*/){2})[^/]*\Z")
_LONGEST_ARGUMENT = 200


def printable(text: str) -> str:
    """Return ``text`` on one line, with spaces for characters that are not printable."""
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def redact(text: str) -> str:
    """Return ``text`` safe to log: one line, no user, query string or fragment in any URL, at most 500 characters."""
    short = _URL_TAIL.sub(r"\g<url>?…", _USER_INFO.sub(r"\g<start>***@", printable(text[:_LONGEST_READ])))
    return short if len(short) <= _LONGEST_QUOTE else short[:_LONGEST_QUOTE] + "…"


def without_queries(text: str) -> str:
    """Return all of ``text``, as it is but for the query and the fragment of each http(s) URL."""
    return _HTTP_QUERY.sub(r"\g<url>", text)


def values_without_queries(value: Any) -> Any:
    """Return a JSON value whose texts, at any depth, are as :func:`without_queries` leaves them."""
    if isinstance(value, dict):
        return {name: values_without_queries(each) for name, each in value.items()}
    if isinstance(value, list):
        return [values_without_queries(each) for each in value]
    return without_queries(value) if isinstance(value, str) else value


def harmless(value: object) -> str:
    """
    Return the part of an unchecked value that is safe to show, on one line.

    Cuts any value at its first ``?`` or ``#``, because a URL cannot always be recognized: it may contain a space or
    have an unusual scheme. Hides a user and password before a host.
    """
    return printable(_start_of(value))


def quoted(value: object) -> str:
    """Return the text of :func:`harmless` as a ``repr``, for a message."""
    return repr(_start_of(value)) if isinstance(value, str) else harmless(value)


def _start_of(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    start = _ARGUMENT_TAIL.split(text[:_LONGEST_READ], maxsplit=1)[0]
    rest = text[len(start) :]
    start = _ARGUMENT_USER.sub(r"\1***@", start)
    if "@" in rest:  # the cut may have gone through a password
        start = _ARGUMENT_HOST.sub(r"\1***", start)
    return start[:_LONGEST_ARGUMENT] + "…" if rest or len(start) > _LONGEST_ARGUMENT else start
