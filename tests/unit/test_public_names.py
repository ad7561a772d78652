# SPDX-License-Identifier: Apache-2.0
"""What an editor and a linter see: names in ``__all__``, and docstrings with ``:param:``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest

import airflow_provider_kie
from airflow_provider_kie.emulator.state import Settings, SettingsArguments

PACKAGE = Path(airflow_provider_kie.__file__).parent
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

#: Airflow and Python find these under paths of their own; nobody imports names from them.
NO_LIST = {"get_provider_info.py", "cli.py", "__main__.py", "callbacks/__main__.py", "emulator/__main__.py"}
#: What nobody passes: pytest's.
NOT_PASSED = {"monkeypatch"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Public:
    """A public class, function or method: its docstring, and its parameters."""

    file: str
    name: str
    doc: str
    parameters: set[str]

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"


def parameters(node: Function) -> set[str]:
    of = node.args
    return {each.arg for each in (*of.posonlyargs, *of.args, *of.kwonlyargs)} - {"self", "cls"}


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the fields of a dataclass or a NamedTuple, which are the parameters of its ``__init__``."""
    kinds = " ".join(ast.unparse(each) for each in (*node.decorator_list, *node.bases))
    if not re.search("dataclass|NamedTuple", kinds):
        return set()
    return {
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


def publics(file: str, tree: ast.Module) -> Iterator[Public]:
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if isinstance(node, Function):
            yield Public(file, node.name, ast.get_docstring(node) or "", parameters(node))
            continue
        methods = {each.name: each for each in node.body if isinstance(each, Function)}
        # The parameters of __init__ are described by the class.
        own = attributes(node) | (parameters(methods["__init__"]) if "__init__" in methods else set())
        yield Public(file, node.name, ast.get_docstring(node) or "", own)
        for name, method in methods.items():
            if not name.startswith("_"):
                yield Public(file, f"{node.name}.{name}", ast.get_docstring(method) or "", parameters(method))


ALL = [each for file, tree in TREES.items() for each in publics(file, tree)]
#: The names that docs/compatibility.md promises; the docstrings of others say only what the names do not.
PAGE = (PACKAGE.parent / "docs" / "compatibility.md").read_text()
PROMISED = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| `airflow_provider_kie\..*", PAGE, re.MULTILINE))))


def is_promised(public: Public) -> bool:
    owner = public.name.partition(".")[0]
    return owner in PROMISED or (public.file.startswith("exceptions") and owner.endswith("Error"))


EXPLAINED = [each for each in ALL if is_promised(each)]


@pytest.mark.parametrize("file", sorted({each.file for each in ALL} - NO_LIST))
def test_a_module_lists_its_public_names(file: str) -> None:
    (text,) = re.findall(r"^__all__ = (\[.*?\])$", (PACKAGE / file).read_text(), re.MULTILINE | re.DOTALL)
    listed = ast.literal_eval(text)
    assert {each.name for each in ALL if each.file == file and "." not in each.name} <= set(listed)
    if file != "retry_policy.py":  # which only Airflow 3.3 can import
        module = import_module(f"airflow_provider_kie.{file[:-3].replace('/', '.').removesuffix('.__init__')}")
        assert [name for name in listed if not hasattr(module, name)] == []


@pytest.mark.parametrize("public", EXPLAINED, ids=str)
def test_a_public_name_is_explained(public: Public) -> None:
    assert public.doc
    assert public.parameters - NOT_PASSED <= set(re.findall(r"^\s*:param (\w+):", public.doc, re.MULTILINE))


def test_the_emulators_arguments_are_its_settings() -> None:
    types = get_type_hints(Settings)
    assert get_type_hints(SettingsArguments) == {field.name: types[field.name] for field in fields(Settings)}
