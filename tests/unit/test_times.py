# SPDX-License-Identifier: Apache-2.0
"""The switch of the times."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_kie.times import Times, switched, times


def test_a_switch_counts_for_all_threads_until_its_context_ends():
    with ThreadPoolExecutor(1) as other, switched(grace=1.0):
        with switched(settling_pause=0.5):
            assert other.submit(times).result() == Times(grace=1.0, settling_pause=0.5)
        assert other.submit(times).result() == Times(grace=1.0)
        with pytest.raises(ZeroDivisionError), switched(grace=2.0):
            raise ZeroDivisionError
        assert times() == Times(grace=1.0)
    assert times() == Times()


def test_a_time_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="gracious"), switched(gracious=1.0):
        pytest.fail("was accepted")
    assert times() == Times()
