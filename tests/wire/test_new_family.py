# SPDX-License-Identifier: Apache-2.0
"""A family that only this test knows is waited for everywhere, by its row and its cases alone."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest

from airflow_provider_kie.api import families
from airflow_provider_kie.api.family import Family, Words
from airflow_provider_kie.sensors.job import KieJobSensor
from tests.file_server import Act, FileServer
from tests.modes import MODES, run_sensor

ROW = Family(
    name="holograms",
    submit="/api/v1/holograms/generate",
    query="/api/v1/holograms/detail",
    words=Words(running=(0, 2), done=(1,), failed=(3,)),
    status=("stage",),
    files=(("result", "response.holograms[].link"), ("thumbnail", "response.thumbnail")),
    result=("response.depth",),
    errors=("failCode", "failMsg"),
    id_key="hologramId",
)
ID = "holo-1"
LINK = "https://tempfile.example/h/{}.holo"

DONE = {
    "stage": 1,
    "response": {"holograms": [{"link": LINK.format(1)}, {"link": LINK.format(2)}], "thumbnail": LINK.format("t")},
}
#: Records, and how a wait ends if KIE goes on giving the last one.
CASES = {
    "running": ([{"stage": 2, "response": None}], "KieSensorTimeoutError"),
    "done": ([None, {"stage": 0}, DONE], "done"),
    "failed": ([{"stage": 3, "failCode": "E7", "failMsg": "no light"}], "KieJobFailedError"),
    "unknown": ([None], "KieNotFoundError"),
}


@pytest.fixture(autouse=True)
def new_family(monkeypatch, short_times):
    monkeypatch.setattr(families, "FAMILIES", MappingProxyType({**families.FAMILIES, ROW.name: ROW}))


@pytest.fixture
def kie(monkeypatch):
    with FileServer() as server:
        connection = {"conn_type": "kie", "password": "key-of-a-test", "host": server.url}
        monkeypatch.setenv("AIRFLOW_CONN_KIE_DEFAULT", json.dumps(connection))
        yield server


def says(record):
    data = record and {ROW.id_key: ID, **record}
    return Act(body=json.dumps({"code": 200, "msg": "success", "data": data}).encode())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_it_ends_the_same_in_every_mode(kie, monkeypatch, mode, case):
    records, expected = CASES[case]
    timeout = 20 if expected == "done" else 0.6
    arguments = {"kie_task_id": ID, "family": ROW.name, "poke_interval": 0.03, "timeout": timeout}
    kie.play(*map(says, records))
    ended = run_sensor(mode, monkeypatch, KieJobSensor, **arguments)
    assert {request.target for request in kie.requests} == {f"{ROW.query}?{ROW.id_key}={ID}"}
    if expected == "done":
        assert ended.state == "success", ended
        files = [(file["name"], file["index"], file["url"]) for file in ended.xcom["files"]]
        links = [LINK.format(name) for name in (1, 2, "t")]
        assert files == [("result", 0, links[0]), ("result", 1, links[1]), ("thumbnail", 0, links[2])]
        assert ended.xcom["family"] == ROW.name
    else:
        assert ended.error == expected, ended
        assert not ended.retried
        assert "holograms job 'holo-1'" in ended.message
