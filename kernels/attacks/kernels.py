"""The kernels of the attacks: one signed step, and the random start.

Bytes per element: 12 for a step in float32 (pixel and gradient in, pixel out), 16 with a projection. Limit at 4.3 TB/s
(H200), 256 x 3 x 224 x 224: 107 us. The random start moves 8 bytes; its draws make arithmetic the limit. Last measured:
not yet measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.dispatch import cdiv, tl, triton
from fastreg.kernels.philox import OPERATIONS, signed
from fastreg.kernels.philox_triton import triton_operation, triton_uniform, triton_words

STEP = 4096
START = 1024
LARGEST_GRID = 65_535  # programs along a CUDA grid's second axis


@triton.jit
def step_kernel(
    out,
    images,
    grad,
    origin,
    epsilon,
    radius,
    n,
    BLOCK: tl.constexpr,
    CLIP: tl.constexpr,
    PROJECT: tl.constexpr,
):
    """clip(project(x + epsilon * sign(g)), 0, 1) in memory order; NaN gradients stay NaN."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < n
    x = tl.load(images + at, mask=live, other=0.0)
    g = tl.load(grad + at, mask=live, other=0.0).to(tl.float32)
    step = tl.where(g > 0, epsilon, tl.where(g < 0, -epsilon, 0.0))
    x = tl.where(g == g, x + step, g)
    # comparisons: min and max would replace a NaN by a bound
    if PROJECT:
        base = tl.load(origin + at, mask=live, other=0.0)
        low = base - radius
        high = base + radius
        x = tl.where(x < low, low, tl.where(x > high, high, x))
    if CLIP:
        x = tl.where(x < 0.0, 0.0, tl.where(x > 1.0, 1.0, x))
    tl.store(out + at, x, mask=live)


@triton.jit(do_not_specialize=["seed"])
def start_kernel(
    out,
    images,
    indices,
    epsilon,
    seed,
    stride_b,
    stride_c,
    stride_y,
    stride_x,
    W,
    n,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    CLIP: tl.constexpr,
    OPERATION: tl.constexpr,
):
    """x + epsilon * (2 u - 1). The draw u has the sample's element ((y * W) + x) * C + c, in every layout."""
    b = tl.program_id(1).to(tl.int64)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = element < n
    key = tl.load(indices + b)
    group = tl.program_id(0) * (BLOCK // 4) + tl.arange(0, BLOCK // 4)  # of the four elements that share a counter
    p, q, r, s = triton_words(seed, group, key, 0, triton_operation(key, OPERATION))
    word = tl.reshape(tl.join(tl.join(p, r), tl.join(q, s)), (BLOCK,))
    pixel = element // C
    y = pixel // W
    at = b * stride_b + (element - pixel * C) * stride_c + y * stride_y + (pixel - y * W) * stride_x
    x = tl.load(images + at, mask=live, other=0.0) + (2.0 * triton_uniform(word) - 1.0) * epsilon
    if CLIP:
        x = tl.where(x < 0.0, 0.0, tl.where(x > 1.0, 1.0, x))
    tl.store(out + at, x, mask=live)


def step_triton(
    images: Tensor, grad: Tensor, epsilon: float, clip: bool, origin: Tensor | None, radius: float | None
) -> Tensor:
    """``fgsm_step`` on checked arguments of one layout."""
    out = torch.empty_like(images)
    n = images.numel()
    step_kernel[(cdiv(n, STEP),)](
        out, images, grad, origin, float(epsilon), float(radius or 0), n, STEP, clip, origin is not None, num_warps=8
    )
    return out


def start_triton(images: Tensor, epsilon: float, seed: int, indices: Tensor, clip: bool) -> Tensor:
    """``start_in_ball`` on checked arguments."""
    C, H, W = images.shape[1:]
    out = torch.empty_like(images)
    n = C * H * W
    operation = OPERATIONS["attack_start"]
    for chunk, *inputs in zip(*(tensor.split(LARGEST_GRID) for tensor in (out, images, indices))):
        if len(chunk) == 0:
            break  # an empty batch is one empty chunk
        start_kernel[(cdiv(n, START), len(chunk))](
            chunk, *inputs, float(epsilon), signed(seed), *images.stride(), W, n, C, START, clip, operation
        )
    return out
