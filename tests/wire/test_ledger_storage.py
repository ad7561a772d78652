# SPDX-License-Identifier: Apache-2.0
"""The ledger's files on a local disk and in S3, which moto's server speaks on loopback."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.compat import COMMAND
from airflow_provider_kie.ledger import chain as chain_module
from airflow_provider_kie.ledger import folder, storage
from airflow_provider_kie.ledger.folder import Folder
from airflow_provider_kie.ledger.storage import init_ledger, open_ledger
from airflow_provider_kie.times import switched, times
from tests.buckets import MISSING, bucket
from tests.task_instance import WorkerCrash, die

needs_s3 = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
IDENTITY = {"account": "kie_default", "base_url": "https://api.kie.ai", "family": "jobs", "model": "m", "digest": "d1"}
TASK = {"dag_id": "dag", "run_id": "run", "task_id": "image", "map_index": -1}
FACTS = {"identity": IDENTITY, "task": TASK, "guarded": False, "reuse": "input", "max_tries": 2}


@pytest.fixture(autouse=True)
def _quick():
    with switched(ledger_look=0.01):
        yield


@pytest.fixture(scope="module")
def server():
    with bucket("lake") as found:
        yield found


@pytest.fixture
def s3(server, monkeypatch, request):
    """A folder of S3 for this test alone."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_LAKE", server[1])
    return f"s3://aws_lake@lake/{request.node.name}"


@pytest.fixture(params=["local", pytest.param("s3", marks=needs_s3)])
def url(request, tmp_path):
    """A folder that is not there yet, on each storage."""
    return str(tmp_path / "teams" / "ledger") if request.param == "local" else request.getfixturevalue("s3")


@pytest.fixture
def ledger(url):
    return init_ledger(url)


def chain_of(ledger, **differing):
    chain = ledger.chain(IDENTITY | differing)
    chain.facts |= FACTS
    return chain


def forget_opened():
    """Let the next call be the first of a process."""
    storage._OPENED.clear()


# --- The marker


def test_a_ledger_is_made_once_and_found_again(url):
    with pytest.raises(e.KieLedgerError, match=rf"no readable ledger\.json.*{COMMAND} ledger init URL"):
        open_ledger(url)
    init_ledger(url)
    chain_of(open_ledger(url)).claim("fail", 0)
    init_ledger(url)
    forget_opened()
    assert chain_of(open_ledger(f"{url}/")).look().kind == "unknown"
    marker = Folder(url).read("ledger.json")
    assert marker["schema"] == 1
    assert marker["storage"] == ("s3" if url.startswith("s3:") else "file")


def test_a_ledger_that_cannot_be_used_is_an_error_before_anything_is_sent(url):
    folder = Folder(url)
    if folder.is_local:
        Path(url).mkdir(parents=True)
    folder.create("ledger.json", {"schema": 2})
    with pytest.raises(e.KieLedgerError, match="newer version") as caught:
        open_ledger(url)
    assert caught.value.nothing_created


def test_a_damaged_marker_is_not_an_empty_ledger(tmp_path):
    (tmp_path / "ledger.json").write_text('{"sch')
    with pytest.raises(e.KieLedgerError, match="no readable"):
        open_ledger(tmp_path)


@pytest.mark.parametrize("make", [init_ledger, open_ledger])
def test_a_storage_that_is_not_exclusive_is_refused_by_name(make):
    with pytest.raises(e.KieLedgerError, match="Storage 'memory' of ledger 'memory://ledger' cannot refuse"):
        make("memory://ledger")


@pytest.mark.parametrize("empty", ["", " ", None])
def test_no_folder_is_an_error(empty):
    with pytest.raises(e.KieValidationError, match="ledger is empty"):
        open_ledger(empty)


