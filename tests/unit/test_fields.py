# SPDX-License-Identifier: Apache-2.0
"""Single values of a record: the paths that lead to them, and what is made of each."""

from __future__ import annotations

import json
import math
from collections import UserDict, UserList

import pytest

from airflow_provider_kie.api.fields import dig, error_code, first, number, plain, storable
from tests.tables import each

ONE = {"url": "a"}
TWO = {"url": "b"}

#: A record, a path, and all that the path leads to.
PATHS = {
    "a key": ({"state": "wait"}, "state", ["wait"]),
    "a number": ({"flag": 0}, "flag", [0]),
    "no such key": ({"state": "wait"}, "flag", []),
    "a key in an object": ({"response": {"url": "a"}}, "response.url", ["a"]),
    "letter case and underscores": ({"Response": {"audio_wav_url": "a"}}, "response.audioWavUrl", ["a"]),
    "both spellings": ({"audioUrl": "a", "audio_url": "b"}, "audioUrl", ["a", "b"]),
    "both spellings, one is empty": ({"audioUrl": "", "audio_url": "b"}, "audioUrl", ["b"]),
    "all of a list": ({"urls": ["a", "b"]}, "urls[]", ["a", "b"]),
    "a list as one thing": ({"urls": ["a", "b"]}, "urls", [["a", "b"]]),
    "through a list": ({"songs": [ONE, TWO]}, "songs[].url", ["a", "b"]),
    "through a list that is none": ({"songs": ONE}, "songs[].url", []),
    "through a list of other things": ({"songs": [ONE, "x", None, 5]}, "songs[].url", ["a"]),
    "not through a list without the brackets": ({"songs": [ONE, TWO]}, "songs.url", []),
    "through two lists": ({"songs": [{"urls": ["a"]}, {"urls": ["b", "c"]}]}, "songs[].urls[]", ["a", "b", "c"]),
    "nothing empty": ({"urls": ["", " ", None, [], {}, [""], {"x": None}, "a"]}, "urls[]", ["a"]),
    "an object in a text": ({"resultJson": '{"urls": ["a"]}'}, "resultJson.urls[]", ["a"]),
    "a list in a text": ({"urls": ' ["a", "b"]'}, "urls[]", ["a", "b"]),
    "texts in texts": ({"a": json.dumps({"b": json.dumps([{"c": "x"}])})}, "a.b[].c", ["x"]),
    "a text at the end": ({"resultJson": '{"words": 3}'}, "resultJson", [{"words": 3}]),
    "a text of nothing at the end": ({"resultJson": '{"urls": []}'}, "resultJson", []),
    "a text that is not JSON": ({"resultJson": "{no"}, "resultJson", ["{no"]),
    "a text that is not JSON on the way": ({"resultJson": "{no"}, "resultJson.urls[]", []),
    "a text that only begins like a list": ({"lyrics": "[Verse 1] la"}, "lyrics", ["[Verse 1] la"]),
    "a text that is nested too deeply": ({"a": "[" * 100_000}, "a", ["[" * 100_000]),
    "a text of digits stays one": ({"id": "17"}, "id", ["17"]),
    "several keys": ({"id": "a", "index": 0, "x": 1}, "{id,index}", [{"id": "a", "index": 0}]),
    "several keys, one is missing": ({"id": "a"}, "{id,index}", [{"id": "a", "index": None}]),
    "several keys, all are missing": ({"x": 1}, "{id,index}", []),
    "several keys in an object": ({"song": {"music_id": "a"}}, "song.{musicId}", [{"musicId": "a"}]),
    "several keys of each": ({"songs": [ONE, TWO]}, "songs[].{url}", [ONE, TWO]),
    "no object": (["a"], "url", []),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_leads_to(name):
    record, path, found = PATHS[name]
    assert dig(record, path) == found


@pytest.mark.parametrize(
    ("paths", "found"),
    [(("a",), 1), (("none", "b[]"), 2), (("b[]", "a"), 2), (("empty", "a"), 1), (("none",), None), ((), None)],
)
def test_the_first_thing_of_several_paths(paths, found):
    assert first({"a": 1, "b": [2, 3], "empty": " "}, *paths) == found


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        *(("a\0b\ud800c\udfff", "a b c "), ({"a\0": ["\0", {"b": "\udc00"}]}, {"a ": [" ", {"b": " "}]})),
        ([math.inf, -math.inf, math.nan, 1.5], [None, None, None, 1.5]),
        *((same, same) for same in ("größe\n\U0001f3b5", [None, True, 2**70, 0])),
    ],
)
def test_values_that_every_database_accepts(value, stored):
    assert storable(value) == stored
    json.dumps(storable(value), allow_nan=False).encode("ascii")


@pytest.mark.parametrize(
    ("value", "read"),
    each(
        *((5.0, [5]), (0.0, [0]), (0.25, [0.25, "0.25"]), (12.0, [" 12 "]), (-1.0, [-1])),
        (None, ["12 %", "", "inf", "nan", math.inf, 10**400, True, None, [5], {}]),
    ),
)
def test_a_number(value, read):
    assert number(value) == read


def test_what_behaves_like_a_dict_or_a_list_becomes_one():
    given = UserDict(a=UserList([(1, "b"), UserDict(c=b"d")]))
    assert json.dumps(plain(given["a"][0])) == '[1, "b"]'
    assert plain(given) == {"a": [[1, "b"], {"c": b"d"}]}
    assert type(plain(given)) is dict


@pytest.mark.parametrize("value", ["", " ", "\n", " 0 ", "200\n", "null", "None"])
def test_a_blank_code_reports_no_error(value):
    assert error_code(value) is None
