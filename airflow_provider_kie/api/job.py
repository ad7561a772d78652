# SPDX-License-Identifier: Apache-2.0
"""
What all families have in common: the job that any record is read into, and the calls made from a row.

The rules that live here and nowhere else:

* a record about another job than the one asked for is an error;
* KIE answers an unknown id with null, or with 404, 422 or 500 and a matching text (recorded 2026-04-28 to 2026-09);
  both mean *not visible yet*;
* files are only read from the row's paths, never recognized as links, because records echo their inputs;
* a job with a malformed link has not failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from json import dumps
from typing import NamedTuple, TypedDict

from airflow_provider_kie.api import fields
from airflow_provider_kie.api.call import Call
from airflow_provider_kie.api.envelope import Json, final_refusal, says_unknown
from airflow_provider_kie.api.family import Family, Means
from airflow_provider_kie.exceptions import (
    KieAlreadyConvertedError,
    KieError,
    KieJobFailedError,
    KieNotFoundError,
    KieUnexpectedCodeError,
    KieUnreadableAnswerError,
    KieValidationError,
    KieWrongTaskError,
    label,
    named,
)
from airflow_provider_kie.redaction import quoted

__all__ = [
    "CALLBACK",
    "KieFile",
    "KieJob",
    "KieTrack",
    "Submitted",
    "first_url",
    "has_main_file",
    "no_cancel",
    "read_job",
    "submit_job",
]

#: The field of the callback URL, in every family.
CALLBACK = "callBackUrl"


class KieFile(TypedDict):
    """A result that is a file: its ``url``, what it is (``name``), and its ``index`` among those of that name."""

    url: str
    name: str
    index: int


class KieTrack(TypedDict):
    """One song of a music job, by the two ids that other jobs take."""

    music_task_id: str
    audio_id: str


class KieJob(TypedDict):
    """
    One job as KIE describes it, in JSON values, fit for XCom.

    ``family``, ``model``: what kind of job it is; ``model`` is None outside KIE's Market. ``kie_task_id``: its id at
    KIE. ``status``: KIE's own word or number, as text. ``files``: main results first, in KIE's order; KIE deletes them
    14 days after success. ``result``: what KIE returned besides or instead of files, or None. ``tracks``: the songs of
    a music job. ``progress``: from 0 to 1, or None. ``credits``: what the job cost, or None. ``create_time``,
    ``complete_time``: ISO 8601 where KIE sent a number, else KIE's text, whose time zone is not documented.
    ``error_code``, ``error_message``: None where KIE reports no error.
    """

    family: str
    model: str | None
    kie_task_id: str
    status: str
    files: list[KieFile]
    result: Json
    tracks: list[KieTrack]
    progress: float | None
    credits: float | None
    create_time: str | None
    complete_time: str | None
    error_code: int | str | None
    error_message: str | None


class Submitted(NamedTuple):
    """
    An accepted submit.

    :param kie_task_id: the job to wait for.
    :param reused: True when KIE named an earlier job and created no new one.
    """

    kie_task_id: str
    reused: bool


def submit_job(
    row: Family,
    given: Mapping[str, Json],
    *,
    model: str | None = None,
    callback_url: str | None = None,
    default_callback_url: str | None = None,
    purpose: str | None = None,
) -> Call[Submitted]:
    """
    Return the call that submits a job, which is charged.

    :param given: the fields of the call, passed on unchecked.
    :param callback_url: where KIE reports the end; by default the field in ``given``.
    :param default_callback_url: the callback URL if neither is set.
    :param purpose: what the call is for, as the start of an error message.
    :raises KieValidationError: the fields cannot be sent, or the model is missing or not accepted.
    """
    model = model or row.model
    if row.wrapped == (not model):
        raise KieValidationError(f"family {quoted(row.name)} {'needs a' if row.wrapped else 'takes no'} model")
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise KieValidationError("input must be a dict whose keys are the names of KIE's fields")
    try:
        dumps(given, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise KieValidationError(f"input cannot be sent: {error}") from error
    rest = {name: value for name, value in given.items() if name != CALLBACK}
    body: dict[str, Json] = {"model": model, "input": rest} if row.wrapped else rest
    if url := callback_url or given.get(CALLBACK) or default_callback_url:
        body[CALLBACK] = fields.check_url("callback_url", url)
    return Call(
        purpose or f"Submitting the {row.title}",
        "POST",
        row.submit,
        lambda data: _parse_submit(row, data),
        json=body,
        repeat=row.repeat,
        family=row.tag,
        recover=lambda error: _adopt_earlier_job(row, given, error),
    )


def read_job(row: Family, kie_task_id: str) -> Call[KieJob | None]:
    """
    Return the call that reads a job, which is free; its result is None for an id that is unknown or not visible yet.

    :raises KieValidationError: the id cannot be one of KIE.
    """
    if isinstance(kie_task_id, str) and "://" in kie_task_id:
        raise KieValidationError(
            "kie_task_id is a URL; the operator that submits pushes the id to XCom under the key 'kie_task_id', and "
            "returns it only with wait_for_completion=False"
        )
    asked = fields.check_id("kie_task_id", kie_task_id)
    return Call(
        f"Reading the {row.title}",
        "GET",
        row.query,
        lambda data: _parse_record(row, data, asked),
        params={row.id_key: asked},
        family=row.tag,
        kie_task_id=asked,
        recover=lambda error: _none_if_unknown(row, error),
    )


def first_url(job: KieJob) -> str | None:
    """Return the link of a job's first file, or None for a job without files."""
    return job["files"][0]["url"] if job["files"] else None


