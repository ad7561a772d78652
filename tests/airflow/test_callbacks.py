# SPDX-License-Identifier: Apache-2.0
"""A job that another system submitted: KIE calls back, and a DAG run of a real Airflow stores its file."""

from __future__ import annotations

from airflow_provider_kie.emulator.server import DEFAULT_KEY
from tests.system import callback_demo


def test_a_finished_job_starts_a_dag_whoever_submitted_it(tmp_path):
    seen = callback_demo.play(tmp_path)
    assert [run["state"] for run in seen.runs] == ["success"]
    (sent,) = seen.sent
    assert (sent["kie_task_id"], sent["http_status"], sent["attempt"]) == (seen.kie_task_id, 200, 1)
    assert [path.stem for path in seen.stored] == ["result-0"]
    assert seen.stored[0].read_bytes() == seen.original
    assert seen.has_event == [True, False]
    assert f"accepts {callback_demo.USER}" in seen.log
    assert f"job of family jobs {seen.kie_task_id} is finished; told" in seen.log
    secrets = (callback_demo.KEY, callback_demo.PASSWORD, DEFAULT_KEY)
    assert [secret for secret in secrets if secret in seen.log] == []
