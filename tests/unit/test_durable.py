# SPDX-License-Identifier: Apache-2.0
"""What a task remembers of a submit: which entries are understood, and what happens where the store fails."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest

from airflow_provider_kie.api.families import WAV
from airflow_provider_kie.durable import StoredEntry, adopt
from airflow_provider_kie.money import Entry, Resume, State, Stop, Submit, next_try
from tests.rows import POEMS

KEY = "kie_job"
SAME = {"account": "kie_default", "digest": "1234"}


TASK = {"dag_id": "songs", "run_id": "run-1", "task_id": "make", "map_index": -1}


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


def stored(store, row=POEMS, identity=SAME):
    return StoredEntry({"task_state_store": store}, row, KEY, identity)


def kept(**changes):
    return SAME | {"kie_task_id": None, "state": "claimed"} | changes


def without(name, entry):
    return {key: value for key, value in entry.items() if key != name}


CLAIMED, SUBMITTED = Entry(State.CLAIMED, SAME), Entry(State.SUBMITTED, SAME, "a1")
ENTRIES = {
    "nothing": (None, None, Submit()),
    "claimed": (kept(), CLAIMED, Stop),
    "refused": (kept(state="refused"), Entry(State.REFUSED, SAME), Submit()),
    "submitted": (kept(state="submitted", kie_task_id="a1"), SUBMITTED, Resume("a1")),
    "failed": (kept(state="failed", kie_task_id="a1"), Entry(State.FAILED, SAME, "a1"), Submit()),
    # of an earlier version, which wrote no state
    "no state": (without("state", kept()), CLAIMED, Stop),
    "no state, with an id": (without("state", kept(kie_task_id="a1")), SUBMITTED, Resume("a1")),
    "no state and no id": (SAME, CLAIMED, Stop),
    # of an earlier version, which knew less of what it had submitted
    "less of the identity": (
        without("digest", kept(kie_task_id="a1", state="submitted")),
        replace(SUBMITTED, identity={"account": SAME["account"]}),
        Stop,
    ),
    "no account": (
        without("account", kept(kie_task_id="a1", state="submitted")),
        replace(SUBMITTED, identity={"digest": "1234"}),
        Resume("a1"),
    ),
    # of a later version
    "more of the identity": (kept(kie_task_id="a1", model="m"), Entry(State.CLAIMED, SAME, "a1"), Resume("a1")),
    "unknown state": (kept(state="archived"), CLAIMED, Stop),
    "unknown state, with an id": (kept(state="archived", kie_task_id="a1"), SUBMITTED, Resume("a1")),
    # of nobody that we know
    "state of another type": (kept(state=["refused"]), CLAIMED, Stop),
    "state is a number": (kept(state=1, kie_task_id="a1"), SUBMITTED, Resume("a1")),
    "state in capitals": (kept(state="REFUSED"), CLAIMED, Stop),
    "id of another type": (kept(state="submitted", kie_task_id=7), Entry(State.SUBMITTED, SAME), Stop),
    "empty id": (without("state", kept(kie_task_id="")), CLAIMED, Stop),
    "identity of another type": (kept(digest=1234), Entry(State.CLAIMED, SAME | {"digest": 1234}), Stop),
    "another identity": (kept(digest="5678"), Entry(State.CLAIMED, SAME | {"digest": "5678"}), Stop),
    "an empty object": ({}, Entry(State.CLAIMED, {}), Stop),
    **{f"no object: {odd!r}": (odd, CLAIMED, Stop) for odd in ("a1", "", 0, [])},
}


@pytest.mark.parametrize("name", ENTRIES)
def test_what_an_entry_means(name):
    left, entry, decision = ENTRIES[name]
    loaded = stored(Store(left)).load()
    assert loaded == entry
    decided = next_try(POEMS, loaded, SAME)
    assert isinstance(decided, Stop) if decision is Stop else decided == decision


@pytest.mark.parametrize("name", ENTRIES)
def test_no_entry_stops_a_task_under_a_guard(name):
    """Neither does it for WAV conversions, for which no entry was ever a reason to stop."""
    assert not isinstance(next_try(WAV, stored(Store(ENTRIES[name][0]), WAV).load(), SAME), Stop)


STEPS = {
    "begin": (lambda stored_entry: stored_entry.begin(), Entry(State.CLAIMED, SAME, guarded=False)),
    "commit": (lambda stored_entry: stored_entry.commit("a1"), Entry(State.SUBMITTED, SAME, "a1", guarded=False)),
    "refuse": (lambda stored_entry: stored_entry.mark_refused(), Entry(State.REFUSED, SAME, guarded=False)),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("left", [None, kept(state="failed", kie_task_id="a0"), "rubbish"])
def test_what_is_written_is_what_the_next_try_reads(name, left):
    step, entry = STEPS[name]
    store = Store(left)
    step(stored(store))
    assert stored(store).persistent
    assert stored(store).load() == entry
    assert store.retention[KEY] > timedelta(days=14)  # longer than KIE keeps a file


def test_an_entry_is_for_its_own_input():
    store = Store()
    stored(store).commit("a1")
    decision = next_try(POEMS, stored(store, identity=SAME | {"digest": "5678"}).load(), SAME | {"digest": "5678"})
    assert isinstance(decision, Stop)
    assert "another digest" in str(decision.error)


@pytest.mark.parametrize("step", [StoredEntry.load, StoredEntry.begin])
def test_without_the_store_nothing_is_submitted(step):
    store = Store()
    store.broken = True
    with pytest.raises(RuntimeError, match="no store today"):
        step(stored(store))


@pytest.mark.parametrize(
    ("name", "said"), [("commit", "poems job a1 is submitted, but"), ("refuse", "was refused, but")]
)
def test_a_store_that_fails_after_the_submit(name, said, caplog):
    """The outcome is unknown to the next try."""
    store = Store()
    stored(store).begin()
    store.broken = True
    STEPS[name][0](stored(store))  # without an error, because the submit is over
    assert said in caplog.text
    assert "no store today" in caplog.text
    store.broken = False
    assert stored(store).load() == replace(CLAIMED, guarded=False)


def test_what_was_submitted_without_a_guard_stays_so():
    store = Store()
    stored(store).begin()
    assert isinstance(next_try(WAV, stored(store, WAV).load(), SAME), Stop)
    stored(store, WAV).begin()
    assert next_try(WAV, stored(store, WAV).load(), SAME) == Submit()


@pytest.mark.parametrize("context", [None, {}, {"task_state_store": None}])
def test_where_there_is_no_store_nothing_is_remembered(context):
    stored_entry = StoredEntry(context, POEMS, KEY, SAME)
    assert not stored_entry.persistent
    for step, _ in STEPS.values():
        step(stored_entry)
    assert stored_entry.load() is None


def test_what_is_adopted_is_resumed():
    """A clear after it is no new job."""
    store = Store()
    stored(store).begin()
    adopt(store, KEY, json.loads(store.kept[KEY]), "a1")
    assert store.retention[KEY] > timedelta(days=14)
    entry = stored(store).load()
    assert entry == replace(SUBMITTED, guarded=False)
    assert next_try(POEMS, entry, SAME, reuse="never", cleared=entry.was_cleared(stored(store).max_tries)) == Resume(
        "a1"
    )


def test_a_resume_after_a_clear_is_written(caplog):
    store = Store()
    task = SimpleNamespace(**TASK, max_tries=3)
    stored_entry = StoredEntry({"task_state_store": store, "ti": task}, POEMS, KEY, SAME)
    before = Entry(State.SUBMITTED, SAME, "a1", 1, guarded=False)
    stored_entry.mark_resumed(before)
    assert stored_entry.load() == replace(before, max_tries=3)
    store.broken = True
    stored_entry.mark_resumed(replace(before, max_tries=3))  # nothing has changed
    assert "could not be kept" not in caplog.text
    stored_entry.mark_resumed(before)
    assert "poems job a1 is resumed" in caplog.text


@pytest.mark.parametrize(
    ("before", "now", "cleared"), [(1, 1, False), (1, 3, True), (None, 3, False), (1, None, False)]
)
def test_a_clear_is_recognized_by_max_tries(before, now, cleared):
    later = StoredEntry({"task_state_store": Store(), "ti": SimpleNamespace(**TASK, max_tries=now)}, POEMS, KEY, SAME)
    assert Entry(State.SUBMITTED, SAME, "a1", before).was_cleared(later.max_tries) is cleared
