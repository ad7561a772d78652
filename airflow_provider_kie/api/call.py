# SPDX-License-Identifier: Apache-2.0
"""One call to KIE as a value: what to send, how to read the answer, and whether it may be sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from airflow_provider_kie.api.envelope import Json, Response, data_of, decode
from airflow_provider_kie.exceptions import KieError, KieUnreadableAnswerError
from airflow_provider_kie.redaction import redact

__all__ = ["Call", "Repeat", "UploadBody"]

T = TypeVar("T")


class Repeat(Enum):
    """When a call that failed may be sent again."""

    #: The call changes nothing and costs nothing.
    ALWAYS = "always"
    #: The call is charged, but KIE refuses a duplicate (409): once more if the outcome is unknown.
    GUARDED = "guarded"
    #: The call may be charged: only if KIE certainly did nothing.
    NEVER_TWICE = "never twice"


@dataclass(frozen=True, slots=True)
class UploadBody:
    """
    A file to send.

    :param file_name: how KIE is to call it.
    :param upload_path: its folder at KIE.
    :param size: in bytes.
    :param sha256: of its content, in hex.
    :param media_type: what it is.
    :param read: yields the content from its start, each time that it is called.
    """

    file_name: str
    upload_path: str
    size: int
    sha256: str
    media_type: str
    read: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """
    A call to KIE, for a transport to carry out.

    :param purpose: what the call is for, as the start of an error message.
    :param method: HTTP method.
    :param path: path below the base URL, with its leading slash.
    :param parse: turns the envelope's ``data`` into the result.
    :param params: query parameters.
    :param json: body.
    :param repeat: when it may be sent again.
    :param kie_task_id: the job that the call is about.
    :param family: the family of that job, see :attr:`Family.tag`.
    :param salvage: finds a result in the ``data`` of an error answer, or returns None.
    :param recover: maps an error that is really a result; raises the error otherwise.
    :param upload: a file to send to the upload host, in place of a body for the API.
    """

    purpose: str
    method: str
    path: str
    parse: Callable[[Json], T]
    params: Mapping[str, str] | None = None
    json: Mapping[str, Json] | None = None
    repeat: Repeat = Repeat.ALWAYS
    kie_task_id: str | None = None
    family: str | None = None
    salvage: Callable[[Json], T | None] | None = None
    recover: Callable[[KieError], T] | None = None
    upload: UploadBody | None = None

    def read(self, answer: Response) -> T:
        """
        Read the answer to this call.

        :raises KieError: the cause, naming the call's purpose and job.
        """
        try:
            try:
                return self._parsed(decode(answer))
            except KieError as error:
                if self.salvage and (found := self.salvage(data_of(answer))) is not None:
                    return found
                if self.recover is None:
                    raise
                return self.recover(error)
        except KieError as error:
            raise self.explain(error) from error.__cause__

    def _parsed(self, data: Json) -> T:
        try:
            return self.parse(data)
        except RecursionError as error:
            raise KieUnreadableAnswerError("KIE's answer is nested too deeply") from error

    def explain(self, error: KieError) -> KieError:
        """Return the error with the call's purpose and job added."""
        error.problem = redact(f"{self.purpose}: {error.problem}")
        error.kie_task_id = error.kie_task_id or self.kie_task_id
        error.family = error.family or self.family
        return error