def has_main_file(row: Family, job: KieJob) -> bool:
    """Return whether a job has one of the files that it was submitted for, and not only a preview or a frame."""
    return any(file["name"] in row.main_files for file in job["files"])


def no_cancel(row: Family, kie_task_id: str) -> str:
    """Return the log line for a user who kills a task."""
    goes_on = f"{named(row.tag, kie_task_id)} goes on, and can be waited for again."
    return f"KIE has no call that cancels a {row.short}: {goes_on}"


def _parse_submit(row: Family, data: Json) -> Submitted:
    kie_task_id = _id_of(row, data)
    if kie_task_id is None:
        raise KieUnreadableAnswerError("KIE accepted the submit but gave no task id")
    try:
        return Submitted(fields.check_id(row.id_key, kie_task_id), reused=False)
    except KieError as error:
        raise KieUnreadableAnswerError(f"KIE accepted the submit, but {error.problem}") from error


def _id_of(row: Family, data: Json) -> str | None:
    """Return the id in an answer, in any spelling, because a missed id is a paid job that is lost."""
    given = data.get(row.id_key) if isinstance(data, dict) else None
    if fields.is_empty(given):
        given = fields.first(data, row.id_key)
    return str(given) if type(given) is int else fields.text(given)


def _adopt_earlier_job(row: Family, body: Mapping[str, Json], error: KieError) -> Submitted:
    if error.existing_kie_task_id and dumps(error.existing_kie_task_id) in dumps(body):  # an echo of what was sent
        error.existing_kie_task_id = None
    if error.existing_kie_task_id and error.code in row.adopts:
        with suppress(KieValidationError):  # an id that cannot be queried is left to the user
            return Submitted(fields.check_id(row.id_key, error.existing_kie_task_id), reused=True)
    if not row.guarded and (refusal := final_refusal(error)):
        raise refusal
    if isinstance(error, KieAlreadyConvertedError) and not row.guarded:
        # In a family without that guard, the meaning of 409 is unknown.
        raise KieUnexpectedCodeError(error.problem, **error.details())
    raise _mark_refused(_as_failure_of(row, error))


def _mark_refused(error: KieError) -> KieError:
    """Mark a failed generation (501) as an error that created nothing."""
    error.nothing_created = error.nothing_created or isinstance(error, KieJobFailedError)
    return error


def _none_if_unknown(row: Family, error: KieError) -> None:
    if not (says_unknown(error) or isinstance(error, KieNotFoundError)):
        raise _as_failure_of(row, error)


def _as_failure_of(row: Family, error: KieError) -> KieError:
    """Return a failed generation (501) as the family's error class."""
    return row.failure(error.problem, **error.details()) if type(error) is KieJobFailedError else error


