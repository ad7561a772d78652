# SPDX-License-Identifier: Apache-2.0
"""What is answered in place of 200, and why."""

from __future__ import annotations

from http import HTTPStatus

__all__ = ["NotYetError", "RefusedError", "UnsureError"]


class RefusedError(Exception):
    """
    A request that is refused for good.

    :param status: the HTTP status of the answer, whose body says nothing else.
    :param reason: for the log, without anything that is secret or comes from the request unchecked.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class NotYetError(RefusedError):
    """The news could not be told yet, so KIE shall repeat the callback."""

    def __init__(self, reason: str) -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, reason)


class UnsureError(NotYetError):
    """Nobody knows whether the event was made: the answer was lost, or its maker has gone."""
