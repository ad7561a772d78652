# SPDX-License-Identifier: Apache-2.0
"""What the operators push, when they push it, and which of their failures Airflow retries."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from tests.dag_runs import load_dag, run_dag
from tests.modes import only_event
from tests.task_instance import Store, Task, TaskInstance

TRACK = {"music_task_id": "music", "audio_id": "track"}
QUICK = {"poll_interval": 0.03, "timeout": 20}


@pytest.fixture
def context(kie):
    return {"ti": TaskInstance()}


def convert(context, **arguments):
    return ConvertToWavOperator(task_id="convert", **(TRACK | QUICK | arguments)).execute(context)


@pytest.fixture(params=[False, True], ids=["sync", "deferrable"])
def task(request, kie):
    return Task(ConvertToWavOperator, None, deferrable=request.param, **TRACK | QUICK)


def test_waiting_gives_url_id_and_conversion(kie, task):
    url, pushed = task.run_once(), task.xcom
    assert url == pushed["wav_conversion"]["wav_url"]
    assert url.startswith(kie.url)
    assert pushed["kie_task_id"] == pushed["wav_conversion"]["kie_task_id"]
    assert kie.accepted_submits == 1


def test_not_waiting_gives_the_id_and_reads_nothing(kie, context):
    kie_task_id = convert(context, wait_for_completion=False)
    assert context["ti"].pushed == {"kie_task_id": kie_task_id}
    assert kie.requests("record-info") == []


def test_a_failed_conversion_is_retryable_with_its_id(task):
    with pytest.raises(e.KieConversionFailedError, match="GENERATE_WAV_FAILED") as caught:
        task.run_once(music_task_id="fail-music")
    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.kie_task_id == task.xcom["kie_task_id"]


def test_a_result_survives_a_source_that_is_gone_by_then(kie, context):
    """Templates are rendered again after a deferral, when the upstream task's XCom may have been cleared."""
    with pytest.raises(TaskDeferred) as deferral:
        convert(context, deferrable=True)
    event = asyncio.run(only_event(deferral.value.trigger))
    resumed = ConvertToWavOperator(task_id="convert", music_task_id="None", audio_id="None")
    assert resumed.execute_complete(context, event) == context["ti"].pushed["wav_conversion"]["wav_url"]


def test_an_empty_callback_url_is_the_connections(kie, context):
    assert convert(context, callback_url="None")


@pytest.mark.parametrize("event", [None, {"status": "odd"}])
def test_a_deferral_without_a_result_is_no_second_submit(kie, context, event):
    task = ConvertToWavOperator(task_id="convert", **TRACK)
    with pytest.raises(AirflowFailException, match="without the trigger's event"):
        task.execute_complete(context, event)


@pytest.mark.parametrize(
    ("store", "durable", "final"),
    [(Store(), True, False), (Store(), False, True), (None, True, True)],
    ids=["kept for a retry", "not durable", "before Airflow 3.3"],
)
def test_a_time_out_is_retried_where_a_retry_resumes(kie, task, store, durable, final):
    kie.configure(conversion_seconds=600)
    task.store = store
    with pytest.raises(e.KieWaitTimeoutError, match=r"within 0.3 seconds; last: status PENDING") as caught:
        task.run_once(timeout=0.3, durable=durable)
    assert isinstance(caught.value, AirflowFailException) == final
    assert task.xcom["kie_task_id"] in str(caught.value)
    assert caught.value.conn_id == "kie_default"


def test_a_wait_that_airflow_ends_names_the_conversion(kie, capfd, caplog):
    kie.configure(conversion_seconds=600)
    known = kie.create_conversion(audio_id="known")
    run = run_dag(load_dag("ended_by_airflow"), run_conf={"kie_task_id": known})
    assert run.states() == {
        "convert": "failed", "mapped[0]": "failed", "mapped[1]": "failed", "wait": "failed", "skip": "skipped",
    }  # fmt: skip
    said = caplog.text + "".join(capfd.readouterr())
    ids = [run.xcom("convert", "kie_task_id"), *(run.xcom("mapped", "kie_task_id", index) for index in range(2)), known]
    assert len(set(ids)) == 4
    for kie_task_id in ids:
        assert f"(Trigger timeout), see the triggerer's log (WAV task '{kie_task_id}" in said


def test_native_templates_and_parts_of_a_conversion(kie):
    run = run_dag(load_dag("native_and_parts"))
    assert run.state == "success", run.states()
    (submit,) = kie.requests("submit")
    assert (submit["json"]["taskId"], submit["json"]["audioId"]) == ("5790", "231")
    for deferrable in (False, True):
        conversion = run.xcom(f"wait_{deferrable}")
        assert run.xcom(f"wait_{deferrable}", "error_code") is None
        assert run.xcom(f"take_{deferrable}") == conversion["wav_url"]


