# SPDX-License-Identifier: Apache-2.0
"""
KIE's callbacks: which job one names, and whether its signature holds.

Delivery and payloads are described by "Convert to WAV Callbacks" and its like for each family, the signature by
"Webhook Verification" (pages of 2026-04-29 and page copies up to 2026-09-24). Nobody has a recording of a callback. So
nothing is taken from one but the id of the job and hints where to look for it; the record decides the rest.

The rules that live here and nowhere else:

* the id is at ``data.task_id``, ``data.taskId`` or the top-level ``taskId``, and the one that is signed counts;
* the keys in the body tell the likeliest family; the families that are read at one path are one;
* the stages ``text`` and ``first`` of a song, and the running states of the Market, are no news.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from typing import Final, NamedTuple, NoReturn

from airflow_provider_kie.api import fields
from airflow_provider_kie.api.envelope import Json
from airflow_provider_kie.api.families import FAMILIES

__all__ = ["LARGEST_BODY", "WINDOW", "Callback", "CallbackRefusedError", "parse", "signature_is_valid"]

#: Bytes of a body. The largest that the pages show, a song with its lyrics, has 4 KiB.
LARGEST_BODY: Final = 64 * 1024
#: Seconds by which the time of a signature may differ from ours. KIE names no window; without one a captured signature
#: would be valid for ever.
WINDOW: Final = 300
#: More levels than any payload of KIE's has.
_DEEPEST: Final = 32

_TIMESTAMP: Final = re.compile("[0-9]{1,11}")
#: The stages that precede the end of a job, by the key that tells them.
_INTERIM: Final = {
    "callbacktype": {"text", "first"},
    "state": {"waiting", "queuing", "queueing", "generating", "wait"},
}
#: What only the callback about a voice has, which is no job of a family.
_VOICE: Final = frozenset({"voiceid", "validateinfo"})
#: The first family of each path at which jobs are read.
_BY_PATH: Final = tuple({FAMILIES[name].query: FAMILIES[name] for name in reversed(tuple(FAMILIES))}.values())[::-1]


class CallbackRefusedError(Exception):
    """A body that is no callback; the message says why, and quotes nothing of it."""


class Callback(NamedTuple):
    """
    What a callback says.

    :param kie_task_ids: the ids in it, the likeliest first; at least one.
    :param families: where to look for the job, the likeliest first; empty if what it is about is no job of a family,
        such as a voice.
    :param is_end: False for a stage before the end, after which another callback comes.
    """

    kie_task_ids: tuple[str, ...]
    families: tuple[str, ...]
    is_end: bool = True


def parse(family: str | None, body: bytes) -> Callback:
    """
    Read a callback.

    :param family: the family, if it is known otherwise, such as from the URL.
    :param body: the body as it came.
    :raises CallbackRefusedError: it is none: too large, no JSON object, without an id.
    """
    whole = _object(body)
    data = whole.get("data")
    data = data if isinstance(data, dict) else {}
    found = (data.get("task_id"), data.get("taskId"), whole.get("taskId"), whole.get("task_id"))
    ids = tuple(dict.fromkeys(text for each in found if (text := _id(each))))
    if not ids:
        raise CallbackRefusedError("it names no job")
    known = _flat(data)
    is_end = not any(_word(known.get(key)) in words for key, words in _INTERIM.items())
    return Callback(ids, (family,) if family else _families(known), is_end)


def signature_is_valid(
    keys: Iterable[str], kie_task_id: str, timestamp: str | None, signature: str | None, now: float
) -> bool:
    """
    Return whether a callback about a job was signed with one of the keys, and not too long ago.

    Takes the same time wherever a wrong signature differs.

    :param keys: the connection's ``webhook_hmac_key``; two while it is changed.
    :param timestamp: the header ``X-Webhook-Timestamp``: whole seconds since the epoch.
    :param signature: the header ``X-Webhook-Signature``: HMAC-SHA256 of ``taskId.timestamp`` in Base64.
    :param now: seconds since the epoch.
    """
    if not signature or not timestamp or not _TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > WINDOW:
        return False
    given = signature.encode("utf-8", "replace")
    message = f"{kie_task_id}.{timestamp}".encode()
    expected = [base64.b64encode(hmac.new(key.encode(), message, hashlib.sha256).digest()) for key in keys]
    return any(hmac.compare_digest(each, given) for each in expected)


def _object(body: bytes) -> dict[str, Json]:
    if len(body) > LARGEST_BODY:
        raise CallbackRefusedError(f"it has more than {LARGEST_BODY // 1024} KiB")
    try:
        whole = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise CallbackRefusedError("it is not JSON") from None
    if not isinstance(whole, dict):
        raise CallbackRefusedError("it is not a JSON object")
    if _depth(whole) > _DEEPEST:
        raise CallbackRefusedError(f"it has more than {_DEEPEST} levels")
    return whole


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _depth(value: Json) -> int:
    """Return how deep a value is, at most one more than is allowed."""
    level, depth = [value], 0
    while level and depth <= _DEEPEST:
        depth += 1
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = [each for group in inner for each in group]
    return depth


def _id(value: Json) -> str | None:
    given = str(value) if type(value) is int else value
    return given if isinstance(given, str) and fields.is_id(given) else None


def _flat(data: dict[str, Json]) -> dict[str, Json]:
    """Return the fields of ``data``, of ``info`` and of ``response`` within, by names without case and underscores."""
    found: dict[str, Json] = {}
    for each in (data.get("response"), data.get("info"), data):
        if isinstance(each, dict):
            found |= {_plain(name): value for name, value in each.items()}
    return found


def _plain(name: str) -> str:
    """Return a key without case and underscores, because the pages spell the same keys in several ways."""
    return name.replace("_", "").lower()


def _word(value: Json) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _families(known: dict[str, Json]) -> tuple[str, ...]:
    """Return the families by how many keys of their callbacks are there; all of them, because the keys are a guess."""
    if _VOICE & known.keys():
        return ()
    ranked = sorted(_BY_PATH, key=lambda row: -sum(_plain(key) in known for key in row.callback_keys))
    return tuple(row.name for row in ranked)
