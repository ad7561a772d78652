# SPDX-License-Identifier: Apache-2.0
"""
The type of a family's row, which is checked when it is built.

Status words and numbers mean what the row says. A word that it does not list means running, unless it ends in
``_FAILED`` or ``_ERROR``; a number that it does not list ends the wait.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from airflow_provider_kie.api import fields
from airflow_provider_kie.api.call import Repeat
from airflow_provider_kie.api.envelope import Json
from airflow_provider_kie.exceptions import KieJobFailedError
from airflow_provider_kie.redaction import redact

__all__ = ["Family", "Means", "Words"]

_LONGEST_WORD = 80
#: The name of main results, if a family has other files too.
MAIN = "result"


class Means(Enum):
    """What a status means."""

    RUNNING = auto()
    DONE = auto()
    FAILED = auto()
    #: KIE could not deliver its callback; the result is usually there.
    DONE_IF_RESULT = auto()


class Words:
    """
    The status words and numbers of a family, each with one meaning.

    :param failed: it has failed for good.
    :param done_if_result: it has succeeded if there is a result.
    :param only_words: the family's pages list no numbers: a number in the row stands for the first word of its meaning,
        any other number means nothing.
    :param spelled_as_first: every word is spelled as the first one of its meaning.
    :raises ValueError: a word is listed twice, ignoring case, or running, done or failed is empty.
    """

    def __init__(
        self,
        *,
        running: tuple[str | int, ...],
        done: tuple[str | int, ...],
        failed: tuple[str | int, ...],
        done_if_result: tuple[str | int, ...] = (),
        only_words: bool = False,
        spelled_as_first: bool = False,
    ) -> None:
        groups = {Means.RUNNING: running, Means.DONE: done, Means.FAILED: failed, Means.DONE_IF_RESULT: done_if_result}
        named = [(str(word), means) for means, words in groups.items() for word in words]
        self._meanings = dict(named)
        self._spellings = {word.upper(): word for word in self._meanings}
        if only_words or spelled_as_first:
            self._spellings |= {
                str(word).upper(): str(words[0])
                for words in groups.values()
                for word in words
                if spelled_as_first or type(word) is int
            }
        if len(self._spellings) != len(named) or not (running and done and failed):
            raise ValueError(f"status words stand twice, or are missing: {groups}")
        self._only_words = only_words

    def spelled(self, given: Json) -> str:
        """Return a status as text, in the row's spelling if it is listed."""
        given = "" if given is None else str(given).strip()
        if known := self._spellings.get(given.upper()):
            return known
        word = redact(given)[:_LONGEST_WORD].strip()
        # One client saw words followed by text, such as "SUCCESS-Success" (music-video).
        return self._spellings.get(re.split(r"[-\s]", word.upper())[0], word)

    def meaning(self, status: str) -> Means | None:
        """Return what a status, as :meth:`spelled` gives it, means; None if unknown."""
        if status.upper().endswith(("_FAILED", "_ERROR")):
            return self._meanings.get(status, Means.FAILED)
        return self._meanings.get(status)

    def is_unlisted_number(self, status: str) -> bool:
        """Return whether a status is a number that the row does not list."""
        return not self._only_words and fields.whole(status) is not None and status not in self._meanings


@lru_cache  # the same few rows in every one of thousands of reads
def _main_of(files: tuple[tuple[str, str], ...]) -> frozenset[str]:
    names = frozenset(name for name, _ in files)
    return names & {MAIN} or names


@dataclass(frozen=True, slots=True)
class Family:
    """
    What jobs of one kind have in common; everything that differs between families is in such a row.

    :param name: kept together with the id of a job, because no other family's path finds that id.
    :param submit: path of the call that is paid for.
    :param query: path of the call that reads a job.
    :param words: what its status words mean.
    :param status: keys of the status in a record; the first one present counts.
    :param files: names and paths of files, main results first; of paths separated by ``|`` the first one with a value
        counts.
    :param result: paths of what a job has besides or instead of files; the first one with a value counts.
    :param needs_file: a success must have a file; otherwise a result is enough.
    :param tracks: paths of the songs, as objects with ``id`` and ``audioUrl``.
    :param errors: keys of the error's code and its text.
    :param id_key: key of the id in queries and answers.
    :param wrapped: the fields go into ``input``, beside ``model``.
    :param model: the only model of the Market that this row covers.
    :param also: the row to read a job with if it is unknown by this one.
    :param callback: KIE demands a callback URL.
    :param callback_keys: keys of its callbacks that tell them from those of other families.
    :param interval: default seconds between two polls.
    :param repeat: when a submit may be repeated.
    :param adopts: result numbers of a refused submit for which an earlier job that it names is the result.
    :param file_decides: a file counts whatever the status says.
    :param failure: the error class of a failed job.
    :param title: the noun for a job in messages; ``short``: a shorter one; ``product``: the noun for its result.
    :param unnamed: triggers, events, store entries and errors leave the family out, as before there was a second one.
    """

    name: str
    submit: str
    query: str
    words: Words
    status: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()
    result: tuple[str, ...] = ()
    needs_file: bool = True
    tracks: tuple[str, ...] = ()
    errors: tuple[str, str] = ("errorCode", "errorMessage")
    id_key: str = "taskId"
    wrapped: bool = False
    model: str | None = None
    also: Family | None = None
    callback: bool = False
    callback_keys: tuple[str, ...] = ()
    interval: float = 10.0
    repeat: Repeat = Repeat.NEVER_TWICE
    adopts: tuple[int, ...] = ()
    file_decides: bool = False
    failure: type[KieJobFailedError] = KieJobFailedError
    title: str = "job"
    short: str = "job"
    product: str = "result"
    unnamed: bool = False

    def __post_init__(self) -> None:
        """
        Check the row.

        :raises ValueError: a path is malformed, or the row has no status key or no path of a result.
        """
        if not (self.submit.startswith("/") and self.query.startswith("/")):
            raise ValueError(f"the paths of family {self.name!r} do not start with '/'")
        if not self.status:
            raise ValueError(f"family {self.name!r} has no key for its status")
        if (self.needs_file and not self.files) or not (self.files or self.result):
            raise ValueError(f"family {self.name!r} has no path that leads to its result")

    @property
    def main_files(self) -> frozenset[str]:
        """The names of the files that a job is submitted for: "result", or all if none has that name."""
        return _main_of(self.files)

    @property
    def tag(self) -> str | None:
        """The name as stored in triggers, events, entries and errors; None for an ``unnamed`` family."""
        return None if self.unnamed else self.name

    @property
    def guarded(self) -> bool:
        """Whether KIE refuses a second identical submit, which is then not charged."""
        return self.repeat is Repeat.GUARDED
