# SPDX-License-Identifier: Apache-2.0
"""The template of a destination, which gives each file of a job a place of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from string import Formatter
from typing import TypeAlias

from airflow_provider_kie.api.job import KieFile
from airflow_provider_kie.exceptions import KieValidationError
from airflow_provider_kie.object_paths import url_of
from airflow_provider_kie.redaction import quoted

__all__ = ["DestinationTemplate"]

_Parts: TypeAlias = "list[tuple[str, str | None, str]]"
_Values: TypeAlias = "dict[str, str | int]"

#: The fields, each with a value to try it with.
_FIELDS: _Values = {"kie_task_id": "a", "name": "a", "index": 0, "ext": "a"}


class DestinationTemplate:
    """
    A destination with the fields ``{kie_task_id}``, ``{name}``, ``{index}`` and ``{ext}``, all optional.

    :param destination: a URL or a path. ``{index:02}`` pads a number; ``{{`` and ``}}`` stand for braces.
    :param kie_task_id: the job.
    :raises KieValidationError: it has another field.
    """

    def __init__(self, destination: object, kie_task_id: str) -> None:
        self.text = url_of("destination", destination)
        self._parts = _parse("destination", self.text, _FIELDS)
        self._kie_task_id = kie_task_id

    @property
    def has_extension(self) -> bool:
        """Whether the place of a file depends on what it is."""
        return any(name == "ext" for _, name, _ in self._parts)

    def check(self, files: Iterable[KieFile]) -> None:
        """
        Check that each file gets a place of its own.

        :raises KieValidationError: two files would get the same, whatever they are.
        """
        places = Counter(map(self.url, files))
        if same := [url for url, count in places.items() if count > 1]:
            raise KieValidationError(
                f"destination {quoted(self.text)} gives {places[same[0]]} files of the job the same place; "
                "tell them apart by {name} and {index}"
            )

    def url(self, file: KieFile, extension: str = "") -> str:
        """Return where a file goes."""
        values: _Values = {
            "kie_task_id": self._kie_task_id,
            "name": file["name"],
            "index": file["index"],
            "ext": extension,
        }
        return "".join(_filled(self._parts, values))

    def beside(self, name: str, field: str = "result_name") -> str:
        """
        Return where a file goes that belongs to all files: the last folder that they have in common.

        :param name: the file's name; its only field is ``{kie_task_id}``.
        :param field: what the name is called in an error.
        :raises KieValidationError: it has another field, or is a path.
        """
        own = "".join(_filled(_parse(field, name, {"kie_task_id": "a"}), {"kie_task_id": self._kie_task_id}))
        if "/" in own:
            raise KieValidationError(f"{field} {quoted(name)} must be a name, without a folder")
        common = ""
        for literal, each, spec in self._parts:
            common += literal
            if each not in (None, "kie_task_id"):
                break
            common += format(self._kie_task_id, spec) if each else ""
        return common[: common.rfind("/") + 1] + own


def _parse(field: str, text: str, values: _Values) -> _Parts:
    """Return the literal texts, each with the field after it; all fields are tried with the values."""
    try:
        parsed = list(Formatter().parse(text))
        parts: _Parts = [(literal, name, spec or "") for literal, name, spec, _ in parsed]
        if any(conversion for *_, conversion in parsed):
            raise ValueError("a conversion such as !r is not supported")
        list(_filled(parts, values))
    except (ValueError, KeyError) as error:
        fields = ", ".join(f"{{{name}}}" for name in values)
        raise KieValidationError(
            f"{field} {quoted(text)} cannot be filled in ({error}); its fields: {fields}"
        ) from None
    return parts


def _filled(parts: _Parts, values: _Values) -> Iterator[str]:
    for literal, name, spec in parts:
        yield literal + (format(values[name], spec) if name is not None else "")
