# SPDX-License-Identifier: Apache-2.0
"""Sensors, which wait for what somebody else submitted."""
