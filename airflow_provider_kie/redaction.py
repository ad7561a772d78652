# SPDX-License-Identifier: Apache-2.0
"""What may be shown of a text from outside: no message or log line holds what a URL keeps for those who may use it."""

from __future__ import annotations

import re

__all__ = ["printable", "redact"]

_USER_INFO = re.compile(r"(?P<scheme>\bhttps?:(?:\\*/){2})[^\s/@\"'<>]+@", re.IGNORECASE)
_URL_TAIL = re.compile(r"(?P<url>\bhttps?:(?:\\*/){2}[^\s?#]*)[?#]\S*", re.IGNORECASE)
_LONGEST_QUOTE = 500
# Looking for a URL takes time that grows with the square of the text.
_LONGEST_READ = 2_000


def printable(text: str) -> str:
    """
    Return ``text`` in one line, with a space for each character that can not be shown or that databases do not take.

    :param text: anything that came from outside; JSON can hold NUL and half a surrogate pair.
    """
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def redact(text: str) -> str:
    """
    Return ``text`` fit for a log: one line, no user, query string or fragment in any URL, at most 500 characters.

    :param text: anything that came from outside, such as KIE's ``msg`` or ``errorMessage``.
    """
    short = _URL_TAIL.sub(r"\g<url>?…", _USER_INFO.sub(r"\g<scheme>***@", printable(text[:_LONGEST_READ])))
    return short if len(short) <= _LONGEST_QUOTE else short[:_LONGEST_QUOTE] + "…"
