# SPDX-License-Identifier: Apache-2.0
"""The transfer of files from KIE's file hosts into the user's storage."""
