# SPDX-License-Identifier: Apache-2.0
"""Triggers, which wait in the triggerer."""
