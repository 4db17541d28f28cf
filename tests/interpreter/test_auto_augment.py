"""The kernels of ``auto_augment`` against the reference, which is equal to Pillow to the bit."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels import AUTO_AUGMENT_OPERATIONS, auto_augment
from fastreg.kernels.auto_augmentation import apply
from fastreg.kernels.auto_augmentation.apply import auto_augment_triton, supports
from fastreg.kernels.auto_augmentation.reference import auto_augment_reference
from tests.kernels.auto_augmentation.cases import FILL, GEOMETRIC, every, number, sample_images


@pytest.fixture
def wide(monkeypatch):
    """One program per sample: the interpreter runs programs one after another."""
    monkeypatch.setattr(apply, "PIXELS", (2048,) * 4)


@pytest.mark.parametrize("which", [1, 5, 6], ids=["noise", "two levels", "one row"])
def test_every_operation_and_magnitude(which, wide):
    arguments = (*every(sample_images()[which]), 0, None, list(FILL))
    assert torch.equal(auto_augment_triton(*arguments), auto_augment_reference(*arguments))


@pytest.mark.parametrize(
    "mode", [pytest.param(1, id="bilinear"), pytest.param(2, id="bicubic", marks=pytest.mark.slow)]
)
def test_interpolated(mode, wide):
    """Equal to the bit: the sines of 725.5 and 1e-3 degrees too are those of the C library here."""
    arguments = (*every(sample_images()[5], GEOMETRIC), mode, None, list(FILL))
    assert torch.equal(auto_augment_triton(*arguments), auto_augment_reference(*arguments))


def test_several_programs_and_slots():
    """As the launcher makes them: 33 x 33 pixels are three programs, the last one not full."""
    image = torch.from_numpy(sample_images()[1])
    generator = torch.Generator().manual_seed(3)
    operations = torch.randint(len(AUTO_AUGMENT_OPERATIONS), (6, 3), generator=generator)
    strengths = 0.9 * torch.rand((6, 3), generator=generator)
    modes = torch.randint(3, (6, 3), generator=generator)
    images = image.expand(6, -1, -1, -1).contiguous()
    ours = auto_augment(images, operations, strengths, interpolation=modes, fill=FILL)
    assert torch.equal(ours, auto_augment_reference(images, operations, strengths, 0, modes, list(FILL)))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64])
def test_unknown_operations_and_interpolations_change_nothing(dtype, wide):
    images = torch.from_numpy(sample_images()[5])[None].repeat(5, 1, 1, 1)
    operations = torch.tensor([[-1], [16], [2**40 + number("Invert")], [number("Rotate")], [number("Invert")]])
    modes = torch.tensor([[0], [0], [0], [3], [-1]], dtype=dtype)
    result = auto_augment_triton(images, operations, torch.full((5, 1), 30.0), 0, modes, [0] * 3)
    assert torch.equal(result, images)


def test_indices_out_of_range_are_refused_on_cpu_tensors():
    images = torch.from_numpy(sample_images()[5])[None]
    with pytest.raises(ValueError, match=r"`operations` holds \[16\]"):
        auto_augment(images, torch.tensor([[16]]), torch.zeros(1, 1))


def test_sides_beyond_the_fixed_point_are_not_supported():
    assert supports(torch.empty(2, 16384, 4, 3, dtype=torch.uint8))
    assert not supports(torch.empty(2, 16385, 4, 3, dtype=torch.uint8))
    assert not supports(torch.empty(1, 1, 1, 3, dtype=torch.uint8).expand(2**31, 8, 8, 3))
