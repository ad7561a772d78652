# SPDX-License-Identifier: Apache-2.0
"""What ``HttpEventTrigger`` asks after each read. It reloads this module each time, so it holds nothing else."""

from __future__ import annotations


async def is_finished(response):  # type: ignore[no-untyped-def]  # an import for the type would be part of the figures
    """Tell whether the conversion is finished."""
    return response.json()["data"]["successFlag"] == "SUCCESS"
