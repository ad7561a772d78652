# SPDX-License-Identifier: Apache-2.0
"""
Everything that can go wrong with KIE.ai: one class per cause that a user can act on.

The rules that live here and nowhere else:

* whether reading again can help (``transient``) and whether a submit that raised it certainly created nothing
  (``nothing_created``);
* whether Airflow may retry the task: if that cannot help, the class is also an ``AirflowFailException``;
* what the message says.

Sources: the error lists and recorded answers of KIE's pages "Get WAV Details", "Convert to WAV", "Get Account
Credits", "Get Download URL" and "Getting Started", as of 2026-04-29.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_kie.compat import COMMAND
from airflow_provider_kie.exceptions.root import KieError, label, named

__all__ = [
    "KieAlreadyConvertedError",
    "KieAuthenticationError",
    "KieBatchFailedError",
    "KieBlockedError",
    "KieConfigurationError",
    "KieConnectionError",
    "KieConnectionNotFoundError",
    "KieConversionFailedError",
    "KieDestinationExistsError",
    "KieDownloadError",
    "KieError",
    "KieFeatureDisabledError",
    "KieFileCutOffError",
    "KieFileTooLargeError",
    "KieInsufficientCreditsError",
    "KieJobFailedError",
    "KieJobRefusedError",
    "KieKeyCapError",
    "KieLedgerError",
    "KieLinkExpiredError",
    "KieMaintenanceError",
    "KieMaybeSubmittedError",
    "KieNotAWavError",
    "KieNotFoundError",
    "KieNotReadyError",
    "KieRateLimitError",
    "KieSensorTimeoutError",
    "KieServerError",
    "KieSourceError",
    "KieUnexpectedCodeError",
    "KieUnreadableAnswerError",
    "KieUnsafeUrlError",
    "KieValidationError",
    "KieWaitTimeoutError",
    "KieWrongFileError",
    "KieWrongTaskError",
    "label",
    "named",
]


class KieConfigurationError(KieError, AirflowFailException):
    """A field of the Airflow connection or an environment variable is invalid; no request was sent."""

    next_step = "Correct this setting; nothing was sent."
    nothing_created = True


class KieConnectionNotFoundError(KieError):
    """
    The Airflow connection is not defined or could not be read; no request was sent.

    Airflow reports a missing connection and an unreachable secrets backend alike, so this is retried.
    """

    next_step = "Define the connection with type 'kie' and the API key as its password; Airflow's own log may say more."
    nothing_created = True


class KieAuthenticationError(KieError, AirflowFailException):
    """401: the API key is missing, wrong or withdrawn."""

    next_step = "Check the API key in the connection's password; keys are managed at https://kie.ai/api-key."
    nothing_created = True


class KieInsufficientCreditsError(KieError, AirflowFailException):
    """402: the account does not have enough credits; nothing was created."""

    next_step = "Buy credits at https://kie.ai, then run the task again."
    nothing_created = True


class KieNotFoundError(KieError):
    """404, or an unknown id, for which most families answer success without data."""

    next_step = (
        "Pass the id that the submit returned (not that of the job's source), its family, and the connection "
        "of the same account; KIE forgets records after about two months."
    )
    nothing_created = True


class KieValidationError(KieError, AirflowFailException):
    """400, 422 or a refused argument: the input is wrong, and sending it again cannot help."""

    next_step = "Correct the argument that is named and run the task again."
    nothing_created = True


class KieAlreadyConvertedError(KieError, AirflowFailException):
    """409: the track was converted before. ``existing_kie_task_id`` holds the earlier id if KIE gave one."""

    next_step = (
        "KIE keeps one conversion per track: look up the earlier WAV task at https://kie.ai/logs and pass its id "
        "to WavConversionSensor or WavUrlOperator as kie_task_id."
    )
    nothing_created = True


class KieRateLimitError(KieError):
    """429: more than 20 new generations in 10 seconds on the account; refused, not queued."""

    next_step = "Start fewer jobs at a time (for example max_active_tis_per_dag) or retry later."
    transient = True
    nothing_created = True


class KieKeyCapError(KieError, AirflowFailException):
    """433: the key's own hourly, daily or total limit is used up."""

    next_step = "Raise the key's limit at https://kie.ai/api-key, or wait until it is reset."
    nothing_created = True


class KieSourceError(KieError):
    """451: KIE could not fetch the job's source."""

    next_step = "Check that the job's source, such as a music task, is finished and still exists."
    nothing_created = True


class KieMaintenanceError(KieError):
    """455: KIE is under maintenance."""

    next_step = "Retry when the maintenance is over."
    transient = True
    nothing_created = True


class KieServerError(KieError):
    """408, 500, 502, 503, 504, or any HTTP 5xx without a result number: a failure on KIE's side."""

    next_step = "Retry later."
    transient = True


class KieFeatureDisabledError(KieError, AirflowFailException):
    """505: KIE has switched the feature off."""

    next_step = "Ask support@kie.ai; repeating the request does not help."
    nothing_created = True


class KieBlockedError(KieError, AirflowFailException):
    """403: KIE's edge refused the client (its User-Agent, address or proxy), not the key."""

    next_step = "Check that requests leave through the right address or proxy and that the key's IP list allows it."
    nothing_created = True