@pytest.mark.parametrize("field", ["poll_interval", "timeout"])
@pytest.mark.parametrize("value", [0, float("nan"), float("inf"), "30", None, True, timedelta(seconds=-1)])
def test_a_wait_that_cannot_work_is_refused_unpaid(kie, context, field, value):
    with pytest.raises(e.KieValidationError, match=field):
        convert(context, **{field: value})
    set_by_a_policy = ConvertToWavOperator(task_id="convert", **TRACK)
    setattr(set_by_a_policy, field, value)
    with pytest.raises(e.KieValidationError, match=field):
        set_by_a_policy.execute(context)
    with pytest.raises(e.KieValidationError, match=rf"^{field} is "):
        KieHook().wait_for_wav_conversion("wav-1", **QUICK | {field: value})
    assert kie.requests() == []


def test_a_wait_may_be_given_as_timedelta_wherever_it_is(kie, context):
    wait = {"poll_interval": timedelta(milliseconds=30), "timeout": timedelta(minutes=1)}
    assert convert(context, **wait).startswith(kie.url)
    set_by_a_policy = ConvertToWavOperator(task_id="convert", **TRACK)
    set_by_a_policy.poll_interval, set_by_a_policy.timeout = wait.values()
    assert set_by_a_policy.execute(context).startswith(kie.url)
    kie_task_id = context["ti"].pushed["kie_task_id"]
    assert KieHook().wait_for_wav_conversion(kie_task_id, **wait)["status"] == "SUCCESS"
    kie.play("pending", repeat=True)
    with pytest.raises(e.KieWaitTimeoutError, match=r"within 0.3 seconds; last: status PENDING"):
        KieHook().wait_for_wav_conversion(kie_task_id, poll_interval=0.03, timeout=timedelta(milliseconds=300))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("wrong-key", e.KieAuthenticationError),
        ("insufficient-credits", e.KieInsufficientCreditsError),
        ("track-unknown", e.KieValidationError),
        ("key-cap", e.KieKeyCapError),
        ("already-converted-without-id", e.KieAlreadyConvertedError),
    ],
)
def test_what_repeating_cannot_help_is_sent_once(kie, context, answer, error):
    kie.play(answer, endpoint="submit", repeat=True)
    with pytest.raises(error) as caught:
        convert(context)
    assert isinstance(caught.value, AirflowFailException)
    assert "track" in str(caught.value)
    assert len(kie.requests("submit")) == 1


@pytest.mark.parametrize(
    "answer", ["accepted-then-reset", "accepted-then-500", "accepted-then-cut-off", "accepted-then-hang"]
)
def test_an_unknown_outcome_is_settled_by_one_repetition(kie, context, answer):
    kie.play(answer)
    url = convert(context)
    assert url.startswith(kie.url)
    assert kie.accepted_submits == 1
    assert len(kie.requests("submit")) == 2


def test_a_rate_limited_submit_is_sent_again(kie, context):
    kie.play("rate-limited-http", "rate-limited", "rate-limited", "maintenance", endpoint="submit")
    assert convert(context).startswith(kie.url)
    assert kie.accepted_submits == 1


def url_of(context, kie_task_id):
    return WavUrlOperator(task_id="url", kie_task_id=kie_task_id).execute(context)


def test_the_url_of_a_finished_conversion(kie, context):
    kie_task_id = kie.create_conversion(finished=True)
    kie.play("reset", "bad-gateway", endpoint="record-info")
    url = url_of(context, kie_task_id)
    assert context["ti"].pushed["wav_conversion"]["wav_url"] == url


@pytest.mark.parametrize(
    ("answer", "error", "says", "final"),
    [
        ("pending", e.KieNotReadyError, "status PENDING", False),
        ("wav-failed", e.KieConversionFailedError, "GENERATE_WAV_FAILED", True),
        ("task-unknown", e.KieNotFoundError, "does not know", True),
        ("bad-gateway", e.KieServerError, "502", False),
        ("success-link-no-url", e.KieUnreadableAnswerError, "its link is not", False),
    ],
)
def test_without_a_url_it_says_why_and_what_may_help(kie, context, answer, error, says, final):
    kie.play(answer, endpoint="record-info", repeat=True)
    with pytest.raises(error, match=says) as caught:
        url_of(context, kie.create_conversion(finished=True))
    assert isinstance(caught.value, AirflowFailException) == final
    assert "X-Amz" not in str(caught.value)
    assert answer != "task-unknown" or len(kie.requests("record-info")) > 1  # there is a grace
