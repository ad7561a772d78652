# SPDX-License-Identifier: Apache-2.0
"""One call to KIE as a value: what to send, how to read the answer, and whether it may be sent again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from airflow_provider_kie.api.envelope import Answer, Json, decode
from airflow_provider_kie.exceptions import KieError, KieValidationError
from airflow_provider_kie.redaction import quoted, redact

__all__ = ["Call", "Repeat", "check_id"]

T = TypeVar("T")


class Repeat(Enum):
    """When a call that met trouble may be sent again without harm."""

    #: It changes nothing and costs nothing.
    ALWAYS = "always"
    #: It is paid for, but KIE refuses to do the same twice (409): also once where the outcome is unknown.
    UNDER_GUARD = "under guard"
    #: It may be paid for: only where KIE certainly did nothing.
    IF_REFUSED = "if refused"


# Those that were seen are 32 hex characters and UUIDs. An id that KIE gives may be paid for, so the characters of other
# usual kinds, base64 for URLs among them, are taken as well.
_ID = re.compile(r"[A-Za-z0-9._:~+=-]{1,128}")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """
    A call that a transport can carry out.

    :param purpose: what the call is for, as the start of an error message.
    :param method: HTTP method.
    :param path: path below the base URL, with its leading slash.
    :param parse: turns the envelope's ``data`` into the result.
    :param params: query parameters.
    :param json: body.
    :param repeat: when it may be sent again.
    :param kie_task_id: the WAV task that the call is about.
    :param recover: turns a refusal into a result where it is one in truth; raises the error otherwise.
    """

    purpose: str
    method: str
    path: str
    parse: Callable[[Json], T]
    params: Mapping[str, str] | None = None
    json: Mapping[str, Json] | None = None
    repeat: Repeat = Repeat.ALWAYS
    kie_task_id: str | None = None
    recover: Callable[[KieError], T] | None = None

    def read(self, answer: Answer) -> T:
        """
        Read the answer to this call.

        :param answer: what the transport received.
        :raises KieError: the cause, naming the call's purpose and WAV task.
        """
        try:
            try:
                return self.parse(decode(answer))
            except KieError as error:
                if self.recover is None:
                    raise
                return self.recover(error)
        except KieError as error:
            raise self.explain(error) from error.__cause__

    def explain(self, error: KieError) -> KieError:
        """
        Return the error with the call's purpose and WAV task in it.

        :param error: what went wrong.
        """
        error.problem = redact(f"{self.purpose}: {error.problem}")
        error.kie_task_id = error.kie_task_id or self.kie_task_id
        return error


def check_id(field: str, value: object) -> str:
    """
    Return an id of KIE, or say which argument is wrong before anything is sent.

    :param field: the argument's name.
    :param value: the rendered argument. An ``int`` counts as its digits, which ``render_template_as_native_obj`` makes
        numbers of.
    :raises KieValidationError: empty, ``None`` (also the word, as a template renders it), odd characters, a URL, or a
        ``float``, of which the id cannot be told any more.
    """
    if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
        raise KieValidationError(f"{field} is empty; the task that should provide it pushed nothing")
    if type(value) is int:
        value = str(value)
    if isinstance(value, float):
        raise KieValidationError(
            f"{field} is the number {quoted(value)}: render_template_as_native_obj takes an id of digits and one 'e' "
            "for one; quote the template, as in \"'{{ … }}'\", or pass the other task's .output"
        )
    if not isinstance(value, str):
        raise KieValidationError(f"{field} must be a text, not {type(value).__name__}")
    if "://" in value:
        raise KieValidationError(f"{field} is {quoted(value)}, a URL and not an id of KIE")
    if not _ID.fullmatch(value):
        raise KieValidationError(
            f"{field} is {quoted(value)}, but an id of KIE has only letters, digits and . _ : ~ + = -"
        )
    return value
