# SPDX-License-Identifier: Apache-2.0
"""What an upload's answer means, and how a record repeats the input of its job."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.call import Repeat, UploadBody
from airflow_provider_kie.api.echo import read_input
from airflow_provider_kie.api.envelope import Response
from airflow_provider_kie.api.families import find_family
from airflow_provider_kie.api.fields import check_count
from airflow_provider_kie.api.upload import upload_file
from airflow_provider_kie.money import TaskKey
from airflow_provider_kie.redaction import quoted, values_without_queries, without_queries

BODY = UploadBody("a.png", "airflow", 7, "ab" * 32, "image/png", lambda: iter([b"content"]))
URL = "https://tempfile.example/kieai/1/airflow/a.png"
#: As it was recorded on 2026-10-01, with other names.
ANSWER = {
    "success": True,
    "fileName": "a.png",
    "filePath": "kieai/1/airflow/a.png",
    "downloadUrl": URL,
    "fileSize": 7,
    "mimeType": "image/png",
    "uploadedAt": "2026-10-01T07:46:53.882Z",
}


def answered(data, code=200):
    return Response(200, json.dumps({"success": code == 200, "code": code, "msg": "...", "data": data}).encode())


def test_an_upload_names_its_link():
    call = upload_file(BODY)
    assert (call.method, call.path, call.repeat, call.upload) == (
        "POST",
        "/api/file-stream-upload",
        Repeat.ALWAYS,
        BODY,
    )
    assert call.read(answered(ANSWER)) == {
        "url": URL,
        "file_name": "a.png",
        "file_path": "kieai/1/airflow/a.png",
        "size": 7,
        "sha256": "ab" * 32,
        "media_type": "image/png",
        "uploaded_at": "2026-10-01T07:46:53.882Z",
    }


@pytest.mark.parametrize(
    ("data", "code", "error"),
    [
        (None, 200, e.KieUnreadableAnswerError),
        ("gone", 200, e.KieUnreadableAnswerError),
        ({**ANSWER, "downloadUrl": "no link"}, 200, e.KieUnreadableAnswerError),
        ({**ANSWER, "fileSize": 6}, 200, e.KieUnreadableAnswerError),
        (None, 400, e.KieValidationError),
    ],
)
def test_an_upload_without_a_link_is_no_success(data, code, error):
    with pytest.raises(error, match=r"^Uploading the file"):
        upload_file(BODY).read(answered(data, code))


def test_what_kie_leaves_out_is_known_anyway():
    uploaded = upload_file(BODY).read(answered({"downloadUrl": URL}))
    assert (uploaded["file_name"], uploaded["file_path"], uploaded["uploaded_at"]) == ("a.png", None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("file_name", value) for value in ("a/b", "a\nb", "..", 7)),
        *(("upload_path", value) for value in ("a/../b", "a/./b", "a\r\nb", 7)),
    ],
)
def test_a_name_that_cannot_be_sent_is_refused(field, value):
    with pytest.raises(e.KieValidationError, match=f"^{field} is ") as error:
        upload_file(replace(BODY, **{field: value}))
    assert quoted(value) in error.value.problem


@pytest.mark.parametrize("field", ["file_name", "upload_path"])
@pytest.mark.parametrize("value", ["", " "])
def test_a_name_that_is_missing_is_named(field, value):
    with pytest.raises(e.KieValidationError, match=f"^{field} "):
        upload_file(replace(BODY, **{field: value}))


def test_the_name_that_kie_gave_the_file_counts():
    assert upload_file(BODY).read(answered({**ANSWER, "fileName": "b.png"}))["file_name"] == "b.png"


@pytest.mark.parametrize(
    ("family", "record", "given"),
    [
        ("jobs", {"param": json.dumps({"input": json.dumps({"prompt": "a"}), "model": "m"})}, {"prompt": "a"}),
        ("music", {"param": json.dumps({"prompt": "a", "callBackUrl": "https://a.example"})}, {"prompt": "a"}),
        ("veo", {"paramJson": json.dumps({"prompt": "a"})}, {"prompt": "a"}),
        ("runway", {"generateParam": {"prompt": "a"}}, {"prompt": "a"}),
        ("stems", {"musicId": "a"}, None),
        ("music", {"param": "no JSON"}, None),
    ],
)
def test_a_record_repeats_the_input_of_its_job(family, record, given):
    call = read_input(find_family(family), "a1")
    assert call.params == {"taskId": "a1"}
    assert call.read(answered(record)) == given


def test_the_input_is_read_from_the_record_of_its_job():
    row = find_family("music")
    call = read_input(row, "a1")
    assert (call.method, call.path, call.kie_task_id, call.family) == ("GET", row.query, "a1", row.tag)
    with pytest.raises(e.KieAuthenticationError, match=f"^Reading the input of the {row.title}"):
        call.read(answered(None, 401))
    with pytest.raises(e.KieValidationError, match=r"^kie_task_id"):
        read_input(row, "")


@pytest.mark.parametrize("value", [0, -1, "3", 1.5, None])
def test_a_count_is_at_least_one(value):
    check_count("max_workers", 1)
    with pytest.raises(e.KieValidationError, match="max_workers"):
        check_count("max_workers", value)


def test_a_text_keeps_all_but_the_queries_of_its_links():
    text = "one\n" * 300 + "https://a.example/x.png?sig=1 and <http://b.example/#y>"
    assert without_queries(text) == "one\n" * 300 + "https://a.example/x.png and <http://b.example/>"


def test_a_task_is_stored_by_its_ids():
    ids = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 3}
    assert TaskKey(**ids, conn_id="other").ids == ids


def test_links_lose_their_queries_at_any_depth():
    link, harmless = "https://a.example/x.png?signature=secret", "https://a.example/x.png"
    given = {"image": link, "more": [link, {"mask": link}], "count": 2, "none": None}
    shown = {"image": harmless, "more": [harmless, {"mask": harmless}], "count": 2, "none": None}
    assert values_without_queries(given) == shown
