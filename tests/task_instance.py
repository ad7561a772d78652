# SPDX-License-Identifier: Apache-2.0
"""The task instance that an operator's ``execute`` meets in tests that need no scheduler."""

from __future__ import annotations

import json
from typing import Any


class TaskInstance:
    """Takes what a task pushes, as JSON, and is the same in each try."""

    dag_id, run_id, task_id, map_index = "dag", "run", "archive", -1

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Take a value."""
        self.pushed[key] = json.loads(json.dumps(value))
