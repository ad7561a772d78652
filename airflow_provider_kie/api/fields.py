# SPDX-License-Identifier: Apache-2.0
"""
Lenient readers of single values: ids, URLs, texts, numbers and times, and their paths in a record.

For most families no finished job was ever recorded, and variants of the same software differ in letter case and
underscores. So whatever is unambiguous is read leniently.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit

from airflow_provider_kie.api.envelope import Json
from airflow_provider_kie.exceptions import KieValidationError
from airflow_provider_kie.hosts import in_ascii
from airflow_provider_kie.redaction import harmless, printable, quoted, redact

__all__ = [
    "check_count",
    "check_id",
    "check_url",
    "dig",
    "error_code",
    "first",
    "http_url",
    "is_blank",
    "is_empty",
    "is_id",
    "message",
    "number",
    "plain",
    "pushed_nothing",
    "start_of_link",
    "storable",
    "text",
    "time",
    "whole",
]

# The ids seen so far are 32 hex digits or UUIDs. Rejecting an id may lose a paid job, so other common alphabets, such
# as URL-safe base64, are accepted too.
_ID = re.compile(r"[A-Za-z0-9._:~+=-]{1,128}")
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
# Characters that need no encoding, as in requests. RFC 3986 excludes brackets here, but everything accepts them.
_LEFT_ALONE = "!#$%&'()*+,/:;=?@[]~"
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
_WHOLE = re.compile("-?[0-9]{1,19}")
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


def dig(value: Json, path: str) -> list[Json]:
    """
    Return all values at a path, except empty ones.

    :param path: keys separated by dots, ignoring case and underscores; ``[]`` after a key iterates over a list, and
        ``{a,b}`` at the end takes these keys as one object. JSON inside a text is parsed.
    """
    found = [_parsed(value)]
    for step in _steps(path):
        found = [_parsed(leaf) for each in found for leaf in _children(each, step)]
    return [leaf for leaf in found if not is_empty(leaf)]


def first(value: Json, *paths: str) -> Json:
    """Return the first value that :func:`dig` finds at one of the paths, or None."""
    for path in paths:
        if found := dig(value, path):
            return found[0]
    return None


def is_empty(value: Json) -> bool:
    """Return whether a value is null, a blank text, or a list or object of such."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, (dict, list)):
        return all(map(is_empty, value.values() if isinstance(value, dict) else value))
    return value is None


def plain(value: Any) -> Any:
    """
    Return a value with real dicts and lists, in place of objects that behave like them (results of mapped tasks).

    :param value: anything.
    """
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return [plain(each) for each in value]
    return value


