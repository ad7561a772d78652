# SPDX-License-Identifier: Apache-2.0
"""What KIE.ai says, as data and pure functions: no HTTP library, no Airflow task."""
