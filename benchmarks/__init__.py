# SPDX-License-Identifier: Apache-2.0
"""The benchmarks: this provider beside its peers, in one run, as ratios. Run them with ``python -m benchmarks``."""
