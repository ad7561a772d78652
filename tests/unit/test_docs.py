# SPDX-License-Identifier: Apache-2.0
"""The documentation is true as far as a machine can tell: links, code, commands, and that nothing is left out."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import airflow.cli.cli_config
import pytest
import yaml
from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException

from airflow_provider_kie import exceptions
from airflow_provider_kie.api.wav import WavConversion
from airflow_provider_kie.callbacks.__main__ import _parser as callbacks_parser
from airflow_provider_kie.cli import get_commands
from airflow_provider_kie.connection import EXTRA_FIELDS
from airflow_provider_kie.emulator import ANSWERS
from airflow_provider_kie.emulator.__main__ import _parser as emulator_parser
from airflow_provider_kie.emulator.cases import CASES, SINGLES
from airflow_provider_kie.emulator.results import PAUSED
from airflow_provider_kie.emulator.state import Settings
from airflow_provider_kie.operators.batch import KieBatchOperator
from airflow_provider_kie.operators.job import KieJobOperator
from airflow_provider_kie.operators.music import MusicTracksOperator
from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from airflow_provider_kie.sensors.job import KieJobSensor
from airflow_provider_kie.sensors.wav import WavConversionSensor
from airflow_provider_kie.transfers.job_to_object_storage import KieJobToObjectStorageOperator
from airflow_provider_kie.transfers.object_storage_to_kie import ObjectStorageToKieOperator
from airflow_provider_kie.transfers.wav_to_object_storage import WavToObjectStorageOperator

ROOT = Path(__file__).resolve().parents[2]
AT_THE_TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = [*AT_THE_TOP, *(page.relative_to(ROOT).as_posix() for page in sorted((ROOT / "docs").rglob("*.md")))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# --- Reading pages

FENCE = re.compile(
    r"^(?:<!-- (?P<kind>from|file): (?P<what>\S+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the comment before it."""

    place: str
    language: str
    text: str
    kind: str | None
    what: str | None


@cache
def read(page: str) -> str:
    return (ROOT / page).read_text()


def prose(page: str) -> str:
    return FENCE.sub("", read(page))


BLOCKS = [
    Block(
        f"{page}:{read(page)[: found.start('text')].count(chr(10)) + 1}",
        *found.group("language", "text", "kind", "what"),
    )
    for page in PAGES
    for found in FENCE.finditer(read(page))
]


def blocks(which: Callable[[Block], bool]) -> Any:
    """Parametrize a test with some of the blocks."""
    return pytest.mark.parametrize("block", filter(which, BLOCKS), ids=lambda block: block.place)


def each(*languages: str) -> Any:
    return blocks(lambda block: block.language in languages)


# --- Links


@pytest.mark.parametrize("target", [target for target in LINK.findall(prose("README.md")) if "://" not in target])
def test_a_link_of_the_readme_leads_somewhere(target: str) -> None:
    """Those of other pages are checked by mkdocs."""
    assert (ROOT / target.partition("#")[0]).is_file()


# --- Code


def names_imported(text: str) -> list[tuple[str, str]]:
    nodes = list(ast.walk(ast.parse(text)))
    found = [(alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    found += [(str(n.module), alias.name) for n in nodes if isinstance(n, ast.ImportFrom) for alias in n.names]
    return [(module, name) for module, name in found if module.partition(".")[0] in ("airflow", "airflow_provider_kie")]


@each("python")
def test_python_compiles_and_finds_its_imports(block: Block) -> None:
    compile(block.text, block.place, "exec")
    for module, name in names_imported(block.text):
        # What an older Airflow does not have says so itself.
        with suppress(AirflowOptionalProviderFeatureException):
            assert not name or hasattr(import_module(module), name), f"{module} has no {name}"


@blocks(lambda block: block.kind == "from")
def test_an_example_is_what_the_file_says(block: Block) -> None:
    path, _, region = str(block.what).partition("#")
    (found,) = re.findall(
        rf"^ *# \[START {region}\]\n(.*?)^ *# \[END {region}\]$", read(path), re.MULTILINE | re.DOTALL
    )
    assert block.text == textwrap.dedent(found).strip("\n") + "\n"


PARSERS = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}


@each(*PARSERS)
def test_data_parses(block: Block) -> None:
    PARSERS[block.language](block.text)


@each("diff")
def test_a_diff_fits_the_files(block: Block) -> None:
    changes = re.findall(r"^\+\+\+ b/(\S+)\n(.*?)(?=^--- |\Z)", block.text, re.MULTILINE | re.DOTALL)
    assert changes
    for path, hunks in changes:
        around = {line[1:] for line in hunks.splitlines() if line.startswith(" ")}
        assert around - set(read(path).splitlines()) == set(), f"{block.place}: {path} has changed"


def test_every_block_is_checked() -> None:
    assert sum(len(re.findall(r"^ *```", read(page), re.MULTILINE)) for page in PAGES) == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS} <= {"python", *PARSERS, "console", "diff", "text"}


# --- Commands


