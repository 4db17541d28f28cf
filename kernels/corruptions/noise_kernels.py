"""The four noises in one kernel: draw and apply, no field in memory.

Formulas are those of ``noise``. A program draws BLOCK Philox elements of one sample and works on their four values
each. Bytes per value: 2 (shot_noise also searches a table in cache). Limit at 4.8 TB/s: 16 million images/s at 224 px;
at 30 to 83 instructions per value arithmetic bounds it earlier. Speed on a GPU: not yet measured.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.fields import Key, photon_table
from fastreg.kernels.corruptions.filters import on
from fastreg.kernels.corruptions.noise import photon_levels
from fastreg.kernels.corruptions.pixel_kernels import _level, _unit
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.philox import OPERATIONS, signed, triton_normal, triton_poisson, triton_words

BLOCK = 256


@triton.jit
def noise_kernel(
    images_ptr,  # uint8 [B,count]
    out_ptr,
    samples_ptr,  # int32 [B]
    table_ptr,  # uint32 [256,WIDTH] as int32: Poisson thresholds, read by shot_noise only
    levels_ptr,  # uint8 [photons + 1]: counts to levels, read by shot_noise only
    seed,
    step,
    count,
    sigma_ptr,  # float64 [1], read by gaussian_noise and speckle_noise only
    span,  # photons, or impulse_noise's threshold on the word
    OPERATION: tl.constexpr,
    KIND: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, b, c, d = triton_words(seed, element, tl.load(samples_ptr + tl.program_id(1)), step, OPERATION)
    value = element[:, None] * 4 + tl.arange(0, 4)[None, :]
    live = value < count
    value += tl.program_id(1).to(tl.int64) * count
    level = tl.load(images_ptr + value, mask=live, other=0)
    if KIND == "gaussian_noise" or KIND == "speckle_noise":
        a, b = triton_normal(a, b)
        c, d = triton_normal(c, d)
        noise = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK, 4)).to(tl.float64) * tl.load(sigma_ptr)
        x = _unit(level)
        if KIND == "speckle_noise":
            noise *= x
        level = _level(x + noise)
    else:
        word = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK, 4))
        if KIND == "impulse_noise":
            level = tl.where(word < span.to(tl.uint32), ((word & 1) * 255).to(tl.uint8), level)
        else:
            photons = triton_poisson(word, level.to(tl.int32), table_ptr, WIDTH)
            level = tl.load(levels_ptr + tl.minimum(photons, span))
    tl.store(out_ptr + value, level, mask=live)


def noise(name: str, images: Tensor, parameter: float, key: Key) -> Tensor:
    """uint8 [B,n,n,3] with the noise ``name`` of the strength ``parameter`` drawn from ``key``."""
    count = images[0].numel()
    samples = on(key.samples.astype(np.uint32).view(np.int32), images.device)
    out, table, levels, sigma, span = torch.empty_like(images), samples, images, samples, 0
    if name == "shot_noise":
        span = int(parameter)
        table = on(photon_table(span).view(np.int32), images.device)
        levels = on(photon_levels(span), images.device)
    elif name == "impulse_noise":
        span = 2 * round(parameter * 2**31)
    else:
        sigma = on(np.array([parameter], float), images.device)
    grid = (triton.cdiv(-(-count // 4), BLOCK), len(images))
    noise_kernel[grid](
        images, out, samples, table, levels, signed(key.seed), key.severity, count, sigma, span,
        OPERATION=OPERATIONS[name], KIND=name, WIDTH=table.shape[1] if name == "shot_noise" else 1, BLOCK=BLOCK,
        enable_fp_fusion=False,
    )  # fmt: skip
    return out
