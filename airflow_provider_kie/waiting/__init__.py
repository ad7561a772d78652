# SPDX-License-Identifier: Apache-2.0
"""The rules of waiting, the same in every mode: what a reading means, how often to poll, and when it is over."""
