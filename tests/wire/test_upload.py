# SPDX-License-Identifier: Apache-2.0
"""Uploads to KIE's file host, over a real socket: what is sent, where the key goes, and what KIE's answers mean."""

from __future__ import annotations

import hashlib
import json

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_kie import exceptions as e
from airflow_provider_kie.api.upload import upload_file
from airflow_provider_kie.emulator import KieEmulator
from airflow_provider_kie.emulator.media import KINDS
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.hooks.source import body_of
from airflow_provider_kie.transfers.object_storage_to_kie import ObjectStorageToKieOperator
from tests.file_server import Act, FileServer
from tests.task_instance import TaskInstance

PNG = KINDS["png"].content("a cat")
SHA256 = hashlib.sha256(PNG).hexdigest()
NAME = f"{SHA256[:16]}.png"


@pytest.fixture
def cat(tmp_path):
    path = tmp_path / "with space & ümläut.bin"
    path.write_bytes(PNG)
    return path


def upload(source, **arguments):
    ti = TaskInstance()
    link = ObjectStorageToKieOperator(task_id="upload", source=source, **arguments).execute({"ti": ti})
    assert ti.pushed["kie_file"]["url"] == link
    return ti.pushed["kie_file"]


def content(link):
    return requests.get(link, timeout=5, headers={"User-Agent": "a browser"}).content


def test_a_file_is_uploaded_and_its_link_leads_to_it(kie, cat):
    told = upload(f"file://{cat}")
    assert content(told["url"]) == PNG
    assert told | {"uploaded_at": None, "file_path": None} == {
        "url": told["url"],
        "file_name": NAME,
        "file_path": None,
        "size": len(PNG),
        "sha256": SHA256,
        "media_type": "image/png",
        "uploaded_at": None,
    }
    (request,) = kie.requests("upload")
    assert request["json"] == {"fileName": NAME, "uploadPath": "airflow", "size": len(PNG), "sha256": SHA256}
    assert request["authorized"]


def test_equal_content_has_an_equal_link(kie, cat, tmp_path):
    (tmp_path / "another name").write_bytes(PNG)
    assert KieHook().upload_file(cat) == KieHook().upload_file(tmp_path / "another name")
    assert upload(cat, file_name="mine.png", upload_path="a/b")["url"].endswith("/a/b/mine.png")
    assert upload(cat, file_name="None")["file_name"] == NAME  # a template without a value


def test_names_that_a_native_template_made_numbers_of_are_texts(kie, cat):
    assert upload(cat, file_name=5, upload_path=20261126)["url"].endswith("/20261126/5")
    with pytest.raises(e.KieValidationError, match="upload_path"):
        KieHook().upload_file(cat, upload_path=5)


