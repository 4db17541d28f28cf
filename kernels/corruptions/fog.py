"""fog: (x + amount P) m / (m + amount), m the brightest value of the image, P a plasma fractal.

The plasma is a periodic diamond-square map, whose side is the next power of two. Every cell but the corner takes the
uniform at its own position, stretched to (-1, 1). The amplitude starts at 100^2 and falls by decay^2 per level. The
final stretch to [0, 1] cancels its scale.

Bytes per pixel of three values: plasma 18, of which its last level takes most (it writes 3/4 of its map in float64 and
reads a float32 and a quarter of the corners for each of its cells); fog 3 + 4 + 3. Limit at
4.8 TB/s, 256 x 224 x 224: 27 us for fog. Last measured: not yet measured.

Source: ImageNet-C's generation script.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import flat_levels, numbers, touched, uniform, variant
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.layout import BLOCK
from fastreg.kernels.corruptions.pixels import on, quantize, triton_level, triton_unit, unit
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.registry import Op

CELLS = 256  # per program of the plasma, twelve values each


def fog(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """``parameter``: amount, decay of the plasma."""
    amount = on(np.array(parameter[:1], float), images.device)
    return _add(images, fields["plasma"].contiguous(), amount)


def draw_fog(key: Key, n: int, parameter: tuple[float, float], images) -> dict:
    side = map_side(n)
    return {"plasma": plasma(key.field("uniform", "fog", side, side), parameter[1], n)}


def map_side(n: int) -> int:
    """Side of the map that is cropped to ``n``: the next power of two (256 for 224, 32 for 32)."""
    return 1 << max(n - 1, 1).bit_length()


def plasma(uniform: Tensor, decay: float, n: int) -> Tensor:
    """float32 [B, n, n] in [0, 1] of uniforms on [0, 1) float32 [B, m, m], m a power of two."""
    scales = amplitudes(uniform.shape[-1], decay)
    return _plasma(uniform, on(scales, uniform.device), n)


def amplitudes(side: int, decay: float) -> np.ndarray:
    """float64, one per level of a map of ``side`` pixels."""
    amplitude, scales = 100.0, []
    for _ in range(side.bit_length() - 1):
        scales.append(amplitude * amplitude)
        amplitude /= decay
    return np.array(scales)


def plasma_reference(uniform: Tensor, scales: Tensor, n: int) -> Tensor:
    """``plasma`` with ``scales`` float64, an amplitude per level."""
    uniform = uniform.to(torch.float64, copy=True).mul_(2).sub_(1)
    height = torch.zeros_like(uniform)
    step = uniform.shape[-1]
    for scale in scales.tolist():
        half = step // 2
        corner = height[:, ::step, ::step]
        right = corner + corner.roll(-1, 2)
        below = corner + corner.roll(-1, 1)
        center = (right + right.roll(-1, 1)).div_(4).add_(uniform[:, half::step, half::step] * scale)
        top = (right + center + center.roll(1, 1)).div_(4).add_(uniform[:, ::step, half::step] * scale)
        left = (below + center + center.roll(1, 2)).div_(4).add_(uniform[:, half::step, ::step] * scale)
        height[:, half::step, half::step] = center
        height[:, ::step, half::step] = top
        height[:, half::step, ::step] = left
        step = half
    height -= height.amin((1, 2), keepdim=True)
    return height.div_(height.amax((1, 2), keepdim=True))[:, :n, :n].float()


def fog_reference(images: Tensor, plasma: Tensor, amount: Tensor) -> Tensor:
    """uint8 [B, n, n, 3] behind the fog ``plasma`` [B, n, n]; ``amount`` float64 [1]."""
    brightest = images.amax((1, 2, 3), keepdim=True).double().div_(255)
    x = unit(images).add_(plasma.double()[..., None] * amount)
    return quantize(x.mul_(brightest).div_(brightest + amount))


@triton.jit
def _corner(height_ptr, i, j, cells, step, side, live):
    """The corner (i, j) of the periodic grid of ``cells`` cells to a side; that of a single cell is zero."""
    i = tl.where(i < 0, i + cells, tl.where(i < cells, i, i - cells))
    j = tl.where(j < 0, j + cells, tl.where(j < cells, j, j - cells))
    return tl.load(height_ptr + i * (step * side) + j * step, mask=live & (cells > 1), other=0.0)


@triton.jit
def _shift(uniform_ptr, y, x, scale, side, live):
    """The uniform at a position on (-1, 1), times the amplitude. Sides are powers of two, so & is modulo."""
    u = tl.load(uniform_ptr + (y & (side - 1)) * side + (x & (side - 1)), mask=live, other=0.0)
    return (u.to(tl.float64) * 2.0 - 1.0) * scale


@triton.jit
def plasma_kernel(
    height_ptr,  # float64 [B, m, m]: read at multiples of step, written half-way between
    uniform_ptr,  # float32 [B, m, m] in [0, 1)
    scale_ptr,  # float64 [1]
    side,
    step,
    BLOCK: tl.constexpr,
):
    """One level: the center of each cell, and the middles of its upper and left edge. Those need the centers above and
    to the left, which are computed again."""
    cells = side // step
    half = step // 2
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = cell < cells * cells
    i = cell // cells
    j = cell % cells
    height_ptr += tl.program_id(1).to(tl.int64) * side * side
    uniform_ptr += tl.program_id(1).to(tl.int64) * side * side
    scale = tl.load(scale_ptr)
    here = _corner(height_ptr, i, j, cells, step, side, live)
    right = _corner(height_ptr, i, j + 1, cells, step, side, live)
    below = _corner(height_ptr, i + 1, j, cells, step, side, live)
    far = _corner(height_ptr, i + 1, j + 1, cells, step, side, live)
    above = _corner(height_ptr, i - 1, j, cells, step, side, live)
    above_right = _corner(height_ptr, i - 1, j + 1, cells, step, side, live)
    left = _corner(height_ptr, i, j - 1, cells, step, side, live)
    left_below = _corner(height_ptr, i + 1, j - 1, cells, step, side, live)
    y = i * step
    x = j * step
    upper = here + right
    center = (upper + (below + far)) / 4.0 + _shift(uniform_ptr, y + half, x + half, scale, side, live)
    over = (above + above_right + upper) / 4.0 + _shift(uniform_ptr, y - half, x + half, scale, side, live)
    beside = ((left + here) + (left_below + below)) / 4.0 + _shift(uniform_ptr, y + half, x - half, scale, side, live)
    top = (upper + center + over) / 4.0 + _shift(uniform_ptr, y, x + half, scale, side, live)
    edge = (here + below + center + beside) / 4.0 + _shift(uniform_ptr, y + half, x, scale, side, live)
    place = height_ptr + y * side + x
    tl.store(place, here, mask=live & (cells == 1))
    tl.store(place + half * side + half, center, mask=live)
    tl.store(place + half, top, mask=live)
    tl.store(place + half * side, edge, mask=live)


@triton.jit
def stretch_kernel(height_ptr, out_ptr, low_ptr, high_ptr, side, n, BLOCK: tl.constexpr):
    """The upper left n x n of maps stretched to [0, 1], float32."""
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    live = value < n * n
    low = tl.load(low_ptr + image)
    span = tl.load(high_ptr + image) - low
    x = tl.load(height_ptr + (image * side + value // n) * side + value % n, mask=live, other=0.0)
    tl.store(out_ptr + image * (n * n) + value, ((x - low) / span).to(tl.float32), mask=live)


def plasma_triton(uniform: Tensor, scales: Tensor, n: int) -> Tensor:
    """``plasma_reference``: a launch per level, then the stretch."""
    batch, side, _ = uniform.shape
    height = torch.empty_like(uniform, dtype=torch.float64)
    for level, scale in enumerate(scales.unbind()):
        grid = (triton.cdiv(4**level, CELLS), batch)
        plasma_kernel[grid](height, uniform, scale, side, side >> level, BLOCK=CELLS, enable_fp_fusion=False)
    low, high = torch.aminmax(height.flatten(1), dim=1)
    out = uniform.new_empty((batch, n, n))
    grid = (triton.cdiv(n * n, BLOCK), batch)
    stretch_kernel[grid](height, out, low, high, side, n, BLOCK=BLOCK, enable_fp_fusion=False)
    return out


@triton.jit
def fog_kernel(images_ptr, out_ptr, plasma_ptr, brightest_ptr, amount_ptr, n, BLOCK: tl.constexpr):
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    live = value < n * n * 3
    amount = tl.load(amount_ptr)
    brightest = triton_unit(tl.load(brightest_ptr + image))
    fog = tl.load(plasma_ptr + image * (n * n) + value // 3, mask=live, other=0.0).to(tl.float64)
    x = triton_unit(tl.load(images_ptr + image * (n * n * 3) + value, mask=live, other=0))
    x = (x + fog * amount) * brightest / (brightest + amount)
    tl.store(out_ptr + image * (n * n * 3) + value, triton_level(x), mask=live)


def fog_triton(images: Tensor, plasma: Tensor, amount: Tensor) -> Tensor:
    """``fog_reference`` in one launch, after torch's maximum."""
    batch, n = images.shape[:2]
    brightest = images.view(batch, -1).amax(1)
    out = torch.empty_like(images)
    grid = (triton.cdiv(n * n * 3, BLOCK), batch)
    fog_kernel[grid](images, out, plasma, brightest, amount, n, BLOCK=BLOCK, enable_fp_fusion=False)
    return out


