"""glass_blur: blur, move pixels by up to ``reach``, blur.

The published raster loops, from the lower right corner up, copy a pixel where a swap was intended. So each pixel is
written once per pass, and the result is a gather: pixel p takes the value of q = p + (dx, dy). If q is below p, or to
the right of p in the same row, q was already written, and p takes the value that q took. Such steps form chains.

Bytes per pixel: 2 int16 loads per step of a chain, 3 bytes in and out per pass. Last measured: not yet measured.

Source: ImageNet-C's generation script.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import levels, touched, uniform, variant
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.gaussian import filter_levels
from fastreg.kernels.corruptions.layout import BLOCK, triton_block
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.registry import Op


def glass_blur(images: Tensor, parameter: tuple[float, int, int], fields: dict) -> Tensor:
    """``parameter``: sigma of both blurs, reach, passes."""
    sigma, reach, _ = parameter
    blurred = filter_levels(images, float(sigma))
    return filter_levels(_shuffle(blurred, fields["dx"], fields["dy"], reach), float(sigma))


def draw_glass_blur(key: Key, n: int, parameter: tuple[float, int, int], images) -> dict:
    """Integers from -reach to reach - 1, [(dx, dy), passes, n, n]."""
    _, reach, passes = parameter
    shift = key.field("integer", "glass_blur", 2, passes, n, n, span=2 * reach)
    return {"dx": shift[:, 0], "dy": shift[:, 1]}


def shuffle_reference(images: Tensor, dx: Tensor, dy: Tensor, reach: int) -> Tensor:
    """uint8 [B, n, n, 3] after all passes of the shuffle by ``dx`` and ``dy`` [B, passes, n, n]."""
    batch, n, _, channels = images.shape
    start = torch.arange(batch, device=images.device)[:, None] * (n * n)
    flat = images.view(-1, channels)
    for turn in range(dx.shape[1]):
        flat = flat.index_select(0, (_source(dx[:, turn], dy[:, turn], reach) + start).view(-1))
    return flat.view(images.shape)


def _source(dx: Tensor, dy: Tensor, reach: int) -> Tensor:
    """Flat index int64 [B, n * n] of the pixel whose value each pixel takes in one pass. Pointer doubling resolves the
    chains."""
    batch, n, _ = dx.shape
    line = torch.arange(n, device=dx.device)
    inside = (line > reach) & (line <= n - reach)
    moved = inside[:, None] & inside[None]
    dx, dy = (torch.where(moved, d, 0).long() for d in (dx, dy))
    place = line[:, None] * n + line[None]
    source = (place + dy * n + dx).view(batch, -1)
    written = (dy > 0) | ((dy == 0) & (dx > 0))
    follow = written.view(batch, -1) & moved.view(1, -1).expand(batch, -1).gather(1, source)
    if reach == 1:  # dx and dy are -1 or 0: never a pixel that was written before
        return source
    # A chain moves on in raster order, so it has fewer than n * n pixels; random ones need at most five doublings.
    for _ in range(max(1, (n * n).bit_length())):
        source, follow = (
            torch.where(follow, source.gather(1, source), source),
            follow & follow.gather(1, source),
        )
        if source.device.type == "cpu" and not follow.any():
            break
    return source


@triton.jit
def glass_kernel(
    levels_ptr,  # uint8 [B, n, n, 3]
    out_ptr,
    dx_ptr,  # int16 [B, passes, n, n]
    dy_ptr,
    n,
    reach,
    passes,
    BLOCK: tl.constexpr,
):
    """Each pixel walks back through the passes; within one it follows its chain to the pixel whose value it takes."""
    value, live, y, x, _c, first = triton_block(n, 1, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    for k in range(passes):
        shifts = (image * passes + (passes - 1 - k)) * (n * n)
        here = live & (y > reach) & (y <= n - reach) & (x > reach) & (x <= n - reach)
        while tl.max(here.to(tl.int32), 0) > 0:
            dx = tl.load(dx_ptr + shifts + y * n + x, mask=here, other=0).to(tl.int32)
            dy = tl.load(dy_ptr + shifts + y * n + x, mask=here, other=0).to(tl.int32)
            dx = tl.minimum(tl.maximum(dx, -reach), reach - 1)  # no shift reads outside the image
            dy = tl.minimum(tl.maximum(dy, -reach), reach - 1)
            y += dy
            x += dx
            written = (dy > 0) | ((dy == 0) & (dx > 0))
            here = here & written & (y > reach) & (y <= n - reach) & (x > reach) & (x <= n - reach)
    source = levels_ptr + first * 3 + (y * n + x) * 3
    target = out_ptr + first * 3 + value * 3
    for channel in tl.static_range(3):
        tl.store(target + channel, tl.load(source + channel, mask=live, other=0), mask=live)


def shuffle_triton(images: Tensor, dx: Tensor, dy: Tensor, reach: int) -> Tensor:
    """``shuffle_reference`` in one launch."""
    batch, n = images.shape[:2]
    out = torch.empty_like(images)
    grid = (triton.cdiv(n * n, BLOCK), batch)
    shifts = (dx.short().contiguous(), dy.short().contiguous())
    glass_kernel[grid](images, out, *shifts, n, reach, dx.shape[1], BLOCK=BLOCK, enable_fp_fusion=False)
    return out


_shuffle = routed(shuffle_triton, "glass.shuffle", shuffle_reference)
_SHIFTS = {"dx": ("shift", ("passes", "n", "n")), "dy": ("shift", ("passes", "n", "n"))}


def _sizes(parameter: tuple[float, int, int]) -> dict[str, int]:
    _, reach, passes = parameter
    return {"low": -reach, "high": reach - 1, "passes": passes}


ROWS = (Corruption("glass_blur", glass_blur, draw_glass_blur, _SHIFTS, _sizes),)


def _example(device="cpu", small: bool = True) -> dict[str, Any]:
    images = levels(device, small)
    reach, shape = (2, (len(images), 2, *images.shape[1:3]))
    dx, dy = ((uniform(device, 2, *shape) * 2 * reach).floor() - reach).short().unbind(0)
    return {"images": images, "dx": dx, "dy": dy, "reach": reach}


_SHORTS = dict.fromkeys(("dx_ptr", "dy_ptr"), "*i16")
OPS = (
    Op(
        "glass_shuffle", shuffle_triton, shuffle_reference, _example, touched,
        (variant("glass_shuffle", glass_kernel, BLOCK, types=_SHORTS),), compiled=_shuffle,
    ),
)  # fmt: skip
