"""Launches of more images than a grid's second side counts: every registered operation, on tensors without memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from fastreg.kernels import C_BAR_CORRUPTIONS, CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from fastreg.kernels.corruptions.registry import OPS as CORRUPTION_OPS
from fastreg.kernels.registry import operations
from tests.kernels.corruptions.golden_cases import frost_textures
from tests.simulated_gpu.gpu import DEVICE, GpuError
from tests.simulated_gpu.launcher import check_grid

MANY = 70_000


def enlarged(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments on the device, with ``MANY`` samples in place of the first tensor's number."""
    first = next(leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor) and leaf.dim())
    count = len(first)

    def one(value: Any) -> Any:
        if isinstance(value, Tensor):
            many = value.dim() and len(value) == count
            stride = value.stride()
            shape = (MANY, *value.shape[1:]) if many else value.shape
            return torch.empty_strided(shape, stride, dtype=value.dtype, device=DEVICE)
        if isinstance(value, np.ndarray) and value.ndim and len(value) == count:
            return np.resize(value, (MANY, *value.shape[1:]))
        return value

    return tree_map(one, arguments)


# the launchers of corruptions are called by ``corrupt`` only, which divides the batch
OPERATIONS = [op for op in operations() if op not in CORRUPTION_OPS]


@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.name)
def test_more_samples_than_a_grid_counts(op, gpu):
    arguments = enlarged(op.example("cpu", small=True))
    if op.name.startswith("augment"):  # whose plan describes one batch
        with pytest.raises(ValueError, match="`images` has 70000 images: give 65535 or fewer at a time"):
            op.triton(**arguments)
        return
    out = op.triton(**arguments)
    assert all(t.device == DEVICE for t in tree_leaves(out) if isinstance(t, Tensor))
    assert gpu.waits == []


@pytest.mark.parametrize("name", CORRUPTIONS + EXTRA_CORRUPTIONS + C_BAR_CORRUPTIONS)
def test_more_corrupted_images_than_a_grid_counts(name, gpu):
    images = torch.empty(MANY, 32, 32, 3, dtype=torch.uint8, device=DEVICE)
    out = corrupt(images, name, 5, indices=np.arange(MANY), textures=frost_textures(), constants="cifar32", jpeg=True)
    assert (out.shape, out.dtype, out.device) == (images.shape, torch.uint8, DEVICE)
    assert gpu.waits == []


def test_a_grid_beyond_the_limits_is_refused():
    assert check_grid("k", (2**31 - 1, 65_535)) == (2**31 - 1, 65_535, 1)
    for grid in ((1, 65_536), (1, 1, 65_536), (2**31,), (0,)):
        with pytest.raises(GpuError, match="grid"):
            check_grid("k", grid)
