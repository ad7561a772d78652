# SPDX-License-Identifier: Apache-2.0
"""A folder of small files that remembers across tasks which jobs have been paid for."""
