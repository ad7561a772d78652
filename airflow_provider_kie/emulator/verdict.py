# SPDX-License-Identifier: Apache-2.0
"""The emulator's answer to a call, independent of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from airflow_provider_kie.emulator.traffic import Json

__all__ = ["METHOD_NOT_ALLOWED", "NOT_FOUND", "NO_PERMISSION", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The content of KIE's envelope, and whether the call started a job."""

    code: int = 200
    msg: str = "success"
    data: object = None
    accepted: bool = False

    @property
    def http_status(self) -> int:
        """Most errors are sent with HTTP 200; these are not."""
        return self.code if self.code in (404, 405, 429) else 200

    def envelope(self) -> Json:
        """The body. A refused key has no ``data``, as recorded from the real service."""
        body = {"code": self.code, "msg": self.msg}
        return body if self.code == 401 else {**body, "data": self.data}


NO_PERMISSION: Final = Verdict(401, "You do not have access permissions")
NOT_FOUND: Final = Verdict(404, "Not Found")
METHOD_NOT_ALLOWED: Final = Verdict(405, "Method Not Allowed")
