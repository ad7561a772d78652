# SPDX-License-Identifier: Apache-2.0
"""
What mkdocs is told besides mkdocs.yml: files outside of docs/ that its pages link to become pages of the site.

On a code host ``../CHANGELOG.md`` and ``../example_dags/….py`` lead to the file itself. A site holds only docs/, so
here such a file is added to it, a program as a block of code, and the links are bent to it. Only the README is not:
its place is taken by docs/index.md.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTWARD = re.compile(r"(?<=\]\()\.\./(?P<path>[\w./-]+)(?P<anchor>#[\w-]+)?")
README = "README.md"
#: What lies outside and has a place in the navigation.
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
#: What would be fetched from elsewhere while a page is shown.
FETCHED = re.compile(
    r"""<(?:script|img|iframe)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b[^>]*\bhref=["']?(?:https?:)?//"""
)


def _uri(path: str) -> str:
    """Return where a file outside of docs/ is in the site."""
    return path if path.endswith(".md") else f"source/{path}.md"


def _may_link_outward(file: Any) -> bool:
    """Tell whether ``../`` leads out of docs/; from docs/evidence/ it does not."""
    return "/" not in file.src_uri


def _content(path: str) -> str:
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return text.replace("](docs/", "](")
    name = PurePosixPath(path)
    return f"# {name.name}\n\n`{name}`\n\n````{LANGUAGES.get(name.suffix, 'text')}\n{text}````\n"


def on_files(files: Any, config: Any) -> Any:
    """
    Add what the pages link to.

    :param files: mkdocs' files.
    :param config: mkdocs' configuration.
    """
    pages = [page.content_string for page in files.documentation_pages() if _may_link_outward(page)]
    linked = {found["path"] for page in pages for found in OUTWARD.finditer(page)}
    for path in sorted(linked - {README} | set(PAGES)):
        files.append(File.generated(config, _uri(path), content=_content(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """
    Bend the links that lead out of docs/.

    :param markdown: a page.
    :param page: mkdocs' page.
    """

    def bent(link: re.Match[str]) -> str:
        return "index.md" if link["path"] == README else _uri(link["path"]) + (link["anchor"] or "")

    return OUTWARD.sub(bent, markdown) if _may_link_outward(page.file) else markdown


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """
    Refuse a page that fetches anything from elsewhere.

    :param output: the page as HTML.
    :param page: mkdocs' page.
    """
    if found := FETCHED.search(output):
        raise ValueError(f"{page.file.src_uri} fetches from elsewhere: {output[found.start() :][:200]}")
    return output
