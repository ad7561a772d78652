# SPDX-License-Identifier: Apache-2.0
"""KIE.ai's API as data and pure functions: no HTTP library, no Airflow task."""
