"""gaussian_blur, and the Gaussian filters that other corruptions share.

    out[i] = sum over |k| <= int(truncate sigma + 1/2) of exp(-k^2 / (2 sigma^2)) x[i + k] / sum of the weights

along rows, then columns, in float64. Images are filtered in the order of scipy.ndimage, bit-equal to it; random fields
as two matrix products, equal to 1e-15.

Bytes per value: 2 (2 radius + 1) float64 loads, 32 bytes (two passes, float64 in and out), 25 where levels are written.
Last measured: not yet measured.

Source: ImageNet-C's generation script; gaussian_filter of scipy.ndimage.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import levels, touched, variant
from fastreg.kernels.corruptions.layout import BLOCK, triton_block
from fastreg.kernels.corruptions.pixels import border, on, quantize, triton_level, unit
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import tl, triton, use_triton
from fastreg.kernels.registry import Op


def gaussian_blur(images: Tensor, sigma: float, fields: dict) -> Tensor:
    return filter_levels(images, float(sigma))


def filter_levels(images: Tensor, sigma: float) -> Tensor:
    """``filter_images`` of uint8 [B, n, n, C], truncated to uint8 again."""
    weights = gaussian_weights(sigma)
    if len(weights) > 1:
        return _levels(images, on(weights, images.device))
    return quantize(filter_images(unit(images), sigma))


def filter_images(x: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of float64 [B, n, n, C], edge clamped, truncated at 4 sigma."""
    if sigma <= 1e-15:  # scipy leaves the axis alone
        return x
    weights = gaussian_weights(sigma)
    if len(weights) == 1:
        return x * float(weights[0])
    return _numbers(x, on(weights, x.device))


def gaussian_weights(sigma: float, truncate: float = 4.0) -> np.ndarray:
    """float64 [2 radius + 1] normalized weights, radius = int(truncate * sigma + 0.5), as scipy.ndimage makes them."""
    radius = int(truncate * sigma + 0.5)
    k = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / (sigma * sigma) * k**2)
    return weights / weights.sum()


@lru_cache(maxsize=64)
def gaussian_matrix(n: int, sigma: float, mode: str, truncate: float) -> np.ndarray:
    """float64 [n, n] matrix A with ``A @ x`` the Gaussian filter along a line of n pixels, borders folded in."""
    if sigma <= 1e-15:
        return np.eye(n)
    weights = gaussian_weights(sigma, truncate)
    radius = len(weights) // 2
    source = border(n, radius, radius, mode)
    matrix = np.zeros((n, n))
    for row in range(n):
        np.add.at(matrix[row], source[row : row + 2 * radius + 1], weights)
    return matrix


def filter_field(field: Tensor, sigma: float, mode: str, truncate: float = 4.0) -> Tensor:
    """Gaussian filter of random fields [..., n, n] in float64. Nothing in them is flat, so an error of 1e-15 is
    harmless. Short filters on the CPU are OpenCV's."""
    weights = gaussian_weights(sigma, truncate) if sigma > 1e-15 else np.ones(1)
    if len(weights) <= min(33, field.shape[-1]) and not use_triton(field):
        return _short_filter(field.double(), weights, mode)
    matrix = on(gaussian_matrix(field.shape[-1], float(sigma), mode, truncate), field.device)
    return matrix @ field.double() @ matrix.T


def _short_filter(field: Tensor, weights: np.ndarray, mode: str) -> Tensor:
    import cv2

    side = {"edge": cv2.BORDER_REPLICATE, "mirror": cv2.BORDER_REFLECT}[mode]
    out = torch.empty_like(field)
    for source, target in zip(field.flatten(0, -3).numpy(), out.flatten(0, -3).numpy()):
        cv2.sepFilter2D(source, -1, weights, weights, dst=target, borderType=side)
    return out


def gaussian_reference(x: Tensor, weights: Tensor) -> Tensor:
    """Center times its weight, then pairs from the farthest to the nearest: scipy folds the symmetric weights."""
    radius = len(weights) // 2
    taps = weights.tolist()
    for axis in (1, 2):
        n = x.shape[axis]
        index = on(border(n, radius, radius, "edge"), x.device)
        padded = x.index_select(axis, index)
        x = padded.narrow(axis, radius, n) * taps[radius]
        pair = torch.empty_like(x)
        for j in range(radius, 0, -1):
            torch.add(padded.narrow(axis, radius - j, n), padded.narrow(axis, radius + j, n), out=pair)
            x.add_(pair.mul_(taps[radius + j]))
    return x


@triton.jit
def gaussian_kernel(
    x_ptr,  # float64 [B, n, n, C]
    out_ptr,
    weights_ptr,  # float64 [2 radius + 1]
    n,
    radius,
    DOWN: tl.constexpr,  # along the rows' axis, else along the columns'
    LEVELS: tl.constexpr,  # out is uint8
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    value, live, y, x, _c, first = triton_block(n, CHANNELS, BLOCK)
    place = y if DOWN else x
    stride = n * CHANNELS if DOWN else CHANNELS
    line = x_ptr + first + value - place * stride  # the first value of this line
    total = tl.load(line + place * stride, mask=live, other=0.0) * tl.load(weights_ptr + radius)
    for k in range(radius):
        j = radius - k
        near = tl.load(line + tl.maximum(place - j, 0) * stride, mask=live, other=0.0)
        far = tl.load(line + tl.minimum(place + j, n - 1) * stride, mask=live, other=0.0)
        total += (near + far) * tl.load(weights_ptr + radius + j)
    tl.store(out_ptr + first + value, triton_level(total) if LEVELS else total, mask=live)


def gaussian_triton(x: Tensor, weights: Tensor, levels: bool = False) -> Tensor:
    """float64 [B, n, n, C] filtered with ``weights`` [2 radius + 1] down, then across. ``levels``: written as uint8."""
    batch, n, _, channels = x.shape
    x = x.contiguous()
    grid = (triton.cdiv(n * n * channels, BLOCK), batch)
    for down in (True, False):
        cut = levels and not down
        out = torch.empty_like(x, dtype=torch.uint8 if cut else x.dtype)
        gaussian_kernel[grid](
            x, out, weights, n, len(weights) // 2,
            DOWN=down, LEVELS=cut, CHANNELS=channels, BLOCK=BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
        x = out
    return x


_numbers = routed(gaussian_triton, "gaussian.filter_numbers", gaussian_reference)
_levels = routed(
    lambda images, weights: gaussian_triton(unit(images), weights, levels=True),
    "gaussian.filter_levels",
    lambda images, weights: quantize(gaussian_reference(unit(images), weights)),
)
ROWS = (Corruption("gaussian_blur", gaussian_blur),)


def _example(device="cpu", small: bool = True) -> dict[str, Any]:
    return {"x": unit(levels(device, small)), "weights": on(gaussian_weights(2 if small else 6), torch.device(device))}


def _variant(label: str, out: str, **constants):
    return variant(label, gaussian_kernel, BLOCK, types={"out_ptr": out}, **constants)


OPS = (
    Op(
        "gaussian_filter", gaussian_triton, gaussian_reference, _example, touched,
        (
            _variant("gaussian_filter", "*fp64", DOWN=True, LEVELS=False, CHANNELS=3),
            _variant("gaussian_levels", "*u8", DOWN=False, LEVELS=True, CHANNELS=3),
            _variant("gaussian_filter, gray, down", "*fp64", DOWN=True, LEVELS=False, CHANNELS=1),
            _variant("gaussian_filter, gray, across", "*fp64", DOWN=False, LEVELS=False, CHANNELS=1),
        ), compiled=_numbers,
    ),
)  # fmt: skip
