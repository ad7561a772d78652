# SPDX-License-Identifier: Apache-2.0
"""What the environment says: which connections are served, and where Airflow is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_kie.connection import DEFAULT_CONN_ID
from airflow_provider_kie.exceptions import KieConfigurationError
from airflow_provider_kie.hosts import is_loopback, split_url
from airflow_provider_kie.redaction import quoted

__all__ = ["CallbackSettings"]

_PREFIX = "KIE_CALLBACKS_"
# What is the same in a path, in an asset's URI and in Airflow.
_CONN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class CallbackSettings:
    """
    The checked environment.

    :param connections: the connections whose callbacks are received.
    :param airflow_url: Airflow's API server or, on 2.11, its web server; without a trailing slash.
    :param username: of a user who may read assets and make their events.
    :param password: of the same.
    """

    connections: tuple[str, ...]
    airflow_url: str
    username: str
    password: str = field(repr=False)

    @property
    def sends_in_clear(self) -> bool:
        """Whether the password travels unencrypted to another machine."""
        parts = split_url(self.airflow_url)
        return parts is None or (parts.scheme == "http" and not is_loopback(parts.hostname or ""))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> CallbackSettings:
        """
        Read and check the variables.

        :param environment: such as ``os.environ``.
        :raises KieConfigurationError: one is missing or wrong; names it.
        """

        def required(name: str) -> str:
            if value := environment.get(_PREFIX + name, ""):
                return value
            raise KieConfigurationError(f"The environment variable {_PREFIX}{name} is not set")

        named = environment.get(f"{_PREFIX}CONNECTIONS") or DEFAULT_CONN_ID
        connections = tuple(dict.fromkeys(each.strip() for each in named.split(",")))
        for each in connections:
            if not _CONN_ID.fullmatch(each):
                raise KieConfigurationError(
                    f"{_PREFIX}CONNECTIONS names {quoted(each)}; ids are expected, with commas between them, of "
                    "letters, digits, dots, - and _"
                )
        url = required("AIRFLOW_URL").rstrip("/")
        parts = split_url(url)
        if parts is None or parts.query or parts.fragment or "@" in parts.netloc:
            raise KieConfigurationError(
                f"{_PREFIX}AIRFLOW_URL must be a URL such as https://airflow.example.com, without user and query"
            )
        return cls(connections, parts.geturl(), required("AIRFLOW_USERNAME"), required("AIRFLOW_PASSWORD"))