def storable(value: Json) -> Json:
    """Return a value that every database and JSON reader accepts: no NUL, lone surrogate or infinite number."""
    if isinstance(value, str):
        return _NOT_STORABLE.sub(" ", value)
    if isinstance(value, dict):
        return {str(storable(name)): storable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [storable(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parsed(value: Json) -> Json:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            parsed: Json = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return parsed
    return value


#: A folded key; the keys of an object, each also folded; and whether the step iterates over a list.
_Step: TypeAlias = tuple[str, tuple[tuple[str, str], ...], bool]


# The rows' paths and the records' keys are the same in every one of thousands of reads.
@lru_cache(maxsize=512)
def _steps(path: str) -> tuple[_Step, ...]:
    steps = []
    for step in path.split("."):
        key = step.removesuffix("[]")
        names = key.strip("{}").split(",") if key.startswith("{") else ()
        steps.append((_folded(key), tuple((name, _folded(name)) for name in names), step.endswith("[]")))
    return tuple(steps)


@lru_cache(maxsize=64)
def _spellings(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the names by their folded spelling."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_folded(name), []).append(name)
    return found


def _children(value: Json, step: _Step) -> list[Json]:
    if not isinstance(value, dict):
        return []
    spellings, (key, as_object, through_list) = _spellings(tuple(value)), step
    if as_object:
        return [{name: value[spellings[wanted][0]] if wanted in spellings else None for name, wanted in as_object}]
    hits = [value[name] for name in spellings.get(key, ())]
    if not through_list:
        return hits
    return [each for hit in map(_parsed, hits) if isinstance(hit, list) for each in hit]


def _folded(key: str) -> str:
    return key.replace("_", "").strip().lower()


def text(value: Json) -> str | None:
    """Return a text on one printable line, or None for anything else."""
    return printable(value).strip() or None if isinstance(value, str) else None


def message(value: Json) -> str | None:
    """Return a text that is safe to log, or None for anything else."""
    found = text(value)
    return redact(found) if found else None


def whole(value: Json) -> int | None:
    """Read an int, or a float or text that stands for one, within 64 bits."""
    number: object = value
    if (isinstance(value, str) and _WHOLE.fullmatch(value.strip())) or (
        isinstance(value, float) and value.is_integer()
    ):
        number = int(value)
    return number if type(number) is int and abs(number) < 2**63 else None


def number(value: Json) -> float | None:
    """Read a finite number, also from a text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def error_code(value: Json) -> int | str | None:
    """Read an error code; None where KIE reports no error (null, 0, 200, or a text that says so)."""
    if value is None or isinstance(value, bool) or str(value).strip().lower() in ("", "null", "none"):
        return None
    number = whole(value)
    if number is not None:
        return None if number in (0, 200) else number
    return redact(str(value))


def time(value: Json) -> str | None:
    """Read epoch seconds or milliseconds as ISO 8601 in UTC, or return a text."""
    number = whole(value) if not isinstance(value, bool) else None
    if number is None:
        return text(value)
    seconds = number / 1000 if abs(number) >= 10**11 else number
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def is_blank(value: object) -> bool:
    """Return whether a rendered argument has no value: None, blank, "None" from a template, or Jinja's undefined."""
    return str(value).strip() in ("", "None")


def pushed_nothing(*names: str) -> KieValidationError:
    """
    Return the error for arguments that were passed but rendered to nothing.

    :param names: the arguments' names.
    """
    empty = " and ".join(f"{name} is empty" for name in names)
    return KieValidationError(f"{empty}; the task that should provide it pushed nothing")


def check_count(field: str, value: object) -> None:
    """
    Check a whole number of at least 1.

    :raises KieValidationError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise KieValidationError(f"{field} is {quoted(value)}, but must be a whole number of at least 1")


def check_id(field: str, value: object) -> str:
    """
    Return an id of KIE, or raise an error that names the argument.

    :param value: the rendered argument; an ``int`` counts as its digits, because ``render_template_as_native_obj``
        turns digits into one.
    :raises KieValidationError: empty, ``None`` (also as text), unexpected characters, a URL, or a ``float``, from which
        the id cannot be recovered.
    """
    if is_blank(value):
        raise pushed_nothing(field)
    if type(value) is int:
        value = str(value)
    if isinstance(value, float):
        raise KieValidationError(
            f"{field} is the number {quoted(value)}: render_template_as_native_obj reads an id of digits and one 'e' "
            "as a number; quote the template, as in \"'{{ … }}'\", or pass the other task's .output"
        )
    if not isinstance(value, str):
        raise KieValidationError(f"{field} must be a text, not {type(value).__name__}")
    if "://" in value:
        raise KieValidationError(f"{field} is {quoted(value)}, a URL and not an id of KIE")
    if not is_id(value):
        raise KieValidationError(
            f"{field} is {quoted(value)}, but an id of KIE has only letters, digits and . _ : ~ + = -"
        )
    return value


def is_id(text: str) -> bool:
    """Return whether a text can be an id of KIE."""
    return _ID.fullmatch(text) is not None


def http_url(value: object) -> str | None:
    """
    Return a URL encoded for HTTP; None if it is not an absolute http or https URL with a host.

    Spaces, control characters, quotes and everything that is not ASCII are percent-encoded, as UTF-8; the host is
    written in IDNA, as browsers do. Existing encoding is kept. All libraries read the result alike, except for a user
    name before the host.
    """
    found = _HTTP_URL.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    scheme, user, host, port, rest = found.group("scheme", "user", "host", "port", "rest")
    try:
        host = in_ascii(host)
        user = "" if user is None else _percent_encoded(user).replace("@", "%40") + "@"
        written = f"{scheme}{user}{host}{port or ''}{_percent_encoded(rest or '')}"
        _ = urlsplit(written).port  # raises for a port above 65535, as urlsplit does for an invalid address in brackets
    except ValueError:  # also from idna, and for a lone surrogate
        return None
    return written if _HOST.fullmatch(host) else None


def _percent_encoded(text: str) -> str:
    return quote(_STRAY_PERCENT.sub("%25", text), safe=_LEFT_ALONE)


def check_url(field: str, value: object) -> str:
    """
    Return a user's URL encoded for HTTP.

    :raises KieValidationError: not an http(s) URL.
    """
    url = http_url(value)
    if url is None:
        raise KieValidationError(f"{field} is not an http(s) URL")
    return url


def start_of_link(link: Json) -> str:
    """Return the scheme and host of a link, or the start of any other text, for a message."""
    found = re.match(r"(?:[^/]{0,40}//)?[^/]{0,40}/?", harmless(link).strip())
    return quoted(found[0] if found else "")
