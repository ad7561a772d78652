# SPDX-License-Identifier: Apache-2.0
"""The operator that submits a job of any family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import XComArg, conf

from airflow_provider_kie.api.families import JOBS, find_family
from airflow_provider_kie.api.fields import is_blank, plain
from airflow_provider_kie.api.job import KieJob, submit_job
from airflow_provider_kie.connection import DEFAULT_CALLBACK_URL, DEFAULT_CONN_ID
from airflow_provider_kie.durable import StoredEntry
from airflow_provider_kie.exceptions import KieValidationError
from airflow_provider_kie.money import TASK, identity_of
from airflow_provider_kie.operators.submit import SubmitOperator
from airflow_provider_kie.tasks import as_rendered
from airflow_provider_kie.triggers.job import KieJobTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.family import Family

__all__ = ["KieJobOperator"]

#: The key of the job in the task's state store.
STORE_KEY = "kie_job"
TIMEOUT = 3600.0


class KieJobOperator(SubmitOperator[KieJob]):
    """
    Submit a job of any family, such as a song, a video or an image, and by default wait for it.

    Pushes ``kie_task_id`` and ``kie_family`` to XCom as soon as they are known. When it waited, it pushes ``url``, the
    link of the first file, and returns the :class:`~airflow_provider_kie.api.job.KieJob`; when it did not, the KIE task
    id.

    A submit that may have been accepted is not repeated, because KIE charges for each one: the message of
    :class:`~airflow_provider_kie.exceptions.KieMaybeSubmittedError` explains how to settle it.

    :param input: the fields of KIE's call, as KIE's pages name them; passed on unchecked. (templated in its values)
    :param model: KIE's model, for a job of its Market. Either this or ``family``. (templated)
    :param family: the family of the job, such as ``music``. (templated)
    :param callback_url: where KIE also reports the end; default is the field ``callBackUrl`` of the input, then the
        connection's. (templated)
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    :param wait_for_completion: wait for the result; otherwise return after the submit.
    :param deferrable: wait in the triggerer instead of a worker slot.
    :param poll_interval: seconds or a ``timedelta`` between two polls; by default what suits the family.
    :param timeout: seconds or a ``timedelta`` to wait at most; an hour by default.
    :param durable: on Airflow 3.3 and later, keep the KIE task id in the task's state store, so that a retry resumes
        the job that an earlier try submitted, in every mode. Without it nothing is remembered.
    :param on_unknown_submit: what a try does where an earlier submit may have been accepted: ``"fail"`` (the default
        where a second submit is charged) or ``"resubmit"``, which may pay twice.
    :param ledger: URL of a folder that remembers jobs on every Airflow and across tasks, made by ``airflow kie ledger
        init``; by default the connection's. False for none. (templated)
    :param reuse: ``"task"``: a try resumes the job that this task instance has paid for, even after a clear;
        ``"input"``: any task resumes a job of the same account, model and input, which needs a ledger; ``"never"``: a
        clear submits again, a retry does not.
    """

    template_fields: Sequence[str] = ("input", "model", "family", "callback_url", "ledger", "kie_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"input": "json"}

    def __init__(
        self,
        *,
        input: Mapping[str, Any] | XComArg,  # noqa: A002 - KIE's own word for it
        model: str | XComArg | None = None,
        family: str | XComArg | None = None,
        callback_url: str | XComArg | None = None,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float | timedelta | None = None,
        timeout: float | timedelta | None = None,
        durable: bool = True,
        on_unknown_submit: str | None = None,
        ledger: str | bool | XComArg | None = None,
        reuse: str = TASK,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kie_conn_id=kie_conn_id,
            wait_for_completion=wait_for_completion,
            deferrable=deferrable,
            poll_interval=JOBS.interval if poll_interval is None else poll_interval,
            timeout=TIMEOUT if timeout is None else timeout,
            durable=durable,
            on_unknown_submit=on_unknown_submit,
            ledger=ledger,
            **kwargs,
        )
        if poll_interval is None:
            self.poll_interval = None  # until the family is known
        self.input: Any = input
        self.model = as_rendered(model)
        self.family = as_rendered(family)
        self.callback_url = as_rendered(callback_url)
        self.reuse = reuse

    @property
    def row(self) -> Family:
        """The family of the job."""
        return JOBS if is_blank(self.family) else find_family(self.family)

    def _times(self) -> dict[str, object]:
        own = super()._times()
        return own if self.poll_interval is not None else own | {"poll_interval": self.row.interval}

    def _check(self) -> None:
        if is_blank(self.model) and is_blank(self.family):
            raise KieValidationError("Either model or family is needed")
        self.input = plain(self.input)
        submit_job(self.row, self.input, **self._options(), default_callback_url=DEFAULT_CALLBACK_URL)

    def _options(self) -> dict[str, str | None]:
        return {
            name: None if is_blank(getattr(self, name)) else getattr(self, name) for name in ("model", "callback_url")
        }

    def _send(self) -> str:
        return self.hook.submit_job(family=self.row.name, input=self.input, **self._options())

    def _stored_entry(self, context: Context) -> StoredEntry:
        settings = self.hook.settings
        identity = identity_of(settings.payer, settings.base_url, self.row, self._options()["model"], plain(self.input))
        return StoredEntry(context if self.durable else None, self.row, STORE_KEY, identity)

    def _trigger(self, kie_task_id: str, poll_interval: float, timeout: float) -> KieJobTrigger:
        return KieJobTrigger(kie_task_id, self.kie_conn_id, poll_interval, None, timeout, family=self.row.name)

    def _publish_id(self, context: Context, kie_task_id: str) -> None:
        super()._publish_id(context, kie_task_id)
        context["ti"].xcom_push(key="kie_family", value=self.row.name)

    def _result(self, context: Context, job: KieJob) -> KieJob:
        self._push_url(context, job)
        return job
