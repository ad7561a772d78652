# SPDX-License-Identifier: Apache-2.0
"""
The rules of the ledger under every interleaving of a few claimants, over a model of what storages and KIE may do.

The product's own generators run. In each state of the world any claimant may take its next step, die, or be left alone
for any time; a write or a submit may land with its answer lost, late, or never; a listing may be old, and a file empty.

Under ``"fail"``: never more accepted submits than one, plus the jobs confirmed as failed, plus the entries that
somebody has told the ledger to forget. Under ``"resubmit"``: at most one for each claimant (a try of a task) and each
lost answer; where no owner is paused for longer than others wait, at most one, plus failed jobs, deaths and lost
answers.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import pytest

from airflow_provider_kie.exceptions import KieLedgerError
from airflow_provider_kie.ledger import rules
from airflow_provider_kie.ledger.rules import CLOSED, Found, Op, claim, current, decide, look, note


class Faults(NamedTuple):
    """How often each may happen in one run, at any moment."""

    crash: int = 0  # a claimant dies between any two steps, and never comes back (a retry is another claimant)
    write: int = 0  # a create whose answer is lost: it lands at once, later, or never; or its own repetition is refused
    answer: int = 0  # a submit whose answer is lost, accepted or not
    refusal: int = 0  # a submit that KIE refuses, or that the owner does not send because it is late
    failure: int = 0  # a job that fails after it was accepted
    forget: int = 0  # somebody has the ledger forget what stands
    stale: int = 0  # a listing that shows an earlier moment
    torn: bool = False  # a file is seen empty before its content is (local disk)
    pauses: bool = True  # an owner may be paused for longer than the others wait


class Call(NamedTuple):
    """What a claimant asks of KIE. A submit: ("accepted", id), ("refused", None), ("lost", None). A poll: a word."""

    do: str
    generation: int
    kie_task_id: str | None = None


class End(NamedTuple):
    """How a claimant ended; ``noted``: the ledger has what is said here."""

    kind: str
    generation: int
    kie_task_id: str | None = None
    sent: bool = False
    noted: bool = True


class Names(tuple[str, ...]):
    """The answer to a listing."""


class Read(NamedTuple):
    """The content of a file, or the answer to a read."""

    token: str
    kie_task_id: str | None


class World(NamedTuple):
    """A state of everything; a claimant is the answers that it has had."""

    told: tuple[tuple[Any, ...], ...]
    dead: tuple[bool, ...]
    filling: tuple[str | None, ...]  # the file that a claimant has created and not yet filled
    stood: tuple[str | None, ...]  # the id that stood when the claimant began
    left: Faults
    files: tuple[tuple[str, Read | None], ...] = ()  # in the order of their creation; None: torn
    pending: tuple[tuple[str, Read], ...] = ()  # sent, not landed
    jobs: tuple[str, ...] = ()  # accepted: "runs", "failed"


Claimant = Generator[Any, Any, End]


def claimant(name: int, policy: Any) -> Claimant:
    """Submit as an operator does: claim, send once, note; claim again what was refused, or may be repeated."""
    after, claims = 0, 0
    while True:
        found = yield from claim(f"{name}.{claims}", policy, after)
        sent, noted, kie_task_id = found.kind == "claimed", True, found.kie_task_id
        if found.kind == "unknown":
            return End("unknown", found.generation)
        if sent:
            answer, kie_task_id = yield Call("submit", found.generation)
            if answer == "refused":
                yield from note(found.generation, "refused")
            if answer == "lost" and policy == "fail":
                return End("unknown", found.generation, sent=True)
            if answer != "accepted":
                after, claims = found.generation, claims + 1
                continue
            noted = yield from note(found.generation, "submitted", kie_task_id)
        word = yield Call("poll", found.generation, kie_task_id)
        if word == "failed":
            yield from note(found.generation, "failed", kie_task_id)
        return End("job", found.generation, kie_task_id, sent, noted)


def standing(files: dict[str, Read | None]) -> str | None:
    generation, state = current(files)
    body = files.get(f"{generation:04d}.{state}")
    return body.kie_task_id if body and state not in CLOSED else None


def put(values: tuple[Any, ...], i: int, value: Any) -> tuple[Any, ...]:
    return (*values[:i], value, *values[i + 1 :])


class Explorer:
    """Every state that can be reached, each once."""

    def __init__(
        self,
        claimants: int,
        policy: str,
        faults: Faults,
        make: Callable[[int, Any], Claimant] = claimant,
        exclusive: bool = True,
    ) -> None:
        self.n, self.policy, self.faults, self.make, self.exclusive = claimants, policy, faults, make, exclusive
        self.most = self.states = 0
        self.ends: collections.Counter[str] = collections.Counter()

    def run(self) -> Explorer:
        none = (None,) * self.n
        todo = [World(((),) * self.n, (False,) * self.n, none, none, self.faults)]
        seen: set[int] = set()
        steps: dict[Any, Any] = {}
        while todo:
            world = todo.pop()
            key = hash(world)
            if key in seen:
                continue
            seen.add(key)
            asked = []
            for one in enumerate(world.told):
                if one not in steps:
                    steps[one] = self.next_step(*one)
                asked.append(steps[one])
            follow = list(self.successors(world, asked))
            self.check(world, asked, last=not follow)
            todo += follow
        self.states = len(seen)
        return self

    def policy_of(self, i: int) -> str:
        """In a mixed company only the second claimant must not send after an unknown outcome."""
        return self.policy if self.policy != "mixed" else "fail" if i == 1 else "resubmit"

    def next_step(self, i: int, told: tuple[Any, ...]) -> Any:
        """Return what a claimant with these answers asks next, or how it ended."""
        steps = self.make(i, self.policy_of(i))
        try:
            asked = next(steps)
            for answer in told:
                asked = steps.send(answer._asdict() if isinstance(answer, Read) else answer)
        except StopIteration as stop:
            return stop.value
        except KieLedgerError as error:
            return error
        return asked

    def successors(self, world: World, asked: list[Any]) -> Generator[World, None, None]:
        for k, (name, body) in enumerate(world.pending):  # a late write lands, or never does
            rest = (*world.pending[:k], *world.pending[k + 1 :])
            landed = name not in dict(world.files)
            yield world._replace(pending=rest, files=(*world.files, (name, body)) if landed else world.files)
        generation, state = current(dict(world.files))
        if world.left.forget and state not in CLOSED:
            left = world.left._replace(forget=world.left.forget - 1)
            yield world._replace(left=left, files=(*world.files, (f"{generation:04d}.forgotten", Read("-", None))))
        for i, op in enumerate(asked):
            begun = world.told[i]
            if world.dead[i] or not isinstance(op, Op | Call):
                continue
            if i and not world.told[i - 1] and not world.dead[i - 1]:
                continue  # claimants are alike, so they begin in their order
            if world.left.crash and begun:
                left = world.left._replace(crash=world.left.crash - 1)
                yield world._replace(dead=put(world.dead, i, True), left=left)
            for answer, fault, changed in getattr(self, f"on_{op.do}")(world, i, op, asked):
                new = world if begun else world._replace(stood=put(world.stood, i, standing(dict(world.files))))
                if fault:
                    new = new._replace(left=world.left._replace(**{fault: getattr(world.left, fault) - 1}))
                told = world.told if answer is BEGUN else put(world.told, i, (*begun, answer))
                yield new._replace(told=told, **changed)

    def on_create(self, world: World, i: int, op: Op, asked: Any) -> Any:
        files, name = dict(world.files), f"{op.generation:04d}.{op.state}"
        body = Read(f"{i}.{claims_before(world.told[i])}", op.kie_task_id)
        if world.filling[i]:
            filled = tuple((n, body if n == name else b) for n, b in world.files)
            yield True, "", {"files": filled, "filling": put(world.filling, i, None)}
            return
        if name in files and self.exclusive:
            yield False, "", {}
        elif world.left.torn:
            yield BEGUN, "", {"files": (*world.files, (name, None)), "filling": put(world.filling, i, name)}
        else:
            made = {"files": (*((n, b) for n, b in world.files if n != name), (name, body))}
            yield True, "", made
            if world.left.write:
                yield False, "write", made
        if world.left.write:
            yield None, "write", {"pending": (*world.pending, (name, body))}

    def on_list(self, world: World, i: int, op: Op, asked: Any) -> Any:
        names = [name for name, _ in world.files]
        yield Names(names), "", {}
        for k in range(len(names) if world.left.stale else 0):
            yield Names(names[:k]), "stale", {}

    def on_read(self, world: World, i: int, op: Op, asked: Any) -> Any:
        yield dict(world.files).get(f"{op.generation:04d}.{op.state}"), "", {}

    def on_wait(self, world: World, i: int, op: Op, asked: list[Any]) -> Any:
        files = dict(world.files)
        seen = [answer for answer in world.told[i] if isinstance(answer, Names)]
        # A torn file may stay so: look again a few times, not for ever.
        if (seen[-1] != tuple(files) or None in files.values()) and len(seen) < MOST_LOOKS:
            yield True, "", {}
        owner = files.get(f"{op.generation:04d}.claimed")
        alive = [isinstance(one, Op | Call) and not world.dead[j] for j, one in enumerate(asked)]
        busy = owner is not None and owner.token != "-" and alive[int(owner.token.partition(".")[0])]
        busy |= any(world.filling[j] and not world.dead[j] for j in range(self.n)) or bool(world.pending)
        if world.left.pauses or not busy:
            yield False, "", {}

    def on_submit(self, world: World, i: int, op: Call, asked: Any) -> Any:
        if self.policy == "mixed" and self.policy_of(i) == "fail":
            assert "runs" not in world.jobs, "paid by one that may not pay again"
        accepted = {"jobs": (*world.jobs, "runs")}
        yield ("accepted", f"job{len(accepted['jobs'])}"), "", accepted
        if world.left.answer:
            yield ("lost", None), "answer", accepted
            yield ("lost", None), "answer", {}
        if world.left.refusal:
            yield ("refused", None), "refusal", {}

    def on_poll(self, world: World, i: int, op: Call, asked: Any) -> Any:
        k = number(op.kie_task_id)
        yield world.jobs[k], "", {}
        if world.left.failure and world.jobs[k] == "runs":
            yield "failed", "failure", {"jobs": put(world.jobs, k, "failed")}

    def check(self, world: World, asked: list[Any], *, last: bool) -> None:
        accepted, failed = len(world.jobs), world.jobs.count("failed")
        used = Faults(*(int(had) - int(left) for had, left in zip(self.faults, world.left, strict=True)))
        self.most = max(self.most, accepted)
        if self.policy == "fail":
            assert accepted <= 1 + failed + used.forget, "paid twice"
        elif self.faults.pauses:
            assert accepted <= self.n + used.answer, "more than one for each claimant and lost answer"
        else:
            assert accepted <= 1 + failed + used.answer + used.crash, "more than one for each death and lost answer"
        files = dict(world.files)
        for end, stood in zip(asked, world.stood, strict=True):
            if not isinstance(end, End):
                continue
            if end.kind == "job":
                assert number(end.kie_task_id) < accepted, "an id that nobody gave"
                if end.sent and end.noted:
                    body = files[f"{end.generation:04d}.submitted"]
                    assert (body and body.kie_task_id) == end.kie_task_id, "an id is lost"
            if stood and world.jobs[number(stood)] != "failed" and not used.forget:
                assert not end.sent, "an id stood, and another was paid for"
                assert end.kind == "job" or self.faults.stale, "an id stood, and was not found"
                assert self.policy != "fail" or end.kie_task_id in {stood, None}, "another id than that which stood"
        if last:
            self.check_ends(world, asked)

    def check_ends(self, world: World, asked: list[Any]) -> None:
        for end, dead in zip(asked, world.dead, strict=True):
            assert dead or not isinstance(end, Op | Call), "a claimant hangs"
            self.ends["dead" if dead else "error" if isinstance(end, KieLedgerError) else end.kind] += 1
        if self.faults._replace(torn=False) == Faults(pauses=False):
            assert {end.kie_task_id for end in asked} == {"job1"}, "without a fault all have the one job"


#: Instead of an answer: a create that has begun.
BEGUN = object()
#: Listings of one claimant, so that looking again at a file that stays torn comes to an end.
MOST_LOOKS = 6


def number(kie_task_id: str | None) -> int:
    assert kie_task_id
    return int(kie_task_id.removeprefix("job")) - 1


def claims_before(told: tuple[Any, ...]) -> int:
    """Return how many claims this claimant has given up: each ended with a refused or lost submit."""
    return sum(answer in (("refused", None), ("lost", None)) for answer in told)


F = Faults
#: Claimants, policy, faults; and the most submits that KIE accepts in any run, so that a loose bound would show.
SETUPS = [
    (3, "fail", F(pauses=False), 1),
    (3, "fail", F(torn=True, pauses=False), 1),
    (3, "fail", F(crash=2, answer=1), 1),
    (3, "fail", F(crash=1, failure=1), 2),
    (3, "fail", F(crash=1, write=1), 1),
    (3, "fail", F(crash=1, refusal=1), 1),
    (3, "fail", F(write=1, failure=1), 2),
    (3, "fail", F(crash=1, torn=True), 1),
    (3, "fail", F(crash=1, forget=1), 2),
    (2, "fail", F(crash=2, write=3, answer=1), 1),
    (2, "fail", F(crash=1, write=1, answer=1, refusal=1, failure=1), 2),
    (2, "fail", F(crash=1, answer=1, refusal=1, failure=1, stale=1), 2),
    (2, "fail", F(write=1, failure=1, stale=1), 2),
    (2, "fail", F(crash=1, answer=1, refusal=1, failure=1, torn=True), 2),
    (2, "fail", F(write=1, failure=1, forget=2), 2),
    (2, "resubmit", F(crash=1, answer=2), 2 + 2),
    (2, "resubmit", F(crash=1, write=1, answer=1), 2 + 1),
    (3, "resubmit", F(), 3),
    (2, "resubmit", F(crash=2, answer=1, write=1, pauses=False), 1 + 2),
    (3, "resubmit", F(crash=1, answer=1, pauses=False), 1 + 2),
    (2, "mixed", F(crash=1, answer=1, refusal=1, pauses=False), 1 + 2),
    (3, "mixed", F(answer=1, refusal=1, pauses=False), 2),
]


def title(setup: Any) -> str:
    n, policy, faults, _ = setup
    return f"{n}-{policy}-" + ",".join(f"{name}={value}" for name, value in faults._asdict().items() if value)


@pytest.mark.parametrize("setup", SETUPS, ids=title)
def test_every_interleaving(setup):
    *setup, most = setup
    explored = Explorer(*setup).run()
    print(f"{explored.states:,} states; {dict(explored.ends)}")
    assert explored.ends["job"]
    assert explored.most == most


# --- Broken rules, each of which must be caught


def a_claim_without_an_id_is_no_entry(state, kie_task_id, mine, waited, policy):
    return "claim next" if state == "claimed" and not mine else decide(state, kie_task_id, mine, waited, policy)


def an_unreadable_id_is_no_entry(*found):
    step = decide(*found)
    return "claim next" if step == "error" else step


def whoever_waited_sends(state, kie_task_id, mine, waited, policy):
    return decide(state, kie_task_id, mine, waited, "resubmit")


@pytest.mark.parametrize(
    ("broken", "faults"),
    [
        (a_claim_without_an_id_is_no_entry, F()),
        (an_unreadable_id_is_no_entry, F(torn=True)),
        (whoever_waited_sends, F()),
    ],
)
def test_a_broken_decision_is_caught(broken, faults, monkeypatch):
    monkeypatch.setattr(rules, "decide", broken)
    with pytest.raises(AssertionError, match="paid twice"):
        Explorer(2, "fail", faults).run()


def a_lost_answer_is_repeated(name: int, policy: Any) -> Claimant:
    return (yield from also(name, policy, lambda op, answer: op.do == "submit" and answer[0] == "lost", lambda op: op))


def a_late_owner_sends_after_giving_back(name: int, policy: Any) -> Claimant:
    submit = lambda op: Call("submit", op.generation)  # noqa: E731
    return (yield from also(name, policy, lambda op, answer: op.do == "create" and op.state == "refused", submit))


def a_lost_answer_opens_the_next_generation(name: int, policy: Any) -> Claimant:
    end = yield from claimant(name, policy)
    if end.kind == "unknown" and end.sent:
        found = yield from claim(f"{name}.again", policy, end.generation)
        if found.kind == "claimed":
            yield Call("submit", found.generation)
    return end


def also(name: int, policy: Any, when: Any, what: Any) -> Claimant:
    """Do one thing more after some steps; its answer counts, if it is the same step."""
    steps, answer = claimant(name, policy), None
    while True:
        try:
            op = steps.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = yield op
        if when(op, answer):
            more = yield what(op)
            answer = more if what(op) == op else answer


@pytest.mark.parametrize(
    ("broken", "faults"),
    [
        (a_lost_answer_is_repeated, F(answer=1)),
        (a_late_owner_sends_after_giving_back, F(refusal=1)),
        (a_lost_answer_opens_the_next_generation, F(answer=1)),
    ],
)
def test_a_broken_claimant_is_caught(broken, faults):
    with pytest.raises(AssertionError, match="paid twice"):
        Explorer(2, "fail", faults, make=broken).run()


def test_a_storage_that_does_not_refuse_a_second_create_is_caught():
    with pytest.raises(AssertionError, match="paid twice"):
        Explorer(2, "fail", F(), exclusive=False).run()


# --- Single rules


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], (0, "forgotten")),
        (["0001.claimed"], (1, "claimed")),
        (["0001.submitted", "0001.claimed"], (1, "submitted")),
        (["0001.claimed", "0001.failed", "0001.submitted", "0001.finished"], (1, "failed")),
        (["0001.claimed", "0001.refused", "0002.claimed"], (2, "claimed")),
        (["0001.claimed", "0001.submitted", "0002.claimed"], (1, "submitted")),  # an id that came late
        (["0001.claimed", "0001.submitted", "0001.forgotten"], (1, "forgotten")),
        (["0001.claimed", ".0001.claimed.swp", "notes.txt"], (1, "claimed")),
        (["10000.claimed", "9999.refused"], (10000, "claimed")),
        (["0001.claimed", "0002.claimed", "0002.refused"], (1, "claimed")),  # nothing was sent under the second
        (["0001.claimed", "0001.refused", "0002.claimed", "0002.refused"], (2, "refused")),
    ],
)
def test_the_names_say_the_state(names, found):
    assert current(names) == found


def test_a_state_of_a_newer_version_is_an_error():
    with pytest.raises(KieLedgerError, match=r"'suspended'.*newer version"):
        current(["0001.claimed", "0001.suspended"])


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, "closed"),
        ({"0001.claimed": None}, "unknown"),
        ({"0001.claimed": None, "0001.refused": None}, "closed"),
        ({"0001.claimed": None, "0001.submitted": "job1"}, "job"),
        ({"0001.claimed": None, "0001.submitted": "job1", "0001.failed": "job1"}, "closed"),
    ],
)
def test_a_look_creates_nothing(files, kind):
    def answer(op: Op) -> Any:
        body = {"token": "x", "kie_task_id": files.get(f"{op.generation:04d}.{op.state}")}
        return {"list": list(files), "read": body, "wait": False}[op.do]  # and no "create"

    found = ended(look(), answer)
    assert isinstance(found, Found)
    assert found.kind == kind


def test_a_note_that_is_never_answered_ends():
    assert ended(note(1, "submitted", "job1"), lambda op: None) is False


def ended(steps: Generator[Op, Any, Any], answer: Callable[[Op], Any]) -> Any:
    """Carry out steps, and return how they end; 20 are more than any needs here."""
    op = next(steps)
    for _ in range(20):
        try:
            op = steps.send(answer(op))
        except StopIteration as end:
            return end.value
    pytest.fail("it does not end")
