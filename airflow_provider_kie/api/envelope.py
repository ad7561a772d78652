# SPDX-License-Identifier: Apache-2.0
"""
The envelope around every answer of KIE: ``{"code": …, "msg": …, "data": …}``.

The rules that live here and nowhere else: an answer is a success only if the HTTP status is 2xx **and** the body
is a JSON object **and** its ``code`` is 200, as a number or as text; and which class of error stands for which result
number. KIE answers most errors, including a refused key, with HTTP 200 (recorded 2026-04-16 to 2026-08-27), others with
a real HTTP status (pages "Getting Started" and "Get WAV Details"). The edge in front of it sends pages that are not
JSON.
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
    "Json",
    "Response",
    "data_of",
    "decode",
    "final_refusal",
    "says_unknown",
]

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

#: Most bytes that a transport reads of a body; KIE's answers are below 4 KiB.
LONGEST_BODY = 1024 * 1024

#: The error for an HTTP status without a result number. Any 5xx is a :class:`KieServerError`. A bare 404, 409 or the
#: like is missing here, because it may come from a proxy rather than from KIE.
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

#: The text of a refusal for an unknown id, under these numbers. It is matched at the start only, because KIE's own
#: failures ("Cannot invoke … because "task" is null") use the same words.
_UNKNOWN_TEXT = re.compile(r"[\w ]{1,60}(not exist|not found|is null)\b", re.IGNORECASE)
_UNKNOWN_CODES = (422, 500)
#: Words in the text of a 500 for which repeating the call cannot help (recorded 2026-04 to 2026-08).
_FINAL_REASONS = re.compile(r"\b(paused|not within|not exist|must)\b", re.IGNORECASE)

_LONGEST_RETRY_AFTER = 3600.0
_SHOWN_OF_A_BODY = 80


@dataclass(frozen=True, slots=True)
class Response:
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
    def of(cls, status: int, headers: Mapping[str, str], body: bytes, *, secret: str) -> Response:
        """
        Build the answer with the secret masked, which KIE might echo.

        :param headers: the response's headers; look-ups must ignore case.
        :param secret: the API key; the connection's check makes sure that it is too long to mask anything else.
        """
        hidden = body.replace(secret.encode(), b"***").replace(secret.replace("/", r"\/").encode(), b"***")
        location = headers.get("Location")
        return cls(status, hidden, headers.get("Retry-After"), location and location.replace(secret, "***"))


def decode(answer: Response) -> Json:
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


def data_of(answer: Response) -> Json:
    """Return the ``data`` of any answer, also of an error; None if it has none."""
    envelope = _parse_object(answer)
    return envelope.get("data") if envelope is not None else None


def says_unknown(error: KieError) -> bool:
    """Return whether KIE refused a call because the id is unknown."""
    return error.code in _UNKNOWN_CODES and _UNKNOWN_TEXT.match(error.said) is not None


def final_refusal(error: KieError) -> KieError | None:
    """Return the refusal that a 500 really is, judging by its text; None for a failure of KIE's."""
    if error.code == 500 and _FINAL_REASONS.search(error.said):
        return KieValidationError(error.problem, **error.details())
    return None


def _result_number(value: Json) -> int | None:
    """Read an int or a text of digits; ``true`` and 200.0 do not count."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value.strip()):
        return int(value)
    return value if type(value) is int else None


def _is_success(status: int) -> bool:
    return 200 <= status < 300


def _parse_object(answer: Response) -> dict[str, Json] | None:
    try:
        parsed = _DECODER.decode(answer.body.decode())
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


#: Created once, because ``json.loads`` with an option creates one for every answer.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _refuse(answer: Response, code: int, envelope: dict[str, Json]) -> NoReturn:
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


def _refuse_without_code(answer: Response, envelope: dict[str, Json]) -> NoReturn:
    """Fall back to the HTTP status. Most such answers come from something between us and KIE."""
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
    """Return the id that a refusal names: in ``data`` at KIE, beside it on sister sites, often missing."""
    data = envelope.get("data")
    for holder in (data if isinstance(data, dict) else {}, envelope):
        given = holder.get("taskId", holder.get("task_id"))
        found = given.strip() if isinstance(given, str) else ""
        if found and found.isprintable():  # databases may reject anything else
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


def _shown(answer: Response) -> str:
    if not answer.body:
        return "an empty body"
    start = answer.body[:_SHOWN_OF_A_BODY].decode(errors="replace")
    return repr(start + ("…" if len(answer.body) > _SHOWN_OF_A_BODY else ""))
