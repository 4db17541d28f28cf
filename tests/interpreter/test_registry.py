"""Every row of the registry: the kernel against its reference, on the same arguments."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels.dispatch import INTERPRETED
from fastreg.kernels.registry import operations


def test_the_interpreter_is_on():
    assert INTERPRETED


@pytest.mark.parametrize("op", operations(), ids=lambda op: op.name)
def test_kernel_agrees_with_reference(op):
    arguments = op.example("cpu", small=True)
    ours, theirs = op.triton(**arguments), op.reference(**arguments)
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
    for a, b in pairs:
        assert a.shape == b.shape
        assert torch.equal(a.isnan(), b.isnan())
        error = (a.double() - b.double()).abs().nan_to_num(0)
        worst, rare = error.max().item(), (error > op.tolerance).double().mean().item()
        print(f"{op.name}: largest difference {worst:.2e}, {rare:.3%} above {op.tolerance:.0e}")
        assert rare <= op.rare
        assert worst <= max(op.tolerance, op.rare_tolerance)
