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
import unicodedata
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
from airflow_provider_kie.connection import EXTRA_FIELDS
from airflow_provider_kie.emulator import ANSWERS
from airflow_provider_kie.emulator.__main__ import _parser
from airflow_provider_kie.emulator.cases import CASES, SINGLES
from airflow_provider_kie.emulator.results import PAUSED
from airflow_provider_kie.emulator.state import Settings
from airflow_provider_kie.operators.wav import ConvertToWavOperator, WavUrlOperator
from airflow_provider_kie.sensors.wav import WavConversionSensor
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
INLINE_CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (?P<text>.+)$", re.MULTILINE)


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
    """Parametrize a test with the blocks of these languages."""
    return blocks(lambda block: block.language in languages)


# --- Links and anchors


def github_anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def mkdocs_anchor(heading: str) -> str:
    """Return what Python-Markdown makes of it (``markdown.extensions.toc.slugify``)."""
    text = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def anchors(page: str) -> set[str]:
    """Return the anchors of a page that are the same on a code host and in the site."""
    headings = [found["text"].replace("`", "").strip() for found in HEADING.finditer(prose(page))]
    github, mkdocs = ([make(heading) for heading in headings] for make in (github_anchor, mkdocs_anchor))
    return {a for a, b in zip(github, mkdocs, strict=True) if a == b and github.count(a) == mkdocs.count(a) == 1}


LINKS = [
    (page, found["target"])
    for page in PAGES
    for found in LINK.finditer(INLINE_CODE.sub("", prose(page)))
    if not found["target"].startswith(("https://", "http://"))
]


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_a_link_leads_somewhere(page: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    where = (ROOT / page).parent / path if path else ROOT / page
    assert where.is_file(), f"{page} links to {target}"
    assert where.resolve().is_relative_to(ROOT)
    if anchor:
        assert anchor in anchors(where.resolve().relative_to(ROOT).as_posix())


def test_every_page_has_a_place_in_the_site() -> None:
    nav = re.findall(r"^ +- .+: (\S+\.md)$", read("mkdocs.yml").partition("\nnav:\n")[2], re.MULTILINE)
    in_site = {page if page in AT_THE_TOP else f"docs/{page}" for page in nav}
    assert in_site == set(PAGES) - {"README.md"}  # the front door of the repository; the site has docs/index.md


# --- Code


def names_imported(text: str) -> list[tuple[str, str]]:
    """Return what a program imports from this package and from Airflow, as module and name."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(str(node.module), alias.name) for alias in node.names]
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


def test_every_block_is_looked_at() -> None:
    assert sum(len(re.findall(r"^ *```", read(page), re.MULTILINE)) for page in PAGES) == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS} <= {"python", *PARSERS, "console", "diff", "text"}


# --- Commands


def targets() -> set[str]:
    rules = re.findall(r"^([a-z][a-z0-9 -]*):(?!=)", read("Makefile"), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


def tools() -> set[str]:
    """Return what the Makefile installs for single commands, such as build and twine."""
    return set(re.findall(r"'(\w+)>=", read("Makefile")))


def options(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def make(words: list[str]) -> None:
    wanted = {word for word in words if "=" not in word}
    assert wanted <= targets(), f"the Makefile has no {wanted - targets()}"


def pip(words: list[str]) -> None:
    assert words[0] == "install"
    for extras in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def emulator(words: list[str]) -> None:
    assert options(words) <= set(_parser()._option_string_actions)


def python(words: list[str]) -> None:
    """A program of this repository is there and speaks of these options; others are only looked for."""
    if words[0] != "-m":
        assert options(words) <= set(re.findall(r"--[\w-]+", read(words[0])))
        return
    path = words[1].replace(".", "/")
    files = [name for name in (f"{path}.py", f"{path}/__main__.py") if (ROOT / name).is_file()]
    assert files or find_spec(words[1]) or words[1] in tools()
    for name in files:
        # The command line of the package is described in a module beside it.
        source = read(name) + (read("airflow_provider_kie/cli.py") if words[1] == "airflow_provider_kie" else "")
        assert options(words) <= set(re.findall(r"--[\w-]+", source))


def airflow_(words: list[str]) -> None:
    known: Any = [*airflow.cli.cli_config.core_commands, *_commands_of_ours()]
    command = None
    for word in words:
        found = [one for one in known if one.name == word]
        if not found:
            break
        command, known = found[0], getattr(found[0], "subcommands", ())
    assert command, f"airflow has no {words[0]!r}"
    assert not known, f"airflow {command.name} has no {words}"
    assert options(words) <= {flag for argument in command.args for flag in argument.flags}


def _commands_of_ours() -> Any:
    return import_module("airflow_provider_kie.cli").get_commands() if find_spec("airflow_provider_kie.cli") else ()


CHECKS = {"make": make, "pip": pip, "kie-emulator": emulator, "python": python, "airflow": airflow_}
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
    words = shlex.split(line)
    name = words[0].removeprefix(".venv/bin/")
    if name in CHECKS:
        CHECKS[name](words[1:])
    else:
        assert name in OTHERS | tools(), f"{place}: is {name!r} a command?"


# --- Nothing is left out


def code(names: Iterable[str]) -> set[str]:
    return {f"`{name}`" for name in names}


def section(page: str, heading: str) -> str:
    return read(page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def parameters(of: Any) -> set[str]:
    return code(set(inspect.signature(of.__init__).parameters) - {"self", "kwargs"})


PUBLIC = [
    "airflow_provider_kie.api.wav",
    "airflow_provider_kie.connection",
    "airflow_provider_kie.emulator",
    "airflow_provider_kie.exceptions",
    "airflow_provider_kie.hooks.kie",
    "airflow_provider_kie.links.kie",
    "airflow_provider_kie.operators.wav",
    "airflow_provider_kie.sensors.wav",
    "airflow_provider_kie.testing",
    "airflow_provider_kie.transfers.wav_to_object_storage",
    "airflow_provider_kie.triggers.wav",
]
OPERATORS = (ConvertToWavOperator, WavUrlOperator, WavConversionSensor, WavToObjectStorageOperator)


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
def test_every_public_class_is_spoken_of(module: str) -> None:
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


def test_the_table_of_models_agrees_with_the_examples_and_the_emulator() -> None:
    known = dict(re.findall(r"^\| `([^`]+)` \| .* \| (.+) \|$", read("docs/models.md"), re.MULTILINE))
    examples = re.findall(r'\bmodel="([^"]+)"', read("example_dags/example_kie_image_to_video.py"))
    assert examples
    assert {model for model in examples if not known[model].startswith("**works**")} == set()
    assert {model for model in known if PAUSED.fullmatch(model)} == {
        model for model, text in known.items() if text.startswith("**paused**")
    }