@pytest.mark.parametrize("size", [1, 100_000, 3_000_000])
def test_a_file_of_any_size_arrives_as_it_is(kie, tmp_path, size):
    whole = (PNG[:size] + b"--boundary\r\n\r\n" * (size // 14 + 1))[:size]
    (tmp_path / "a").write_bytes(whole)
    link = KieHook().upload_file(tmp_path / "a")
    assert content(link) == whole
    assert link.endswith(".bin" if size == 1 else ".png")


def test_a_name_may_have_any_letters(kie, cat):
    assert upload(cat, file_name='ümläut "x".png')["file_name"] == 'ümläut "x".png'


@pytest.mark.parametrize(
    ("source", "arguments", "error", "word"),
    [
        (None, {}, e.KieValidationError, "source is empty"),
        ({"a": 1}, {}, e.KieValidationError, "source is a dict"),
        ("{folder}/", {}, e.KieValidationError, "names a folder"),
        ("{folder}", {}, e.KieValidationError, "does not exist, or is a folder"),
        ("{folder}/none", {}, e.KieValidationError, "does not exist"),
        ("nosuch://a/b", {}, e.KieValidationError, "nosuch"),
        ("{folder}/empty", {}, e.KieValidationError, "is empty"),
        ("{file}", {"max_bytes": len(PNG) - 1}, e.KieFileTooLargeError, "not more than"),
        ("{file}", {"file_name": "a/b"}, e.KieValidationError, "file_name"),
        ("{file}", {"upload_path": "../x"}, e.KieValidationError, "upload_path"),
        ("{file}", {"upload_path": "a\r\nb"}, e.KieValidationError, "upload_path"),
        ("{file}", {"upload_path": None}, e.KieValidationError, "upload_path is empty"),
        ("{file}", {"file_name": "."}, e.KieValidationError, "file_name"),
        ("{file}", {"max_bytes": None}, e.KieValidationError, "max_bytes"),
    ],
)
def test_what_cannot_be_uploaded_is_refused_before_it_is_sent(kie, cat, source, arguments, error, word):
    (cat.parent / "empty").write_bytes(b"")
    if isinstance(source, str):
        source = source.format(folder=cat.parent, file=cat)
    with pytest.raises(error, match=word) as caught:
        upload(source, **arguments)
    assert isinstance(caught.value, AirflowFailException)
    assert kie.requests() == []


@pytest.mark.parametrize("now", [PNG + b"x", PNG[:-1], PNG[:-1] + b"x", None])
def test_a_file_that_changes_while_it_is_sent_is_not_uploaded(kie, cat, now):
    body = body_of(cat, None, file_name=None, upload_path="a", max_bytes=10**6)
    cat.write_bytes(now) if now else cat.unlink()
    with pytest.raises(
        e.KieValidationError if now else e.KieConnectionError, match="changed" if now else "not be read"
    ):
        KieHook().call(upload_file(body))
    assert not any(request["http_status"] == 200 for request in kie.requests())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("upload-refused", e.KieValidationError),
        ("upload-refused-http", e.KieValidationError),
        ("upload-wrong-key", e.KieAuthenticationError),
        ("upload-wrong-key-http", e.KieAuthenticationError),
        ("upload-without-url", e.KieUnreadableAnswerError),
        ("upload-null-data", e.KieUnreadableAnswerError),
        ("upload-link-no-url", e.KieUnreadableAnswerError),
        ("upload-too-large", e.KieUnreadableAnswerError),
    ],
)
def test_a_refusal_is_an_error_that_names_the_upload(kie, cat, answer, error):
    kie.play(answer, endpoint="upload", repeat=True)
    with pytest.raises(error, match=r"^Uploading the file") as caught:
        upload(cat)
    assert kie.api_key not in str(caught.value)


@pytest.mark.parametrize("answer", ["upload-server-error", "upload-reset", "upload-kept-then-reset", "html"])
def test_trouble_is_repeated_because_an_upload_is_free(kie, cat, answer):
    kie.play(answer, endpoint="upload")
    assert content(upload(cat)["url"]) == PNG
    assert len(kie.requests("upload")) == 2


def test_another_size_at_kie_is_no_success(kie, cat, monkeypatch):
    with FileServer(json.dumps({"code": 200, "data": {"downloadUrl": kie.url, "fileSize": 7}}).encode()) as host:
        connection = json.loads(kie.connection_json())
        connection["extra"] |= {"upload_host": host.url, "timeout": 2}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
        with pytest.raises(e.KieUnreadableAnswerError, match="7 bytes"):
            upload(cat)


# --- The key


def test_the_key_goes_to_the_upload_host_and_not_along_a_redirect(kie, cat, monkeypatch):
    with KieEmulator(api_key=kie.api_key) as uploads, FileServer() as elsewhere:
        connection = json.loads(kie.connection_json())
        connection["extra"] |= {"upload_host": uploads.url, "timeout": 2}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
        upload(cat)
        assert [request["authorized"] for request in uploads.requests()] == [True]
        assert kie.requests() == []
        elsewhere.play(Act(status=307, headers={"Location": kie.url + "/api/file-stream-upload"}))
        connection["extra"]["upload_host"] = elsewhere.url
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
        with pytest.raises(e.KieUnreadableAnswerError, match="redirects"):
            upload(cat)
        assert kie.requests() == []


@pytest.mark.parametrize(
    "host", ["http://uploads.example", "https://a.example/path", "https://user@a.example", "uploads.example", 7]
)
def test_an_upload_host_that_cannot_be_trusted_is_refused(kie, cat, monkeypatch, host):
    connection = json.loads(kie.connection_json())
    connection["extra"] = {"upload_host": host}
    monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
    with pytest.raises(e.KieConfigurationError, match="'upload_host'"):
        upload(cat)
