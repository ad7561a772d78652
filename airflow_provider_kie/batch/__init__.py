# SPDX-License-Identifier: Apache-2.0
"""Many jobs in one task."""