class KieUnexpectedCodeError(KieError):
    """An undocumented result number, or an error on a running job; what it means for a submit is unknown."""

    next_step = "See KIE's text; if it persists, report it with this message."
    transient = True


class KieUnreadableAnswerError(KieError):
    """The answer is not what KIE documents: no JSON, no result number, fields of the wrong shape, or no result."""

    next_step = (
        "Check the connection's host and proxy, and the job at https://kie.ai/logs; if they are right, retry later."
    )
    transient = True


class KieConnectionError(KieError):
    """
    No answer: the connection failed, broke or timed out.

    :param problem: what happened.
    :param sent: False when the request certainly never reached KIE.
    """

    next_step = "Check the network, proxy and host of the connection; retry later."
    transient = True

    def __init__(self, problem: str, *, sent: bool = True, **kwargs: Any) -> None:
        super().__init__(problem, **kwargs)
        self.nothing_created = not sent


class KieWrongTaskError(KieError):
    """KIE answered about another job than the one asked for; its result is not used."""

    next_step = "Do not use this answer; report it to support@kie.ai."


class KieJobFailedError(KieError):
    """The job failed: a final failure status, or a refusal while it was running."""

    next_step = "See KIE's text and https://kie.ai/logs; a retry of the submitting task submits the job again."


class KieJobRefusedError(KieJobFailedError, AirflowFailException):
    """KIE accepted the job and then rejected its input; the same input would fail again."""

    next_step = "Correct the input that KIE's text names, then run the task again."


class KieConversionFailedError(KieJobFailedError):
    """A WAV conversion failed, was refused while pending, or ended in success without a file."""

    next_step = "See KIE's text and https://kie.ai/logs; a retry of the submitting task submits the track again."


class KieMaybeSubmittedError(KieError, AirflowFailException):
    """
    A submit may have been accepted, in which case another one would be charged again.

    :param problem: what happened.
    :param next_step: how to settle it; the default is for a task without a stored entry.
    """

    next_step = (
        "If https://kie.ai/logs lists the job, wait for its id with a sensor instead; if not, clear the task, "
        "which then submits."
    )

    def __init__(self, problem: str, *, next_step: str | None = None, **kwargs: Any) -> None:
        super().__init__(problem, **kwargs)
        self.next_step = next_step or self.next_step


class KieLedgerError(KieError):
    """The ledger cannot be used: its folder has no marker, cannot be read or written; nothing was sent."""

    next_step = (
        f"Check the folder and the access to its storage. A new ledger is made once, by `{COMMAND} ledger init URL`."
    )
    nothing_created = True


class KieBatchFailedError(KieError):
    """Items of a batch did not succeed; the others did, and their results are kept."""

    next_step = "See the manifest; another try submits only what was never accepted, and fetches what is missing."


class KieNotReadyError(KieError):
    """The job is not finished, and this task does not wait for it."""

    next_step = "Put a sensor before this task, or give it retries and a retry_delay."


class KieWaitTimeoutError(KieError):
    """The wait ended before the job did; the job continues at KIE."""

    next_step = "Nothing is lost: wait for the same kie_task_id again, or look it up at https://kie.ai/logs."


class KieSensorTimeoutError(KieWaitTimeoutError, AirflowSensorTimeout):
    """A sensor's wait ended before the job did."""


class KieLinkExpiredError(KieError, AirflowFailException):
    """The file host answers 401, 403, 404 or 410, also for a fresh link: the file is deleted or withdrawn."""

    next_step = "KIE deletes files after 14 days: run the job again, and store its files soon after."


class KieWrongFileError(KieError, AirflowFailException):
    """The download is a web page, an error or nothing, and no file; nothing was stored."""

    next_step = "See the first bytes: if they persist in a later run, report them to support@kie.ai."


class KieNotAWavError(KieWrongFileError):
    """The download is not a WAV file; nothing was stored."""

    next_step = "Look at the first bytes: an error page is the file host's; if it persists, tell support@kie.ai."


class KieFileTooLargeError(KieError, AirflowFailException):
    """The file is larger than the task allows; nothing was stored."""

    next_step = "Raise the operator's max_bytes if the file is meant to be that large."


class KieUnsafeUrlError(KieError, AirflowFailException):
    """The URL or a redirect leads to a host that is not allowed; no request was sent there."""

    next_step = (
        "Pass a kie_task_id instead of a link, or, for a host inside your own network, use WavToObjectStorageOperator "
        "with allow_private_hosts=True."
    )


class KieDestinationExistsError(KieError, AirflowFailException):
    """A different file is at the destination already; it was left unchanged."""

    next_step = "Choose another destination, or set overwrite=True to replace what is there."


class KieDownloadError(KieError):
    """The download failed: interrupted too often, cut off, or refused by the file host; nothing was stored."""

    next_step = "Give the task retries; if it persists, see whether the link works in a browser."


class KieFileCutOffError(KieDownloadError, AirflowFailException):
    """The file at KIE is itself cut off: its WAV header declares more audio; nothing was stored."""

    next_step = "Report it to support@kie.ai before KIE deletes the file, 14 days after the conversion."
