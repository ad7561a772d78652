# SPDX-License-Identifier: Apache-2.0
"""Files on their way from KIE's file hosts into the user's storage."""
