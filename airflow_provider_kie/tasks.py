# SPDX-License-Identifier: Apache-2.0
"""What all tasks of this provider share: the hook, deferral, and the log lines about a job."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast, overload

from airflow.providers.common.compat.sdk import BaseOperator, XComArg

from airflow_provider_kie.api.families import find_family, tag_of
from airflow_provider_kie.api.fields import is_blank, pushed_nothing
from airflow_provider_kie.api.job import first_url
from airflow_provider_kie.exceptions import KieWaitTimeoutError, named
from airflow_provider_kie.links.kie import KieFileLink, KieLogsLink
from airflow_provider_kie.waiting.verdict import Done, Failed, finished

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.api.job import KieJob
    from airflow_provider_kie.hooks.kie import KieHook
    from airflow_provider_kie.triggers.job import KieJobTrigger

__all__ = [
    "ENDED_BY_AIRFLOW",
    "JobTask",
    "KieTask",
    "as_rendered",
    "deferral",
    "ended_by_airflow",
    "which_job",
]

log = logging.getLogger(__name__)

#: The name of the method with which Airflow resumes if it ended the deferral itself.
ENDED_BY_AIRFLOW = "__fail__"

#: Seconds by which Airflow's own limit of a deferral exceeds the trigger's, so that the trigger's event comes first.
DEFER_BACKSTOP = 120.0


@overload
def as_rendered(argument: str | XComArg) -> str: ...
@overload
def as_rendered(argument: str | XComArg | None) -> str | None: ...
def as_rendered(argument: str | XComArg | None) -> str | None:
    """
    Return the argument unchanged, typed as it will be after rendering.

    Before rendering it may be an ``XComArg``, whatever its type says: in the constructor, and when Airflow parses the
    DAG.
    """
    return cast("str | None", argument)


def which_job(given: Any, family: str) -> tuple[str, Family]:
    """
    Return the id and the family of a job, unchecked, typed as they should be.

    :param given: the id, or a :class:`~airflow_provider_kie.api.job.KieJob`, whose family counts.
    :raises KieValidationError: there is no such family, or the task that should provide it pushed nothing.
    """
    job: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    family = job.get("family", family)
    if is_blank(family):
        raise pushed_nothing("family")
    return cast("str", job.get("kie_task_id", given)), find_family(family)


class KieTask(BaseOperator):
    """An operator or a sensor that uses a connection of KIE's."""

    kie_conn_id: str
    operator_extra_links: Any = (KieLogsLink(),)

    @cached_property
    def hook(self) -> KieHook:
        """
        The hook, created when it is first needed, and imported late, to keep the parsing of DAG files fast.

        :raises KieValidationError: the task that should provide the connection's id pushed nothing.
        """
        from airflow_provider_kie.hooks.kie import KieHook

        if is_blank(self.kie_conn_id):
            raise pushed_nothing("kie_conn_id")
        return KieHook(str(self.kie_conn_id))  # render_template_as_native_obj turns digits into a number


class JobTask(KieTask):
    """An operator or a sensor that deals with one job."""

    operator_extra_links: Any = (KieLogsLink(), KieFileLink())
    #: For the link on the task's page, once it is known.
    file_url: str = ""

    def _push_url(self, context: Context, job: KieJob) -> None:
        url = first_url(job)
        self.file_url = url or ""
        context["ti"].xcom_push(key="url", value=url)

    def _with_whole_job(self, end: Done | Failed) -> Done | Failed:
        """Return the end with the whole job; a job that was too large for the event is read again."""
        if not (isinstance(end, Done) and end.cut):
            return end
        kie_task_id, row = end.job["kie_task_id"], find_family(end.job["family"])
        return finished(row, kie_task_id, self.hook.poll(row, kie_task_id, retry_reads=True))

    def _log_end(self, end: Done) -> None:
        what = named(tag_of(end.job["family"]), end.job["kie_task_id"])
        if end.warning:
            self.log.warning("%s: %s", what, end.warning)
        self.log.info("%s is finished.", what)


def deferral(trigger: KieJobTrigger) -> dict[str, Any]:
    """Return the arguments of ``BaseOperator.defer`` for a wait that starts now and ends in ``execute_complete``."""
    limit = timedelta(seconds=trigger.timeout + DEFER_BACKSTOP)
    return {"trigger": trigger, "method_name": "execute_complete", "timeout": limit}


def ended_by_airflow(row: Family, kie_task_id: str, kie_conn_id: str, next_kwargs: dict[str, Any] | None) -> Failed:
    """
    Return the end of a wait that Airflow ended: its limit passed while no triggerer answered, or the trigger failed.

    :param next_kwargs: what Airflow resumes the task with: its reason, and a failed trigger's traceback.
    """
    said = next_kwargs or {}
    if traceback := said.get("traceback"):
        log.error("Trigger failed:\n%s", "\n".join(traceback))
    problem = f"Airflow ended the wait in the triggerer ({said.get('error', 'Unknown')}), see the triggerer's log"
    return Failed(KieWaitTimeoutError(problem, kie_task_id=kie_task_id, conn_id=kie_conn_id, family=row.tag))
