# SPDX-License-Identifier: Apache-2.0
"""Sensors, which wait for jobs that another task submitted."""
