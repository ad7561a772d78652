# SPDX-License-Identifier: Apache-2.0
"""
The cases that a client of KIE must handle, as one table: what each answer means for a submit, a read and a wait.

The answers themselves are the emulator's (``airflow_provider_kie.emulator.answers``), so that every test here, the
parser, both transports and the three sensor modes, is driven by the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from airflow_provider_kie import exceptions as e

KIE_TASK_ID: Final = "988e00aa"
WAV_URL: Final = "https://tempfile.example/s/1.wav"


@dataclass(frozen=True)
class Expect:
    """
    What one answer means.

    :param submit: the error class, ``"id"`` for a new conversion, ``"reused"`` for an earlier one; None where the
        answer cannot come to a submit.
    :param read: the error class, ``"record"`` or ``"unknown"``.
    :param wait: what a wait makes of it at last if KIE goes on giving it: ``"done"``, ``"time-out"`` or the error
        class that ends the wait at once or after the grace.
    """

    submit: type[e.KieError] | str | None = None
    read: type[e.KieError] | str | None = None
    wait: type[e.KieError] | str | None = None


def _everywhere(error: type[e.KieError]) -> Expect:
    """An error of any call: transient ones let a wait go on, others end it."""
    return Expect(submit=error, read=error, wait="time-out" if error.transient else error)


_RECORD_DONE: Final = Expect(read="record", wait="done")
_RECORD_WAITS: Final = Expect(read="record", wait="time-out")
_RECORD_FAILED: Final = Expect(read="record", wait=e.KieConversionFailedError)
_UNREADABLE: Final = _everywhere(e.KieUnreadableAnswerError)

TABLE: Final[dict[str, Expect]] = {
    # refusals
    "wrong-key": _everywhere(e.KieAuthenticationError),
    "wrong-key-http": _everywhere(e.KieAuthenticationError),
    "wrong-key-echoed": _everywhere(e.KieAuthenticationError),
    "no-permission": _everywhere(e.KieAuthenticationError),
    "insufficient-credits": _everywhere(e.KieInsufficientCreditsError),
    "rate-limited": _everywhere(e.KieRateLimitError),
    "rate-limited-http": _everywhere(e.KieRateLimitError),
    "rate-limited-retry-after": _everywhere(e.KieRateLimitError),
    "rate-limited-text": _everywhere(e.KieRateLimitError),
    "key-cap": _everywhere(e.KieKeyCapError),
    "maintenance": _everywhere(e.KieMaintenanceError),
    "server-error": _everywhere(e.KieServerError),
    "server-error-http": _everywhere(e.KieServerError),
    "upstream-silent": _everywhere(e.KieServerError),
    "generation-failed": _everywhere(e.KieConversionFailedError),
    "feature-disabled": _everywhere(e.KieFeatureDisabledError),
    "not-found": Expect(submit=e.KieNotFoundError, read="unknown", wait=e.KieNotFoundError),
    "source-not-fetchable": _everywhere(e.KieSourceError),
    "blocked": _everywhere(e.KieBlockedError),
    "blocked-html": _everywhere(e.KieBlockedError),
    "unlisted-531": _everywhere(e.KieUnexpectedCodeError),
    "unlisted-550": _everywhere(e.KieUnexpectedCodeError),
    "unlisted-524": _everywhere(e.KieUnexpectedCodeError),
    "sister-rate-limited-405": _everywhere(e.KieUnexpectedCodeError),
    "sister-rate-limited-430": _everywhere(e.KieUnexpectedCodeError),
    # answers that cannot be read
    "html": _UNREADABLE,
    "bad-gateway": _everywhere(e.KieServerError),
    "service-unavailable": _everywhere(e.KieServerError),
    "origin-timeout": _everywhere(e.KieServerError),
    "redirect": _UNREADABLE,
    "empty": _UNREADABLE,
    "truncated-json": _UNREADABLE,
    "json-array": _UNREADABLE,
    "json-null": _UNREADABLE,
    "code-missing": _UNREADABLE,
    "code-string": Expect(submit=e.KieUnreadableAnswerError, read="unknown", wait=e.KieNotFoundError),
    "code-string-refused": _everywhere(e.KieAuthenticationError),
    "code-true": _UNREADABLE,
    "code-200-http-500": _everywhere(e.KieServerError),
    "no-content-type": Expect(submit=e.KieUnreadableAnswerError, read="unknown", wait=e.KieNotFoundError),
    "not-utf8": _UNREADABLE,
    "utf8-bom": _UNREADABLE,
    "reset": _everywhere(e.KieConnectionError),
    "cut-off": _everywhere(e.KieConnectionError),
    "hang": _everywhere(e.KieConnectionError),
    # submits
    "body-not-json": Expect(submit=e.KieValidationError),
    "callback-missing": Expect(submit=e.KieValidationError),
    "track-unknown": Expect(submit=e.KieValidationError),
    "accepted-then-reset": Expect(submit=e.KieConnectionError),
    "accepted-then-hang": Expect(submit=e.KieConnectionError),
    "accepted-then-500": Expect(submit=e.KieServerError),
    "accepted-then-cut-off": Expect(submit=e.KieConnectionError),
    "already-converted": Expect(submit="reused"),
    "already-converted-http": Expect(submit="reused"),
    "already-converted-id-on-top": Expect(submit="reused"),
    "already-converted-without-id": Expect(submit=e.KieAlreadyConvertedError),
    "already-converted-empty-data": Expect(submit=e.KieAlreadyConvertedError),
    "already-converted-blank-id": Expect(submit=e.KieAlreadyConvertedError),
    "accepted-without-id": Expect(submit=e.KieUnreadableAnswerError),
    "accepted-empty-data": Expect(submit=e.KieUnreadableAnswerError),
    "accepted-blank-id": Expect(submit=e.KieUnreadableAnswerError),
    "accepted": Expect(submit="id"),
    # records
    "task-unknown": Expect(read="unknown", wait=e.KieNotFoundError),
    "pending": _RECORD_WAITS,
    "pending-bare": _RECORD_WAITS,
    "pending-refused": _RECORD_FAILED,
    "pending-zeros": _RECORD_WAITS,
    "success": _RECORD_DONE,
    "success-error-code-200": _RECORD_DONE,
    "success-without-url": _RECORD_FAILED,
    "success-null-url": _RECORD_FAILED,
    "success-null-response": _RECORD_FAILED,
    "success-link-no-url": Expect(read=e.KieUnreadableAnswerError, wait="time-out"),
    "callback-exception-with-url": _RECORD_DONE,
    "callback-exception-without-url": _RECORD_FAILED,
    "callback-exception-link-no-url": Expect(read=e.KieUnreadableAnswerError, wait="time-out"),
    "wav-failed": _RECORD_FAILED,
    "create-failed": _RECORD_FAILED,
    "status-unknown": _RECORD_WAITS,
    "status-unknown-failed": _RECORD_FAILED,
    "status-unknown-error": _RECORD_FAILED,
    "status-missing": _RECORD_WAITS,
    "dialect-snake-case": _RECORD_DONE,
    "flag-zero": _RECORD_WAITS,
    "flag-one": _RECORD_DONE,
    "flag-two": _RECORD_WAITS,
    "loose-types": _RECORD_FAILED,
    "loose-types-success": _RECORD_DONE,
    "other-task-id": Expect(read=e.KieWrongTaskError, wait=e.KieWrongTaskError),
    "extra-fields": _RECORD_DONE,
    "odd-letter-case": _RECORD_DONE,
    "data-not-an-object": Expect(read=e.KieUnreadableAnswerError, wait="time-out"),
    "failed-with-url": _RECORD_FAILED,
    "market-success": _RECORD_WAITS,
    "market-waiting": _RECORD_WAITS,
    "market-not-visible": Expect(read="unknown", wait=e.KieNotFoundError),
}

#: Answers of the common endpoints: the value, or the error class.
COMMON: Final[dict[str, object]] = {
    "url-refused": e.KieValidationError,
    "url-given": WAV_URL,
    "url-in-object": e.KieUnreadableAnswerError,
    "url-null": e.KieUnreadableAnswerError,
    "credit-fraction": 5916.25,
    "credit-integer": 100.0,
    "credit-zero": 0.0,
    "credit-large": 98765432109.75,
    "credit-string": e.KieUnreadableAnswerError,
    "credit-null": e.KieUnreadableAnswerError,
}

#: Answers that the table leaves out, and why.
LEFT_OUT: Final = {
    "slow": "an ordinary answer, late; the fault run plays it",
}