def _parse_record(row: Family, data: Json, asked: str) -> KieJob | None:
    if data is None:
        return None
    if not isinstance(data, dict):
        raise KieUnreadableAnswerError(f"the record is not an object but {type(data).__name__}")
    answered = _id_of(row, data) or asked
    if answered != asked:
        raise KieWrongTaskError(f"KIE answered for {label(row.tag)} {quoted(answered)}, which is not the one asked for")
    model = fields.text(data.get("model")) or row.model
    if row.model and model != row.model:
        raise KieWrongTaskError(f"{label(row.tag)} {quoted(asked)} is a job of another model: {quoted(model)}")
    status = next((data[key] for key in row.status if not fields.is_empty(data.get(key))), None)
    code, text = row.errors
    files = _files(row, data)
    job: KieJob = {
        "family": row.name,
        "model": model,
        "kie_task_id": asked,
        "status": row.words.spelled(status),
        "files": files,
        "result": fields.storable(_result(row, data, files)),
        "tracks": _tracks(row, data, asked),
        "progress": _progress(data.get("progress")),
        "credits": fields.number(data.get("creditsConsumed")),
        "create_time": fields.time(data.get("createTime")),
        "complete_time": fields.time(data.get("completeTime")),
        "error_code": fields.error_code(data.get(code)),
        "error_message": fields.message(data.get(text)),
    }
    succeeded = row.words.meaning(job["status"]) in (Means.DONE, Means.DONE_IF_RESULT)
    if succeeded and row.needs_file and not job["files"] and (instead := _instead_of_links(row, data)):
        # The job is paid for, and a malformed link does not mean that it failed.
        raise KieUnreadableAnswerError(
            f"the {row.short} ended in {job['status']}, but its link is not an http(s) URL: "
            f"it begins with {fields.start_of_link(instead)}"
        )
    return job


def _links(data: Json, paths: str) -> list[Json]:
    """Return what is at the first path with a value, of paths separated by ``|``."""
    for path in paths.split("|"):
        if found := fields.dig(data, path):
            return found
    return []


def _instead_of_links(row: Family, data: dict[str, Json]) -> Json:
    """Return the first value where a link should be, or where the object around the links should be."""
    paths = [path for _, alternatives in row.files for path in alternatives.split("|")]
    around = [path.partition(".")[0].removesuffix("[]") for path in paths]
    no_objects = (each for key in around for each in fields.dig(data, key) if not isinstance(each, dict))
    return fields.first(data, *paths) or next(no_objects, None)


def _files(row: Family, data: Json) -> list[KieFile]:
    files: dict[str, KieFile] = {}
    for name, paths in row.files:
        for link in _links(data, paths):
            url = fields.http_url(link)
            if url and url not in files:
                index = sum(file["name"] == name for file in files.values())
                files[url] = KieFile(url=url, name=name, index=index)
    return list(files.values())


def _result(row: Family, data: Json, files: list[KieFile]) -> Json:
    """
    Return what the record contains besides files; a text that is not JSON is kept, to be shown.

    If there is no file, links of an unexpected shape are all that was paid for, and are kept too.
    """
    found = fields.first(data, *row.result)
    if isinstance(found, list):  # of lyrics, single variants may have failed
        return [each for each in found if not (isinstance(each, dict) and each.get("status") == "failed")] or None
    if isinstance(found, dict):
        read = _last_keys(row.files) if files else ()
        rest = {name: value for name, value in found.items() if name not in read and not fields.is_empty(value)}
        return rest or None
    return found


@lru_cache  # the same few rows in every one of thousands of reads
def _last_keys(files: tuple[tuple[str, str], ...]) -> frozenset[str]:
    paths = [path for _, alternatives in files for path in alternatives.split("|")]
    return frozenset(path.split(".")[-1].removesuffix("[]") for path in paths)


def _tracks(row: Family, data: Json, kie_task_id: str) -> list[KieTrack]:
    """Return the songs that have a file; a job made from any other song would fail, and be charged."""
    if not row.tracks:
        return []
    songs = [song for path in row.tracks for song in fields.dig(data, path) if isinstance(song, dict)]
    ids = (fields.text(song.get("id")) for song in songs if fields.http_url(song.get("audioUrl")))
    return [KieTrack(music_task_id=kie_task_id, audio_id=each) for each in dict.fromkeys(filter(None, ids))]


def _progress(value: Json) -> float | None:
    """Read a progress: a whole number is a percentage (Market), any other a fraction, also as text ("0.50", 4o)."""
    number = fields.number(value)
    if number is None:
        return None
    is_percentage = number > 1 or "." not in str(value)
    return min(max(number / 100 if is_percentage else number, 0.0), 1.0)
