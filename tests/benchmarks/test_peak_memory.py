"""The peak memory of `augment` on a CPU, as the benchmark measures it."""

from __future__ import annotations

import pytest

from fastreg.benchmarks.first_calls import numbers_of_process
from fastreg.benchmarks.peak_memory import CODE, PLANS
from fastreg.benchmarks.record import OURS


def test_augment_allocates_its_output_alone():
    """With a crop and partners also a quarter of it, as bytes."""
    pytest.importorskip("numba")
    shares = [numbers_of_process(CODE, OURS, plan)[1] for plan in PLANS]
    print(f"peak memory over the output's: {shares}")
    for share, limit in zip(shares, (1.1, 1.1, 1.35), strict=True):
        assert 0.99 < share < limit
