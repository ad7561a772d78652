# SPDX-License-Identifier: Apache-2.0
"""What a task remembers of a submit: which entries are understood, and what happens where the store fails."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace

import pytest

from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.durable import Record, adopt
from airflow_provider_kie.money import Entry, Resume, State, Stop, Submit, next_try
from tests.rows import POEMS

KEY = "kie_job"
SAME = {"account": "kie_default", "digest": "1234"}


TASK = {"dag_id": "songs", "run_id": "run-1", "task_id": "make", "map_index": -1}


#: A second submit is charged again.
class Store:
    """A task state store, which keeps JSON."""

    def __init__(self, kept=None):
        self.kept = {} if kept is None else {KEY: json.dumps(kept)}
        self.retention = {}
        self.broken = False

    def get(self, key):
        if self.broken:
            raise RuntimeError("no store today")
        return json.loads(self.kept[key]) if key in self.kept else None

    def set(self, key, value, *, retention):
        if self.broken:
            raise RuntimeError("no store today")
        self.kept[key], self.retention[key] = json.dumps(value), retention


def record(store, row=POEMS, identity=SAME):
    return Record({"task_state_store": store}, row, KEY, identity)


def kept(**changes):
    return SAME | {"kie_task_id": None, "state": "claimed"} | changes


def without(name, entry):
    return {key: value for key, value in entry.items() if key != name}


#: An entry, what is read from it, and what the next try does where a second submit is charged.
ENTRIES = {
    "nothing": (None, None, Submit()),
    "claimed": (kept(), Entry(State.CLAIMED, SAME), Stop),
    "refused": (kept(state="refused"), Entry(State.REFUSED, SAME), Submit()),
    "submitted": (kept(state="submitted", kie_task_id="a1"), Entry(State.SUBMITTED, SAME, "a1"), Resume("a1")),
    "failed": (kept(state="failed", kie_task_id="a1"), Entry(State.FAILED, SAME, "a1"), Submit()),
    # of an earlier version, which wrote no state
    "no state": (without("state", kept()), Entry(State.CLAIMED, SAME), Stop),
    "no state, with an id": (
        without("state", kept(kie_task_id="a1")),
        Entry(State.SUBMITTED, SAME, "a1"),
        Resume("a1"),
    ),
    "no state and no id": (SAME, Entry(State.CLAIMED, SAME), Stop),
    # of an earlier version, which knew less of what it had submitted
    "less of the identity": (
        without("account", kept(kie_task_id="a1", state="submitted")),
        Entry(State.SUBMITTED, {"digest": "1234"}, "a1"),
        Stop,
    ),
    # of a later version
    "more of the identity": (kept(kie_task_id="a1", model="m"), Entry(State.CLAIMED, SAME, "a1"), Resume("a1")),
    "unknown state": (kept(state="archived"), Entry(State.CLAIMED, SAME), Stop),
    "unknown state, with an id": (
        kept(state="archived", kie_task_id="a1"),
        Entry(State.SUBMITTED, SAME, "a1"),
        Resume("a1"),
    ),
    # of nobody that we know
    "state of another type": (kept(state=["refused"]), Entry(State.CLAIMED, SAME), Stop),
    "state is a number": (kept(state=1, kie_task_id="a1"), Entry(State.SUBMITTED, SAME, "a1"), Resume("a1")),
    "state is null": (kept(state=None), Entry(State.CLAIMED, SAME), Stop),
    "state in capitals": (kept(state="REFUSED"), Entry(State.CLAIMED, SAME), Stop),
    "id of another type": (kept(state="submitted", kie_task_id=7), Entry(State.SUBMITTED, SAME), Stop),
    "empty id": (without("state", kept(kie_task_id="")), Entry(State.CLAIMED, SAME), Stop),
    "identity of another type": (kept(digest=1234), Entry(State.CLAIMED, SAME | {"digest": 1234}), Stop),
    "another identity": (
        kept(digest="5678", kie_task_id="a1"),
        Entry(State.CLAIMED, SAME | {"digest": "5678"}, "a1"),
        Stop,
    ),
    "an empty object": ({}, Entry(State.CLAIMED, {}), Stop),
    "a text": ("a1", Entry(State.CLAIMED, SAME), Stop),
    "an empty text": ("", Entry(State.CLAIMED, SAME), Stop),
    "a number": (0, Entry(State.CLAIMED, SAME), Stop),
    "a list": ([kept()], Entry(State.CLAIMED, SAME), Stop),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_what_an_entry_means(name):
    left, entry, decision = ENTRIES[name]
    loaded = record(Store(left)).load()
    assert loaded == entry
    decided = next_try(POEMS, loaded, SAME)
    assert isinstance(decided, Stop) if decision is Stop else decided == decision


@pytest.mark.parametrize("name", ENTRIES)
def test_under_a_guard_no_entry_stops_a_task(name):
    """Neither does it for WAV conversions, for which no entry was ever a reason to stop."""
    assert not isinstance(next_try(WAV, record(Store(ENTRIES[name][0]), WAV).load(), SAME), Stop)


STEPS = {
    "begin": (lambda memory: memory.begin(), Entry(State.CLAIMED, SAME, guarded=False)),
    "commit": (lambda memory: memory.commit("a1"), Entry(State.SUBMITTED, SAME, "a1", guarded=False)),
    "refuse": (lambda memory: memory.refuse(), Entry(State.REFUSED, SAME, guarded=False)),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("left", [None, kept(state="failed", kie_task_id="a0"), "rubbish"])
def test_what_is_written_is_what_the_next_try_reads(name, left):
    step, entry = STEPS[name]
    store = Store(left)
    step(record(store))
    assert record(store).load() == entry


@pytest.mark.parametrize("name", STEPS)
def test_an_entry_is_kept_longer_than_kie_keeps_a_file(name):
    store = Store()
    STEPS[name][0](record(store))
    assert store.retention[KEY] > timedelta(days=14)


def test_an_entry_is_for_its_own_input():
    store = Store()
    record(store).commit("a1")
    decision = next_try(POEMS, record(store, identity=SAME | {"digest": "5678"}).load(), SAME | {"digest": "5678"})
    assert isinstance(decision, Stop)
    assert "another digest" in str(decision.error)


def test_a_store_that_cannot_be_read_is_an_error_and_never_nothing():
    store = Store()
    store.broken = True
    with pytest.raises(RuntimeError, match="no store today"):
        record(store).load()


def test_what_cannot_be_written_down_is_not_submitted():
    store = Store()
    store.broken = True
    with pytest.raises(RuntimeError, match="no store today"):
        record(store).begin()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("commit", "poems job a1 is submitted, but could not be kept for a retry."),
        ("refuse", "The submit was refused, but that could not be kept for a retry."),
    ],
)
def test_a_store_that_fails_after_the_submit_leaves_the_outcome_unknown(name, said, caplog):
    store = Store()
    record(store).begin()
    store.broken = True
    STEPS[name][0](record(store))  # without an error, because the submit is over
    assert said in caplog.text
    assert "no store today" in caplog.text
    store.broken = False
    assert record(store).load() == Entry(State.CLAIMED, SAME, guarded=False)


def test_what_was_submitted_without_a_guard_is_so_whatever_is_submitted_next():
    store = Store()
    record(store).begin()
    assert isinstance(next_try(WAV, record(store, WAV).load(), SAME), Stop)
    record(store, WAV).begin()
    assert next_try(WAV, record(store, WAV).load(), SAME) == Submit()


@pytest.mark.parametrize("context", [None, {}, {"task_state_store": None}])
def test_where_there_is_no_store_nothing_is_remembered(context):
    memory = Record(context, POEMS, KEY, SAME)
    assert not memory.persistent
    for step, _ in STEPS.values():
        step(memory)
    assert memory.load() is None


def test_where_there_is_a_store_it_is_remembered():
    assert record(Store()).persistent


def test_the_identity_does_not_change_with_what_it_was_made_of():
    identity = dict(SAME)
    memory = record(Store(), identity=identity)
    identity["digest"] = "5678"
    assert memory.identity == SAME


def test_what_is_adopted_is_gone_on_with_and_a_clear_after_it_is_no_new_job():
    store = Store()
    record(store).begin()
    adopt(store, KEY, json.loads(store.kept[KEY]), "a1")
    assert store.retention[KEY] > timedelta(days=14)
    entry = record(store).load()
    assert entry == Entry(State.SUBMITTED, SAME, "a1", guarded=False)
    assert next_try(POEMS, entry, SAME, reuse="never", cleared=record(store).was_cleared_since(entry)) == Resume("a1")


@pytest.mark.parametrize(
    ("before", "now", "cleared"), [(1, 1, False), (1, 3, True), (None, 3, False), (1, None, False)]
)
def test_a_clear_is_told_by_the_number_of_tries(before, now, cleared):
    later = Record({"task_state_store": Store(), "ti": SimpleNamespace(**TASK, max_tries=now)}, POEMS, KEY, SAME)
    assert later.was_cleared_since(Entry(State.SUBMITTED, SAME, "a1", before)) is cleared
    assert not later.was_cleared_since(None)
