# SPDX-License-Identifier: Apache-2.0
"""The emulator's answer to a call, independent of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from airflow_provider_kie.emulator.traffic import Json

__all__ = ["METHOD_NOT_ALLOWED", "NOT_FOUND", "NO_PERMISSION", "Envelope"]


@dataclass(frozen=True, slots=True)
class Envelope:
    """The content of KIE's envelope, and whether the call started a job."""

    code: int = 200
    msg: str = "success"
    data: object = None
    accepted: bool = False

    @property
    def http_status(self) -> int:
        """Most errors are sent with HTTP 200; these are not."""
        return self.code if self.code in (404, 405, 429) else 200

    def body(self) -> Json:
        """The JSON body. A refused key has no ``data``, as recorded from the real service."""
        fields: Json = {"code": self.code, "msg": self.msg}
        return fields if self.code == 401 else {**fields, "data": self.data}


NO_PERMISSION: Final = Envelope(401, "You do not have access permissions")
NOT_FOUND: Final = Envelope(404, "Not Found")
METHOD_NOT_ALLOWED: Final = Envelope(405, "Method Not Allowed")
