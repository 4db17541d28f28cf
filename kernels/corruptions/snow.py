"""snow: a zoomed, thresholded and motion-blurred layer of normals and its half turn, added to a whitened image.

    layer   L = mean + std N, zoomed; 0 below the threshold; as uint8; motion blur
    image   x' = weight x + (1 - weight) max(x, 1.5 gray(x) + 0.5), in float32
    result  x' + L + rot180(L)

Bytes per pixel of three values: layer 4 + 1, result 3 + 1 + 1 + 3. Limit at 4.8 TB/s, 256 x 224 x 224: 21 us for the
result. Last measured: not yet measured.

Source: ImageNet-C's generation script; zoom of scipy.ndimage, ImageMagick's motion blur, OpenCV's gray.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import flat_levels, levels, numbers, touched, uniform, variant
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.layout import BLOCK
from fastreg.kernels.corruptions.motion import blur_along
from fastreg.kernels.corruptions.pixels import on, quantize, triton_level, triton_unit, unit
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.corruptions.zoom import read_between, zoom_grid
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.registry import Op


def snow(images: Tensor, parameter: tuple, fields: dict) -> Tensor:
    """``parameter``: mean, std, zoom, threshold, radius and sigma of the motion blur, weight of the image."""
    mean, std, zoom, threshold, radius, sigma, weight = parameter
    left, near = (on(values, images.device) for values in zoom_grid(images.shape[1], zoom))
    law = on(np.array((std, mean, threshold), float), images.device)
    layer = _flakes(fields["normal"], left, near, law)
    return _add(images, blur_along(layer, fields["angle"], radius, sigma), weight)


def draw_snow(key: Key, n: int, parameter, images) -> dict:
    return {"normal": key.field("normal", "snow", n, n), "angle": key.angle("snow_angle", -135)}


def flakes_reference(normal: Tensor, left: Tensor, weight: Tensor, law: Tensor) -> Tensor:
    """uint8 [B, n, n, 1] of normals [B, n, n], read between pixels. ``law`` float64 [3]: std, mean, threshold."""
    std, mean, threshold = law
    layer = read_between((normal.double() * std + mean)[..., None], left, weight)
    return quantize(layer.masked_fill_(layer < threshold, 0))


def snow_reference(images: Tensor, layer: Tensor, weight: float) -> Tensor:
    """uint8 [B, n, n, 3] whitened by 1 - ``weight``, plus ``layer`` uint8 [B, n, n, 1] and its half turn."""
    layer = unit(layer)
    x = unit(images, torch.float32)
    gray = (x[..., 0:1] * 0.299 + x[..., 1:2] * 0.587) + x[..., 2:3] * 0.114
    white = torch.maximum(x, gray.mul_(1.5).add_(0.5))
    x = x.mul_(weight).add_(white.mul_(1 - weight))
    return quantize(x.double().add_(layer).add_(layer.flip(1, 2)))


@triton.jit
def flakes_kernel(
    normal_ptr,  # float [B, n, n]
    out_ptr,  # uint8 [B, n, n]
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
    tl.store(out_ptr + tl.program_id(1).to(tl.int64) * n * n + value, triton_level(a), mask=live)


def flakes_triton(normal: Tensor, left: Tensor, weight: Tensor, law: Tensor) -> Tensor:
    """``flakes_reference`` in one launch."""
    batch, n, _ = normal.shape
    out = torch.empty((batch, n, n, 1), dtype=torch.uint8, device=normal.device)
    grid = (triton.cdiv(n * n, BLOCK), batch)
    flakes_kernel[grid](
        normal.contiguous(), out, left.int(), weight, law, n, BLOCK=BLOCK, enable_fp_fusion=False
    )  # fmt: skip
    return out


@triton.jit
def snow_kernel(
    images_ptr,  # uint8 [B, n, n, 3]
    out_ptr,
    layer_ptr,  # uint8 [B, n, n]
    weight,  # of the image
    white,  # of the whitened image
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
    gray = ((r * 0.299 + g * 0.587) + b * 0.114) * 1.5 + 0.5
    own = triton_unit(tl.load(layer_ptr + first + pixel, mask=live, other=0))
    turned = triton_unit(tl.load(layer_ptr + first + (n * n - 1 - pixel), mask=live, other=0))
    r = r * weight + tl.maximum(r, gray) * white
    g = g * weight + tl.maximum(g, gray) * white
    b = b * weight + tl.maximum(b, gray) * white
    tl.store(out_ptr + place, triton_level(r.to(tl.float64) + own + turned), mask=live)
    tl.store(out_ptr + place + 1, triton_level(g.to(tl.float64) + own + turned), mask=live)
    tl.store(out_ptr + place + 2, triton_level(b.to(tl.float64) + own + turned), mask=live)


def snow_triton(images: Tensor, layer: Tensor, weight: float) -> Tensor:
    """``snow_reference`` in one launch."""
    batch, n = images.shape[:2]
    out = torch.empty_like(images)
    grid = (triton.cdiv(n * n, BLOCK), batch)
    snow_kernel[grid](
        images, out, layer, float(weight), float(1 - weight), n, BLOCK=BLOCK, enable_fp_fusion=False
    )  # fmt: skip
    return out


_flakes = routed(flakes_triton, "warp.flakes", flakes_reference)
_add = routed(snow_triton, "weather.snow", snow_reference)
ROWS = (Corruption("snow", snow, draw_snow, {"normal": ("float", ("n", "n")), "angle": ("number", ())}),)


def _flakes_example(device="cpu", small: bool = True) -> dict[str, Any]:
    images = levels(device, small)
    left, weight = (on(values, images.device) for values in zoom_grid(images.shape[1], 2.5))
    normal = uniform(device, *images.shape[:3]) * 4 - 2
    return {"normal": normal, "left": left, "weight": weight, "law": numbers(device, 0.3, 0.55, 0.6)}


def _snow_example(device="cpu", small: bool = True) -> dict[str, Any]:
    images = flat_levels(device, small)
    return {"images": images, "layer": images[..., :1].flip(1).contiguous(), "weight": 0.55}


def _snow_on_host(images: Tensor, layer: Tensor, weight: float) -> Tensor:
    return snow_reference(images.cpu(), layer.cpu(), weight).to(images.device)


OPS = (
    Op(
        "snow_flakes", flakes_triton, flakes_reference, _flakes_example, touched,
        (variant("snow_flakes", flakes_kernel, BLOCK, types={"weight_ptr": "*fp64"}),), compiled=_flakes,
    ),
    Op(
        "snow", snow_triton, _snow_on_host, _snow_example, touched,
        (variant("snow", snow_kernel, BLOCK, "compute"),), compiled=_add,
    ),
)  # fmt: skip
