# SPDX-License-Identifier: Apache-2.0
"""The base class of all errors, with the message and the event made from them; and the nouns for a job."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_kie.redaction import harmless, quoted, redact

__all__ = ["KieError", "label", "named"]


def label(family: str | None) -> str:
    """
    Return the noun for a job in messages, such as "music job".

    :param family: the family's name; None for WAV conversion, the first family, which is stored without a name.
    """
    if not family:
        return "WAV task"
    kind = f"{harmless(family)} job"
    return f"job of family {harmless(family)}" if kind == "jobs job" else kind


def named(family: str | None, kie_task_id: object) -> str:
    """Return the noun and the id of a job, for a log."""
    return f"{label(family)} {harmless(kie_task_id)}"


class KieError(AirflowException):
    """
    The base class of all errors of this provider.

    :param problem: what happened, as a sentence; URLs in it lose their query string.
    :param code: KIE's result number, or else the HTTP status, if there was an answer.
    :param kie_task_id: the id of the job at KIE, if there is one.
    :param family: the family of that job; None for WAV conversion.
    :param conn_id: the Airflow connection that was used, if any.
    :param retry_after: seconds from a ``Retry-After`` header, which KIE has not been seen to send.
    :param existing_kie_task_id: the job that a refused submit names, such as an earlier one of the same track.
    """

    #: The module that users import it from, and that pickles name.
    __module__ = "airflow_provider_kie.exceptions"
    _classes: ClassVar[dict[str, type[KieError]]] = {}

    #: What the user can do about it; the end of every message.
    next_step: str = ""
    #: Reading again may help, so a wait goes on.
    transient: ClassVar[bool] = False
    #: A submit that raised this error certainly created nothing, so it may be sent again without paying twice.
    nothing_created: bool = False
    #: KIE's own text, if the answer had one.
    said: str = ""

    def __init__(
        self,
        problem: str,
        *,
        code: int | None = None,
        kie_task_id: str | None = None,
        conn_id: str | None = None,
        retry_after: float | None = None,
        existing_kie_task_id: str | None = None,
        family: str | None = None,
    ) -> None:
        self.problem = redact(problem)
        super().__init__(self.problem)
        self.code = code
        self.kie_task_id = kie_task_id
        self.conn_id = conn_id
        self.retry_after = retry_after
        self.existing_kie_task_id = existing_kie_task_id
        self.family = family

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A twin (final_errors.py) has the name of its original, which comes first.
        for each in (KieError, cls):
            if each.__module__ == KieError.__module__:
                KieError._classes.setdefault(each.__name__, each)

    def __str__(self) -> str:
        """Return what happened, to which job, through which connection, and what to do next."""
        about = [
            f"{label(self.family)} {quoted(self.kie_task_id)}" if self.kie_task_id else "",
            f"connection {quoted(self.conn_id)}" if self.conn_id else "",
        ]
        where = ", ".join(filter(None, about))
        sentences = [self.problem.rstrip(".") + (f" ({where})" if where else "") + ".", self.next_step]
        return " ".join(filter(None, sentences))

    def __repr__(self) -> str:
        """Return the class and the message."""
        return f"{type(self).__name__}({str(self)!r})"

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON scalars, for a trigger's event."""
        return {"type": type(self).__name__, "problem": self.problem, **self.details()}

    def details(self) -> dict[str, Any]:
        """Return everything but the problem, by the names of the constructor's parameters."""
        names = ("code", "kie_task_id", "conn_id", "retry_after", "existing_kie_task_id")
        details = {name: getattr(self, name) for name in names}
        return details | ({"family": self.family} if self.family else {})

    @staticmethod
    def from_dict(data: dict[str, Any]) -> KieError:
        """
        Rebuild the error that :meth:`to_dict` described.

        :param data: the dict; an unknown ``type`` gives a plain :class:`KieError`. Keys of a later version are ignored.
        """
        known = {name: data[name] for name in ("problem", *KieError("").details(), "family") if name in data}
        return KieError._classes.get(str(data.get("type", "")), KieError)(**known)
