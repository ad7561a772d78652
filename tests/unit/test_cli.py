# SPDX-License-Identifier: Apache-2.0
"""The commands: one table for two command lines, what they print where, and how they end."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
from typing import Any

import airflow
import pytest
import requests
import requests_mock as mock
import yaml
from packaging.version import Version

from airflow_provider_kie import cli, cli_jobs, terminal
from airflow_provider_kie.api.families import FAMILIES
from airflow_provider_kie.ledger import report
from airflow_provider_kie.money import digest
from tests.commands import stdout_to_claim
from tests.processes import printed_by

AIRFLOW = Version(airflow.__version__).release[:2]
API = "https://api.kie.ai/api/v1"
CREDIT, SUBMIT, READ = f"{API}/chat/credit", f"{API}/wav/generate", f"{API}/wav/record-info"
READ_BY_MARKET = f"{API}/jobs/recordInfo"
SAID = "2025-01-01 00:00:00"
RECORD = {"taskId": "wav-1", "musicId": "a-1", "musicIndex": 0, "createTime": SAID, "errorCode": None}
PENDING = RECORD | {"successFlag": "PENDING", "response": None}
DONE = RECORD | {"successFlag": "SUCCESS", "response": {"audioWavUrl": "https://files.example/1.wav?sig=abc"}}
CONVERSION = {
    **dict.fromkeys(("complete_time", "error_code", "error_message")),
    "kie_task_id": "wav-1",
    "music_id": "a-1",
    "music_index": 0,
    "status": "SUCCESS",
    "create_time": SAID,
    "wav_url": "https://files.example/1.wav?sig=abc",
}


def says(data: object, code: int = 200, msg: str = "success") -> dict[str, Any]:
    return {"json": {"code": code, "msg": msg, "data": data}}


@pytest.fixture
def run(kie_connection, short_times, kie_command):
    def run(*argv: str) -> tuple[int, str, str]:
        code, out, err = kie_command(*argv)
        assert kie_connection not in out + err
        return code, out, err

    return run


# --- One table, two command lines


def test_both_command_lines_have_the_same_commands(capsys):
    (group,) = cli.get_commands()
    commands = {command.name: getattr(command, "subcommands", ()) for command in group.subcommands}
    assert list(commands) == ["check", "families", "show", "wait", "convert", "submit", "jobs", "ledger"]
    below = {name: [command.name for command in commands[name]] for name in ("jobs", "ledger")}
    assert below["jobs"] == ["show", "adopt", "forget"]
    assert below["ledger"] == ["init", "list", "show", "spend", "expiring", "prune"]
    for argv in (*([name] for name in commands), *([group, name] for group in below for name in below[group])):
        with pytest.raises(SystemExit, match="0"):
            cli.main([*argv, "--help"])
        assert "--output" in capsys.readouterr().out or argv in (["jobs"], ["ledger"])


def test_the_groups_are_those_of_the_report():
    assert tuple(report.GROUPS) == cli.GROUPS


@pytest.mark.parametrize("command", ["convert", "submit", "jobs forget"])
def test_the_help_says_what_costs(capsys, command):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert "COSTS CREDITS" in capsys.readouterr().out


LOADED_BY_AIRFLOWS_COMMAND_LINE = """
import json, sys
from airflow.cli import cli_parser

