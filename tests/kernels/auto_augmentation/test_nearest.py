"""Nearest shears and rotations: the compiled route, Pillow's, and the reference agree to the bit."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels import auto_augment, dispatch
from fastreg.kernels.auto_augmentation.operations import AUTO_AUGMENT_OPERATIONS
from fastreg.kernels.auto_augmentation.reference import auto_augment_reference

MAGNITUDES = {"Rotate": (0, 90, -180, 270, 1e-7, 13.7, -44.9, 200, 361), "ShearX": (0, 0.3, -0.99, 1e-6, 700, -900)}


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY"])
@pytest.mark.parametrize("sides", [(37, 61), (64, 64)])
def test_compiled_pillow_and_reference_agree(name, sides, monkeypatch):
    magnitudes = torch.tensor(MAGNITUDES.get(name, MAGNITUDES["ShearX"]), dtype=torch.float32)[:, None]
    generator = torch.Generator().manual_seed(4)
    images = torch.randint(0, 256, (len(magnitudes), *sides, 3), dtype=torch.uint8, generator=generator)
    operations = torch.full_like(magnitudes, AUTO_AUGMENT_OPERATIONS.index(name), dtype=torch.int64)
    given = {"interpolation": "nearest", "fill": (9, 200, 31)}
    compiled = auto_augment(images, operations, magnitudes, **given)
    monkeypatch.setattr(dispatch, "numba_error", lambda: "missing")
    assert torch.equal(compiled, auto_augment(images, operations, magnitudes, **given))
    assert torch.equal(compiled, auto_augment_reference(images, operations, magnitudes, 0, None, [9, 200, 31]))
