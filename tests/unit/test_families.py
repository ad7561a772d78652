# SPDX-License-Identifier: Apache-2.0
"""A family is a row: nothing but its row and its faces knows its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_kie
from airflow_provider_kie.api.families import FAMILIES, _suno, find_family, tag_of
from airflow_provider_kie.api.family import Means, Words
from airflow_provider_kie.exceptions import KieValidationError

ROOT = Path(airflow_provider_kie.__file__).parent
ROWS = "api/families.py"
#: What the family of WAV conversions has besides its row, for DAGs that were written before there were others.
FACES = {
    "api/wav.py",
    "cli.py",
    "connection.py",
    "hooks/kie.py",
    "operators/wav.py",
    "sensors/wav.py",
    "transfers/wav_to_object_storage.py",
    "triggers/wav.py",
}
#: Where the same word is an extension, or the name of a column.
OTHER_WORDS = {"media.py", "ledger/report.py"}
BESIDE = "emulator/"
MODULES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}


def docstrings(tree: ast.Module) -> Iterator[ast.expr]:
    """Give the texts that are statements: docstrings, and what stands below a constant to explain it."""
    return (
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def texts(source: str) -> list[str]:
    """Return all string literals of a module, the parts of f-strings included, without the docstrings."""
    tree = ast.parse(source)
    ignored = {id(node) for node in docstrings(tree)}
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in ignored)
    return [node.value for node in found if isinstance(node.value, str)]


def names_in(module: str) -> list[str]:
    return [text for text in texts(MODULES[module].read_text(encoding="utf-8")) if text in FAMILIES]


@pytest.mark.parametrize("module", [name for name in MODULES if name not in {ROWS, *FACES, *OTHER_WORDS}])
def test_no_other_module_mentions_a_family_by_its_name(module):
    if not module.startswith(BESIDE):
        assert names_in(module) == []


def test_a_name_stands_in_its_row_and_only_once():
    assert sorted(names_in(ROWS)) == sorted(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_found_by_its_name_and_by_its_tag(name):
    row = FAMILIES[name]
    assert row.name == name
    assert find_family(name) is find_family(row.tag) is row
    assert tag_of(name) == row.tag


@pytest.mark.parametrize("name", ["WAV", "", "holograms", "https://kie.ai/wav?key=secret"])
def test_what_is_no_family_is_refused_with_those_that_are(name):
    with pytest.raises(KieValidationError, match=r"must be one of .*\bwav\b") as caught:
        find_family(name)
    assert "secret" not in str(caught.value)
    assert tag_of(name) == name


def test_the_page_lists_every_family():
    page = (Path(__file__).resolve().parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines() if "| `/api" in line]
    ends = {True: "refused (409)", False: "is charged"}
    assert [(name, path, again) for name, path, _, again in rows] == [
        (row.name, row.submit, ends[row.guarded]) for row in FAMILIES.values()
    ]


def test_the_words_of_a_row_are_what_it_names():
    """Built here, because the rows themselves are built before any test."""
    words = _suno("GENERATE_AUDIO_FAILED")
    meanings = {word: words.meaning(words.spelled(word)) for word in ("pending", "Success", "callback_exception", "?")}
    assert list(meanings.values()) == [Means.RUNNING, Means.DONE, Means.DONE_IF_RESULT, None]
    assert words.spelled("create_task_failed") == "CREATE_TASK_FAILED"
    assert words.spelled("generate_audio_failed") == "GENERATE_AUDIO_FAILED"
    assert words.meaning("CREATE_TASK_FAILED") is words.meaning("GENERATE_AUDIO_FAILED") is Means.FAILED
    assert words.spelled("Success-Success") == "SUCCESS"
    assert words.is_unlisted_number("7")


def test_numbers_stand_for_the_first_word_where_there_are_only_words():
    words = Words(running=("WAIT", "QUEUED", 0), done=("DONE", 1), failed=("FAILED",), only_words=True)
    assert [words.spelled(given) for given in (0, "1", "queued", 7)] == ["WAIT", "DONE", "QUEUED", "7"]
    assert not words.is_unlisted_number("7")


def test_all_words_may_be_spelled_as_the_first_of_their_meaning():
    words = Words(running=("WAIT", "queued", 0), done=("DONE",), failed=("FAILED", "fail"), spelled_as_first=True)
    spelled = {"Queued": "WAIT", 0: "WAIT", "done": "DONE", "FAIL": "FAILED", "?": "?"}
    assert {given: words.spelled(given) for given in spelled} == spelled
    assert words.is_unlisted_number("7")


def test_a_wrong_family_is_named():
    with pytest.raises(KieValidationError, match="family is 'holograms', but must be one of"):
        find_family("holograms")
