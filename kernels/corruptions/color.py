"""contrast, brightness and saturate: functions of each pixel, and of the mean of its image. Exact in float64.

    contrast    (x - mean) factor + mean, the mean per image and channel
    brightness  V + shift in HSV          saturate  S factor + shift in HSV

Bytes per value: hsv 2, contrast 3 (read for the sum, read again, written). Limit at 4.8 TB/s, 256 x 224 x 224 x 3: 16
us for hsv, 24 us for contrast. The limit of hsv is arithmetic: three divisions, about 300 instructions per pixel. Last
measured: not yet measured.

Source: ImageNet-C's generation script; scikit-image's HSV hexcone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import flat_levels, numbers, touched, variant
from fastreg.kernels.corruptions.pixels import on, quantize, triton_level, triton_unit, unit
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.registry import Op

PIXELS = 512  # per program: a thread keeps three channels in registers
# which of (V, P, Q, T) each channel takes in the six sectors of the hexcone
_SECTORS = np.array(((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2)))


def contrast(images: Tensor, factor: float, fields: dict) -> Tensor:
    return _contrast(images, on(np.array([factor], float), images.device))


def brightness(images: Tensor, shift: float, fields: dict) -> Tensor:
    return change_hsv(images, (1.0, 0.0, shift))


def saturate(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """``parameter``: factor, shift."""
    return change_hsv(images, (*parameter, 0.0))


def change_hsv(images: Tensor, change: tuple[float, float, float]) -> Tensor:
    """uint8 [B, n, n, 3] with S * change[0] + change[1] and V + change[2], clipped."""
    return _hsv(images, on(np.array(change, float), images.device))


def contrast_reference(images: Tensor, factor: Tensor) -> Tensor:
    """``factor``: float64 [1]."""
    count = images.shape[1] * images.shape[2]
    mean = images.sum((1, 2), keepdim=True, dtype=torch.int64).double() / (255 * count)
    return quantize(unit(images).sub_(mean).mul_(factor.item()).add_(mean))


def hsv_reference(images: Tensor, change: Tensor) -> Tensor:
    """``change_hsv`` with scikit-image's formulas in its order. ``change``: float64 [3]."""
    r, g, b = unit(images).unbind(-1)
    v = torch.maximum(torch.maximum(r, g), b)
    delta = v - torch.minimum(torch.minimum(r, g), b)
    gray = delta == 0
    delta_or_1 = delta.masked_fill(gray, 1)
    s = (delta / v).masked_fill_(gray, 0)
    sextant = torch.where(g == v, (b - r).div_(delta_or_1).add_(2), (g - b).div_(delta_or_1))
    sextant = torch.where(b == v, (r - g).div_(delta_or_1).add_(4), sextant)
    hue = (sextant / 6).remainder_(1).masked_fill_(gray, 0).mul_(6)

    factor, addend, shift = change.tolist()
    if (factor, addend) != (1, 0):
        s = s.mul_(factor).add_(addend).clamp_(0, 1)
    if shift:
        v = (v + shift).clamp_(0, 1)
    sector = hue.floor()
    f = hue - sector
    p = v * (1 - s)
    q = v * (1 - f * s)
    t = v * (1 - (1 - f) * s)
    choices = quantize(torch.stack((v, p, q, t), -1))
    table = on(_SECTORS, images.device)
    return choices.gather(-1, table[sector.long() % 6])


@triton.jit
def hsv_kernel(images_ptr, out_ptr, change_ptr, pixels, BLOCK: tl.constexpr):
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < pixels
    r = triton_unit(tl.load(images_ptr + pixel * 3, mask=live, other=0))
    g = triton_unit(tl.load(images_ptr + pixel * 3 + 1, mask=live, other=0))
    b = triton_unit(tl.load(images_ptr + pixel * 3 + 2, mask=live, other=0))
    v = tl.maximum(tl.maximum(r, g), b)
    delta = v - tl.minimum(tl.minimum(r, g), b)
    gray = delta == 0.0
    s = tl.where(gray, 0.0, delta / tl.where(gray, 1.0, v))
    turn = tl.where(b == v, r - g, tl.where(g == v, b - r, g - b)) / tl.where(gray, 1.0, delta)
    hue = (turn + tl.where(b == v, 4.0, tl.where(g == v, 2.0, 0.0)).to(tl.float64)) / 6.0
    hue = tl.where(gray, 0.0, tl.where(hue < 0.0, hue + 1.0, hue)) * 6.0

    s = tl.minimum(tl.maximum(s * tl.load(change_ptr) + tl.load(change_ptr + 1), 0.0), 1.0)
    v = tl.minimum(tl.maximum(v + tl.load(change_ptr + 2), 0.0), 1.0)
    sector = tl.floor(hue)
    f = hue - sector
    sector = sector.to(tl.int32) % 6
    f = tl.where(sector % 2 == 0, 1.0 - f, f)
    most = triton_level(v)
    least = triton_level(v * (1.0 - s))
    mid = triton_level(v * (1.0 - f * s))
    # the sectors in which a channel is the largest, and the middle one
    r = tl.where((sector == 0) | (sector == 5), most, tl.where((sector == 1) | (sector == 4), mid, least))
    g = tl.where((sector == 1) | (sector == 2), most, tl.where((sector == 0) | (sector == 3), mid, least))
    b = tl.where((sector == 3) | (sector == 4), most, tl.where((sector == 2) | (sector == 5), mid, least))
    tl.store(out_ptr + pixel * 3, r, mask=live)
    tl.store(out_ptr + pixel * 3 + 1, g, mask=live)
    tl.store(out_ptr + pixel * 3 + 2, b, mask=live)


