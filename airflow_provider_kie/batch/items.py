# SPDX-License-Identifier: Apache-2.0
"""The items of a batch: where they come from, what is sent for each, and what tells them apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie.api.fields import check_id, is_blank, plain, pushed_nothing
from airflow_provider_kie.api.job import submit_job
from airflow_provider_kie.api.wav import convert_to_wav
from airflow_provider_kie.connection import DEFAULT_CALLBACK_URL
from airflow_provider_kie.exceptions import KieError, KieValidationError
from airflow_provider_kie.money import digest, identity_of
from airflow_provider_kie.object_paths import object_path, url_of
from airflow_provider_kie.redaction import quoted

if TYPE_CHECKING:
    from airflow_provider_kie.api.family import Family
    from airflow_provider_kie.connection import KieSettings
    from airflow_provider_kie.hooks.kie import KieHook

__all__ = ["End", "Item", "Jobs", "Kind", "Tracks", "load"]

#: What has become of an item. The first two are not final.
End: TypeAlias = Literal["not submitted", "running", "succeeded", "failed", "unknown"]


@dataclass(slots=True)
class Item:
    """
    One item of a batch, and what has become of it.

    :param line: its place, from 1 on; in a file, the number of its line.
    :param given: the fields of the call.
    :param digest: of what is given.
    :param ordinal: how many equal items come before it.
    :param entry: the name of its chain in the ledger, once that was looked up.
    :param accepted: how many of its submits of this task KIE has accepted.
    :param owner: the task whose claim or job its entry names, if that is another one.
    :param claim: the generation that somebody has claimed and that has no id; 0 for none.
    :param claim_is_over: that has stayed so for longer than a submit can take, and the policy allows another.
    :param is_deleted: another task has submitted its job, so long ago that KIE has deleted the files.
    :param told: what the manifest of an earlier try says of it.
    :param result: what its job gave in place of files.
    :param error: why it did not succeed; without its traceback.
    :param retry_helps: another try of the task may do better.
    """

    line: int
    given: dict[str, Any]
    digest: str
    ordinal: int
    entry: str = ""
    end: End = "not submitted"
    kie_task_id: str | None = None
    accepted: int = 0
    is_deleted: bool = False
    owner: Mapping[str, Any] = field(default_factory=dict)
    claim: int = 0
    claim_is_over: bool = False
    credits: float | None = None
    destinations: list[str] = field(default_factory=list)
    told: Mapping[str, Any] = field(default_factory=dict)
    result: Any = None
    error: KieError | None = None
    retry_helps: bool = False

    def ends(self, end: End, error: KieError | None = None, *, retry_helps: bool | None = None) -> None:
        """
        Note how the item has ended.

        :param retry_helps: by default, what Airflow would do after this error.
        """
        if error is not None:
            error.__cause__ = error.__context__ = None
            error = error.with_traceback(None)
        final = error is None or isinstance(error, AirflowFailException)
        self.end, self.error = end, error
        self.retry_helps = not final if retry_helps is None else retry_helps


class Kind(Protocol):
    """What the items of a batch are."""

    @property
    def row(self) -> Family:
        """The family of their jobs."""

    def check(self, given: Any) -> dict[str, Any]:
        """
        Return what is sent for an item.

        :raises KieValidationError: it cannot be sent.
        """

    def identity(self, settings: KieSettings, given: Mapping[str, Any]) -> dict[str, str]:
        """Return what identifies its job, as the operator for a single one does."""

    def send(self, hook: KieHook, given: Mapping[str, Any]) -> str:
        """Submit its job, and return the KIE task id."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """
    Jobs of one family; each item is the input of one.

    :param model: KIE's model, for jobs of its Market.
    """

    row: Family
    model: str | None

    def check(self, given: Any) -> dict[str, Any]:
        """Return the input of a job."""
        submit_job(self.row, given, model=self.model, default_callback_url=DEFAULT_CALLBACK_URL)
        return dict(given)

    def identity(self, settings: KieSettings, given: Mapping[str, Any]) -> dict[str, str]:
        """Return what identifies a job."""
        return identity_of(settings.payer, settings.base_url, self.row, self.model, given)

    def send(self, hook: KieHook, given: Mapping[str, Any]) -> str:
        """Submit a job."""
        return hook.submit_job(family=self.row.name, input=given, model=self.model)


@dataclass(frozen=True, slots=True)
class Tracks:
    """
    WAV conversions; each item names a track, as a :class:`~airflow_provider_kie.api.job.KieTrack` does.

    :param row: the row of their route.
    :param route: ``"wav"`` or ``"jobs"``; None for the connection's.
    """

    row: Family
    route: str | None

    def check(self, given: Any) -> dict[str, Any]:
        """Return the two ids of a track, whatever else is said about it."""
        if not isinstance(given, Mapping):
            raise KieValidationError("a track must be a dict with music_task_id and audio_id")
        track = {name: check_id(name, given.get(name)) for name in ("music_task_id", "audio_id")}
        convert_to_wav(track["music_task_id"], track["audio_id"], DEFAULT_CALLBACK_URL, self.row)
        return dict(track)

    def identity(self, settings: KieSettings, given: Mapping[str, Any]) -> dict[str, str]:
        """Return what identifies a conversion, on either route."""
        return {**given, "account": settings.payer, "base_url": settings.base_url}

    def send(self, hook: KieHook, given: Mapping[str, Any]) -> str:
        """Submit a conversion."""
        return hook.submit_wav_by_route(self.route, given["music_task_id"], given["audio_id"]).kie_task_id


def load(name: str, given: object, kind: Kind, settings: KieSettings) -> list[Item]:
    """
    Return the items, each of them checked.

    :param name: the argument that names them.
    :param given: a list, or the URL or path of a JSON Lines file.
    :raises KieValidationError: one cannot be sent; names its line.
    """
    if given is None or (isinstance(given, str) and is_blank(given)):
        raise pushed_nothing(name)
    listed = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
    if not listed and not isinstance(given, (str, PathLike)):
        problem = f"{name} is a {type(given).__name__}, but must be a list, or the URL of a JSON Lines file"
        raise KieValidationError(problem)
    lines = enumerate(plain(given), start=1) if listed else _lines(name, given)
    items: list[Item] = []
    seen: Counter[str] = Counter()
    for line, each in lines:
        try:
            sent = kind.check(each)
        except KieError as error:
            raise KieValidationError(f"{'Item' if listed else 'Line'} {line} of {name}: {error.problem}") from error
        mark = kind.identity(settings, sent).get("digest") or digest(sent)
        items.append(Item(line, sent, mark, seen[mark]))
        seen[mark] += 1
    return items


def _lines(name: str, given: object) -> Iterator[tuple[int, Any]]:
    """Yield number and content of each line of a JSON Lines file that is not empty."""
    url = url_of(name, given)
    path: Any = object_path(name, url, None)
    try:
        with path.open("rb") as file:
            yield from _parsed(name, iter(file.readline, b""))  # what 2.11 opens has no iterator
    except OSError as error:
        raise KieValidationError(f"{name} {quoted(url)} cannot be read: {type(error).__name__}") from error


def _parsed(name: str, lines: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield number, json.loads(text)
        except ValueError as error:
            raise KieValidationError(f"Line {number} of {name} is not JSON: {error}") from None
