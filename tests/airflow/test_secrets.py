# SPDX-License-Identifier: Apache-2.0
"""The key stays in the connection: not in a log, an exception, XCom, a trigger's row, a rendered field or a URL."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import sqlite3
import sys
import threading
import traceback
from base64 import b64encode
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from airflow_provider_kie import cli, terminal
from airflow_provider_kie.api.families import FAMILIES
from airflow_provider_kie.emulator import KieEmulator
from airflow_provider_kie.emulator.envelope import Envelope
from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.files import host as file_host
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.operators.music import MusicTracksOperator
from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from airflow_provider_kie.sensors.job import KieJobSensor
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.tasks import ENDED_BY_AIRFLOW
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator
from airflow_provider_kie.triggers.job import KieJobTrigger
from tests.conftest import AIRFLOW_HOME
from tests.dag_runs import database, load_dag, run_dag
from tests.jobs import DIALECTS, QUERY_CANARY, SIGNED_INPUT, SIGNED_URL, job_of
from tests.modes import only_event
from tests.task_instance import Store, Task, TaskInstance

CANARY = "canary-7f3a91c0d2e84b56"
PROXY_CANARY = "proxy-canary-91aa"


@pytest.fixture
def kie(running_emulator, monkeypatch, short_times):
    monkeypatch.setattr(running_emulator.state, "api_key", CANARY)
    running_emulator.reset()
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", running_emulator.connection_json())
    return running_emulator


class Forward(BaseHTTPRequestHandler):
    """Passes a request on to where its URL says, and notes the credentials that it came with."""

    credentials: ClassVar[set[str | None]] = set()

    def do_GET(self):
        self.credentials.add(self.headers["Proxy-Authorization"])
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        server = HTTPConnection(url.netloc, timeout=10)
        server.request(self.command, url._replace(scheme="", netloc="").geturl(), body, dict(self.headers))
        answer = server.getresponse()
        content = answer.read()
        server.close()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_):
        """Say nothing: what is said is looked through for secrets."""


@pytest.fixture
def kie_behind_a_proxy(kie, monkeypatch):
    """The emulator, and the credentials with which the proxy in front of it was asked."""
    monkeypatch.setattr(Forward, "credentials", set())
    with ThreadingHTTPServer(("127.0.0.1", 0), Forward) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        extra = {"proxy": f"http://user:{PROXY_CANARY}@127.0.0.1:{proxy.server_port}"}
        connection = json.loads(kie.connection_json()) | {"extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
        yield kie, Forward.credentials
        proxy.shutdown()


def files_with(secret: str) -> list[Path]:
    return [path for path in AIRFLOW_HOME.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def tables_with(secret: str) -> set[str]:
    """Return the tables of the metadata database in which a text is."""
    with closing(sqlite3.connect(database())) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        return {name for name in tables if secret in str(connection.execute(f"select * from {name}").fetchall())}


def test_a_run_leaves_neither_key_nor_proxy_password(kie_behind_a_proxy, caplog, capfd):
    kie, credentials = kie_behind_a_proxy
    with caplog.at_level(logging.DEBUG):
        run = run_dag(load_dag("every_way"))
        assert run.state == "success"
        kie.play("pending", "wrong-key-echoed", endpoint="record-info", repeat=True)
        failed = run_dag(load_dag("every_way"))
        assert failed.state == "failed"
    output = capfd.readouterr()
    assert credentials == {f"Basic {b64encode(f'user:{PROXY_CANARY}'.encode()).decode()}"}
    for secret in (CANARY, PROXY_CANARY):
        assert secret not in caplog.text + output.out + output.err
        assert files_with(secret) == []
    assert "Unauthorized: invalid key ***" in caplog.text + output.out + output.err


ECHO = f"cannot fetch {SIGNED_URL} for {CANARY}"


def repeat_in_failures(kie, monkeypatch):
    """Let each job fail, and KIE repeat key and URL in the place where the family says why."""
    answer = kie.state.record_info

    def record_info(*asked):
        envelope = answer(*asked)
        for name in ("errorMessage", "failMsg"):
            if isinstance(envelope.data, dict) and envelope.data.get(name):
                envelope.data[name] = ECHO
        return envelope

    monkeypatch.setattr(kie.state, "record_info", record_info)
    return {"prompt": "fail please"}


def repeat_in_refusals(kie, monkeypatch):
    monkeypatch.setattr(kie.state, "submit", lambda *_: Envelope(422, ECHO))
    return {}


def repeat_in_lost_answers(kie, monkeypatch):
    accept = kie.state.submit
    monkeypatch.setattr(kie.state, "submit", lambda *asked: accept(*asked) and Envelope(500, ECHO))
    return {}


#: How a job goes, and what its error says.
ENDS = {
    "success": (lambda *_: {}, None),
    "failure": (repeat_in_failures, "cannot fetch https://files.example/a?… for ***"),
    "refused": (repeat_in_refusals, "KIE answered 422: 'cannot fetch https://files.example/a?… for ***"),
    "unknown": (repeat_in_lost_answers, "KIE answered 500: 'cannot fetch https://files.example/a?… for ***"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_job_of_no_family_shows_the_key_or_a_query(kie, caplog, capfd, monkeypatch, family, end):
    happens, says = ENDS[end]
    kie.configure(conversion_seconds=0)
    job = job_of(family, **SIGNED_INPUT, **happens(kie, monkeypatch))
    quick = {"poll_interval": 0.01, "timeout": 20, "deferrable": True, "callback_url": SIGNED_URL}
    task = Task(KieJobOperator, Store(), **job, **quick)
    links, raised = [], ""
    with caplog.at_level(logging.DEBUG):
        kie.play("pending", endpoint="record-info")
        try:
            links = [file["url"] for file in task.run_once()["files"]]
        except KieError as error:
            raised = "".join(traceback.format_exception(error)) + repr(error) + str(error.to_dict())
    assert (says in raised) if says else not raised
    trigger, event = task.deferred
    assert (event is None) is (end in ("refused", "unknown"))
    output = capfd.readouterr()
    hidden = caplog.text + output.out + output.err + raised + json.dumps([task.store.values, trigger])
    assert [each for each in (QUERY_CANARY, *(urlsplit(link).query for link in links)) if each in hidden] == []
    assert CANARY not in hidden + json.dumps([task.xcom, event])


def test_a_run_leaves_queries_where_they_belong(kie, caplog, capfd, monkeypatch):
    kie.configure(conversion_seconds=0)
    with caplog.at_level(logging.INFO):
        run = run_dag(load_dag("every_dialect"))
        assert set(run.states().values()) == {"success"}
        monkeypatch.setattr(kie.state, "record_info", lambda *_: Envelope(422, ECHO))
        assert run_dag(load_dag("every_dialect")).state == "failed"
    output = capfd.readouterr()
    said = caplog.text + output.out + output.err
    assert "cannot fetch https://files.example/a?… for ***" in said
    assert files_with(CANARY) == []
    jobs = [run.xcom("make", map_index=number) for number in range(len(DIALECTS))]
    queries = {QUERY_CANARY, *(urlsplit(file["url"]).query for job in jobs for file in job["files"])}
    assert len(queries) > len(DIALECTS)
    for query in queries:
        assert query not in said
        assert [path for path in files_with(query) if not path.name.startswith(database().name)] == []
        assert tables_with(query) <= {"xcom", "rendered_task_instance_fields", "serialized_dag"}


def test_the_key_is_only_sent_to_the_connections_host(kie):
    hook = KieHook()
    kie_task_id = kie.create_conversion(finished=True)
    with KieEmulator(api_key=CANARY) as other_host:
        url = hook.get_wav_conversion(kie_task_id)["wav_url"].replace(kie.url, other_host.url)
        hook.get_conn().get(url, timeout=10)
        assert [request["authorized"] for request in other_host.requests()] == [False]


SIGNED = {
    "a URL": f"https://files.example/x?sig={CANARY}",
    "with a space": f"https://files.example/my song.wav?n=my song&sig={CANARY}",
    "of another scheme": f"s3://bucket/x?X-Amz-Signature={CANARY}",
    "with a password": f"https://user:{CANARY}@files.example/x",
    "without a scheme": f"files.example/x#token={CANARY}",
    "encoded": f"https%3A%2F%2Ffiles.example%2Fx%3Fsig%3D{CANARY}",
}
TRACK = {"music_task_id": "music", "audio_id": "track"}
WAIT = {"poll_interval": 0.03, "timeout": 0.2}


def convert(**arguments):
    return ConvertToWavOperator(task_id="convert", **(TRACK | WAIT | arguments)).execute({"ti": TaskInstance()})


def wait_for(**arguments):
    arguments = {"kie_task_id": "wav-1", "poke_interval": 0.03, "timeout": 0.2} | arguments
    return WavConversionSensor(task_id="wait", **arguments).execute({"ti": TaskInstance()})


def archive(**arguments):
    arguments = {"destination": "/nowhere/x.wav"} | arguments
    return WavToObjectStorageOperator(task_id="archive", **arguments).execute({"ti": TaskInstance()})


def make(**arguments):
    arguments = {"family": "veo", "input": {"prompt": "a fox"}} | WAIT | arguments
    return KieJobOperator(task_id="make", **arguments).execute({"ti": TaskInstance()})


def wait_for_job(kie_task_id="job-1", **arguments):
    sensor = KieJobSensor(task_id="wait", kie_task_id=kie_task_id, poke_interval=0.03, timeout=0.2, **arguments)
    return sensor.execute({"ti": TaskInstance()})


def trigger(kie_task_id="job-1", kie_conn_id="kie_default", family="wav"):
    """A trigger that no worker has looked for before it, whose error the sensor then raises."""
    started = KieJobTrigger(kie_task_id, kie_conn_id, 0.03, None, 0.2, family=family)
    asyncio.run(started.on_kill())
    return KieJobSensor(task_id="wait", kie_task_id="job-1").execute_complete({}, asyncio.run(only_event(started)))


def ended_in_the_triggerer(url):
    sensor = WavConversionSensor(task_id="wait", kie_task_id=url)
    return sensor.resume_execution(ENDED_BY_AIRFLOW, {"error": "Trigger timeout"}, {})


ENTRIES = {
    "convert, music_task_id": lambda url: convert(music_task_id=url),
    "convert, callback_url": lambda url: convert(callback_url=f"x{url}"),
    "convert, poll_interval": lambda url: convert(poll_interval=url),
    "convert, timeout": lambda url: convert(timeout=[url]),
    "sensor, kie_task_id": lambda url: wait_for(kie_task_id=url),
    "sensor, kie_task_id, ended by Airflow": ended_in_the_triggerer,
    "trigger, kie_task_id": lambda url: trigger(url),
    "trigger, kie_task_id, no connection": lambda url: trigger(url, "nowhere"),
    "trigger, kie_conn_id": lambda url: trigger(kie_conn_id=url),
    "url, kie_task_id": lambda url: WavUrlOperator(task_id="url", kie_task_id=url).execute({"ti": TaskInstance()}),
    "job, family": lambda url: make(family=url),
    "job, family that takes no model": lambda url: make(model=url),
    "job, callback_url in the input": lambda url: make(input={"callBackUrl": f"x{url}"}),
    "job, input that KIE refuses": lambda url: make(input={"image": url}),
    "job, input that cannot be sent": lambda url: make(input={"image": url.encode()}),
    "job, input that is no dict": lambda url: make(input=url),
    "job, on_unknown_submit": lambda url: make(on_unknown_submit=url),
    "job, kie_conn_id": lambda url: make(kie_conn_id=url),
    "job sensor, a whole job": lambda url: wait_for_job({"kie_task_id": url, "family": "veo"}),
    "job sensor, family of a whole job": lambda url: wait_for_job({"kie_task_id": "job-1", "family": url}),
    "job sensor, family, deferrable": lambda url: wait_for_job(family=url, deferrable=True),
    "tracks, family": lambda url: MusicTracksOperator(task_id="tracks", kie_task_id="x", family=url).execute({}),
    "archive, kie_task_id": lambda url: archive(kie_task_id=url),
    "archive, wav_url": lambda url: archive(wav_url=url),
    "archive, wav_url of no host": lambda url: archive(wav_url=f"x{url}"),
    "archive, destination": lambda url: archive(kie_task_id="wav-1", destination=f"x{url}/"),
    "archive, unknown storage": lambda url: archive(kie_task_id="wav-1", destination=f"nowhere://x/{url}"),
    "hook, get_job, family": lambda url: KieHook().get_job("job-1", url),
    "hook, get_download_url": lambda url: KieHook().get_download_url(f"x{url}"),
    "hook, method": lambda url: KieHook().request(url, "/x"),
    "hook, path": lambda url: KieHook().request("GET", url),
    "hook, path of a refused request": lambda url: KieHook().request("GET", f"/{url}"),
    "hook, json": lambda url: KieHook().request("POST", "/x", json={"url": url.encode()}),
}


@pytest.mark.parametrize("url", SIGNED.values(), ids=SIGNED)
@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_no_argument_is_shown_with_its_signature(kie, caplog, capfd, monkeypatch, entry, url):
    monkeypatch.setattr(file_host, "_addresses", lambda *_, **__: [ipaddress.ip_address("10.0.0.1")])
    with caplog.at_level(logging.INFO), pytest.raises(KieError) as caught:
        entry(url)
    assert CANARY not in str(caught.value) + repr(caught.value)
    output = capfd.readouterr()
    said = (caplog.text + output.out + output.err).splitlines()
    assert [line for line in said if CANARY in line] == []


@pytest.mark.parametrize("url", [SIGNED["with a space"], SIGNED["with a password"], SIGNED["encoded"]])
@pytest.mark.parametrize(
    "argv",
    [
        *(["show", "{}"], ["wait", "{}"], ["convert", "{}", "a"], ["check", "--conn-id", "{}"]),
        *(["convert", "m", "a", "--callback-url", "x{}"], ["wait", "wav-1", "--timeout", "{}"]),
        *(["submit", "--family", "{}", "--input", "{{}}"], ["submit", "--family", "veo", "--input", "@{}"]),
        ["submit", "--family", "veo", "--input", '{{"image": "{}"}}'],
        ["submit", "--family", "veo", "--input", "{{}}", "--callback-url", "x{}"],
        *(["jobs", "show", "{}", "run", "task"], ["jobs", "adopt", "dag", "run", "{}", "job-1"]),
        ["jobs", "adopt", "dag", "run", "task", "{}"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("interrupted", [False, True])
def test_no_command_shows_an_argument_with_its_signature(kie, argv, url, interrupted, capsys, monkeypatch):
    if interrupted:

        def press_ctrl_c(*_, **__):
            raise KeyboardInterrupt

        for method in ("get_wav_conversion", "wait", "submit_wav_conversion", "get_credits"):
            monkeypatch.setattr(KieHook, method, press_ctrl_c)
    monkeypatch.setattr(terminal, "claim_stdout", lambda: sys.stdout)
    with pytest.raises(SystemExit) as ended:
        cli.main([each.format(url) for each in argv])
    assert ended.value.code
    output = capsys.readouterr()
    said = (output.out + output.err).splitlines()
    assert [line for line in said if CANARY in line] == []


def test_no_repr_shows_a_secret(monkeypatch):
    connection = {
        "conn_type": "kie",
        "password": CANARY,
        "extra": {"proxy": f"http://user:{PROXY_CANARY}@127.0.0.1:9"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    hook = KieHook()
    shown = repr(hook) + repr(hook.settings) + str(hook.settings) + repr(hook.get_conn()) + repr(hook.get_conn().auth)
    for secret in (CANARY, PROXY_CANARY):
        assert secret not in shown
    ok, message = hook.test_connection()
    assert not ok
    assert PROXY_CANARY not in message
