"""The peak memory of `augment` on a CPU, as the benchmark measures it."""

from __future__ import annotations

import pytest

from fastreg.benchmarks.peak_memory import measured
from fastreg.benchmarks.record import OURS


def test_augment_allocates_its_output_alone():
    """With a crop and partners also a quarter of it, as bytes."""
    pytest.importorskip("numba")
    shares = {plan: measured(plan, OURS)[1] for plan in ("mixup", "crop mixup")}
    print(f"peak memory over the output's: {shares}")
    assert 0.99 < shares["mixup"] < 1.1
    assert 0.99 < shares["crop mixup"] < 1.35