def targets() -> set[str]:
    rules = re.findall(r"^([a-z][a-z0-9 -]*):(?!=)", read("Makefile"), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


def python(words: list[str]) -> None:
    """A program is there; its options are described in it, those of the package in a module beside it."""
    path = words[1].replace(".", "/") if words[0] == "-m" else words[0].removesuffix(".py")
    files = [name for name in (f"{path}.py", f"{path}/__main__.py") if (ROOT / name).is_file()]
    assert files or find_spec(words[1]) or words[1] in TOOLS
    if files:
        described = "".join(map(read, [*files, "airflow_provider_kie/cli.py"]))
        assert options(words) <= set(re.findall(r"--[\w-]+", described))


def options(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def airflow_(words: list[str]) -> None:
    known: Any = [*airflow.cli.cli_config.core_commands, *get_commands()]
    command = None
    for word in words:
        found = [one for one in known if one.name == word]
        if not found:
            break
        command, known = found[0], getattr(found[0], "subcommands", ())
    assert command, f"airflow has no {words[0]!r}"
    assert not known, f"airflow {command.name} has no {words}"
    assert options(words) <= {flag for argument in command.args for flag in argument.flags}


def check(name: str, words: list[str]) -> None:
    match name:
        case "make":
            assert {word for word in words if "=" not in word} <= targets()
        case "pip":
            extras = re.findall(r"\[([\w,-]+)\]", " ".join(words))
            assert {extra for each in extras for extra in each.split(",")} <= set(PROJECT["optional-dependencies"])
        case "kie-emulator" | "kie-callbacks":
            parser = emulator_parser() if name == "kie-emulator" else callbacks_parser()
            assert options(words) <= set(parser._option_string_actions)
        case "python":
            python(words)
        case "airflow":
            airflow_(words)
        case _:
            assert name in OTHERS | TOOLS, f"is {name!r} a command?"


#: What the Makefile installs for single commands, such as build and twine.
TOOLS = set(re.findall(r"'(\w+)>=", read("Makefile")))
OTHERS = {"cd", "curl", "export", "git", "pre-commit", "ruff"}
#: Lines of a console, lines that begin with a prompt, and what is said of make in the text.
COMMANDS = [
    *(
        (block.place, line.removeprefix("$ ").partition("  #")[0].strip())
        for block in BLOCKS
        for line in block.text.splitlines()
        if line.startswith("$ ") or (block.language == "console" and line.strip() and not line.startswith("#"))
    ),
    *((page, found) for page in PAGES for found in re.findall(r"`(make [a-z][^`\n]*)`", prose(page))),
]


@pytest.mark.parametrize(("place", "line"), COMMANDS)
def test_a_command_exists(place: str, line: str) -> None:
    name, *words = shlex.split(line)
    check(name.removeprefix(".venv/bin/"), words)


# --- Nothing is left out


def code(names: Iterable[str]) -> set[str]:
    return {f"`{name}`" for name in names}


def section(page: str, heading: str) -> str:
    return read(page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def parameters(of: Any) -> set[str]:
    return code(set(inspect.signature(of.__init__).parameters) - {"self", "kwargs"})


PUBLIC = [
    *(f"airflow_provider_kie.{room}.wav" for room in ("api", "operators", "sensors", "triggers")),
    *(f"airflow_provider_kie.{name}" for name in ("connection", "emulator", "exceptions", "hooks.kie", "links.kie")),
    *(f"airflow_provider_kie.transfers.{name}" for name in ("wav_to_object_storage", "job_to_object_storage")),
    *(
        f"airflow_provider_kie.{name}"
        for name in ("transfers.object_storage_to_kie", "api.upload", "testing", "ledger.report")
    ),
]
OPERATORS = (
    *(ConvertToWavOperator, WavUrlOperator, WavConversionSensor, WavToObjectStorageOperator),
    *(KieJobOperator, KieJobSensor, MusicTracksOperator, KieBatchOperator),
    *(KieJobToObjectStorageOperator, ObjectStorageToKieOperator),
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (read("docs/connection.md"), code(extra.name for extra in EXTRA_FIELDS)),
        (read("docs/connection.md"), {f"| {extra.label} |" for extra in EXTRA_FIELDS}),
        (
            read("docs/errors.md"),
            {f"| `{name}` |" for name in exceptions.__all__ if name[:3] == "Kie"} - {"| `KieError` |"},
        ),
        (section("docs/emulator.md", "Settings"), code(field.name for field in fields(Settings))),
        (section("docs/operators.md", "The conversion"), code(WavConversion.__annotations__)),
        *((section("docs/operators.md", of.__name__), parameters(of)) for of in OPERATORS),
        (read("docs/compatibility.md"), {f"{name.removeprefix('airflow_provider_kie')}`" for name in PUBLIC}),
    ],
    ids=["fields", "form", "errors", "settings", "conversion", *(of.__name__ for of in OPERATORS), "modules"],
)
def test_a_page_names_all_that_it_is_about(text: str, names: set[str]) -> None:
    assert names
    assert {name for name in names if name not in text} == set()


@pytest.mark.parametrize("module", PUBLIC)
def test_the_pages_mention_every_public_class(module: str) -> None:
    found = import_module(module)
    classes = {name for name in found.__all__ if inspect.isclass(getattr(found, name))}
    text = "".join(read(page) for page in PAGES)
    assert {name for name in classes if f"`{name}`" not in text} == set()


@each("python")
def test_an_answer_that_is_played_exists(block: Block) -> None:
    calls = [node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Call)]
    played = [call.args for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "play"]
    assert {ast.literal_eval(name) for names in played for name in names} <= set(ANSWERS)


def test_the_table_of_answers_is_true() -> None:
    rows = re.findall(r"^\| (`.+?) \|", section("docs/emulator.md", "Answers by name"), re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert names
    assert names <= {*ANSWERS, *CASES, *SINGLES}


def test_the_table_of_models_agrees_with_the_examples() -> None:
    known = dict(re.findall(r"^\| `([^`]+)` \| .* \| (.+) \|$", read("docs/models.md"), re.MULTILINE))
    examples = re.findall(r'\bmodel="([^"]+)"', read("example_dags/example_kie_image_to_video.py"))
    assert examples
    assert {model for model in examples if not known[model].startswith("**works**")} == set()
    assert {model for model in known if PAUSED.fullmatch(model)} == {
        model for model, text in known.items() if text.startswith("**paused**")
    }
