# SPDX-License-Identifier: Apache-2.0
"""What may be shown of a text from outside: no message or log line holds what a URL keeps for those who may use it."""

from __future__ import annotations

import re

__all__ = ["harmless", "printable", "quoted", "redact"]

# A scheme of any name and the two slashes, also as JSON writes them. The limit keeps the search linear.
_START = r"\b[a-z][a-z0-9+.-]{0,30}:(?:\\*/){2}"
_USER_INFO = re.compile(rf"(?P<start>{_START})[^\s/@\"'<>]+@", re.IGNORECASE)
# A raw space may stand in the path as well as in the query, so a query goes on to its last "=" or "&", unless
# another URL begins before that.
_URL_TAIL = re.compile(rf"(?P<url>{_START}[^?#]*)[?#](?:(?:(?!://).)*[=&])?\S*", re.IGNORECASE)
_LONGEST_QUOTE = 500
# Looking for a URL takes time that grows with the square of the text.
_LONGEST_READ = 2_000

# Where the query or the fragment of an argument begins, also one that is percent-encoded as a whole.
_ARGUMENT_TAIL = re.compile(r"[?#]|%(?:25)*(?:3F|23)", re.IGNORECASE)
_ARGUMENT_USER = re.compile(r"((?:\\*/){2})[^/]*@")
_ARGUMENT_HOST = re.compile(r"((?:\\*/){2})[^/]*\Z")
_LONGEST_ARGUMENT = 200


def printable(text: str) -> str:
    """
    Return ``text`` in one line, with a space for each character that cannot be shown or that databases do not take.
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def redact(text: str) -> str:
    """Return ``text`` fit for a log: one line, no user, query string or fragment in any URL, at most 500 characters."""
    short = _URL_TAIL.sub(r"\g<url>?…", _USER_INFO.sub(r"\g<start>***@", printable(text[:_LONGEST_READ])))
    return short if len(short) <= _LONGEST_QUOTE else short[:_LONGEST_QUOTE] + "…"


def harmless(value: object) -> str:
    """
    Return what of an argument may be shown before anything is known about it, in one line.

    It ends before the first ``?`` or ``#``, whatever the argument is, because a URL cannot always be told from another
    text: it may hold a space or have another scheme. A user and password in front of a host are hidden.
    """
    return printable(_start_of(value))


def quoted(value: object) -> str:
    """Return what :func:`harmless` shows of an argument as its ``repr``, for a message."""
    return repr(_start_of(value)) if isinstance(value, str) else harmless(value)


def _start_of(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    start = _ARGUMENT_TAIL.split(text[:_LONGEST_READ], maxsplit=1)[0]
    rest = text[len(start) :]
    start = _ARGUMENT_USER.sub(r"\1***@", start)
    if "@" in rest:  # the cut may have gone through a password
        start = _ARGUMENT_HOST.sub(r"\1***", start)
    return start[:_LONGEST_ARGUMENT] + "…" if rest or len(start) > _LONGEST_ARGUMENT else start
