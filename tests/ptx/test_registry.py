"""Every row of the registry on its small example."""

from __future__ import annotations

import pytest

from fastreg.kernels.registry import operations
from tests.ptx.case import Case, check


@pytest.mark.parametrize("op", operations(), ids=lambda op: op.name)
def test_registry(op, emulator):
    def call():
        return op.triton(**op.example("cpu", small=True))

    def reference():
        return op.reference(**op.example("cpu", small=True))

    check(emulator, Case(op.name, call, reference, op.tolerance, op.rare, op.rare_tolerance))
