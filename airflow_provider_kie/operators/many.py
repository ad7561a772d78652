# SPDX-License-Identifier: Apache-2.0
"""What the operators that carry out thousands of jobs in one task have in common."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException, XComArg

from airflow_provider_kie.api.fields import check_count, is_blank
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.durable import key_of
from airflow_provider_kie.exceptions import (
    KieAuthenticationError,
    KieBatchFailedError,
    KieError,
    KieValidationError,
)
from airflow_provider_kie.final_errors import final
from airflow_provider_kie.memory import ledger_of
from airflow_provider_kie.money import FAIL, INPUT, RESUBMIT, TASK, TaskKey
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.tasks import as_rendered
from airflow_provider_kie.transfers.job_files import JobFilesOperator, check_names
from airflow_provider_kie.waiting.pace import as_seconds

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.job import KieFile, KieJob
    from airflow_provider_kie.batch.items import Item, Kind
    from airflow_provider_kie.batch.run import BatchRun, Limits
    from airflow_provider_kie.files.storage import Destination
    from airflow_provider_kie.ledger.storage import Ledger

__all__ = ["BatchOperator"]


class BatchOperator(JobFilesOperator):
    """Carries out a batch; its arguments are those of ``KieBatchOperator``."""

    #: The argument that names the items.
    _items_argument: ClassVar[str]
    max_bytes = 4 * 1024**3

    def __init__(
        self,
        *,
        manifest: str | XComArg,
        ledger: str | XComArg | None = None,
        destination: str | XComArg | None = None,
        destination_conn_id: str | XComArg | None = None,
        names: Sequence[str] | XComArg | None = None,
        overwrite: bool = False,
        max_in_flight: int = 100,
        poll_interval: float | timedelta | None = None,
        timeout: float | timedelta = 3600.0,
        fail_if: str | float = "any",
        max_attempts: int = 1,
        max_credits: float | None = None,
        on_unknown_submit: str | None = None,
        reuse: str = TASK,
        kie_conn_id: str | XComArg = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.manifest = as_rendered(manifest)
        self.ledger: Any = ledger
        self.destination: Any = destination
        self.destination_conn_id = as_rendered(destination_conn_id)
        self.names: Any = names
        self.overwrite = overwrite
        self.max_in_flight = max_in_flight
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.fail_if = fail_if
        self.max_attempts = max_attempts
        self.max_credits = max_credits
        self.on_unknown_submit = on_unknown_submit
        self.reuse = reuse
        self.kie_conn_id = as_rendered(kie_conn_id)
        self._run: BatchRun | None = None

    @property
    @abstractmethod
    def _kind(self) -> Kind:
        """What the items are."""

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Carry out the batch.

        :param context: Airflow's context.
        :raises KieBatchFailedError: more items than ``fail_if`` allows did not succeed.
        """
        from airflow_provider_kie.batch import items as batch_items
        from airflow_provider_kie.batch import manifest
        from airflow_provider_kie.batch.run import BatchRun

        limits = self._checked()
        ledger = self._open_ledger()
        kind = self._kind
        items = batch_items.load(self._items_argument, getattr(self, self._items_argument), kind, self.hook.settings)
        destination, batch = self._manifest_at(context), _mark(context)
        told = manifest.read(destination, batch, overwrite=self.overwrite)
        for item in items:
            item.told = told.get((item.digest, item.ordinal), {})
        self._check_destination(context)
        submits = self._submits(context, kind, ledger)
        store = None if is_blank(self.destination) else self._storing(context, kind, ledger)
        self._run = run = BatchRun(items, submits, limits, store)
        if self._ending.is_set():
            run.stop()

        def write() -> None:
            if run.is_looked_up or not told:  # what an earlier try has written stands until more is known
                manifest.write(destination, batch, items)
                self.log.info("The manifest is stored: %s.", destination.url)

        try:
            run.look_up()
            if run.is_looked_up:
                write()  # before anything is paid: if this fails, nothing was sent
                run.run()
        except BaseException:
            with self._best_effort("The state of the batch"):
                self._conclude(context, destination.url, items, write)
            raise
        return self._judge(self._conclude(context, destination.url, items, write), items, run)

    def on_kill(self) -> None:
        """Submit nothing more, and come to an end; what runs at KIE goes on, and a retry goes on with it."""
        super().on_kill()
        if self._run:
            self._run.stop()

    def _checked(self) -> Limits:
        """Return the limits, or refuse arguments that cannot work; a cluster policy may have changed them."""
        from airflow_provider_kie.batch.report import check_fail_if
        from airflow_provider_kie.batch.run import Limits

        for name, words in {"on_unknown_submit": (None, FAIL, RESUBMIT), "reuse": (TASK, INPUT)}.items():
            if getattr(self, name) not in words:
                allowed = " or ".join(repr(word) for word in words if word)
                raise KieValidationError(f"{name} is {quoted(getattr(self, name))}, but must be {allowed}")
        check_fail_if(self.fail_if)
        check_count("max_in_flight", self.max_in_flight)
        check_count("max_attempts", self.max_attempts)
        check_names(self.names)
        limit: object = self.max_credits
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0):
            raise KieValidationError(f"max_credits is {quoted(limit)}, but must be a number above 0")
        interval = self._kind.row.interval if self.poll_interval is None else self.poll_interval
        return Limits(
            max_in_flight=self.max_in_flight,
            poll_interval=as_seconds("poll_interval", interval),
            timeout=as_seconds("timeout", self.timeout),
            max_credits=self.max_credits,
        )

    def _open_ledger(self) -> Ledger:
        from airflow_provider_kie.ledger.storage import open_ledger

        url = ledger_of(self.ledger, self.hook.settings)
        if url is None:
            problem = "A batch needs a ledger, without which a retry would pay again: set one here or on the connection"
            raise KieValidationError(problem, conn_id=self.kie_conn_id)
        return open_ledger(url)

    def _manifest_at(self, context: Context) -> Destination:
        try:
            return self._destination(self.manifest, context)
        except KieValidationError as error:
            raise KieValidationError(error.problem.replace("destination", "manifest", 1)) from None

    def _has_another_key(self, error: KieError | None) -> bool:
        """Whether KIE has refused a key that was replaced in the connection meanwhile."""
        from airflow_provider_kie.hooks.kie import KieHook

        return isinstance(error, KieAuthenticationError) and KieHook(self.kie_conn_id).settings != self.hook.settings

    def _check_destination(self, context: Context) -> None:
        """Refuse a destination that cannot work, or that would give several jobs the same place."""
        from airflow_provider_kie.files.template import DestinationTemplate

        if is_blank(self.destination):
            return
        file: KieFile = {"url": "", "name": "result", "index": 0}
        one, other = (DestinationTemplate(self.destination, name).url(file, "bin") for name in ("a", "b"))
        if one == other:
            problem = f"destination {quoted(self.destination)} gives all jobs the same place; add {{kie_task_id}}"
            raise KieValidationError(problem)
        self._destination(one, context)

    def _submits(self, context: Context, kind: Kind, ledger: Ledger) -> Any:
        from airflow_provider_kie.batch.payer import Payer
        from airflow_provider_kie.batch.submits import Submits

        task = key_of(context) or TaskKey("", "", self.task_id)
        conn_id = None if self.kie_conn_id == DEFAULT_CONN_ID else self.kie_conn_id
        own_ledger = None if is_blank(self.ledger) else str(self.ledger)
        payer = Payer(
            kind=kind,
            settings=self.hook.settings,
            ledger=ledger,
            task=TaskKey(task.dag_id, task.run_id, task.task_id, task.map_index, conn_id, own_ledger),
            max_tries=getattr(context.get("ti"), "max_tries", None),
            reuse=self.reuse,
            on_unknown_submit=self.on_unknown_submit,
            max_attempts=self.max_attempts,
        )
        return Submits(payer)

    def _storing(self, context: Context, kind: Kind, ledger: Ledger) -> Any:
        """Return what stores the files of a job, in any thread."""
        from airflow_provider_kie.files.template import DestinationTemplate

        def store(item: Item, job: KieJob, halt: Callable[[KieError], None]) -> None:
            files = self._choose(job)
            try:
                DestinationTemplate(self.destination, job["kie_task_id"]).check(files)
            except KieValidationError as error:  # the files of all other jobs would meet it too
                halt(error)
                raise
            kept = (ledger.archived(job["family"], job["kie_task_id"]) or {}).get("destinations", [])
            if item.told.get("kie_task_id") == job["kie_task_id"]:
                kept = [*kept, *item.told["destinations"]]
            item.destinations.clear()
            self._store_all(kind.row, job, kept, item.destinations, context)
            if len(item.destinations) == len(job["files"]) and set(item.destinations) != set(kept):
                ledger.note_archived(job["family"], job["kie_task_id"], item.destinations)

        return store

    def _conclude(
        self, context: Context, manifest: str, items: Sequence[Item], write: Callable[[], None]
    ) -> dict[str, Any]:
        """Push the summary, and write the manifest."""
        from airflow_provider_kie.batch.report import summary_of

        summary = summary_of(items, manifest)
        try:
            context["ti"].xcom_push(key="batch", value=summary)
        finally:
            write()
        return summary

    def _judge(self, summary: dict[str, Any], items: Sequence[Item], run: BatchRun) -> dict[str, Any]:
        """Return the summary, or raise if the batch fails."""
        from airflow_provider_kie.batch.report import causes_of, cost_of, fails, settling

        missing = summary["total"] - summary["succeeded"]
        told = f"{missing:,} of {summary['total']:,} items did not succeed: {causes_of(items)}; {cost_of(items)}"
        ended = self._ending.is_set()
        if not (ended or run.halt or fails(summary, self.fail_if)):
            if missing:
                self.log.warning("%s. fail_if=%r allows that.", told, self.fail_if)
            return summary
        if ended:
            told = f"The batch was ended. {told}"
        if run.halt:
            told = f"Nothing more was submitted, because of this error: {run.halt.problem}. {told}"
        self.log.error("%s", told)
        error: KieError = KieBatchFailedError(told, conn_id=self.kie_conn_id)
        helps = any(item.retry_helps for item in items) and not isinstance(run.halt, AirflowFailException)
        helps = helps or self._has_another_key(run.halt)
        error = error if helps or ended else final(error)
        error.next_step = " ".join(filter(None, [f"Manifest: {summary['manifest']}.", settling(items)]))
        raise error


def _mark(context: Context) -> str:
    """Return what identifies the batch of a task instance in each of its tries."""
    task = key_of(context)
    return hashlib.sha256(json.dumps(task.ids if task else {}, sort_keys=True).encode()).hexdigest()[:16]