def hsv_triton(images: Tensor, change: Tensor) -> Tensor:
    """``hsv_reference`` in one launch. ``change``: float64 [3] on the device."""
    out = torch.empty_like(images)
    pixels = images.numel() // 3
    hsv_kernel[(triton.cdiv(pixels, PIXELS),)](images, out, change, pixels, BLOCK=PIXELS, enable_fp_fusion=False)
    return out


@triton.jit
def sum_kernel(images_ptr, sums_ptr, pixels, BLOCK: tl.constexpr):
    """Write the sums of the levels of this program's pixels to ``sums``, int32 [B, 3, programs]."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    for c in tl.static_range(3):
        level = tl.load(images_ptr + (image * pixels + pixel) * 3 + c, mask=pixel < pixels, other=0)
        place = (image * 3 + c) * tl.num_programs(0) + tl.program_id(0)
        tl.store(sums_ptr + place, tl.sum(level.to(tl.int32), 0))


@triton.jit
def contrast_kernel(
    images_ptr, out_ptr, sums_ptr, factor_ptr, pixels, programs, PROGRAMS: tl.constexpr, BLOCK: tl.constexpr
):
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    factor = tl.load(factor_ptr)
    slot = tl.arange(0, PROGRAMS)
    for c in tl.static_range(3):
        total = tl.load(sums_ptr + (image * 3 + c) * programs + slot, mask=slot < programs, other=0).to(tl.int64)
        mean = tl.sum(total, 0).to(tl.float64) / (tl.cast(pixels, tl.float64) * 255.0)
        place = (image * pixels + pixel) * 3 + c
        x = triton_unit(tl.load(images_ptr + place, mask=pixel < pixels, other=0))
        tl.store(out_ptr + place, triton_level((x - mean) * factor + mean), mask=pixel < pixels)


def contrast_triton(images: Tensor, factor: Tensor) -> Tensor:
    """``contrast_reference`` in two launches. ``factor``: float64 [1] on the device."""
    batch, n = images.shape[:2]
    programs = triton.cdiv(n * n, PIXELS)
    sums = torch.empty((batch, 3, programs), dtype=torch.int32, device=images.device)
    out = torch.empty_like(images)
    sum_kernel[(programs, batch)](images, sums, n * n, BLOCK=PIXELS, enable_fp_fusion=False)
    contrast_kernel[(programs, batch)](
        images, out, sums, factor, n * n, programs,
        PROGRAMS=triton.next_power_of_2(programs), BLOCK=PIXELS, enable_fp_fusion=False,
    )  # fmt: skip
    return out


_contrast = routed(contrast_triton, "color.contrast", contrast_reference)
_hsv = routed(hsv_triton, "color.hsv", hsv_reference)
ROWS = (
    Corruption("brightness", brightness),
    Corruption("contrast", contrast),
    Corruption("saturate", saturate),
)


def _hsv_example(device="cpu", small: bool = True) -> dict[str, Any]:
    return {"images": flat_levels(device, small), "change": numbers(device, 2.0, 0.05, -0.2)}


def _hsv_on_host(images: Tensor, change: Tensor) -> Tensor:
    return hsv_reference(images.cpu(), change).to(images.device)


def _contrast_example(device="cpu", small: bool = True) -> dict[str, Any]:
    return {"images": flat_levels(device, small), "factor": numbers(device, 0.3)}


def _contrast_on_host(images: Tensor, factor: Tensor) -> Tensor:
    return contrast_reference(images.cpu(), factor).to(images.device)


OPS = (
    Op(
        "hsv", hsv_triton, _hsv_on_host, _hsv_example, touched, (variant("hsv", hsv_kernel, PIXELS, "compute"),),
        compiled=_hsv,
    ),
    Op(
        "contrast", contrast_triton, _contrast_on_host, _contrast_example, lambda a: 3 * a["images"].numel(),
        (
            variant("channel_sums", sum_kernel, PIXELS, "compute"),
            variant("contrast", contrast_kernel, PIXELS, "compute", PROGRAMS=128),
        ), compiled=_contrast,
    ),
)  # fmt: skip
