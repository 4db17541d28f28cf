"""The kernels suite on a CPU: which variants its cases measure."""

from __future__ import annotations

import pytest
import torch

from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.record import OURS, REFERENCE, Row
from fastreg.benchmarks.suites import kernels


def test_cases_without_a_peer_are_measured_beside_the_reference(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(BenchmarkOptions, "seconds", lambda self, full: 0.01)
    options = BenchmarkOptions(torch.device("cpu"), batch_size=4, size=28)
    beside = {}
    for case in kernels.cases(options, {}):
        if case.name in ("augment gaussian_noise", "augment crop", "augment crop mixup") or ", batch" in case.name:
            beside[case.name] = {row.variant for row in case.rows() if isinstance(row, Row)}
    assert len(beside) == 7
    assert all({OURS, REFERENCE} <= variants for variants in beside.values()), beside