_plasma = routed(plasma_triton, "weather.plasma", plasma_reference)
_add = routed(fog_triton, "weather.fog", fog_reference)
ROWS = (Corruption("fog", fog, draw_fog, {"plasma": ("float", ("n", "n"))}),)


def _plasma_example(device="cpu", small: bool = True) -> dict[str, Any]:
    batch, side, n = (2, 32, 19) if small else (256, 256, 224)
    scales = on(amplitudes(side, 1.4), torch.device(device))
    return {"uniform": uniform(device, batch, side, side), "scales": scales, "n": n}


def _fog_example(device="cpu", small: bool = True) -> dict[str, Any]:
    images = flat_levels(device, small) // 2
    return {"images": images, "plasma": uniform(device, *images.shape[:3]), "amount": numbers(device, 2.5)}


def _fog_on_host(images: Tensor, plasma: Tensor, amount: Tensor) -> Tensor:
    return fog_reference(images.cpu(), plasma.cpu(), amount.cpu()).to(images.device)


OPS = (
    Op(
        "plasma", plasma_triton, plasma_reference, _plasma_example, lambda a: 18 * a["uniform"].numel(),
        (
            variant("plasma", plasma_kernel, CELLS),
            variant("plasma, large cells", plasma_kernel, CELLS, divisible=("step",)),
            variant("stretch", stretch_kernel, BLOCK, types={"out_ptr": "*fp32"}),
        ), compiled=_plasma,
    ),
    Op("fog", fog_triton, _fog_on_host, _fog_example, touched, (variant("fog", fog_kernel, BLOCK),), compiled=_add),
)  # fmt: skip
