# SPDX-License-Identifier: Apache-2.0
"""What a message shows of arguments and of other texts from outside; ``redact`` also in ``test_exceptions.py``."""

from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path

import pytest

import airflow_provider_kie
from airflow_provider_kie.redaction import harmless, quoted, redact

SIGNED = "sig=canary"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("988e00aa", "'988e00aa'"),
        ("", "''"),
        ("a\nb\x00", r"'a\nb\x00'"),
        ("it's", '"it\'s"'),
        # The query and the fragment, whatever the text is.
        (f"https://a.example/x?{SIGNED}", "'https://a.example/x…'"),
        (f"https://a.example/x#{SIGNED}", "'https://a.example/x…'"),
        (f"https://a.example/my song.wav?{SIGNED}", "'https://a.example/my song.wav…'"),
        (f"https://a.example/x?title=my song&{SIGNED}", "'https://a.example/x…'"),
        (f" https://a.example/x?{SIGNED}", "' https://a.example/x…'"),
        (f"s3://bucket/x?{SIGNED}", "'s3://bucket/x…'"),
        (f"a.example/x?{SIGNED}", "'a.example/x…'"),
        (f"/x?{SIGNED}", "'/x…'"),
        (f"?{SIGNED}", "'…'"),
        (f"https%3A%2F%2Fa.example%2Fx%3F{SIGNED}", "'https%3A%2F%2Fa.example%2Fx…'"),
        (f"https%253A%252F%252Fa.example%252Fx%253f{SIGNED}", "'https%253A%252F%252Fa.example%252Fx…'"),
        (f'{{"wav_url": "https:\\/\\/a.example\\/x?{SIGNED}"}}', r"""'{"wav_url": "https:\\/\\/a.example\\/x…'"""),
        # A user and password.
        ("https://user:canary@a.example/x", "'https://***@a.example/x'"),
        ("kie://:canary@a.example", "'kie://***@a.example'"),
        (r"https:\/\/user:canary@a.example\/x", r"'https:\\/\\/***@a.example\\/x'"),
        ("https://user:can@ary@a.example/x", "'https://***@a.example/x'"),
        ("https://user:can#ary@a.example/x", "'https://***…'"),
        (f"https://user:can?ary@a.example/x?{SIGNED}", "'https://***…'"),
        (f"https://{'canary' * 400}@a.example/x", "'https://***…'"),
        ("https://a.example/x@y", "'https://a.example/x@y'"),
        # The length.
        ("x" * 200, f"'{'x' * 200}'"),
        ("x" * 201, f"'{'x' * 200}…'"),
        # What is no text.
        (None, "None"),
        (7, "7"),
        (timedelta(seconds=5), "datetime.timedelta(seconds=5)"),
        ([f"https://user:canary@a.example/x?{SIGNED}", 1], "['https://***@a.example/x…"),
        (f"https://a.example/x?{SIGNED}".encode(), "b'https://a.example/x…"),
        ({"url": f"s3://bucket/x?{SIGNED}"}, "{'url': 's3://bucket/x…"),
    ],
)
def test_an_argument_is_quoted_as_far_as_it_is_harmless(value, shown):
    assert quoted(value) == shown
    assert "canary" not in shown + harmless(value)
    assert shown.isprintable()
    assert harmless(value).isprintable()


@pytest.mark.parametrize("piece", ["\\", "//", "//@", "/", "@", "?", "%25", "https://a@"])
def test_any_argument_is_quoted_quickly(piece):
    assert len(quoted(piece * 500_000)) <= 410  # each backslash is two in a repr


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        (f"see s3://bucket/x?{SIGNED}.", "see s3://bucket/x?…"),
        (f"see https://a.example/my song.wav?{SIGNED}, ok", "see https://a.example/my song.wav?… ok"),
        (f"see https://a.example/x?title=my long song&{SIGNED}: gone", "see https://a.example/x?… gone"),
        (
            f"see https://a.example/x?n=my song&{SIGNED} and s3://b/y#{SIGNED} now",
            "see https://a.example/x?… and s3://b/y?… now",
        ),
        ("postgresql://user:canary@a.example/x", "postgresql://***@a.example/x"),
        ("Really? #1 of 2, a=b", "Really? #1 of 2, a=b"),
    ],
)
def test_urls_of_any_form_within_a_text_lose_their_query(text, fit):
    assert redact(text) == fit


# --- The one place


PACKAGE = Path(airflow_provider_kie.__file__).parent
#: Where a ``repr`` is right: expressions by module, none for all of them.
REPR_IS_RIGHT = {
    "api/envelope.py": {"said"},  # KIE's own words, which the error redacts as a text
    "files/riff.py": set(),  # the start of a file, which the error redacts as a text
    "connection_fields.py": {"name"},  # of a field
    "exceptions/root.py": {"str(self)"},
    "hooks/environment.py": {"max(names)", "name"},  # of a variable or a scheme
    "sensors/start_in_triggerer.py": {"key", "source.task_id"},  # a template, and no message
    "api/family.py": {"self.name"},  # of a family
    "waiting/verdict.py": {"message"},  # KIE's own words, which the error redacts as a text
    "testing.py": set(),  # a tool for tests, which meets no secret
    "emulator": set(),  # the same
}


def test_no_message_quotes_a_value_in_another_way():
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).as_posix()
        allowed = REPR_IS_RIGHT.get("emulator" if module.startswith("emulator/") else module)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FormattedValue) and node.conversion == ord("r"):
                value = ast.unparse(node.value)
                assert allowed is not None, f"{module} shows {value} without redaction.quoted()"
                assert not allowed or value in allowed, f"{module} shows {value} without redaction.quoted()"
