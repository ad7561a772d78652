# SPDX-License-Identifier: Apache-2.0
"""``python -m airflow_provider_kie``: the commands of :mod:`airflow_provider_kie.cli` on every Airflow."""

from __future__ import annotations

from airflow_provider_kie.cli import main

if __name__ == "__main__":
    main()
