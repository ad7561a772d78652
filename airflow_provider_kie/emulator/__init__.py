# SPDX-License-Identifier: Apache-2.0
"""A KIE on loopback, for tests and experiments; needs ``airflow-provider-kie[emulator]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_kie.emulator.answers import ANSWERS
from airflow_provider_kie.emulator.scripted import Answer

if TYPE_CHECKING:
    from airflow_provider_kie.emulator.server import KieEmulator

__all__ = ["ANSWERS", "Answer", "KieEmulator"]


def __getattr__(name: str) -> Any:
    # Late, so that the command can name the missing extra.
    if name == "KieEmulator":
        from airflow_provider_kie.emulator.server import KieEmulator

        return KieEmulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
