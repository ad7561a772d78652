# SPDX-License-Identifier: Apache-2.0
"""
The envelope around every answer of KIE: ``{"code": …, "msg": …, "data": …}``.

The rules that live here and nowhere else: an answer is a success only if the HTTP status is 2xx **and** the body
is a JSON object **and** its ``code`` is 200, as a number or as text; and which class of error stands for which result
number. KIE hides most errors, a refused key among them, in HTTP 200 (recorded 2026-04-16 to 2026-08-27), answers others
with a real HTTP status (pages "Getting Started" and "Get WAV Details"), and the edge in front of it answers pages that
are not JSON at all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NoReturn, TypeAlias

from airflow_provider_kie.exceptions import (
    KieAlreadyConvertedError,
    KieAuthenticationError,
    KieBlockedError,
    KieError,
    KieFeatureDisabledError,
    KieInsufficientCreditsError,
    KieJobFailedError,
    KieKeyCapError,
    KieMaintenanceError,
    KieNotFoundError,
    KieRateLimitError,
    KieServerError,
    KieSourceError,
    KieUnexpectedCodeError,
    KieUnreadableAnswerError,
    KieValidationError,
)
from airflow_provider_kie.redaction import quoted

__all__ = [
    "ERROR_BY_CODE",
    "ERROR_BY_STATUS",
    "LONGEST_BODY",
    "Answer",
    "Json",
    "data_of",
    "decode",
    "final_refusal",
    "says_unknown",
]

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

#: Bytes of a body that a transport reads at most; KIE's answers are below 4 KiB.
LONGEST_BODY = 1024 * 1024

#: What an HTTP status means where no body gives a number of KIE's. Any 5xx is a :class:`KieServerError`; of a 404, a
#: 409 and the like nobody knows whether it is KIE that speaks or something on the way.
ERROR_BY_STATUS: dict[int, type[KieError]] = {
    401: KieAuthenticationError,
    403: KieBlockedError,
    408: KieServerError,
    429: KieRateLimitError,
}

#: KIE's result numbers (the ``code`` of a body) and what they mean.
ERROR_BY_CODE: dict[int, type[KieError]] = {
    400: KieValidationError,
    401: KieAuthenticationError,
    402: KieInsufficientCreditsError,
    403: KieBlockedError,
    404: KieNotFoundError,
    408: KieServerError,
    409: KieAlreadyConvertedError,
    422: KieValidationError,
    429: KieRateLimitError,
    433: KieKeyCapError,
    451: KieSourceError,
    455: KieMaintenanceError,
    500: KieServerError,
    501: KieJobFailedError,
    502: KieServerError,
    503: KieServerError,
    504: KieServerError,
    505: KieFeatureDisabledError,
}

#: What refusals say of an id that KIE does not know, under these numbers. The text begins with that, because trouble of
#: KIE's own ("Cannot invoke … because "task" is null") uses the same words.
_UNKNOWN_TEXT = re.compile(r"[\w ]{1,60}(not exist|not found|is null)\b", re.IGNORECASE)
_UNKNOWN_CODES = (422, 500)
#: What a call that is refused with 500 says where repeating it cannot help (recorded 2026-04 to 2026-08).
_FINAL_REASONS = re.compile(r"\b(paused|not within|not exist|must)\b", re.IGNORECASE)

_LONGEST_RETRY_AFTER = 3600.0
_SHOWN_OF_A_BODY = 80


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a transport received.

    :param status: the HTTP status.
    :param body: the body, as far as it was read.
    :param retry_after: the ``Retry-After`` header, if there was one.
    :param location: the ``Location`` header, if there was one.
    """

    status: int
    body: bytes
    retry_after: str | None = None
    location: str | None = None

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes, *, secret: str) -> Answer:
        """
        Build the answer, without the secret that an answer might echo.

        :param headers: the response's headers, in any letter case that the mapping finds.
        :param secret: the API key; so long, as the connection's check ensures, that nothing else is hit.
        """
        hidden = body.replace(secret.encode(), b"***").replace(secret.replace("/", r"\/").encode(), b"***")
        location = headers.get("Location")
        return cls(status, hidden, headers.get("Retry-After"), location and location.replace(secret, "***"))


