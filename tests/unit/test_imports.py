# SPDX-License-Identifier: Apache-2.0
"""What importing costs, and the floors of the house: a module imports only from floors below its own."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

import airflow_provider_kie
from tests.processes import printed_by

PACKAGE = airflow_provider_kie.__name__
ROOT = Path(airflow_provider_kie.__file__).parent

PAGE = Path(__file__).resolve().parents[2] / "docs" / "design.md"


def map_of_the_house() -> dict[str, str]:
    """Return the files and folders that the page's table names, with the floor of each."""
    rows = re.findall(r"^\| (\d+|aside) \| (`[^|]+`) \|", PAGE.read_text(), re.MULTILINE)
    return {name: floor for floor, names in rows for name in re.findall(r"`([^`]+)`", names)}


MAP = map_of_the_house()
# The package itself, which is its version, lies below all rooms. Those of floor 6 share Airflow's life cycle and may
# know each other; test_no_module_imports_itself_in_a_circle keeps them from going round in circles.
FLOOR = {"": -1} | {
    name.partition("/")[0].removesuffix(".py"): int(floor) for name, floor in MAP.items() if floor != "aside"
}
LIFE_CYCLE = 6
# Beside the house: a KIE on loopback, and a fixture for it.
ASIDE = {"emulator": {"", "emulator"}, "testing": {"", "emulator", "connection", "redaction", "times"}}

# Callbacks talk to Airflow's API; to KIE only by the hook.
HTTP_ROOMS = {"hooks", "files", "callbacks", *ASIDE}
HTTP_LIBRARIES = {"aiohttp", "httpx", "requests", "urllib3"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.removeprefix(PACKAGE).strip(".").partition(".")[0]


def imports_of(module: str) -> set[str]:
    """Return all modules that a module names in an import, wherever in the file that stands."""
    found = set()
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in SOURCES else str(node.module))
    return found


def ours(modules: set[str]) -> set[str]:
    return {module for module in modules if module.partition(".")[0] == PACKAGE}


# --- The floors


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_from_floors_below(module: str) -> None:
    room = room_of(module)
    if room in ASIDE:
        allowed = ASIDE[room]
    else:
        assert room in FLOOR, f"give {room!r} a floor in docs/design.md"
        floor = FLOOR[room]
        allowed = {room} | {other for other in FLOOR if FLOOR[other] < floor}
        if floor == LIFE_CYCLE:
            allowed |= {other for other in FLOOR if FLOOR[other] == LIFE_CYCLE}
    assert {other for other in ours(imports_of(module)) if room_of(other) not in allowed} == set()


def test_no_module_imports_itself_in_a_circle() -> None:
    TopologicalSorter({module: ours(imports_of(module)) - {module} for module in SOURCES}).prepare()


@pytest.mark.parametrize("module", [module for module in SOURCES if room_of(module) not in HTTP_ROOMS])
def test_only_these_rooms_import_http(module: str) -> None:
    assert {other.partition(".")[0] for other in imports_of(module)} & HTTP_LIBRARIES == set()


@pytest.mark.parametrize("module", [module for module in SOURCES if room_of(module) in {"api", "waiting"}])
def test_the_rules_import_neither_airflow_nor_http(module: str) -> None:
    assert {other for other in imports_of(module) if other.partition(".")[0] in {"airflow", *HTTP_LIBRARIES}} == set()


def test_the_table_of_floors_lists_every_module() -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in SOURCES.values() if path.name != "__init__.py"}
    assert {name for name in MAP if not (ROOT / name).exists()} == set()
    assert {name for name in modules if not {name, f"{name.partition('/')[0]}/"} & set(MAP)} == set()
    assert {name.partition("/")[0].removesuffix(".py") for name in MAP} == {room_of(name) for name in SOURCES} - {""}
    assert {name.rstrip("/").removesuffix(".py") for name, floor in MAP.items() if floor == "aside"} == set(ASIDE)


# --- What importing costs

# What a DAG file with a sensor, an operator and a trigger imports from Airflow itself, also if they are not ours.
SDK_NAMES = (
    *("AirflowException", "AirflowFailException", "AirflowSensorTimeout", "AirflowSkipException", "conf"),
    *("BaseOperator", "BaseSensorOperator", "PokeReturnValue"),
)
AIRFLOW_ITSELF = (*(f"airflow.providers.common.compat.sdk:{name}" for name in SDK_NAMES), "airflow.triggers.base")

LOADED_AFTER = """
import importlib, json, sys

for name in sys.argv[1:]:
    module, _, member = name.partition(":")
    module = importlib.import_module(module)
    if member:
        getattr(module, member)
print(json.dumps(sorted(sys.modules)))
"""


@cache
def loaded_after(*imports: str) -> frozenset[str]:
    """Return the modules that a fresh Python holds after the imports."""
    return frozenset(printed_by(LOADED_AFTER, *imports))


def libraries(modules: frozenset[str]) -> set[str]:
    """Return the packages to which the modules belong, without this one and the standard library."""
    return {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {PACKAGE}


@pytest.mark.parametrize("module", [f"{PACKAGE}.connection", f"{PACKAGE}.get_provider_info", f"{PACKAGE}.cli"])
def test_the_metadata_loads_no_library(module: str) -> None:
    # Airflow does so for every installed provider at every start, and with the commands at every start of "airflow".
    loaded = loaded_after(module)
    assert module in loaded
    assert libraries(loaded) - libraries(loaded_after()) == set()


def test_the_fixture_loads_nothing_before_it_is_used() -> None:
    # pytest loads it in every run, before a project has configured Airflow.
    loaded = loaded_after("pytest", f"{PACKAGE}.testing")
    assert ours(set(loaded)) == {PACKAGE, f"{PACKAGE}.testing"}
    assert libraries(loaded) == libraries(loaded_after("pytest"))


# Rooms that an older Airflow cannot enter; they say so themselves.
SINCE = {"retry_policy": Version("3.3")}
AIRFLOW = Version(version("apache-airflow"))
DAG_MODULES = [
    name
    for name, path in SOURCES.items()
    if FLOOR.get(room_of(name)) == LIFE_CYCLE
    and path.stem != "__init__"
    and SINCE.get(room_of(name), AIRFLOW) <= AIRFLOW
]


def test_a_dag_file_does_not_pay_for_http() -> None:
    loaded = loaded_after(*AIRFLOW_ITSELF, *DAG_MODULES)
    assert set(DAG_MODULES) <= loaded
    # Airflow 2.11 imports requests by itself, which nobody can save.
    assert libraries(loaded) - libraries(loaded_after(*AIRFLOW_ITSELF)) == set()
    assert f"{PACKAGE}.hooks.kie" not in loaded
