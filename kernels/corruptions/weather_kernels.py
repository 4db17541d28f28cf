"""Kernels of fog and snow. Arithmetic as in ``weather`` and ``plasma``, operation for operation.

Bytes per pixel of three values: plasma's last and costliest level writes 3/4 of its map in float64 and reads a float32
and a quarter of the corners for each of its cells, 18 in all with the levels before it; fog 3 + 4 + 3; snow's layer
4 + 1, its blending 3 + 1 + 1 + 3. Limit at 4.8 TB/s, 256 x 224 x 224: 27 us for fog, 21 us for snow's blending.
Speed on a GPU: not yet measured.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.corruptions.pixel_kernels import _level, _unit
from fastreg.kernels.dispatch import tl, triton

BLOCK = 512
CELLS = 256  # per program of the plasma, twelve values each


@triton.jit
def _corner(height_ptr, i, j, cells, step, side, live):
    """The corner (i, j) of the periodic grid of ``cells`` cells to a side; that of a single cell is zero."""
    i = tl.where(i < 0, i + cells, tl.where(i < cells, i, i - cells))
    j = tl.where(j < 0, j + cells, tl.where(j < cells, j, j - cells))
    return tl.load(height_ptr + i * (step * side) + j * step, mask=live & (cells > 1), other=0.0)


@triton.jit
def _shift(uniform_ptr, y, x, scale, side, live):
    """The uniform of a place on (-1, 1), times the level's amplitude. Sides are powers of two, so & is modulo."""
    u = tl.load(uniform_ptr + (y & (side - 1)) * side + (x & (side - 1)), mask=live, other=0.0)
    return (u.to(tl.float64) * 2.0 - 1.0) * scale


@triton.jit
def plasma_kernel(
    height_ptr,  # float64 [B,m,m]: read at multiples of step, written half-way between
    uniform_ptr,  # float32 [B,m,m] in [0,1)
    scale_ptr,  # float64 [1]
    side,
    step,
    BLOCK: tl.constexpr,
):
    """One level: each cell's centre, and the middles of its upper and left edge. The centres above and to the left,
    which those need, are computed again."""
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
    centre = (upper + (below + far)) / 4.0 + _shift(uniform_ptr, y + half, x + half, scale, side, live)
    over = (above + above_right + upper) / 4.0 + _shift(uniform_ptr, y - half, x + half, scale, side, live)
    beside = ((left + here) + (left_below + below)) / 4.0 + _shift(uniform_ptr, y + half, x - half, scale, side, live)
    top = (upper + centre + over) / 4.0 + _shift(uniform_ptr, y, x + half, scale, side, live)
    edge = (here + below + centre + beside) / 4.0 + _shift(uniform_ptr, y + half, x, scale, side, live)
    place = height_ptr + y * side + x
    tl.store(place, here, mask=live & (cells == 1))
    tl.store(place + half * side + half, centre, mask=live)
    tl.store(place + half, top, mask=live)
    tl.store(place + half * side, edge, mask=live)