def decode(answer: Answer) -> Json:
    """
    Return the ``data`` of a successful answer.

    :raises KieError: the class that stands for KIE's result number, else for the HTTP status.
    """
    envelope = _parse_object(answer)
    code = _result_number(envelope.get("code")) if envelope is not None else None
    if envelope is None or code is None or (code == 200 and not _is_success(answer.status)):
        _refuse_without_code(answer, envelope or {})
    if code != 200:
        _refuse(answer, code, envelope)
    return envelope.get("data")


def data_of(answer: Answer) -> Json:
    """Return the ``data`` of any answer, also of a refusal; None where it has none."""
    envelope = _parse_object(answer)
    return envelope.get("data") if envelope is not None else None


def says_unknown(error: KieError) -> bool:
    """Tell whether KIE refused a call because it does not know the id."""
    return error.code in _UNKNOWN_CODES and _UNKNOWN_TEXT.match(error.said) is not None


def final_refusal(error: KieError) -> KieError | None:
    """Return the refusal that a 500 stands for if its text is a reason; None for trouble of KIE's own."""
    if error.code == 500 and _FINAL_REASONS.search(error.said):
        return KieValidationError(error.problem, **error.details())
    return None


def _result_number(value: Json) -> int | None:
    """Read a number, or a text of digits; ``true`` and 200.0 are none."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value.strip()):
        return int(value)
    return value if type(value) is int else None


def _is_success(status: int) -> bool:
    return 200 <= status < 300


def _parse_object(answer: Answer) -> dict[str, Json] | None:
    try:
        parsed = _DECODER.decode(answer.body.decode())
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


#: Made once, because ``json.loads`` with an option makes one for every answer.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _refuse(answer: Answer, code: int, envelope: dict[str, Json]) -> NoReturn:
    message = envelope.get("msg")
    said = message.strip() if isinstance(message, str) else ""
    named = _existing_id(envelope)
    error = ERROR_BY_CODE.get(code, KieUnexpectedCodeError)(
        f"KIE answered {code}" + (f": {said!r}" if said else "") + (f", naming task {quoted(named)}" if named else ""),
        code=code,
        retry_after=_retry_after(answer.retry_after),
        existing_kie_task_id=named,
    )
    error.said = said
    raise error


def _refuse_without_code(answer: Answer, envelope: dict[str, Json]) -> NoReturn:
    """Fall back to the HTTP status. Most of them come from something between us and KIE."""
    status = answer.status
    if 300 <= status < 400:
        raise KieUnreadableAnswerError(
            f"KIE's host redirects to {quoted(answer.location or '')} (HTTP {status}); redirects are not "
            "followed, so that the key stays with the host of the connection",
            code=status,
        )
    named = _existing_id(envelope)
    if _is_success(status):
        problem = f"KIE's answer has no result number: {_shown(answer)}"
        raise KieUnreadableAnswerError(problem, existing_kie_task_id=named)
    error_class = KieServerError if status >= 500 else ERROR_BY_STATUS.get(status, KieUnreadableAnswerError)
    raise error_class(
        f"KIE's host answered HTTP {status} without a result number: {_shown(answer)}",
        code=status,
        retry_after=_retry_after(answer.retry_after),
        existing_kie_task_id=named,
    )


def _existing_id(envelope: dict[str, Json]) -> str | None:
    """Return the id that a refusal names: in ``data`` at KIE, beside it on sister sites, and often nowhere."""
    data = envelope.get("data")
    for holder in (data if isinstance(data, dict) else {}, envelope):
        given = holder.get("taskId", holder.get("task_id"))
        found = given.strip() if isinstance(given, str) else ""
        if found and found.isprintable():  # what is not may fit into no database
            return found
    return None


def _retry_after(value: str | None) -> float | None:
    """Read seconds or an HTTP date (RFC 9110, section 10.2.3); None for anything else."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value).astimezone(UTC)
        except (ValueError, OverflowError):
            return None
        seconds = (when - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER) if math.isfinite(seconds) else None


def _shown(answer: Answer) -> str:
    if not answer.body:
        return "an empty body"
    start = answer.body[:_SHOWN_OF_A_BODY].decode(errors="replace")
    return repr(start + ("…" if len(answer.body) > _SHOWN_OF_A_BODY else ""))
