# SPDX-License-Identifier: Apache-2.0
"""The emulator's two other hosts over HTTP: the one that takes uploads, and links that die."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from airflow_provider_kie.emulator import ANSWERS, KieEmulator
from tests.wire.test_emulator import AGENT, CREDIT, DOWNLOAD, Client, fetch

UPLOAD = "/api/file-stream-upload"
MARKET = "/api/v1/jobs/recordInfo"
PNG = b"\x89PNG\r\n\x1a\n\r\n--boundary\r\n\0\xff"


@pytest.fixture(scope="module")
def emulator() -> Iterator[KieEmulator]:
    with KieEmulator() as running:
        yield running


@pytest.fixture
def kie(emulator: KieEmulator) -> KieEmulator:
    emulator.reset()
    return emulator


@pytest.fixture
def client(kie: KieEmulator) -> Client:
    return Client(kie)


def parts(*names: str, content: bytes = PNG) -> Any:
    """Return the parts of an upload, in this order."""
    fields = {"uploadPath": (None, "images/x"), "fileName": (None, "a.png"), "file": ("local.png", content)}
    return [(name, fields[name]) for name in names]


# Uploads


@pytest.mark.parametrize("names", [("file", "uploadPath", "fileName"), ("fileName", "uploadPath", "file")])
def test_an_uploaded_file_is_for_anyone(client: Client, names: tuple[str, ...]) -> None:
    sent = client.post(UPLOAD, files=parts(*names))
    assert (sent.status_code, sent.json()["success"], sent.json()["code"]) == (200, True, 200)
    data = sent.json()["data"]
    assert (data["fileName"], data["fileSize"], data["mimeType"]) == ("a.png", len(PNG), "image/png")

    whole = fetch(data["downloadUrl"])
    assert (whole.content, whole.headers["content-type"]) == (PNG, "image/png")
    part = fetch(data["downloadUrl"], Range="bytes=3-", **{"If-Range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, PNG[3:])
    head = fetch(data["downloadUrl"], "HEAD")
    assert (head.headers["content-length"], head.content) == (str(len(PNG)), b"")

    (entry,) = client.kie.requests("upload")
    digest = hashlib.sha256(PNG).hexdigest()
    facts = {"fileName": "a.png", "uploadPath": "images/x", "size": len(PNG), "sha256": digest}
    assert (entry["json"], entry["authorized"], entry["code"]) == (facts, True, 200)
    assert client.kie.credits_spent == 0


@pytest.mark.parametrize("name", ["a b?#%.png", "Überraschung.png", "../a.png", "a\\b.png"])
def test_names_that_need_care_in_a_link(client: Client, name: str) -> None:
    fields = {"uploadPath": "/images/", "fileName": name}
    data = client.post(UPLOAD, data=fields, files={"file": PNG}).json()["data"]
    assert data["fileName"] == name
    assert fetch(data["downloadUrl"]).content == PNG


def test_a_file_without_a_name_gets_one(client: Client) -> None:
    links = [client.post(UPLOAD, files=parts("file", "uploadPath")).json()["data"]["downloadUrl"] for _ in range(2)]
    assert all(re.search(r"/u/kieai/1/images/x/[0-9a-f]{16}\.png$", link) for link in links)
    assert links[0] != links[1]


def test_the_same_name_overwrites(client: Client) -> None:
    names = ("uploadPath", "fileName", "file")
    links = [
        client.post(UPLOAD, files=parts(*names, content=each)).json()["data"]["downloadUrl"] for each in (b"1", b"2")
    ]
    assert links[0] == links[1]
    assert fetch(links[0]).content == b"2"


@pytest.mark.parametrize(
    ("request_of", "missing"),
    [
        ({"files": parts("uploadPath", "fileName")}, "file"),
        ({"files": parts("file", "fileName")}, "uploadPath"),
        ({"data": {"uploadPath": " / "}, "files": {"file": PNG}}, "uploadPath"),
        ({"json": {"uploadPath": "images"}}, "file"),
        ({"data": b"--b\r\nbroken", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, "file"),
        ({"data": b"", "headers": {"Content-Type": "multipart/form-data"}}, "file"),
    ],
)
def test_what_is_missing_is_named(client: Client, request_of: dict[str, Any], missing: str) -> None:
    client.headers |= request_of.get("headers", {})
    refused = client.post(UPLOAD, **{name: value for name, value in request_of.items() if name != "headers"})
    said = {"success": False, "code": 400, "msg": f"Missing required parameter: {missing}"}
    assert (refused.status_code, refused.json()) == (400, said)


def test_only_the_key_and_only_this_path_upload(client: Client) -> None:
    wrong = {**AGENT, "Authorization": "Bearer another-key"}
    names = ("file", "uploadPath", "fileName")
    refused = requests.post(client.kie.url + UPLOAD, headers=wrong, files=parts(*names), timeout=10)
    said = {"success": False, "code": 401, "msg": "Authentication failed: Invalid API Key"}
    assert (refused.status_code, refused.json()) == (401, said)
    assert fetch(f"{client.kie.url}/u/kieai/1/images/x/a.png").status_code == 404
    assert "another-key" not in json.dumps(client.kie.requests())
    assert (client.get(UPLOAD).status_code, client.get(UPLOAD).json()["success"]) == (405, False)
    for path in ("/api/v1/file-stream-upload", "/api/file-base64-upload", "/api/file-url-upload"):
        assert client.post(path, files=parts(*names)).json()["code"] == 404


@pytest.mark.parametrize("name", [name for name, answer in ANSWERS.items() if answer.endpoint == "upload"])
def test_played_answers_to_an_upload(client: Client, name: str) -> None:
    client.kie.play(name)
    answer = ANSWERS[name]
    if answer.fault:
        with pytest.raises(requests.ConnectionError):
            client.post(UPLOAD, files=parts("file", "uploadPath", "fileName"))
    else:
        sent = client.post(UPLOAD, files=parts("file", "uploadPath", "fileName"))
        assert (sent.status_code, sent.content) == (answer.status, answer.render())
    kept = fetch(f"{client.kie.url}/u/kieai/1/images/x/a.png")
    assert kept.status_code == (200 if answer.accepts else 404)
    assert [entry["answer"] for entry in client.kie.requests("upload")] == [name]


def test_a_client_that_goes_in_the_middle_is_no_error(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    head = f"POST {UPLOAD} HTTP/1.1\r\nHost: a\r\nUser-Agent: kie-tests\r\nContent-Length: 9999\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    with caplog.at_level(logging.WARNING):
        with socket.create_connection(("127.0.0.1", int(client.kie.url.rpartition(":")[2])), timeout=10) as raw:
            raw.sendall(head.encode())
        assert client.get(CREDIT).status_code == 200
        client.kie.stop()
        client.kie.start()
    assert caplog.records == []


def test_the_connection_leads_to_this_upload_host(kie: KieEmulator) -> None:
    assert json.loads(kie.connection_json())["extra"] == {"upload_host": kie.url}


# Links that die


def links_of(client: Client, kie_task_id: str) -> list[str]:
    """Return the links that the job's record has now."""
    record = client.get(MARKET, params={"taskId": kie_task_id}).json()["data"]
    return list(json.loads(record["resultJson"])["resultUrls"])


