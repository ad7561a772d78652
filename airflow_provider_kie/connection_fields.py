# SPDX-License-Identifier: Apache-2.0
"""
What each field of a connection accepts.

The errors are imported late, because they need Airflow, which the provider's metadata must not import.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_kie.hosts import ip_address, is_loopback, spell_proxy, split_url

if TYPE_CHECKING:
    from airflow_provider_kie.exceptions import KieConfigurationError

__all__ = ["DEFAULT_BASE_URL", "DEFAULT_UPLOAD_HOST", "LONGEST_TIMEOUT", "SHORTEST_KEY", "Fields", "is_json_object"]

DEFAULT_BASE_URL = "https://api.kie.ai"
#: The host that takes uploads, which is not the API's (recorded 2026-10-01).
DEFAULT_UPLOAD_HOST = "https://kieai.redpandaai.co"
LONGEST_TIMEOUT = 600.0
#: The fewest characters of a key, so that masking it in an answer masks nothing else.
SHORTEST_KEY = 8

# The characters of a bearer token (RFC 6750, section 2.1).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# At least 128 bits in Base64.
_PART_OF_PATH = re.compile(r"[A-Za-z0-9_-]{22,128}")

#: The storages in which workers keep a limit together.
_PACES = ("redis", "rediss", "postgresql", "postgres")


class Fields:
    """Reads one connection's values; each method raises a ``KieConfigurationError`` for an invalid one."""

    def __init__(self, conn_id: str, extra: Mapping[str, Any]) -> None:
        self.conn_id = conn_id
        self.extra = extra

    def refuse(self, name: str, why: str) -> KieConfigurationError:
        """Return an error that names the field and the connection."""
        from airflow_provider_kie.exceptions import KieConfigurationError

        return KieConfigurationError(f"Field {name!r} of the Airflow connection {why}", conn_id=self.conn_id)

    def token(self, password: str | None) -> str:
        """Read the API key."""
        if not password:
            raise self.refuse("password", "is empty; it holds the API key of https://kie.ai/api-key")
        if len(password) < SHORTEST_KEY:
            raise self.refuse("password", f"is not an API key: it has fewer than {SHORTEST_KEY} characters")
        if not _TOKEN.fullmatch(password):
            raise self.refuse(
                "password",
                "is not an API key: it holds a space, a line break or another character that no key has",
            )
        return password

    def text(self, name: str) -> str | None:
        """Read a text; None for an empty one."""
        value = self.extra.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise self.refuse(name, f"must be a text, not {type(value).__name__}")
        return value

    def word(self, name: str, words: tuple[str, ...]) -> str:
        """Read one of the words; the first one is the default."""
        value = self.text(name) or words[0]
        if value not in words:
            raise self.refuse(name, f"must be one of {', '.join(words)}")
        return value

    def url(self, name: str) -> str | None:
        """Read an http(s) URL."""
        value = self.text(name)
        if value is None:
            return None
        parts = split_url(value)
        if parts is None:
            raise self.refuse(name, "must be a URL that starts with http:// or https://")
        return parts.geturl()

    def callback_url(self, name: str, secret: str | None) -> str | None:
        """Read an http(s) URL, and append the secret part of its path."""
        value = self.url(name)
        if value is None or secret is None:
            return value
        if {"?", "#"} & set(value):
            raise self.refuse(name, "has a query or a fragment, after which the callback_secret cannot be appended")
        return f"{value.rstrip('/')}/{secret}"

    def keys(self, name: str) -> tuple[str, ...]:
        """Read keys with spaces between them."""
        keys = tuple((self.text(name) or "").split())
        if any(len(key) < SHORTEST_KEY for key in keys):
            raise self.refuse(name, f"is not a key: it has fewer than {SHORTEST_KEY} characters")
        return keys

    def part_of_path(self, name: str) -> str | None:
        """Read a secret that is a part of a URL's path."""
        value = self.text(name)
        if value is not None and not _PART_OF_PATH.fullmatch(value):
            raise self.refuse(name, "must have 22 to 128 characters, each a letter, a digit, - or _")
        return value

    def storage_of_pace(self, name: str) -> str | None:
        """Read the URL of a Redis or PostgreSQL."""
        value = self.text(name)
        if value is not None and value.partition("://")[0] not in _PACES:
            raise self.refuse(name, f"must be a URL that starts with {', '.join(f'{each}://' for each in _PACES)}")
        return value

    def proxy(self, name: str) -> str | None:
        """Read the URL of a proxy, spelled as HTTP libraries do."""
        value = self.text(name)
        if value is None:
            return None
        spelled, problem = spell_proxy(value)
        if problem:
            raise self.refuse(name, problem)
        return spelled

    def seconds(self, name: str, default: float) -> float:
        """Read a number of seconds."""
        value = self.extra.get(name)
        if value is None or value == "":
            return default
        try:
            seconds = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if not 0 < seconds <= LONGEST_TIMEOUT:
            raise self.refuse(name, f"must be a number of seconds above 0 and up to {LONGEST_TIMEOUT:g}")
        return seconds

    def boolean(self, name: str, *, default: bool) -> bool:
        """Read a boolean, also as one of the texts that older forms store."""
        value = self._as_boolean(self.extra.get(name), default)
        if value is None:
            raise self.refuse(name, "must be true or false")
        return value

    def verify(self, name: str) -> bool | str:
        """Read a boolean, or the path of a CA bundle."""
        value = self.extra.get(name)
        flag = self._as_boolean(value, default=True)
        if flag is not None:
            return flag
        if not isinstance(value, str) or not os.path.exists(value):
            raise self.refuse(name, "must be true, false or the path of a CA bundle that exists on this machine")
        return value

    def base_url(self, host: str | None, schema: str | None, port: int | None, insecure_http: bool) -> str:
        """Build the base URL."""
        if port is not None and not 0 < port < 65536:
            raise self.refuse("port", "must be between 1 and 65535")
        if not host:
            if port is not None:
                raise self.refuse("host", "is empty, but a port is set; put both into the base URL")
            return DEFAULT_BASE_URL
        scheme, separator, name = host.strip().rpartition("://")
        if isinstance(ip_address(name), ipaddress.IPv6Address):  # Airflow drops the brackets of a URI
            name = f"[{name}]"
        url = self._host_url("host", f"{scheme if separator else schema or 'https'}://{name}", insecure_http)
        return url + (f":{port}" if port and urlsplit(url).port is None else "")

    def upload_host(self, name: str, insecure_http: bool) -> str:
        """Read the base URL of the host for uploads."""
        value = self.text(name)
        return self._host_url(name, value.strip(), insecure_http) if value else DEFAULT_UPLOAD_HOST

    def _host_url(self, field: str, value: str, insecure_http: bool) -> str:
        parts = split_url(value.rstrip("/"))
        if parts is None or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
            raise self.refuse(field, f"must be a base URL such as {DEFAULT_BASE_URL}, without a path or user")
        if parts.scheme == "http" and not insecure_http and not is_loopback(parts.hostname or ""):
            raise self.refuse(
                field,
                "is plain http; use https, or set the extra field 'insecure_http' to send the key unencrypted",
            )
        # Spelled as HTTP libraries do, because the key is sent to exactly this address only.
        return f"{parts.scheme}://{parts.netloc}"

    @staticmethod
    def _as_boolean(value: Any, default: bool) -> bool | None:
        if value is None or value == "":
            return default
        words = {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }
        return words.get(str(value).strip().lower())


def is_json_object(text: str | None) -> bool:
    """Return whether an extra is empty or a JSON object; Airflow itself reads an invalid one as empty."""
    if not (text or "").strip():
        return True
    try:
        return isinstance(json.loads(text or ""), dict)
    except ValueError:
        return False