cli_parser.get_parser()
print(json.dumps(["kie" in cli_parser.ALL_COMMANDS_DICT, sorted(sys.modules)]))
"""


@pytest.mark.skipif(AIRFLOW < (3, 2), reason="the key 'cli' is read by Airflow 3.2 and later")
def test_airflow_starts_without_what_the_commands_need():
    known, loaded = printed_by(LOADED_BY_AIRFLOWS_COMMAND_LINE)
    assert known
    assert "airflow_provider_kie.cli" in loaded
    assert not [name for name in loaded if re.match(r"airflow_provider_kie\.(api|cli_\w+|hooks|ledger|waiting)", name)]


WRONG = [
    *("ledger", "ledger init", "ledger spend", "ledger spend --by hour", "ledger list --state odd", "ledger show"),
    *("ledger expiring", *(f"ledger expiring --within {time}" for time in ("3", "3w", "-3d", "0h", "99999d", "d"))),
    *("ledger prune", "ledger spend --by day --since yesterday", "ledger prune --older-than 2026-01-01"),
    *("", "sing", "show", "check --output toml", "wait wav-1 --timeout 0", "wait wav-1 --timeout nan", "jobs"),
    *("wait wav-1 --poll-interval soon", "convert m-1", "jobs adopt dag run task", "submit --family music"),
    *(f"submit --family music --input {given}" for given in ("[]", "prompt=x", "@no-such-file")),
]


@pytest.mark.parametrize("argv", WRONG)
def test_wrong_usage_is_exit_code_2_without_output(run, requests_mock, argv):
    code, out, err = run(*argv.split())
    assert (code, out) == (2, "")
    assert err.startswith("usage: python -m airflow_provider_kie")
    assert not requests_mock.called


# --- What they print


def lines(out: str) -> list[str]:
    """The lines of a table, which Airflow pads and ends with an empty one."""
    return [line.rstrip() for line in out.splitlines() if line.strip()]


def test_check(run, requests_mock):
    requests_mock.get(CREDIT, **says(5916.25))
    code, out, _ = run("check")
    shown = dict(re.split(" +[|] ", line) for line in lines(out))
    base_url = {"conn_id": "kie_default", "base_url": "https://api.kie.ai"}
    assert (code, shown) == (0, base_url | {"key_accepted": "true", "credits": "5916.25"})


def test_show_prints_the_conversion_as_it_stands(run, requests_mock):
    asked = requests_mock.get(READ, **says(DONE))
    code, out, _ = run("show", "wav-1", "-o", "json")
    assert (code, json.loads(out)) == (0, CONVERSION)
    assert asked.last_request.qs == {"taskid": ["wav-1"]}
    code, out, _ = run("show", "wav-1")
    shown = dict(re.split(" +[|] ", line) for line in lines(out))
    assert (code, shown) == (0, {name: "-" if value is None else str(value) for name, value in CONVERSION.items()})


@pytest.mark.parametrize("record", [PENDING, PENDING | {"successFlag": "GENERATE_WAV_FAILED", "errorCode": 500}])
def test_show_judges_nothing(run, requests_mock, record):
    requests_mock.get(READ, **says(record))
    code, out, _ = run("show", "wav-1", "-o", "json")
    assert code == 0
    assert json.loads(out)["status"] == record["successFlag"]
    assert json.loads(out)["error_code"] == record["errorCode"]


def test_wait_says_on_standard_error_how_it_goes(run, requests_mock):
    requests_mock.get(READ, [says(None), says(PENDING), says(PENDING), says(DONE)])
    requests_mock.get(READ_BY_MARKET, **says(None, 422, "recordInfo is null"))
    code, out, err = run("wait", "wav-1", "--timeout", "99", "--poll-interval", "0.01", "-o", "json")
    assert (code, json.loads(out)) == (0, CONVERSION)
    unknown, pending = err.splitlines()
    assert "KIE does not know this WAV task; up to 99 seconds left" in unknown
    assert "status PENDING; up to 99 seconds left" in pending


def test_wait_says_what_is_odd_about_the_result(run, requests_mock):
    requests_mock.get(READ, **says(DONE | {"successFlag": "CALLBACK_EXCEPTION"}))
    code, out, err = run("wait", "wav-1", "-o", "json")
    assert (code, json.loads(out)["status"]) == (0, "CALLBACK_EXCEPTION")
    assert "together with status CALLBACK_EXCEPTION" in err


def test_wait_ends_with_its_time(run, requests_mock):
    requests_mock.get(READ, **says(PENDING))
    code, out, err = run("wait", "wav-1", "--timeout", "0.05", "--poll-interval", "0.01")
    assert (code, out) == (1, "")
    assert "within 0.05 seconds; last: status PENDING" in err.splitlines()[-1]


@pytest.mark.parametrize("reused", [False, True])
def test_convert_returns_after_the_submit(run, requests_mock, reused):
    submit = requests_mock.post(SUBMIT, **says({"taskId": "wav-1"}, 409 if reused else 200))
    callback = "https://here.example/kie" if reused else "https://api.example.com/callback"
    code, out, err = run("convert", "m-1", "a-1", "-o", "json", *(["--callback-url", callback] if reused else []))
    assert (code, json.loads(out)) == (0, {"kie_task_id": "wav-1", "reused": reused})
    assert "kie_task_id: wav-1" in err.splitlines()
    assert submit.last_request.json() == {"taskId": "m-1", "audioId": "a-1", "callBackUrl": callback}


def test_the_id_is_not_lost_with_standard_error(run, requests_mock, monkeypatch):
    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    requests_mock.post(SUBMIT, **says({"taskId": "wav-1"}))
    monkeypatch.setattr(sys, "stderr", Broken())
    code, out, _ = run("convert", "m-1", "a-1", "-o", "json")
    assert (code, json.loads(out)["kie_task_id"]) == (0, "wav-1")


def test_the_id_comes_before_the_wait(run, requests_mock):
    requests_mock.post(SUBMIT, **says({"taskId": "wav-1"}))
    requests_mock.get(READ, **says(None, 401, "You do not have access permissions"))
    code, out, err = run("convert", "m-1", "a-1", "--wait")
    assert (code, out) == (1, "")
    first, last = err.splitlines()
    assert first == "kie_task_id: wav-1"
    assert "WAV task 'wav-1'" in last


# --- Jobs of any family

CREATE = f"{API}/jobs/createTask"
MUSIC, MUSIC_INFO = f"{API}/generate", f"{API}/generate/record-info"
JOB = {
    "taskId": "job-1",
    "model": "m/1",
    "state": "success",
    "resultJson": json.dumps({"resultUrls": ["https://f.example/1"]}),
}
SUBMIT_MUSIC = ["submit", "--family", "music", "--input", '{"prompt": "a sea shanty"}']
SUBMIT_IMAGE = ["submit", "--model", "m/1", "--input", '{"prompt": "a lighthouse"}']


@pytest.mark.parametrize("command", ["show", "wait"])
@pytest.mark.parametrize("kind", [["--model", "m/1"], ["--family", "jobs"], ["--family", "jobs", "--model", "m/1"]])
def test_a_job_of_another_family(run, requests_mock, command, kind):
    asked = requests_mock.get(READ_BY_MARKET, **says(JOB))
    code, out, _ = run(command, "job-1", *kind, "-o", "json")
    job = json.loads(out)
    assert (code, job["family"], job["kie_task_id"]) == (0, "jobs", "job-1")
    assert job["files"] == [{"url": "https://f.example/1", "name": "result", "index": 0}]
    assert asked.last_request.qs == {"taskid": ["job-1"]}


def test_an_unknown_id_names_the_family_that_was_asked(run, requests_mock):
    requests_mock.get(MUSIC_INFO, **says(None))
    code, out, err = run("show", "job-1", "--family", "music")
    assert (code, out) == (1, "")
    assert "KIE does not know this music job" in err
    assert "music job 'job-1'" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("show job-1 --family poems", "family is 'poems', but must be one of 4o-image, "),
        ("show job-1 --family music --model m/1", "--model goes with family 'jobs'"),
        ("submit --input {}", "either --model or --family is needed"),
        ("submit --family jobs --input {}", "family 'jobs' needs a model"),
        ('submit --model m/1 --input {"seed":NaN}', "input cannot be sent"),
    ],
)
def test_what_cannot_be_asked_or_sent(run, requests_mock, argv, words):
    code, out, err = run(*argv.split())
    assert (code, out) == (1, "")
    assert words in err
    assert not requests_mock.called


@pytest.mark.parametrize("way", ["argument", "file", "stdin"])
def test_submit_takes_the_input_in_three_ways(run, requests_mock, monkeypatch, tmp_path, way):
    fields = {"prompt": "a lighthouse", "n": 2, "deep": {"é": [None]}}
    (tmp_path / "input.json").write_text(json.dumps(fields, ensure_ascii=False), "utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(fields)))
    given = {"argument": json.dumps(fields), "file": f"@{tmp_path}/input.json", "stdin": "-"}[way]
    sent = requests_mock.post(CREATE, **says({"taskId": "job-1"}))
    code, out, err = run("submit", "--model", "m/1", "--input", given, "-o", "json")
    assert (code, json.loads(out)) == (0, {"family": "jobs", "kie_task_id": "job-1", "reused": False})
    assert err.splitlines() == ["kie_task_id: job-1", "family: jobs"]
    assert sent.last_request.json() == {"model": "m/1", "input": fields}


def test_a_dry_run_sends_nothing(run, requests_mock):
    argv = [*SUBMIT_MUSIC, "--callback-url", "https://here.example/kie?token=secret", "--dry-run", "-o", "json"]
    code, out, _ = run(*argv)
    shown = json.loads(out)
    assert (code, shown["method"], shown["path"]) == (0, "POST", "/api/v1/generate")
    assert shown["body"] == {"prompt": "a sea shanty", "callBackUrl": "https://here.example/kie?…"}
    identity = {"account": "kie_default", "base_url": "https://api.kie.ai", "family": "music", "model": ""}
    assert shown["identity"] == identity | {"digest": digest({"prompt": "a sea shanty"})}
    assert "remembers nothing" in shown["remembered"]
    assert not requests_mock.called


def test_a_dry_run_hides_the_secret_of_the_callback_url(run, monkeypatch, kie_connection):
    extra = {"callback_url": "https://here.example/kie", "callback_secret": "c4n4ry_0123456789abcdef"}
    connection = {"conn_type": "kie", "password": kie_connection, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    code, out, err = run(*SUBMIT_MUSIC, "--dry-run", "-o", "json")
    assert (code, json.loads(out)["body"]["callBackUrl"]) == (0, "https://here.example/kie/***")
    assert "c4n4ry" not in out + err


@pytest.mark.parametrize("trouble", [says(None, 500, "Server exception"), {"exc": requests.ReadTimeout}], ids=str)
def test_an_unknown_outcome_is_not_repeated(run, requests_mock, trouble):
    submit = requests_mock.post(CREATE, **trouble)
    code, out, err = run(*SUBMIT_IMAGE, "--wait")
    assert (code, out, submit.call_count) == (1, "", 1)
    assert "charged it. Look at https://kie.ai/logs" in err
    assert err.splitlines()[-1].endswith("python -m airflow_provider_kie wait ID --family jobs --conn-id kie_default")


def test_a_conversion_by_the_market_may_be_charged_too(run, requests_mock, monkeypatch, kie_connection):
    connection = {"conn_type": "kie", "password": kie_connection, "extra": {"wav_route": "jobs"}}
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    submit = requests_mock.post(CREATE, **says(None, 500, "Server exception"))
    code, out, err = run("convert", "m-1", "a-1")
    assert (code, out, submit.call_count) == (1, "", 1)
    assert "charged it" in err
    assert err.splitlines()[-1].endswith("python -m airflow_provider_kie wait ID --conn-id kie_default")


def test_a_refused_submit_is_only_that(run, requests_mock):
    requests_mock.post(CREATE, **says(None, 402, "Insufficient credits"))
    code, out, err = run(*SUBMIT_IMAGE)
    assert (code, out) == (1, "")
    assert "Buy credits" in err
    assert "may have accepted" not in err


def test_an_id_in_an_unlisted_refusal_is_said(run, requests_mock):
    requests_mock.post(CREATE, **says({"taskId": "job-1"}, 531, "odd"))
    code, out, err = run(*SUBMIT_IMAGE)
    assert (code, out) == (1, "")
    assert err.splitlines()[:2] == ["kie_task_id: job-1", "family: jobs"]


def test_the_families_are_listed_without_a_connection(run, requests_mock, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_KIE_DEFAULT")
    code, out, _ = run("families", "-o", "json")
    listed = {each["family"]: each for each in json.loads(out)}
    assert (code, list(listed)) == (0, list(FAMILIES))
    assert [name for name, each in listed.items() if each["second_submit"] == "guarded"] == ["wav"]
    assert listed["veo-extend"]["submit"] == "/api/v1/veo/extend"
    assert (listed["jobs"]["files"], listed["lyrics"]["files"]) == ("result first_frame last_frame mask", None)
    assert not requests_mock.called


# --- How they end


@pytest.mark.parametrize(
    "argv", [["check"], ["show", "wav-1"], ["wait", "wav-1"], ["convert", "m-1", "a-1"], SUBMIT_IMAGE]
)
def test_an_error_is_one_line_and_exit_code_1(run, requests_mock, kie_connection, argv):
    requests_mock.register_uri(mock.ANY, mock.ANY, **says(None, 401, f"no: {kie_connection}"))
    code, out, err = run(*argv)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert "KIE answered 401" in line
    assert "connection 'kie_default'" in line


def test_ctrl_c_without_a_task(run, requests_mock):
    requests_mock.get(CREDIT, json=lambda *_: signal.raise_signal(signal.SIGINT))
    assert run("check") == (130, "", "Interrupted. Nothing was submitted.\n")


@pytest.mark.parametrize(
    ("argv", "url", "job", "again"),
    [
        (["convert", "m-1", "a-1"], SUBMIT, "WAV task", ""),
        (SUBMIT_MUSIC, MUSIC, "music job", " --family music"),
    ],
)
def test_ctrl_c_does_not_cut_off_the_answer(run, requests_mock, argv, url, job, again):
    def press(*_: object) -> dict[str, Any]:
        signal.raise_signal(signal.SIGINT)
        return says({"taskId": "a1"})["json"]

    requests_mock.post(url, json=press)
    code, out, err = run(*argv)
    assert (code, out) == (130, "")
    first, second, *_, last = [line for line in err.splitlines() if line]
    assert (first, second) == (cli_jobs.HELD_BACK, "kie_task_id: a1")
    assert last.startswith(f"Interrupted. {job} 'a1' goes on at KIE")
    assert last.endswith(f"python -m airflow_provider_kie wait a1{again} --conn-id kie_default")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- The terminal


SHOWN = {"a[bold]x[/]:smile:": "a[bold]x[/]:smile:", "\x1b[2Jgone": '"\\u001b[2Jgone"', "two\nlines": '"two\\nlines"'}


@pytest.mark.parametrize("form", ["table", "plain"])
@pytest.mark.parametrize("value", SHOWN)
def test_a_text_is_shown_without_control_characters(value, form, capfd):
    with stdout_to_claim():
        terminal.print_result({"status": value}, form)
    assert lines(capfd.readouterr().out)[-1].endswith(SHOWN[value])


LONG = {"url": "https://files.example/" + "x" * 500, "text": "two words " * 60, "no": None, "many": [1.5, {"a": True}]}


@pytest.mark.parametrize("result", [LONG, [LONG, LONG]], ids=["one", "list"])
@pytest.mark.parametrize(("form", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_what_programs_read_is_whole(result, form, parse, capfd):
    with stdout_to_claim():
        terminal.print_result(result, form)
    assert parse(capfd.readouterr().out) == result


@pytest.mark.parametrize("form", ["table", "plain"])
def test_a_list_has_a_line_for_each(form, capfd):
    with stdout_to_claim():
        terminal.print_result([{"family": "wav", "files": None}, {"family": "midi", "files": "result"}], form)
    head, *rows = [re.split(r"[ |]+", line) for line in lines(capfd.readouterr().out) if "===" not in line]
    assert head == ["family", "files"]
    assert rows == [["wav", "-"], ["midi", "result"]]


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_progress_is_a_line_now_and_then(capsys, clock):
    with terminal.ProgressLine() as line:
        line.show("pending", "60 left")
        for seconds, news in ((1, "pending"), (1, "trouble"), (58, "trouble"), (2, "trouble"), (1, "trouble")):
            clock[0] += seconds
            line.show(news, f"at {clock[0]:g}")
    assert capsys.readouterr().err.splitlines() == ["pending; 60 left", "trouble; at 1002", "trouble; at 1062"]


def test_progress_on_a_terminal_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "21")
    with terminal.ProgressLine() as line:
        line.show("pending", "60 seconds left")
        line.show("done", "1")
    assert capsys.readouterr().err == f"\r{'pending; 60 seconds '}\r\r{'done; 1':20}\r\r{'':20}\r"
