# SPDX-License-Identifier: Apache-2.0
"""
See whether CHANGELOG.md and ``__version__`` agree; with ``--release``, whether they may be released.

The newest section of CHANGELOG.md that says anything is

* a version with its day, ``## [0.2.0] - 2026-12-01``: it is ``__version__``, which is being released; or
* ``## [Unreleased]``: ``__version__`` is what these changes will be released as, so no section has its number yet.
"""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTION = re.compile(r"^## \[(.+?)\](?: - (\S+))?\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def check(changelog: str, version: str, *, release: bool) -> str:
    """Return what is wrong, if anything is."""
    sections = SECTION.findall(changelog)
    name, day, _ = next((section for section in sections if section[2].strip()), ("", "", ""))
    if name == "Unreleased":
        if release:
            return f"CHANGELOG.md still has entries below Unreleased; name that section [{version}] and give it its day"
        released = version in {section[0] for section in sections}
        return f"there are unreleased changes, but {version} is released already; raise __version__" if released else ""
    if name != version:
        return f"the newest section of CHANGELOG.md is {name!r}, __version__ is {version}"
    try:
        date.fromisoformat(day)
    except ValueError:
        return f"section [{name}] of CHANGELOG.md has no day of the form 2026-12-01"
    return ""


if __name__ == "__main__":
    source = (ROOT / "airflow_provider_kie" / "__init__.py").read_text(encoding="utf-8")
    (number,) = re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    sys.exit(check((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), number, release="--release" in sys.argv) or 0)
