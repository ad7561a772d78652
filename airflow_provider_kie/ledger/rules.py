# SPDX-License-Identifier: Apache-2.0
"""
One accepted submit for one identity: the rules of the ledger, without any I/O.

A chain is the folder of one identity. Its files ``0001.claimed``, ``0001.submitted``, ``0001.finished``,
``0002.claimed`` ... are each created once, exclusively; nothing is ever overwritten or renamed. So the names say the
state, and it only grows. The rules that live here and nowhere else:

* One claim allows one submit; repeating it needs the next generation.
* Create first, look only when that is refused. A claim carries a random token, because storages repeat a write whose
  answer was lost, and then refuse the repetition.
* Only failed, refused and forgotten open the next generation.
* A claim that a waiter has itself seen without an id for longer than a submit can take is of unknown outcome. Nobody
  compares the clocks of two machines.
* An id that cannot be read (yet) is looked at again, and is then an error, never "no entry".

The generators ask for each step as an :class:`Op`. ``tests/unit/test_ledger_rules.py`` drives them through all
interleavings, ``storage.py`` on files.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from airflow_provider_kie.exceptions import KieLedgerError

__all__ = [
    "ATTEMPTS",
    "CLOSED",
    "RANK",
    "Found",
    "Op",
    "Policy",
    "by_rank",
    "claim",
    "current",
    "decide",
    "look",
    "note",
    "parsed",
]

Policy: TypeAlias = Literal["fail", "resubmit"]
Step: TypeAlias = Literal["claim next", "go on", "submit", "wait", "error", "unknown"]
Body: TypeAlias = Mapping[str, Any]

#: The state of a generation is its file of the highest rank. What closes one ranks highest, so that it stays closed.
RANK: Final = {"claimed": 0, "submitted": 1, "finished": 2, "failed": 3, "refused": 4, "forgotten": 5}
#: The next generation may be claimed.
CLOSED: Final = frozenset({"failed", "refused", "forgotten"})
#: How often a write is tried whose answer is lost.
ATTEMPTS: Final = 3

_NAME = re.compile(r"(\d{4,})\.([a-z]+)")


class Op(NamedTuple):
    """
    A step that a generator asks for.

    The answers: ``create`` True (made), False (exists), None (nobody knows); ``list`` the names; ``read`` the body,
    None if it is missing or unreadable; ``wait`` True (look again), False (the patience is over).

    :param generation: 0 where the step concerns the whole chain.
    :param facts: what a created file says besides, such as the credits.
    """

    do: Literal["create", "list", "read", "wait"]
    generation: int = 0
    state: str = ""
    kie_task_id: str | None = None
    facts: Body | None = None


class Found(NamedTuple):
    """
    What a claim or a look has found.

    :param kind: ``"claimed"``: ours, may be sent once; ``"job"``: go on with it; ``"unknown"``: claimed by somebody,
        and no id came; ``"closed"``: nothing stands.
    :param generation: 0 if there is none.
    :param body: the last state file as it was read; None if it was not read or has no content.
    """

    kind: Literal["claimed", "job", "unknown", "closed"]
    generation: int
    state: str
    body: Body | None = None

    @property
    def kie_task_id(self) -> str | None:
        """The job, if its id is known."""
        return self.body["kie_task_id"] if self.body else None


Steps: TypeAlias = Generator[Op, Any, Found]

_KINDS: Final[dict[str, Literal["job", "unknown", "closed"]]] = {
    "go on": "job",
    "unknown": "unknown",
    "claim next": "closed",
}


def parsed(names: Iterable[str]) -> list[tuple[int, str]]:
    """Return generation and state of each name of a chain's files; other files are left out."""
    return [(int(name[1]), name[2]) for name in map(_NAME.fullmatch, names) if name]


def by_rank(each: tuple[int, str]) -> int:
    """Return the rank of a generation's state; that of a newer version is above all others."""
    return RANK.get(each[1], len(RANK))