def test_a_storage_that_lets_a_second_create_pass_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folder.os, "link", shutil.copy)
    with pytest.raises(e.KieLedgerError, match="does not refuse to create a file twice"):
        init_ledger(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_local_file_has_its_name_only_once_it_is_whole(tmp_path, monkeypatch):
    """A process that is killed while it writes leaves no name without content, which would count as an id for ever."""
    chain = chain_of(init_ledger(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        die(patch, folder.os, "link")
        with pytest.raises(WorkerCrash):
            chain.claim("fail", 0)
    assert chain.bodies() == []
    assert chain.claim("fail", 0).kind == "claimed"
    assert list((tmp_path / ".written").iterdir()) == []


def test_a_local_file_system_without_links_will_do(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(folder.os, "link", refused)
    ledger = init_ledger(tmp_path)
    assert chain_of(ledger).claim("fail", 0).kind == "claimed"
    assert chain_of(ledger).claim("fail", 0).kind == "unknown"


@needs_s3
def test_a_missing_bucket_is_not_made(s3, server):
    for make in (init_ledger, open_ledger):
        with pytest.raises(e.KieLedgerError):
            make("s3://aws_lake@nosuch/ledger")
    assert "nosuch" not in [each["Name"] for each in server[0].list_buckets()["Buckets"]]


def test_a_local_folder_that_is_gone_is_not_made_anew(tmp_path):
    ledger = init_ledger(tmp_path / "mounted")
    shutil.rmtree(tmp_path / "mounted")
    with pytest.raises(e.KieLedgerError, match="could not be written"):
        chain_of(ledger).claim("fail", 0)
    assert list(tmp_path.iterdir()) == []


# --- The life of an entry


def test_one_submits_and_the_others_go_on_with_its_id(ledger):
    first = chain_of(ledger)
    assert first.claim("fail", 0)[:3] == ("claimed", 1, "claimed")
    assert chain_of(ledger).claim("fail", 0).kind == "unknown"
    assert chain_of(ledger).look().kind == "unknown"
    assert first.note(1, "submitted", "job1")
    other = chain_of(ledger)
    found = other.claim("fail", 0)
    assert (found.kind, found.kie_task_id) == ("job", "job1")
    assert found.body | FACTS == found.body
    assert other.note(1, "finished", "job1", credits=2.5, complete_time="2026-11-20T10:00:00+00:00")
    found = chain_of(ledger).look()
    assert (found.state, found.kie_task_id, found.body["credits"]) == ("finished", "job1", 2.5)
    assert chain_of(ledger, digest="d2").look().kind == "closed"


def test_a_try_that_claims_twice_does_not_take_its_own_first_claim(ledger):
    chain = chain_of(ledger)
    assert chain.claim("fail", 0).kind == "claimed"
    assert chain.claim("fail", 0).kind == "unknown"


@pytest.mark.parametrize("state", ["failed", "refused", "forgotten"])
def test_what_closes_a_generation_opens_the_next(ledger, state):
    chain = chain_of(ledger)
    chain.claim("fail", 0)
    chain.note(1, "submitted", "job1")
    assert chain.note(1, state, "job1")
    assert chain_of(ledger).look()[:3] == ("closed", 1, state)
    assert chain_of(ledger).claim("fail", 0)[:2] == ("claimed", 2)


def test_an_own_refused_submit_is_claimed_again_even_if_the_note_is_lost(ledger):
    chain = chain_of(ledger)
    chain.claim("fail", 0)
    assert chain.claim("fail", 0, after=1)[:2] == ("claimed", 2)


def test_an_unknown_outcome_is_submitted_again_only_under_resubmit(ledger):
    chain_of(ledger).claim("fail", 0)
    assert chain_of(ledger).claim("fail", 0).kind == "unknown"
    assert chain_of(ledger).claim("resubmit", 0)[:2] == ("claimed", 2)


def test_what_says_the_same_is_noted_and_what_differs_is_a_warning(ledger, caplog):
    chain = chain_of(ledger)
    chain.claim("fail", 0)
    assert chain.note(1, "submitted", "job1")
    assert chain_of(ledger).note(1, "submitted", "job1")
    with caplog.at_level(logging.WARNING):
        assert not chain_of(ledger).note(1, "submitted", "job2")
    assert "with id 'job2'" in caplog.text


def test_a_late_owner_knows_it(ledger):
    chain = chain_of(ledger)
    chain.claim("fail", 0)
    assert not chain.is_late
    chain.claimed_at -= times().send_within
    assert chain.is_late


def test_an_entry_that_is_carried_on_keeps_what_it_says(ledger):
    first = chain_of(ledger)
    first.facts |= {"from_a_newer_version": [1]}
    first.claim("fail", 0)
    first.note(1, "submitted", "job1")
    other = ledger.chain(IDENTITY)
    other.facts |= {"task": {"dag_id": "another"}}
    other.claim("fail", 0)
    other.note(1, "finished", "job1", credits=None)
    body = ledger.chain(IDENTITY).look().body
    assert body["from_a_newer_version"] == [1]
    assert body["task"] == TASK
    assert body["credits"] is None


# --- Files that others have written


def file_of(ledger, name):
    entry = ledger.chain(IDENTITY).entry
    path = Path(ledger.url) / entry[:2] / entry / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def on_disk(tmp_path):
    return init_ledger(tmp_path)


@pytest.mark.parametrize("content", ["", '{"tok', "[]", '{"token": "x"}', '{"token": "x", "kie_task_id": 3}'])
def test_an_id_that_cannot_be_read_is_an_error(on_disk, content):
    file_of(on_disk, "0001.claimed").write_text("")
    file_of(on_disk, "0001.submitted").write_text(content)
    for policy in ("fail", "resubmit"):
        with pytest.raises(e.KieLedgerError, match=r"0001\.submitted of an entry cannot be read"):
            chain_of(on_disk).claim(policy, 0.03)


def test_a_claim_without_content_is_a_claim(on_disk):
    file_of(on_disk, "0001.claimed").write_text("")
    assert chain_of(on_disk).claim("fail", 0.03).kind == "unknown"


def test_a_state_of_a_newer_version_is_an_error(on_disk):
    file_of(on_disk, "0001.claimed").write_text("")
    file_of(on_disk, "0001.suspended").write_text("{}")
    with pytest.raises(e.KieLedgerError, match="newer version"):
        chain_of(on_disk).claim("fail", 0)
    (bodies,) = on_disk.chains()
    assert [body["state"] for body in bodies] == ["suspended"]


def test_a_file_that_is_being_written_is_waited_for(on_disk, monkeypatch):
    file_of(on_disk, "0001.claimed").write_text("")
    torn = file_of(on_disk, "0001.submitted")
    torn.write_text('{"token": "x", "kie_')
    monkeypatch.setattr(
        chain_module.time, "sleep", lambda seconds: torn.write_text('{"token": "x", "kie_task_id": "job1"}') and None
    )
    assert chain_of(on_disk).claim("fail", 60).kie_task_id == "job1"


# --- What is in the files


def test_no_file_has_a_query(ledger):
    chain = chain_of(ledger)
    chain.claim("fail", 0)
    chain.note(1, "submitted", "job1")
    ledger.note_archived("jobs", "job1", ["s3://lake/a.png", "https://files.example/a.png?sig=secret"])
    folder = Folder(ledger.url)
    names = [name for name in folder.below("") if name != "ledger.json"]
    contents = [folder.read(name.lstrip("/")) for name in names]
    assert len(contents) == 3
    assert "secret" not in json.dumps(contents)
    for body in contents[:2] if "archived" in names[-1] else contents[1:]:
        assert set(body) == {"schema", "state", "token", "kie_task_id", "at", *FACTS}


def test_where_files_are_stored_is_found_by_id(ledger):
    assert ledger.archived("jobs", "job/1") is None
    assert ledger.note_archived("jobs", "job/1", ["s3://lake/a.png"])
    assert ledger.note_archived("jobs", "job/1", ["s3://lake/other.png"])
    assert ledger.archived("jobs", "job/1")["destinations"] == ["s3://lake/a.png"]
    assert ledger.archived("music", "job/1") is None
    ledger.note_archived("4o-image", "a.b", [])
    assert ledger.archived_jobs() == {("jobs", "job/1"), ("4o-image", "a.b")}


# --- Reports


def three_chains(ledger):
    """A job that failed once, one that runs, and a submit of unknown outcome."""
    first, second = chain_of(ledger), chain_of(ledger, digest="d2")
    for chain in (first, second):
        chain.claim("fail", 0)
        chain.note(1, "submitted", f"{chain.entry[:4]}-1")
    first.note(1, "failed", f"{first.entry[:4]}-1")
    first.claim("fail", 0)
    first.note(2, "finished", "job2", credits=4)
    chain_of(ledger, digest="d3").claim("fail", 0)


def test_a_report_reads_the_last_state_of_each_generation(ledger):
    three_chains(ledger)
    said = []
    chains = list(ledger.chains(lambda done, total: said.append((done, total))))
    states = sorted([[(body["generation"], body["state"]) for body in bodies] for bodies in chains])
    assert states == [[(1, "claimed")], [(1, "failed"), (2, "finished")], [(1, "submitted")]]
    assert said == [(0, 3), (3, 3)]
    (finished,) = (body for bodies in chains for body in bodies if body["state"] == "finished")
    assert ledger.entry(finished["entry"]).look().kie_task_id == finished["kie_task_id"] == "job2"
    assert finished["credits"] == 4


def test_prune_deletes_what_is_old_and_settled(ledger):
    three_chains(ledger)
    ledger.note_archived("jobs", "job2", ["s3://lake/a.png"])
    assert ledger.prune(timedelta(days=1)) == 0
    assert len(list(ledger.chains())) == 3
    assert ledger.prune(timedelta(days=-1)) == 2
    assert [[body["state"] for body in bodies] for bodies in ledger.chains()] == [["claimed"]]
    assert ledger.archived("jobs", "job2") is None
    assert chain_of(ledger).claim("fail", 0)[:2] == ("claimed", 1)
    forget_opened()
    open_ledger(ledger.url)


def test_prune_keeps_an_unknown_outcome_only_while_it_stands(on_disk):
    chain_of(on_disk).claim("fail", 0)
    second = chain_of(on_disk)
    second.claim("resubmit", 0)
    assert on_disk.prune(timedelta(days=-1)) == 0
    second.note(2, "submitted", "job2")
    assert on_disk.prune(timedelta(days=-1)) == 1


def test_events_are_told_apart_from_jobs_and_pruned_with_them(ledger):
    uri = "kie://kie_default/jobs"
    told, untold = ledger.event(uri, "job1"), ledger.event(uri, "job2")
    for event, kie_task_id in ((told, "job1"), (untold, "job2")):
        assert event.claim("fail", 0)[:2] == ("claimed", 1)
        assert ledger.event(uri, kie_task_id).claim("fail", 0).kind == "unknown"
    told.note(1, "finished", "job1")
    assert ledger.event(uri, "job1").claim("fail", 0).kind == "job"
    assert ledger.event("kie://another/jobs", "job1").look().kind == "closed"
    assert [body["identity"] for body in ledger.untold()] == [{"event": uri, "kie_task_id": "job2"}]
    assert (list(ledger.chains()), ledger.unsettled()) == ([], [])
    assert ledger.prune(timedelta(days=1)) == 0
    assert ledger.event(uri, "job1").look().kind == "job"
    assert ledger.prune(timedelta(days=-1)) == 0  # which counts jobs
    assert ledger.event(uri, "job1").look().kind == "closed"
    assert len(ledger.untold()) == 1


def test_claims_without_an_id_are_unsettled(ledger):
    three_chains(ledger)
    (claim,) = ledger.unsettled()
    assert (claim["state"], claim["kie_task_id"]) == ("claimed", None)
    assert ledger.entry(claim["entry"]).look().kind == "unknown"


@pytest.mark.parametrize("last", ["failed", "finished"])
@pytest.mark.parametrize("step", range(5))
def test_who_claims_while_a_chain_is_deleted_pays_at_most_once(on_disk, monkeypatch, last, step):
    old = chain_of(on_disk)
    old.claim("fail", 0)
    old.note(1, "submitted", "old")
    old.note(1, last, "old")
    steps, paid = iter(range(10)), []

    def pay():
        chain = chain_of(on_disk)
        found = chain.claim("fail", 0)
        if found.kind == "claimed":
            paid.append(f"new{len(paid)}")
            chain.note(found.generation, "submitted", paid[-1])
        return found

    def disturbed(change):
        def then(self, name, *body):
            if next(steps) == step:
                with monkeypatch.context() as patch:
                    patch.setattr(Folder, "create", create)
                    pay()
            return change(self, name, *body)

        return then

    create = Folder.create
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "create", disturbed(Folder.create))
        patch.setattr(Folder, "remove", disturbed(Folder.remove))
        old.remove()
    assert next(steps) > step  # it was disturbed
    pay()
    assert len(paid) <= 1
    assert chain_of(on_disk).look().kie_task_id in {*paid, "old"}


# --- What it costs


@pytest.fixture
def requests(monkeypatch):
    """The requests that S3 gets."""
    from aiobotocore.httpsession import AIOHTTPSession

    seen, send = [], AIOHTTPSession.send

    async def counted(self, request):
        answer = await send(self, request)
        seen.append(f"{'LIST' if 'list-type' in request.url else request.method} {answer.status_code}")
        return answer

    monkeypatch.setattr(AIOHTTPSession, "send", counted)
    return seen


LOOK = ["LIST 200", "GET 206"]


@needs_s3
def test_requests_of_each_way_through_the_ledger(s3, requests):
    init_ledger(s3)
    forget_opened()

    def cost(do):
        requests.clear()
        result = do()
        return result, [*requests]

    ledger, opened = cost(lambda: open_ledger(s3))
    assert opened == ["GET 206"]
    assert cost(lambda: open_ledger(s3))[1] == []

    first, other = chain_of(ledger), chain_of(ledger)
    assert cost(lambda: first.claim("fail", 0))[1] == ["PUT 200"]  # with the marker 2 before a submit, later 1
    assert cost(lambda: other.claim("fail", 0))[1] == ["PUT 412", *LOOK, *LOOK]  # no id, and no patience
    assert cost(lambda: first.note(1, "submitted", "job1"))[1] == ["PUT 200"]  # and 1 after it
    assert cost(lambda: other.claim("fail", 0))[1] == ["PUT 412", *LOOK]
    assert cost(lambda: other.note(1, "failed", "job1"))[1] == ["PUT 200"]
    assert cost(lambda: other.claim("fail", 0))[1] == ["PUT 412", "LIST 200", "PUT 200"]


@needs_s3
def test_a_repeated_write_whose_first_copy_is_refused_is_the_own_claim(s3, monkeypatch):
    # botocore repeats a PUT whose answer was lost, and the first one had worked.
    ledger = init_ledger(s3)
    create = Folder.create
    monkeypatch.setattr(Folder, "create", lambda *args: create(*args) and create(*args))
    assert chain_of(ledger).claim("fail", 0)[:2] == ("claimed", 1)


@needs_s3
def test_a_refusal_in_other_words_than_amazons_is_understood(s3, server, monkeypatch):
    from s3fs import S3FileSystem

    ledger = init_ledger(s3)
    chain_of(ledger).claim("fail", 0)
    opens = S3FileSystem.open

    def worded(self, path, mode="rb", **more):
        try:
            file = opens(self, path, mode, **more)
            if mode == "xb":
                file.write(b"{}")
                file.close()
        except FileExistsError:
            answer = ValueError()
            answer.response = {"Error": {"Code": "PreconditionFailed"}}
            raise OSError(22, "At least one of the pre-conditions") from answer
        return file

    monkeypatch.setattr(S3FileSystem, "open", worded)
    assert chain_of(ledger).claim("fail", 0).kind == "unknown"


@needs_s3
def test_a_storage_without_access_is_an_error(s3, server, monkeypatch):
    ledger = init_ledger(s3)
    from s3fs import S3FileSystem

    def refuse(self, path, mode="rb", **more):
        raise PermissionError("Access Denied: https://lake.example/x?X-Amz-Signature=secret")

    monkeypatch.setattr(S3FileSystem, "open", refuse)
    with pytest.raises(e.KieLedgerError, match="Access Denied") as caught:
        chain_of(ledger).claim("fail", 0)
    assert "secret" not in str(caught.value)
    assert not chain_of(ledger).note(1, "submitted", "job1")
    assert not ledger.note_archived("jobs", "job1", [])
