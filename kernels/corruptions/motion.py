"""motion_blur, and the ray of taps that snow shares: ImageMagick 6's motion blur (16 bit), bit-equal.

    w_i = exp(-i^2 / (2 sigma^2)) / sum        for i = 0 ... 2 ceil(radius), a one-sided Gaussian
    (dx_i, dy_i) = ceil(i (cos, sin)(angle) - 1/2)
    out(y, x) = floor(floor(sum of w_i 257 u(y + dy_i, x + dx_i) + 1/2) / 257), edge clamped

Bytes per value: one byte load per tap, 2 bytes. Last measured: not yet measured.

Source: ImageNet-C's generation script; ImageMagick 6, effect.c.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import levels, touched, uniform, variant
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.layout import BLOCK, triton_block
from fastreg.kernels.corruptions.pixels import border, on
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.registry import Op


def motion_blur(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """``parameter``: radius, sigma."""
    return blur_along(images, fields["angle"], *parameter)


def draw_motion_blur(key: Key, n: int, parameter, images) -> dict:
    return {"angle": key.angle("motion_angle", -45)}


def blur_along(images: Tensor, angle: Tensor | np.ndarray, radius: float, sigma: float) -> Tensor:
    """Motion blur of uint8 [B, n, n, C] at ``angle`` [B] degrees."""
    weights = motion_weights(radius, sigma)
    dx, dy = (on(offset, images.device) for offset in motion_offsets(angle, len(weights)))
    return _blur(images, on(weights, images.device), dx, dy)


def motion_weights(radius: float, sigma: float) -> np.ndarray:
    """float64 [2 ceil(radius) + 1] one-sided Gaussian, normalized."""
    i = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(i**2) / (2.0 * sigma * sigma))
    return weights / weights.sum()


def motion_offsets(angle: Tensor | np.ndarray, count: int) -> tuple[Tensor, Tensor]:
    """Pixel offsets (x, y), int32 [B, count], of the taps along a ray at ``angle`` [B] degrees, on its device.

    At multiples of 30 degrees, i along / hypot - 1/2 is a whole number up to its last bit, which decides the rounding.
    This function therefore repeats ImageMagick's arithmetic. The host uses numpy, whose sine is that of the C library;
    torch's sine depends on the batch.
    """
    lib: Any = torch if isinstance(angle, Tensor) and angle.is_cuda else np
    degrees: Any = angle.double() if isinstance(angle, Tensor) else angle
    i: Any
    if lib is torch:
        i = torch.arange(count, device=degrees.device)
    else:
        degrees, i = np.asarray(degrees, np.float64), np.arange(count)
    ray = degrees[:, None] * math.pi / 180
    x, y = count * lib.cos(ray), count * lib.sin(ray)
    length = lib.hypot(y, x)
    dx, dy = (lib.asarray(lib.ceil(i * along / length - 0.5), dtype=lib.int32) for along in (x, y))
    return torch.as_tensor(dx), torch.as_tensor(dy)


def motion_reference(images: Tensor, weights: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """uint8 [B, n, n, C] blurred by taps at ``dx`` and ``dy`` int32 [B, T], weighed by ``weights`` float64 [T]."""
    # Each image has its own ray, so shifted slices of one padded image at a time are cheapest on the CPU.
    n = images.shape[1]
    left, right, up, down = (max(0, int(reach)) for reach in (-dx.min(), dx.max(), -dy.min(), dy.max()))
    rows = on(border(n, up, down, "edge"), images.device)
    columns = on(border(n, left, right, "edge"), images.device)
    out = torch.empty_like(images)
    for image, target, across, along in zip(images, out, dx.tolist(), dy.tolist()):
        padded = image.to(torch.float64).mul_(257).index_select(0, rows).index_select(1, columns)
        total = torch.zeros(image.shape, dtype=torch.float64, device=images.device)
        for weight, x, y in zip(weights.tolist(), across, along):
            total.add_(padded[up + y : up + y + n, left + x : left + x + n], alpha=weight)
        target.copy_(total.add_(0.5).floor_().div_(257))
    return out


@triton.jit
def _sixteen_bits(levels_ptr, live):
    return (tl.load(levels_ptr, mask=live, other=0).to(tl.int32) * 257).to(tl.float64)


@triton.jit
def _eight_bits(total):
    return ((total + 0.5).to(tl.int32) // 257).to(tl.uint8)


@triton.jit
def motion_kernel(
    images_ptr,  # uint8 [B, n, n, C]
    out_ptr,
    weights_ptr,  # float64 [T]
    dx_ptr,  # int32 [B, T]
    dy_ptr,
    n,
    taps,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # A thread has whole pixels: the positions of a tap, most of its instructions, are computed once for three values.
    pixel, live, y, x, _c, first = triton_block(n, 1, BLOCK)
    image, out = images_ptr + first * CHANNELS, out_ptr + first * CHANNELS + pixel * CHANNELS
    red = tl.zeros([BLOCK], tl.float64)
    green, blue = red, red
    ray = tl.program_id(1) * taps
    for i in range(taps):
        row = tl.minimum(tl.maximum(y + tl.load(dy_ptr + ray + i), 0), n - 1)
        column = tl.minimum(tl.maximum(x + tl.load(dx_ptr + ray + i), 0), n - 1)
        read, weight = image + (row * n + column) * CHANNELS, tl.load(weights_ptr + i)
        red += _sixteen_bits(read, live) * weight
        if CHANNELS == 3:
            green += _sixteen_bits(read + 1, live) * weight
            blue += _sixteen_bits(read + 2, live) * weight
    tl.store(out, _eight_bits(red), mask=live)
    if CHANNELS == 3:
        tl.store(out + 1, _eight_bits(green), mask=live)
        tl.store(out + 2, _eight_bits(blue), mask=live)


def motion_triton(images: Tensor, weights: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """``motion_reference`` in one launch."""
    batch, n, _, channels = images.shape
    out = torch.empty_like(images)
    motion_kernel[(triton.cdiv(n * n, BLOCK), batch)](
        images, out, weights, dx, dy, n, len(weights),
        CHANNELS=channels, BLOCK=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    return out


_blur = routed(motion_triton, "motion.blur", motion_reference)
ROWS = (Corruption("motion_blur", motion_blur, draw_motion_blur, {"angle": ("number", ())}),)


def _example(device="cpu", small: bool = True) -> dict[str, Any]:
    images = levels(device, small)
    weights = on(motion_weights(*((4, 2) if small else (20, 15))), torch.device(device))
    dx, dy = motion_offsets(uniform(device, len(images)) * 360, len(weights))
    return {"images": images, "weights": weights, "dx": dx, "dy": dy}


_OFFSETS = dict.fromkeys(("dx_ptr", "dy_ptr"), "*i32")
OPS = (
    Op(
        "motion_taps", motion_triton, motion_reference, _example, touched,
        (
            variant("motion_taps", motion_kernel, BLOCK, types=_OFFSETS, elements=3 * BLOCK, CHANNELS=3),
            variant("motion_taps, gray", motion_kernel, BLOCK, types=_OFFSETS, CHANNELS=1),
        ), compiled=_blur,
    ),
)  # fmt: skip
