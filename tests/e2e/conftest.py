# SPDX-License-Identifier: Apache-2.0
"""Airflow's processes with two of the examples, the emulator in KIE's place, and a browser before them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from packaging.version import Version

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

    from tests.system.airflow_processes import Airflow, Emulator

ROOT = Path(__file__).resolve().parents[2]
#: Where pictures go; the documentation's are taken with SCREENSHOTS=docs/img.
PICTURES = ROOT / os.environ.get("SCREENSHOTS", "build/screenshots")
#: What each test saw last, for the one that failed.
LAST_SEEN = ROOT / "build" / "last-seen"
DAG_ID = "wav_of_a_track"
SONG = "example_kie_song"
OPTIONS = {
    "core.test_connection": "Enabled",
    "core.parallelism": "2",
}
#: A sensor that no worker starts, fed by another task.
IN_TRIGGERER = """
from airflow.sdk import DAG

from airflow_provider_kie.operators.wav import ConvertToWavOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor

with DAG("in_triggerer", schedule=None):
    submit = ConvertToWavOperator(
        task_id="submit", music_task_id="m-1", audio_id="a-1", kie_conn_id="kie_ready", wait_for_completion=False
    )
    WavConversionSensor(
        task_id="wait",
        kie_task_id=submit.output,
        kie_conn_id="kie_ready",
        deferrable=True,
        start_from_trigger=True,
        poke_interval=1,
        timeout=60,
    )
"""
#: Many sensors that a worker defers, on a machine that is busy with them.
DEFERRED = """
from airflow.sdk import DAG, task

from airflow_provider_kie.sensors.wav import WavConversionSensor

with DAG("deferred", schedule=None, params={"kie_task_ids": []}):

    @task
    def kie_task_ids(params=None):
        return params["kie_task_ids"]

    WavConversionSensor.partial(
        task_id="wait", kie_conn_id="kie_ready", deferrable=True, poke_interval=2, timeout=600, retries=0
    ).expand(kie_task_id=kie_task_ids())
"""
#: A browser as root on a machine without a screen, which asks nobody for updates.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: How long a page may take on a machine that has other things to do, in milliseconds.
PATIENCE = 40_000

#: Keeps what is to be seen as a file of that name.
Picture = Callable[["Page | Locator", str], None]


class Site(NamedTuple):
    """What the tests look at."""

    airflow: Airflow
    emulator: Emulator


# All of these end with their module: Playwright keeps an event loop running, next to which no async test can run.


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if Version(version("apache-airflow")) < Version("3.3"):
        pytest.skip("Airflow before 3.3 has another UI")
    from tests.system.airflow_processes import Airflow, Emulator

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    dags = tmp_path_factory.mktemp("dags")
    for dag_id in (DAG_ID, SONG):
        shutil.copy(ROOT / "example_dags" / f"{dag_id}.py", dags)
    (dags / "in_triggerer.py").write_text(IN_TRIGGERER)
    (dags / "deferred.py").write_text(DEFERRED)
    with Airflow(tmp_path_factory.mktemp("airflow"), dags, OPTIONS) as airflow:
        emulator = Emulator(airflow.processes, conversion_seconds=2)
        airflow.migrate()
        airflow.start("api-server", "scheduler", "dag-processor", "triggerer")
        airflow.wait_until_ready({DAG_ID, SONG, "in_triggerer", "deferred"})
        yield Site(airflow, emulator)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.fail("There is no browser. Install one (Debian: apt-get install chromium), or say where with CHROMIUM=…")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visitor(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    """Somebody whose browser has the pages' scripts in its cache, which spares each test some seconds."""
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    context = browser.new_context(
        base_url=site.airflow.url,
        viewport={"width": 1200, "height": 900},
        locale="en-US",
        timezone_id="UTC",
        color_scheme="light",
    )
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(visitor: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    page = visitor.new_page()
    yield page
    page.screenshot(path=LAST_SEEN / f"{request.node.name}.png")
    page.close()


@pytest.fixture
def picture() -> Picture:
    def take(what: Page | Locator, name: str) -> None:
        what.screenshot(path=PICTURES / name, animations="disabled")

    return take
