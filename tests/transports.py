# SPDX-License-Identifier: Apache-2.0
"""Both transports, each carrying out a call once through the connection ``kie_default``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_kie.api.call import Call
from airflow_provider_kie.exceptions import KieError
from airflow_provider_kie.hooks.kie import KieHook
from airflow_provider_kie.hooks.kie_async import KieAsyncHook
from airflow_provider_kie.hooks.pacing import COOLDOWNS


def over_requests(call: Call[Any]) -> Any:
    return KieHook().attempt(call)


def over_aiohttp(call: Call[Any]) -> Any:
    async def attempt() -> Any:
        async with KieAsyncHook.connect("kie_default") as hook:
            return await hook.attempt(call)

    return asyncio.run(attempt())


each_transport = pytest.mark.parametrize("transport", [over_requests, over_aiohttp])


def outcome_of(carry_out: Callable[[Call[Any]], Any], call: Call[Any]) -> Any:
    try:
        return carry_out(call)
    except KieError as error:
        return error


def outcome_of_both(call: Call[Any]) -> Any:
    """Return what both transports make of a call, which has to be the same."""
    over_one = outcome_of(over_requests, call)
    COOLDOWNS.clear()
    over_other = outcome_of(over_aiohttp, call)
    assert _comparable(over_one) == _comparable(over_other)
    return over_one


def _comparable(outcome: Any) -> Any:
    return (type(outcome), str(outcome), outcome.to_dict()) if isinstance(outcome, KieError) else outcome
