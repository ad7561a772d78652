# SPDX-License-Identifier: Apache-2.0
"""Links on the task's page: to KIE's log and to the file of the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

__all__ = ["KieFileLink", "KieLogsLink", "WavFileLink"]

#: The XCom keys of a conversion: an operator's, and the sensor's.
KEYS_OF_CONVERSION = ("wav_conversion", "return_value")


class KieLogsLink(BaseOperatorLink):
    """KIE's own list of tasks, with the cost of each."""

    name = "KIE logs"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """
        Return the address; KIE has no page for a single task.

        :param operator: the task.
        :param ti_key: the task instance.
        """
        return "https://kie.ai/logs"


class KieFileLink(BaseOperatorLink):
    """The first file of a job at KIE, which deletes it 14 days after success."""

    name = "KIE file"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """
        Return the address, or an empty text as long as there is none.

        Airflow 3 calls this on the task that has just run; there, XCom would cost an API call for each key, and log an
        error for a missing one. The web server of 2.11 has only the serialized task, so it reads XCom.

        :param operator: the task.
        :param ti_key: the task instance.
        """
        if (known := getattr(operator, "file_url", None)) is not None:
            return str(known)
        from airflow.providers.common.compat.sdk import XCom

        return self._from(lambda key: XCom.get_value(key=key, ti_key=ti_key))

    def _from(self, pushed: Callable[[str], Any]) -> str:
        return str(pushed("url") or "")


class WavFileLink(KieFileLink):
    """The WAV file at KIE, which deletes it 14 days after success."""

    name = "WAV file"

    def _from(self, pushed: Callable[[str], Any]) -> str:
        for key in KEYS_OF_CONVERSION:
            if isinstance(found := pushed(key), dict) and found.get("wav_url"):
                return str(found["wav_url"])
        return ""
