# SPDX-License-Identifier: Apache-2.0
"""
What differs between families of jobs: the type of a row, which is checked when it is built.

Numbers and words mean what the row says. A word that it does not name fails only if it says so itself; a number that it
does not name is no reason to go on waiting.
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
#: The name of main results, where a family has files besides.
MAIN = "result"


class Means(Enum):
    """What a status word or number says of a job."""

    RUNNING = auto()
    DONE = auto()
    FAILED = auto()
    #: KIE could not deliver its callback; the result is usually there.
    DONE_IF_RESULT = auto()


class Words:
    """
    What the status words and numbers of a family mean; each stands in one place.

    :param failed: it has failed, which KIE will not take back.
    :param done_if_result: it has succeeded if there is a result.
    :param only_words: the family's pages know no numbers, so that one in the row stands for the first word of its
        meaning, and another one says nothing.
    :param spelled_as_first: every word is spelled as the first one of its meaning.
    :raises ValueError: a word stands twice, whatever its letter case, or a meaning that every job can have has none.
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
        """Return a status as text, in the spelling of the row where it is known."""
        given = "" if given is None else str(given).strip()
        if known := self._spellings.get(given.upper()):
            return known
        word = redact(given)[:_LONGEST_WORD].strip()
        # One client has seen words with a text behind them, such as "SUCCESS-Success" (music-video).
        return self._spellings.get(re.split(r"[-\s]", word.upper())[0], word)

    def meaning(self, status: str) -> Means | None:
        """Say what a status means; None where nobody knows."""
        if status.upper().endswith(("_FAILED", "_ERROR")):
            return self._meanings.get(status, Means.FAILED)
        return self._meanings.get(status)

    def is_foreign_number(self, status: str) -> bool:
        """Tell whether a status is a number that the family does not name, and so no reason to go on waiting."""
        return not self._only_words and fields.whole(status) is not None and status not in self._meanings


@lru_cache  # of a row, with every one of thousands of readings
def _main_of(files: tuple[tuple[str, str], ...]) -> frozenset[str]:
    names = frozenset(name for name, _ in files)
    return names & {MAIN} or names


@dataclass(frozen=True, slots=True)
class Family:
    """
    What jobs of one kind have in common; everything that differs between families stands in such a row.

    :param name: travels with the id of a job, because an id that is asked at another family's path is unknown for ever.
    :param submit: path of the call that is paid for.
    :param query: path of the call that reads a job.
    :param words: what its status words mean.
    :param status: where a record has the status; the first key that is there counts.
    :param files: names of files and where they are; main results come first. Of paths with ``|`` between them the first
        one that leads to something counts.
    :param result: what a job has besides or instead of files; the first path that leads to something counts.
    :param needs_file: a success has a file; otherwise a result is enough.
    :param tracks: where songs are, as objects of their ``id`` and ``audioUrl``.
    :param errors: where the error's code and its text are.
    :param id_key: the name of the id.
    :param wrapped: the fields stand within ``input``, beside the name of a ``model``.
    :param model: the only model whose jobs are of this family.
    :param also: the row by which KIE may know a job that it does not know by this one.
    :param callback: KIE demands a callback URL.
    :param interval: seconds between two polls, where the user does not say it.
    :param repeat: what a second submit does.
    :param adopts: result numbers under which a refused submit may name an earlier job, which is then the result.
    :param file_decides: a file counts whatever the status says.
    :param failure: the class of a job that failed.
    :param title: what messages call a job; ``short``: the same where it is clear; ``product``: its result.
    :param unnamed: triggers, events, store entries and errors do not name the family, as it was before there were
        others.
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
    interval: float = 10.0
    repeat: Repeat = Repeat.IF_REFUSED
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

        :raises ValueError: a path cannot be one, or a success could never be told from its absence.
        """
        if not (self.submit.startswith("/") and self.query.startswith("/")):
            raise ValueError(f"the paths of family {self.name!r} do not start with '/'")
        if not self.status:
            raise ValueError(f"family {self.name!r} has no key for its status")
        if (self.needs_file and not self.files) or not (self.files or self.result):
            raise ValueError(f"family {self.name!r} has no path that leads to its result")

    @property
    def main_files(self) -> frozenset[str]:
        """The names of the files that jobs are made for: those called result, or all where none is called so."""
        return _main_of(self.files)

    @property
    def tag(self) -> str | None:
        """The name as it travels; None for the family of all that names none."""
        return None if self.unnamed else self.name

    @property
    def guarded(self) -> bool:
        """Whether KIE refuses a second identical submit, so that it is not paid for."""
        return self.repeat is Repeat.UNDER_GUARD