@pytest.fixture
def images(kie: KieEmulator) -> str:
    return kie.create_job("jobs", finished=True, model="grok-imagine/text-to-image", prompt="a fox")


def test_dead_links_stay_in_the_record(client: Client, images: str) -> None:
    dead = links_of(client, images)
    assert len({fetch(link).headers["etag"] for link in dead}) == 6
    client.kie.expire_links(images)
    assert links_of(client, images) == dead
    assert {fetch(link).status_code for link in dead} == {404}
    assert client.post(DOWNLOAD, json={"url": dead[0]}).json()["code"] == 422
    other = client.kie.create_job("jobs", finished=True, model="grok-imagine/text-to-image")
    assert fetch(links_of(client, other)[0]).status_code == 200


def test_a_download_goes_on_at_a_fresh_link(client: Client, images: str) -> None:
    (dead, *_), before = links_of(client, images), fetch(links_of(client, images)[0])
    client.kie.expire_links(images, fresh=True)
    assert fetch(dead).status_code == 404
    fresh = links_of(client, images)[0]
    lent = [client.post(DOWNLOAD, json={"url": url}).json()["data"] for url in (dead, fresh)]
    for link in (fresh, *lent):
        rest = fetch(link, Range="bytes=5-", **{"If-Range": before.headers["etag"]})
        assert (rest.status_code, rest.content) == (206, before.content[5:])


@pytest.mark.parametrize(
    ("name", "begin", "media_type"),
    [("file-xml-error", b"<?xml", "application/xml"), ("file-other-media", b"\x89PNG", "image/png")],
)
def test_wrong_media_under_a_right_link(client: Client, name: str, begin: bytes, media_type: str) -> None:
    kie_task_id = client.kie.create_job("jobs", finished=True, model="wan/2-6-image-to-video")
    client.kie.play(name)
    (link,) = links_of(client, kie_task_id)
    wrong, right = fetch(link), fetch(link)
    assert (wrong.status_code, wrong.headers["content-type"]) == (200, media_type)
    assert wrong.content.startswith(begin)
    assert right.headers["content-type"] == "video/mp4"
