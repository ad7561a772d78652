# SPDX-License-Identifier: Apache-2.0
"""Operators, which submit and read jobs."""
