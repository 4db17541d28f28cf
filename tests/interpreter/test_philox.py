"""Philox in Triton against the host: words and integers bit-equal, normals to 1e-6."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg.kernels import philox, philox_triton
from fastreg.kernels.dispatch import tl, triton

N = 1 << 14


@triton.jit
def _draw(out, uniforms, normals, counts, table, seed, sample, step, WIDTH: tl.constexpr, N: tl.constexpr):
    e = tl.arange(0, N)
    w = philox_triton.triton_words(seed, e, sample, step, 6)
    for k in tl.static_range(4):
        tl.store(out + e * 4 + k, w[k].to(tl.int32, bitcast=True))
    tl.store(uniforms + e, philox_triton.triton_uniform(w[0]))
    first, second = philox_triton.triton_normal(w[0], w[1])
    tl.store(normals + e * 2, first)
    tl.store(normals + e * 2 + 1, second)
    tl.store(counts + e, philox_triton.triton_poisson(w[2], e % 256, table, WIDTH))


@pytest.mark.parametrize("seed", [0, 1, -7, 2**63 + 5])
def test_twins(seed):
    assert philox.OPERATIONS["mix_choice"] == 6
    table = philox.poisson_table(np.arange(256) / 255 * 500)
    out, counts = torch.empty(N, 4, dtype=torch.int32), torch.empty(N, dtype=torch.int32)
    uniforms, normals = torch.empty(N), torch.empty(N, 2)
    device_table = torch.from_numpy(table.view(np.int32)).view(torch.uint32)
    sample, step = 2**32 - 2, 41
    _draw[(1,)](out, uniforms, normals, counts, device_table, philox.signed(seed), sample, step, table.shape[1], N)
    w = philox.words(seed, np.arange(N), sample, step, "mix_choice")
    assert (out.numpy().view(np.uint32) == w).all()
    assert (uniforms.numpy() == philox.uniform(w[:, 0])).all()
    assert np.abs(normals.numpy() - philox.normal(w[:, :2])).max() < 1e-6
    assert (counts.numpy() == philox.poisson(w[:, 2], np.arange(N) % 256, table)).all()
