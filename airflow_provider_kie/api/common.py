# SPDX-License-Identifier: Apache-2.0
"""
KIE's common endpoints: the credit balance and temporary download links.

Sources: the pages "Get Account Credits" and "Get Download URL"; both were recorded on 2026-04-16.
"""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import timedelta

from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.envelope import Json
from airflow_provider_kie.api.fields import check_url, http_url
from airflow_provider_kie.exceptions import KieUnreadableAnswerError
from airflow_provider_kie.redaction import quoted

__all__ = ["FILES_LAST", "credit", "download_url"]

#: How long KIE keeps the files of a job (pages of all families; some links die sooner).
FILES_LAST = timedelta(days=14)


def credit() -> Call[float]:
    """
    Read the remaining credits; free, and the simplest call that needs a valid key.

    KIE documents an integer but answers fractions (5916.25, recorded 2026-04-16).
    """
    return Call("Reading the credit balance", "GET", "/api/v1/chat/credit", _parse_balance)


def download_url(url: str) -> Call[str]:
    """
    Get a direct link, valid for 20 minutes, to a file that KIE generated.

    :param url: the file's URL as KIE gave it; KIE answers 422 ``url is wrong`` for any other.
    :raises KieValidationError: not an http(s) URL.
    """
    return Call(
        "Asking for a download link",
        "POST",
        "/api/v1/common/download-url",
        _parse_link,
        json={"url": check_url("url", url)},
    )


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
