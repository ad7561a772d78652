# SPDX-License-Identifier: Apache-2.0
"""What an editor and a linter see: names in ``__all__``, docstrings with ``:param:``, and types that say something."""

from __future__ import annotations

import ast
import re
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
NO_LIST = {"get_provider_info.py", "cli.py", "__main__.py", "emulator/__main__.py"}
#: Where nobody knows the type, or where nobody passes the argument.
EXCEPTIONS = {
    ("hooks/pacing.py", "retrying", "call"),  # a call with any result
    ("hooks/kie.py", "KieHook.request", "return"),  # JSON, whose form only the caller knows
    ("testing.py", "kie_emulator", "monkeypatch"),  # pytest's
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Public:
    """A public class, function or method: its docstring, and its parameters with their types."""

    file: str
    name: str
    doc: str
    types: dict[str, str]

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"


def signature(node: Function | None) -> dict[str, ast.expr | None]:
    if node is None:
        return {}
    of = node.args
    types = {each.arg: each.annotation for each in (*of.posonlyargs, *of.args, *of.kwonlyargs)}
    return {name: type_ for name, type_ in types.items() if name not in ("self", "cls")} | {"return": node.returns}


def attributes(node: ast.ClassDef) -> dict[str, ast.expr | None]:
    """Return the fields of a dataclass or a NamedTuple, which are the parameters of its ``__init__``."""
    if not any(
        kind in ast.unparse(each)
        for each in (*node.decorator_list, *node.bases)
        for kind in ("dataclass", "NamedTuple")
    ):
        return {}
    fields_ = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    return {each.target.id: each.annotation for each in fields_}


def publics(file: str, tree: ast.Module) -> list[Public]:
    found: list[Public] = []

    def add(name: str, node: Function | ast.ClassDef, types: dict[str, ast.expr | None]) -> None:
        shown = {key: ast.unparse(type_) if type_ else "Any" for key, type_ in types.items()}
        found.append(Public(file, name, ast.get_docstring(node) or "", shown))

    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if isinstance(node, Function):
                add(node.name, node, signature(node))
                continue
            methods = {each.name: each for each in node.body if isinstance(each, Function)}
            # The parameters of __init__ are described by the class.
            add(node.name, node, attributes(node) | signature(methods.pop("__init__", None)))
            for name, method in methods.items():
                if not name.startswith("_"):
                    add(f"{node.name}.{name}", method, signature(method))
    return found


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
    asked = {name for name in public.types if name != "return" and (public.file, public.name, name) not in EXCEPTIONS}
    assert asked <= set(re.findall(r"^\s*:param (\w+):", public.doc, re.MULTILINE))


@pytest.mark.parametrize("public", EXPLAINED, ids=str)
def test_a_type_says_something(public: Public) -> None:
    """Any is for the values of a dict: JSON, or arguments of somebody else's function."""
    known = {name: re.sub(r"\b(dict|Mapping)\[str, Any\]", "dict", type_) for name, type_ in public.types.items()}
    vague = {(public.file, public.name, name) for name, type_ in known.items() if re.search(r"\bAny\b", type_)}
    assert vague - EXCEPTIONS == set()


def test_the_emulators_arguments_are_its_settings() -> None:
    types = get_type_hints(Settings)
    assert get_type_hints(SettingsArguments) == {field.name: types[field.name] for field in fields(Settings)}
