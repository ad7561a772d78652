# SPDX-License-Identifier: Apache-2.0
"""How Airflow finds the provider, and the form that it draws from the metadata."""

from __future__ import annotations

import json
import re
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

import airflow_provider_kie
from airflow_provider_kie.connection import EXTRA_FIELDS
from airflow_provider_kie.get_provider_info import get_provider_info
from tests.processes import printed_by

AIRFLOW = Version(airflow.__version__).release[:2]
FIELDS = [extra.name for extra in EXTRA_FIELDS]
SECRETS = {extra.name for extra in EXTRA_FIELDS if extra.secret}


def entry_point() -> EntryPoint:
    (found,) = (
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.module.partition(".")[0] == airflow_provider_kie.__name__
    )
    return found


def connection_type() -> dict[str, Any]:
    (found,) = get_provider_info()["connection-types"]
    return found


def test_the_installed_airflow_accepts_the_metadata() -> None:
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(get_provider_info())


def test_airflow_finds_the_metadata() -> None:
    point = entry_point()
    assert point.load()() == get_provider_info()
    assert point.dist
    # Airflow stops loading all providers when the two differ, and refuses hooks outside of its own package to others.
    assert get_provider_info()["package-name"] == canonicalize_name(point.dist.metadata["Name"])
    assert not get_provider_info()["package-name"].startswith("apache-airflow")


def test_the_metadata_is_plain_json_and_names_this_version() -> None:
    info = get_provider_info()
    assert json.loads(json.dumps(info)) == info
    assert info["versions"][0] == airflow_provider_kie.__version__
    Version(info["versions"][0])


def test_the_hook_is_where_the_metadata_says() -> None:
    declared = connection_type()
    module, _, name = declared["hook-class-name"].rpartition(".")
    hook = getattr(import_module(module), name)
    assert hook.conn_type == declared["connection-type"]
    assert hook.hook_name == declared["hook-name"]
    assert hook(**{hook.conn_name_attr: "some_id"}).kie_conn_id == "some_id"
    assert hook().kie_conn_id == hook.default_conn_name == "kie_default"


#: Modules of these folders that have no class for a DAG.
NOT_FOR_DAGS = {
    "__init__",
    "submit",
    "many",
    "start_in_triggerer",
    "event",
    "once",
    "storing",
    "notes",
    "manifest",
    "job_files",
}


def test_every_module_of_operators_and_the_like_is_listed() -> None:
    entries = [entry for kind in ("operators", "sensors", "hooks", "triggers") for entry in get_provider_info()[kind]]
    listed = {name for entry in entries for name in entry["python-modules"]}
    assert all(import_module(name) for name in listed)
    package = Path(airflow_provider_kie.__file__).parent
    found = [
        path for room in ("operators", "sensors", "transfers", "triggers") for path in package.glob(f"{room}/*.py")
    ]
    with_operators = {
        f"{package.name}.{path.parent.name}.{path.stem}" for path in found if path.stem not in NOT_FOR_DAGS
    }
    assert listed == with_operators | {"airflow_provider_kie.hooks.kie"}


# Airflow keeps one ProvidersManager per process, which other tests may have filled; hence a process of its own.
REPORT = """
import json, logging, warnings

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from airflow.providers_manager import ProvidersManager

    logged = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger("airflow.providers_manager").addHandler(handler)
    manager = ProvidersManager()
    hook = manager.hooks["kie"]
    widgets = getattr(manager, "_connection_form_widgets_from_metadata", None) or manager.connection_form_widgets
    looks = getattr(manager, "_field_behaviours_from_metadata", None) or manager.field_behaviours

print(json.dumps({
    "hook": hook._asdict() if hook else None,
    "warnings": [f"{w.filename}: {w.message}" for w in caught],
    "logged": logged,
    "fields": {key: widget.is_sensitive for key, widget in widgets.items() if key.startswith("extra__kie__")},
    "look": looks.get("kie"),
}))
"""


WEB_FORM = """
import json

from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

(form,) = [form for form in HookMetaService.hook_meta_data() if form.connection_type == "kie"]
print(json.dumps(form.model_dump(mode="json")))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    """What Airflow reports after it has loaded its providers."""
    return dict(printed_by(REPORT))


def test_airflow_loads_the_hook_without_a_warning(loaded: dict[str, Any]) -> None:
    hook = loaded["hook"]
    assert (hook["hook_class_name"], hook["hook_name"]) == ("airflow_provider_kie.hooks.kie.KieHook", "KIE.ai")
    assert (hook["connection_type"], hook["connection_testable"]) == ("kie", True)
    assert hook["connection_id_attribute_name"] == "kie_conn_id"
    ours = re.compile("airflow.provider.kie|KieHook")
    assert [text for text in loaded["logged"] + loaded["warnings"] if ours.search(text)] == []


@pytest.mark.skipif(
    AIRFLOW < (3, 2) and not find_spec("flask_appbuilder"),
    reason="Airflow 3.1 without Flask-AppBuilder has no such form, only the web form below",
)
def test_airflow_knows_every_field_and_which_are_secret(loaded: dict[str, Any]) -> None:
    assert loaded["fields"] == {f"extra__kie__{name}": name in SECRETS for name in FIELDS}
    look = loaded["look"]
    assert look["relabeling"] == {"password": "API key", "host": "Base URL"}
    assert set(look["hidden_fields"]) >= {"schema", "login", "port"}


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="Airflow 2.11 has no such service; its form is tested above")
def test_the_web_form_shows_the_api_key_and_every_extra_field() -> None:
    form = printed_by(WEB_FORM)
    standard = {name: look for name, look in form["standard_fields"].items() if look}
    titles = {name: look["title"] for name, look in standard.items() if not look["hidden"]}
    assert titles == {"password": "API key", "host": "Base URL"}
    assert standard.keys() - titles.keys() == {"url_schema", "port", "login"}
    fields = {name: field["schema"] for name, field in form["extra_fields"].items()}
    if AIRFLOW >= (3, 2):
        assert (fields["timeout"]["minimum"], fields["timeout"]["maximum"]) == (1, 600)
    # Up to 3.1 the hook draws the form, which takes numbers as text.
    kinds = {"number": "string"} if AIRFLOW < (3, 2) else {}
    shown = {name: (field["title"], field["type"], field.get("format") == "password") for name, field in fields.items()}
    assert shown == {e.name: (e.label, [kinds.get(e.kind, e.kind), "null"], e.secret) for e in EXTRA_FIELDS}
    assert [each["description"] for each in form["extra_fields"].values()] == [e.description for e in EXTRA_FIELDS]
