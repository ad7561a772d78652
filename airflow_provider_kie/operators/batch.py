# SPDX-License-Identifier: Apache-2.0
"""The operators that carry out thousands of jobs in one task."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException, XComArg

from airflow_provider_kie.api.families import JOBS, find_family
from airflow_provider_kie.api.fields import check_count, is_blank
from airflow_provider_kie.api.wav import check_route
from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.durable import key_of
from airflow_provider_kie.exceptions import KieBatchFailedError, KieError, KieValidationError
from airflow_provider_kie.final_errors import final
from airflow_provider_kie.memory import ledger_of
from airflow_provider_kie.money import FAIL, INPUT, RESUBMIT, TASK, TaskKey
from airflow_provider_kie.redaction import quoted
from airflow_provider_kie.tasks import as_rendered
from airflow_provider_kie.transfers.job_files import JobFilesOperator
from airflow_provider_kie.waiting.pace import as_seconds

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_kie.api.job import KieFile, KieJob
    from airflow_provider_kie.batch.course import Course, Limits
    from airflow_provider_kie.batch.items import Item, Kind
    from airflow_provider_kie.files.storage import Destination
    from airflow_provider_kie.ledger.storage import Ledger

__all__ = ["ConvertCatalogToWavOperator", "KieBatchOperator"]


class _Batch(JobFilesOperator):
    """What both operators share; see :class:`KieBatchOperator`."""

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
        self._course: Course | None = None

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
        from airflow_provider_kie.batch.course import Course

        limits = self._checked()
        ledger = self._open_ledger()
        kind = self._kind
        items = batch_items.load(self._items_argument, getattr(self, self._items_argument), kind, self.hook.settings)
        destination, batch = self._destination(self.manifest, context), _mark(context)
        manifest.check(destination, batch, overwrite=self.overwrite)
        self._check_destination(context)
        submits = self._submits(context, kind, ledger)
        store = None if is_blank(self.destination) else self._storing(context, kind, ledger)
        self._course = course = Course(items, submits, limits, store)
        course.look_up()
        manifest.write(destination, batch, items)  # before anything is paid: if this fails, nothing was sent
        if self._ending.is_set():
            course.stop()
        try:
            course.run()
        except BaseException:
            with self._best_effort("The state of the batch"):
                self._conclude(context, destination, batch, items)
            raise
        return self._judge(self._conclude(context, destination, batch, items), items, course)

    def on_kill(self) -> None:
        """Submit nothing more, and come to an end; what runs at KIE goes on, and a retry goes on with it."""
        super().on_kill()
        if self._course:
            self._course.stop()

    def _checked(self) -> Limits:
        """Return the limits, or refuse arguments that cannot work; a cluster policy may have changed them."""
        from airflow_provider_kie.batch.course import Limits
        from airflow_provider_kie.batch.report import check_fail_if

        for name, words in {"on_unknown_submit": (None, FAIL, RESUBMIT), "reuse": (TASK, INPUT)}.items():
            if getattr(self, name) not in words:
                allowed = " or ".join(repr(word) for word in words if word)
                raise KieValidationError(f"{name} is {quoted(getattr(self, name))}, but must be {allowed}")
        check_fail_if(self.fail_if)
        check_count("max_in_flight", self.max_in_flight)
        check_count("max_attempts", self.max_attempts)
        if self.max_credits is not None and not self.max_credits > 0:
            raise KieValidationError(f"max_credits is {quoted(self.max_credits)}, but must be above 0")
        interval = self._kind.row.interval if self.poll_interval is None else self.poll_interval
        return Limits(
            max_in_flight=self.max_in_flight,
            poll_interval=as_seconds("poll_interval", interval),
            timeout=as_seconds("timeout", self.timeout),
            max_attempts=self.max_attempts,
            max_credits=self.max_credits,
        )

    def _open_ledger(self) -> Ledger:
        from airflow_provider_kie.ledger.storage import open_ledger

        url = ledger_of(self.ledger, self.hook.settings)
        if url is None:
            problem = "A batch needs a ledger, without which a retry would pay again: set one here or on the connection"
            raise KieValidationError(problem, conn_id=self.kie_conn_id)
        return open_ledger(url)

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
        from airflow_provider_kie.batch.submits import Payer, Submits

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
        )
        return Submits(payer)

    def _storing(self, context: Context, kind: Kind, ledger: Ledger) -> Any:
        """Return what stores the files of a job, in any thread."""

        def store(item: Item, job: KieJob) -> None:
            kept = (ledger.archived(job["family"], job["kie_task_id"]) or {}).get("destinations", [])
            item.destinations.clear()
            self._store_all(kind.row, job, kept, item.destinations, context)
            if len(item.destinations) == len(job["files"]) and set(item.destinations) != set(kept):
                ledger.note_archived(job["family"], job["kie_task_id"], item.destinations)

        return store

    def _conclude(
        self, context: Context, destination: Destination, batch: str, items: Sequence[Item]
    ) -> dict[str, Any]:
        """Write the manifest, and push the summary."""
        from airflow_provider_kie.batch import manifest
        from airflow_provider_kie.batch.report import summary_of

        summary = summary_of(items, destination.url)
        try:
            context["ti"].xcom_push(key="batch", value=summary)
        finally:
            manifest.write(destination, batch, items)
        self.log.info("The manifest is stored: %s.", destination.url)
        return summary

    def _judge(self, summary: dict[str, Any], items: Sequence[Item], course: Course) -> dict[str, Any]:
        """Return the summary, or raise if the batch fails."""
        from airflow_provider_kie.batch.report import causes_of, cost_of, fails, settling

        missing = summary["total"] - summary["succeeded"]
        told = f"{missing:,} of {summary['total']:,} items did not succeed: {causes_of(items)}; {cost_of(items)}"
        ended = self._ending.is_set()
        if not (ended or course.halt or fails(summary, self.fail_if)):
            if missing:
                self.log.warning("%s. fail_if=%r allows that.", told, self.fail_if)
            return summary
        if ended:
            told = f"The batch was ended. {told}"
        if course.halt:
            told = f"Nothing more was submitted, because of this error: {course.halt.problem}. {told}"
        self.log.error("%s", told)
        error: KieError = KieBatchFailedError(told, conn_id=self.kie_conn_id)
        helps = any(item.retry_helps for item in items) and not isinstance(course.halt, AirflowFailException)
        error = error if helps or ended else final(error)
        error.next_step = " ".join(filter(None, [f"Manifest: {summary['manifest']}.", settling(items)]))
        raise error


class KieBatchOperator(_Batch):
    """
    Carry out many jobs of one kind in one task: submit each once, wait for all of them, store their files.

    Submits are held back so that KIE's limit of 20 in 10 seconds is not met. One event loop waits for all jobs, in the
    worker's slot; nothing is deferred. A try that is killed loses nothing: the next one looks all items up in the
    ledger, submits only what was never accepted, waits for what runs, and fetches what is missing.

    Pushes ``batch``, a dict with ``total``, ``succeeded``, ``failed``, ``unknown``, ``credits`` and ``manifest``,
    before the task may fail, and returns the same. The manifest has one line of JSON for each item, in their order:
    ``item``, ``digest``, ``ordinal``, ``entry``, ``kie_task_id``, ``end``, ``error``, ``destinations``, ``credits``.

    :param items: a list of inputs, or the URL of a JSON Lines file with one input in each line. (templated)
    :param model: KIE's model, for jobs of its Market. Either this or ``family``. (templated)
    :param family: the family of the jobs, such as ``music``. (templated)
    :param manifest: URL of the manifest, such as ``s3://bucket/{{ run_id }}.jsonl``; an earlier one of the same batch
        is replaced. (templated)
    :param ledger: URL of the folder that remembers jobs, made by ``airflow kie ledger init``; by default the
        connection's. One of them is needed. (templated)
    :param destination: where the files go, see
        :class:`~airflow_provider_kie.transfers.job_to_object_storage.KieJobToObjectStorageOperator`; by default none is
        stored. Must contain ``{kie_task_id}``. (templated)
    :param destination_conn_id: the Airflow connection of the storage of files and manifest. (templated)
    :param names: store only the files of these names. (templated)
    :param overwrite: replace other files at the destinations, and at that of the manifest.
    :param max_in_flight: how many jobs run at KIE at a time.
    :param poll_interval: seconds or a ``timedelta`` between two polls of a job; by default what suits the family.
    :param timeout: seconds or a ``timedelta`` to wait for each job.
    :param fail_if: ``"any"``: the task fails if any item did not succeed; ``"all"``: if none did; a number: if a larger
        share did not.
    :param max_attempts: how many accepted submits an item may have, over the life of the task instance. Another one
        follows only a failure that KIE confirms.
    :param max_credits: submit nothing more once the jobs that have ended cost that much, as far as KIE says.
    :param on_unknown_submit: what happens to an item whose submit may have been accepted: ``"fail"`` (the default where
        a second submit is charged) leaves it unknown; with ``"resubmit"`` the next try submits again.
    :param reuse: ``"task"``: an item belongs to this task instance, even after a clear; ``"input"``: jobs of other
        tasks with the same account, model and input count too.
    :param kie_conn_id: the Airflow connection of type ``kie``. (templated)
    """

    template_fields: Sequence[str] = (
        *("items", "model", "family", "manifest", "ledger", "destination", "destination_conn_id", "names"),
        "kie_conn_id",
    )
    _items_argument = "items"

    def __init__(
        self,
        *,
        items: str | Sequence[Mapping[str, Any]] | XComArg,
        model: str | XComArg | None = None,
        family: str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.items: Any = items
        self.model = as_rendered(model)
        self.family = as_rendered(family)

    @property
    def _kind(self) -> Kind:
        from airflow_provider_kie.batch.items import Jobs

        if is_blank(self.model) == is_blank(self.family):
            raise KieValidationError("Either model or family is needed, and not both")
        row = JOBS if is_blank(self.family) else find_family(str(self.family))
        return Jobs(row, None if is_blank(self.model) else self.model)


class ConvertCatalogToWavOperator(_Batch):
    """
    Convert many tracks to WAV in one task.

    It does what :class:`KieBatchOperator` does, with the same arguments besides ``items``, ``model`` and ``family``.

    :param tracks: a list of dicts with ``music_task_id`` and ``audio_id``, such as the ``tracks`` of music jobs, or the
        URL of a JSON Lines file with one of them in each line. (templated)
    :param route: how conversions are submitted, ``"wav"`` or ``"jobs"``; default is the connection's ``wav_route``.
    """

    template_fields: Sequence[str] = (
        *("tracks", "manifest", "ledger", "destination", "destination_conn_id", "names", "kie_conn_id"),
    )
    _items_argument = "tracks"

    def __init__(
        self, *, tracks: str | Sequence[Mapping[str, Any]] | XComArg, route: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.tracks: Any = tracks
        self.route = check_route(route)

    @property
    def _kind(self) -> Kind:
        from airflow_provider_kie.batch.items import Tracks

        return Tracks(self.hook.wav_route(self.route))


def _mark(context: Context) -> str:
    """Return what identifies the batch of a task instance in each of its tries."""
    task = key_of(context)
    return hashlib.sha256(json.dumps(task.ids if task else {}, sort_keys=True).encode()).hexdigest()[:16]