def current(names: Iterable[str]) -> tuple[int, str]:
    """
    Return the first generation whose job stands, or else the last one that was not refused; and its state.

    A refused one says that nothing was sent under it, and nothing about a claim before it.

    :param names: the names of a chain's files.
    :return: ``(0, "forgotten")`` for an empty chain.
    :raises KieLedgerError: a newer version wrote a state that this one does not know.
    """
    found = parsed(names)
    if unknown := {state for _, state in found} - RANK.keys():
        raise KieLedgerError(f"The states {sorted(unknown)} of an entry are not known: a newer version wrote them")
    states = dict(sorted(found, key=by_rank))
    stands = [number for number, state in states.items() if state != "claimed" and state not in CLOSED]
    sent = [number for number, state in states.items() if state != "refused"]
    number = min(stands) if stands else max(sent or states, default=0)
    return number, states.get(number, "forgotten")


def decide(state: str, kie_task_id: str | None, mine: bool, waited: bool, policy: Policy) -> Step:
    """
    Say what may be done about what :func:`current` found.

    :param kie_task_id: what its last file says; None if that has none or cannot be read (yet).
    :param mine: the file has the token of this claim, for which nothing was sent.
    :param waited: the patience with it is over.
    """
    if state in CLOSED:
        return "claim next"
    if kie_task_id is not None:
        return "go on"
    if state == "claimed" and mine:
        return "submit"  # the create had worked; its repetition was refused
    if not waited:
        return "wait"
    if state != "claimed":
        return "error"  # an id was written, so this never counts as no entry
    return "claim next" if policy == "resubmit" else "unknown"


def look() -> Steps:
    """
    Look at a chain, and wait for the id of a claim that has none.

    :raises KieLedgerError: an entry cannot be read.
    """
    _, found = yield from _wait("fail")
    return found


def claim(token: str, policy: Policy, after: int = 0) -> Steps:
    """
    Claim the next submit, unless there is a job or somebody else has claimed it.

    :param token: of this claim alone, never used again.
    :param policy: what to do about somebody's submit of unknown outcome.
    :param after: the last generation of which this claimant itself knows that it is over, because its own submit was
        refused, or its answer was lost and the policy allows another.
    :raises KieLedgerError: an entry cannot be read or made.
    """
    claiming, exists, lost = after + 1, 0, 0
    while lost < ATTEMPTS:
        made = yield Op("create", claiming, "claimed")
        if made:
            return Found("claimed", claiming, "claimed")
        lost += made is None
        exists = claiming if made is False else exists
        step, found = yield from _wait(policy, token, claiming, after, exists)
        if step == "submit":
            return Found("claimed", claiming, "claimed", found.body)
        if step != "claim next":
            return found
        claiming = found.generation + 1
    raise KieLedgerError(f"Generation {claiming} of an entry could not be written, in {ATTEMPTS} attempts")


def _wait(
    policy: Policy, token: str | None = None, claiming: int = 0, after: int = 0, exists: int = 0
) -> Generator[Op, Any, tuple[Step, Found]]:
    """
    Look until it is clear what may be done.

    :param claiming: the generation that is being claimed, for which alone the token counts.
    :param exists: a generation that is claimed, whatever a listing says.
    """
    known = [f"{exists:04d}.claimed"] if exists else []
    waited: set[tuple[int, str]] = set()
    while True:
        names = [*(yield Op("list")), *known]
        generation, state = current(names)
        body = (yield Op("read", generation, state)) if generation and state not in CLOSED else None
        if state == "claimed" and generation <= after:
            state = "refused"  # although the note of that may be missing
        mine = body is not None and body["token"] == token and generation == claiming
        kie_task_id = body["kie_task_id"] if body else None
        step = decide(state, kie_task_id, mine, (generation, state) in waited, policy)
        if step == "error":
            raise KieLedgerError(f"The file {generation:04d}.{state} of an entry cannot be read")
        if step == "claim next":
            generation = max((number for number, _ in parsed(names)), default=0)
        if step != "wait":
            return step, Found(_KINDS.get(step, "closed"), generation, state, body)
        if not (yield Op("wait", generation, state)):
            waited.add((generation, state))


def note(
    generation: int, state: str, kie_task_id: str | None = None, facts: Body | None = None
) -> Generator[Op, Any, bool]:
    """
    Write a later state of a generation.

    :return: False if it may not be there, which must not end a paid job.
    """
    for _ in range(ATTEMPTS):
        if made := (yield Op("create", generation, state, kie_task_id, facts)):
            return True
        if made is False:  # an own write whose answer was lost, or somebody who says the same
            body = yield Op("read", generation, state)
            return body is not None and body["kie_task_id"] == kie_task_id
    return False