@triton.jit
def stretch_kernel(height_ptr, out_ptr, low_ptr, high_ptr, side, n, BLOCK: tl.constexpr):
    """The upper left n x n of maps stretched to [0,1], float32."""
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    live = value < n * n
    low = tl.load(low_ptr + image)
    span = tl.load(high_ptr + image) - low
    x = tl.load(height_ptr + (image * side + value // n) * side + value % n, mask=live, other=0.0)
    tl.store(out_ptr + image * (n * n) + value, ((x - low) / span).to(tl.float32), mask=live)


def plasma(uniform: Tensor, scales: Tensor, n: int) -> Tensor:
    """float32 [B,n,n] in [0,1] from uniforms on [0,1) float32 [B,m,m]; ``scales`` float64, an amplitude per level."""
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
    brightest = _unit(tl.load(brightest_ptr + image))
    fog = tl.load(plasma_ptr + image * (n * n) + value // 3, mask=live, other=0.0).to(tl.float64)
    x = _unit(tl.load(images_ptr + image * (n * n * 3) + value, mask=live, other=0))
    x = (x + fog * amount) * brightest / (brightest + amount)
    tl.store(out_ptr + image * (n * n * 3) + value, _level(x), mask=live)


def fog(images: Tensor, plasma: Tensor, amount: Tensor) -> Tensor:
    """uint8 [B,n,n,3] behind the fog ``plasma`` [B,n,n]; ``amount`` float64 [1] on the device."""
    batch, n = images.shape[:2]
    brightest = images.view(batch, -1).amax(1)
    out = torch.empty_like(images)
    grid = (triton.cdiv(n * n * 3, BLOCK), batch)
    fog_kernel[grid](images, out, plasma, brightest, amount, n, BLOCK=BLOCK, enable_fp_fusion=False)
    return out


@triton.jit
def flakes_kernel(
    normal_ptr,  # float [B,n,n]
    out_ptr,  # uint8 [B,n,n]
    left_ptr,  # int32 [n]
    weight_ptr,  # float64 [n]
    law_ptr,  # float64 [3]: std, mean, threshold
    n,
    BLOCK: tl.constexpr,
):
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = value < n * n
    y = value // n
    x = value % n
    normal_ptr += tl.program_id(1).to(tl.int64) * n * n
    std = tl.load(law_ptr)
    mean = tl.load(law_ptr + 1)
    top = tl.load(left_ptr + y, mask=live, other=0)
    left = tl.load(left_ptr + x, mask=live, other=0)
    below = tl.minimum(top + 1, n - 1)
    beside = tl.minimum(left + 1, n - 1)
    down = tl.load(weight_ptr + y, mask=live, other=0.0)
    a = tl.load(normal_ptr + top * n + left, mask=live, other=0.0).to(tl.float64) * std + mean
    b = tl.load(normal_ptr + top * n + beside, mask=live, other=0.0).to(tl.float64) * std + mean
    c = tl.load(normal_ptr + below * n + left, mask=live, other=0.0).to(tl.float64) * std + mean
    d = tl.load(normal_ptr + below * n + beside, mask=live, other=0.0).to(tl.float64) * std + mean
    a += (c - a) * down
    b += (d - b) * down
    a += (b - a) * tl.load(weight_ptr + x, mask=live, other=0.0)
    a = tl.where(a < tl.load(law_ptr + 2), 0.0, a)
    tl.store(out_ptr + tl.program_id(1).to(tl.int64) * n * n + value, _level(a), mask=live)


def flakes(normal: Tensor, left: Tensor, weight: Tensor, law: Tensor) -> Tensor:
    """uint8 [B,n,n,1]: normals [B,n,n] spread by ``law`` (std, mean, threshold; float64 [3]) and read at ``left`` and
    the place after it, weighed by ``weight`` float64 [n], in both directions; zero below the threshold."""
    batch, n, _ = normal.shape
    out = torch.empty((batch, n, n, 1), dtype=torch.uint8, device=normal.device)
    grid = (triton.cdiv(n * n, BLOCK), batch)
    flakes_kernel[grid](
        normal.contiguous(), out, left.int(), weight, law, n, BLOCK=BLOCK, enable_fp_fusion=False
    )  # fmt: skip
    return out


@triton.jit
def snow_kernel(
    images_ptr,  # uint8 [B,n,n,3]
    out_ptr,
    layer_ptr,  # uint8 [B,n,n]
    weight,  # of the image, of the whitened image
    white,
    n,
    BLOCK: tl.constexpr,
):
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < n * n
    first = tl.program_id(1).to(tl.int64) * n * n
    place = (first + pixel) * 3
    r = tl.math.div_rn(tl.load(images_ptr + place, mask=live, other=0).to(tl.float32), 255.0)
    g = tl.math.div_rn(tl.load(images_ptr + place + 1, mask=live, other=0).to(tl.float32), 255.0)
    b = tl.math.div_rn(tl.load(images_ptr + place + 2, mask=live, other=0).to(tl.float32), 255.0)
    grey = ((r * 0.299 + g * 0.587) + b * 0.114) * 1.5 + 0.5
    own = _unit(tl.load(layer_ptr + first + pixel, mask=live, other=0))
    turned = _unit(tl.load(layer_ptr + first + (n * n - 1 - pixel), mask=live, other=0))
    r = r * weight + tl.maximum(r, grey) * white
    g = g * weight + tl.maximum(g, grey) * white
    b = b * weight + tl.maximum(b, grey) * white
    tl.store(out_ptr + place, _level(r.to(tl.float64) + own + turned), mask=live)
    tl.store(out_ptr + place + 1, _level(g.to(tl.float64) + own + turned), mask=live)
    tl.store(out_ptr + place + 2, _level(b.to(tl.float64) + own + turned), mask=live)


def snow(images: Tensor, layer: Tensor, weight: float) -> Tensor:
    """uint8 [B,n,n,3] whitened by 1 - ``weight``, plus ``layer`` uint8 [B,n,n,1] and its half turn."""
    batch, n = images.shape[:2]
    out = torch.empty_like(images)
    grid = (triton.cdiv(n * n, BLOCK), batch)
    snow_kernel[grid](
        images, out, layer, float(weight), float(1 - weight), n, BLOCK=BLOCK, enable_fp_fusion=False
    )  # fmt: skip
    return out
