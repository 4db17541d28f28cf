"""The set-up of every benchmark on the simulated GPU: each variant of each case is built and called once."""

from __future__ import annotations

import pytest
import torch

from fastreg.benchmarks import timing
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.record import COPY, FAILED, OURS, Absent
from fastreg.benchmarks.suites import corruptions, eval, kernels, loss, throughput
from fastreg.benchmarks.timing import StubClock
from tests.simulated_gpu.gpu import DEVICE

SLOW = (corruptions, kernels, throughput, eval)
SUITES = [loss, *(pytest.param(suite, marks=pytest.mark.slow) for suite in SLOW)]
PEERS = ("torch eager", "torch.compile", COPY)  # other peers are third-party code


@pytest.mark.parametrize("suite", SUITES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_suite(suite, gpu, monkeypatch):
    monkeypatch.setattr(timing, "stub", StubClock())
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    options = BenchmarkOptions(DEVICE, "quick", batch_size=2, size=32, model="resnet18")
    ours, failed = 0, []
    for case in suite.cases(options, {}):
        for row in case.rows():
            ours += row.variant == OURS and not isinstance(row, Absent)
            if isinstance(row, Absent) and row.variant in (OURS, *PEERS) and FAILED in row.reason:
                failed.append(row)
    assert ours
    assert not failed
    assert gpu.launches
