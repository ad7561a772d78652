# SPDX-License-Identifier: Apache-2.0
"""The two transports that carry out KIE's calls."""
