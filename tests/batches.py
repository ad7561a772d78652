# SPDX-License-Identifier: Apache-2.0
"""What the tests of batches have in common."""

from __future__ import annotations

from collections import Counter


def foxes(count, start=0):
    return [{"prompt": f"fox {number}"} for number in range(start, start + count)]


def counts(task):
    return {name: task.xcom["batch"][name] for name in ("total", "succeeded", "failed", "unknown")}


def prompts(kie):
    return Counter(each["json"]["input"]["prompt"] for each in kie.requests("submit"))


def statuses(kie):
    return Counter(each["code"] for each in kie.requests("submit"))
