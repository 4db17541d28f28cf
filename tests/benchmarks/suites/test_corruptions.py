"""The corruptions suite: its conditions by scope, and the mean over all of them."""

from __future__ import annotations

import pytest
import torch

from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.suites import corruptions
from fastreg.kernels import CORRUPTIONS, EXTRA_CORRUPTIONS
from tests.benchmarks.report.made_up_record import row

CPU = torch.device("cpu")


def test_the_conditions_of_each_scope():
    count = {
        scope: len(list(corruptions.conditions(BenchmarkOptions(CPU, scope)))) for scope in ("full", "quick", "main")
    }
    assert count == {"full": 5 * (len(CORRUPTIONS) + len(EXTRA_CORRUPTIONS)), "quick": 15, "main": 15}
    assert len(list(corruptions.conditions(BenchmarkOptions(torch.device("cuda"))))) == count["full"] + 75


def test_the_mean_needs_every_condition():
    rows = [row(f"corrupt {name} 3", 100.0 * (i + 1), 8) for i, name in enumerate(CORRUPTIONS)]
    options = BenchmarkOptions(CPU, "main")
    (mean,) = corruptions.aggregate(options, [*rows, row("corrupt fog 3", 1.0, 1, variant="imagecorruptions")])
    assert mean.name == "corrupt all 15 x 1"
    assert mean.us == pytest.approx(800.0)
    # images over it: the harmonic mean of the rates
    assert mean.images_per_second == pytest.approx(15 / sum(1 / r.images_per_second for r in rows))
    assert list(corruptions.aggregate(options, rows[1:])) == []
