"""``corrupt`` on fake CUDA tensors, launches recorded up to the compiler.

The host never waits for the device: no value is read back, and copies to the device are pinned and do not block. The
launches are those that the compile tests read.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from triton.runtime import jit

from fastreg.kernels import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt, draw_fields
from fastreg.kernels.corruptions import frost
from fastreg.kernels.corruptions.registry import OPS
from fastreg.kernels.dispatch import INTERPRETED
from fastreg.kernels.jpeg import kernels as jpeg_kernels
from fastreg.kernels.jpeg.registry import OPS as JPEG_OPS
from tests.kernels.corruptions.golden_cases import frost_textures
from tests.kernels.fake_cuda import Watch, assert_registered, aten, fake, getitem

pytestmark = pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1 replaces the launcher")


@pytest.mark.parametrize("name", CORRUPTIONS + EXTRA_CORRUPTIONS)
def test_corruptions(name, launched, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(FakeTensor, "__getitem__", getitem)
    monkeypatch.setattr(FakeTensor, "contiguous", lambda x: aten.clone(x, memory_format=torch.contiguous_format))
    monkeypatch.setattr(frost, "_last", {})
    textures = frost_textures()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        tables = torch.empty((2, 64), dtype=torch.int32, device="cuda:0")  # made once per quality and device
        monkeypatch.setattr(jpeg_kernels, "quantizers", lambda quality, device: (tables, tables))
        images = fake(torch.empty((4, 224, 224, 3), dtype=torch.uint8))
        with Watch():
            out = corrupt(images, name, 5, indices=np.arange(4), textures=textures, jpeg=True)
    assert out.is_cuda
    assert (out.shape, out.dtype) == (images.shape, torch.uint8)
    # a variant of a noise or a field stands for several operations and widths of tables
    compared = [launch for launch in launched if launch.kernel not in ("noise_kernel", "field_kernel")]
    assert_registered([variant for op in (*OPS, *JPEG_OPS) for variant in op.aot], compared)
    assert len(launched) >= 3  # JPEG's two among them
    # contracted in the kernel that draws, but not in the one that draws and applies, fields would differ
    assert not any(launch.request["fusion"] for launch in launched)


@pytest.mark.parametrize("name", ["contrast", "gaussian_noise", "glass_blur", "pixelate"])
def test_more_images_than_a_grid_counts(name, launched, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(FakeTensor, "__getitem__", getitem)
    monkeypatch.setattr(FakeTensor, "contiguous", lambda x: aten.clone(x, memory_format=torch.contiguous_format))
    grids, run = [], jit.JITFunction.run
    monkeypatch.setattr(jit.JITFunction, "run", lambda *a, **kw: (grids.append(kw["grid"]), run(*a, **kw))[1])
    options = {"constants": "cifar32", "indices": np.arange(70_000)}
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        images = fake(torch.empty((70_000, 8, 8, 3), dtype=torch.uint8))
        assert corrupt(images, name, 1, **options).shape == images.shape
        drawn = draw_fields(name, 1, seed=0, size=8, device="cuda:0", **options)
    assert all(len(values) == 70_000 for values in drawn.values())
    assert max(grid[1] for grid in grids if len(grid) > 1) == 65_535


def test_the_forbidden_operations_raise(launched):
    waits = (
        lambda x: x.to("cpu"),
        lambda x: x + torch.ones(1),
        lambda x: x.nonzero(),
        lambda x: torch.ones(1).to("cuda:0"),
    )
    for wait in waits:
        with FakeTensorMode(), Watch(), pytest.raises((AssertionError, RuntimeError), match=r"works on|read|devices"):
            wait(torch.empty(1, device="cuda:0"))
