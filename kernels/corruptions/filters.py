"""Building blocks that several corruptions share, each with the arithmetic of the published code's library.

Truncation to uint8 magnifies a rounding error of 1e-16 into a whole level wherever a result lands on an integer, as
in every flat area. So the order of the floating-point operations below is the libraries' own, and is kept.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions import filter_kernels, pixel_kernels
from fastreg.kernels.dispatch import use_triton


def on(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """A small array on the device, without waiting for it."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def unit(images: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """uint8 levels as numbers in [0,1]."""
    if use_triton(images):
        return pixel_kernels.unit(images, dtype)
    return images.to(dtype).div_(255)


def quantise(x: Tensor) -> Tensor:
    """Numbers on the 0-1 scale to uint8: clip, times 255, truncate. ``x`` may be overwritten."""
    if use_triton(x):
        return pixel_kernels.quantise(x)
    return x.clamp_(0, 1).mul_(255).int().to(torch.uint8)  # straight to bytes takes three times as long


def border(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """Source index int64 [before + n + after] of a padded line: "edge", "mirror" (edge pixel twice), "mirror101"."""
    i = np.arange(-before, n + after)
    if mode == "edge" or n == 1:
        return i.clip(0, n - 1)
    period = 2 * n if mode == "mirror" else 2 * n - 2
    i = i % period
    return np.where(i < n, i, period - 1 - i if mode == "mirror" else period - i)


def gaussian_weights(sigma: float, truncate: float = 4.0) -> np.ndarray:
    """float64 [2r + 1] normalised weights, r = int(truncate * sigma + 0.5), as scipy.ndimage makes them."""
    radius = int(truncate * sigma + 0.5)
    k = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / (sigma * sigma) * k**2)
    return weights / weights.sum()


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of [B,n,n,C] float64, edge clamped, cut at 4 sigma: bit-equal to scipy.ndimage's, rows first."""
    if sigma <= 1e-15:  # scipy leaves the axis alone
        return x
    weights = gaussian_weights(sigma)
    if len(weights) == 1:
        return x * float(weights[0])
    return (filter_kernels.gaussian if use_triton(x) else plain_gaussian)(x, on(weights, x.device))


def gaussian_levels(images: Tensor, sigma: float) -> Tensor:
    """``gaussian_blur`` of uint8 [B,n,n,C], truncated to uint8 again."""
    weights = gaussian_weights(sigma)
    if len(weights) > 1 and use_triton(images):
        return filter_kernels.gaussian(unit(images), on(weights, images.device), levels=True)
    return quantise(gaussian_blur(unit(images), sigma))


def plain_gaussian(x: Tensor, weights: Tensor) -> Tensor:
    """scipy folds the symmetric weights: centre times its weight, then pairs from the farthest to the nearest."""
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


@lru_cache(maxsize=64)
def gaussian_matrix(n: int, sigma: float, mode: str, truncate: float) -> np.ndarray:
    """float64 [n,n] matrix A with ``A @ x`` the Gaussian filter along a line of n pixels, borders folded in."""
    if sigma <= 1e-15:
        return np.eye(n)
    weights = gaussian_weights(sigma, truncate)
    radius = len(weights) // 2
    source = border(n, radius, radius, mode)
    matrix = np.zeros((n, n))
    for row in range(n):
        np.add.at(matrix[row], source[row : row + 2 * radius + 1], weights)
    return matrix


def gaussian_field(field: Tensor, sigma: float, mode: str, truncate: float = 4.0) -> Tensor:
    """Gaussian filter of random fields [...,n,n] in float64, equal to 1e-15, which will do: nothing is flat. As two
    matrix products; short filters on the CPU by OpenCV."""
    weights = gaussian_weights(sigma, truncate) if sigma > 1e-15 else np.ones(1)
    if len(weights) <= min(33, field.shape[-1]) and not use_triton(field):
        return _short_gaussian(field.double(), weights, mode)
    matrix = on(gaussian_matrix(field.shape[-1], float(sigma), mode, truncate), field.device)
    return matrix @ field.double() @ matrix.T


def _short_gaussian(field: Tensor, weights: np.ndarray, mode: str) -> Tensor:
    import cv2

    side = {"edge": cv2.BORDER_REPLICATE, "mirror": cv2.BORDER_REFLECT}[mode]
    out = torch.empty_like(field)
    for source, target in zip(field.flatten(0, -3).numpy(), out.flatten(0, -3).numpy()):
        cv2.sepFilter2D(source, -1, weights, weights, dst=target, borderType=side)
    return out


def zoom_grid(n: int, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the n output pixels of the centred zoom read: int64 index of the left neighbour and float64 weight of the
    right one. The centre ceil(n / zoom) pixels are stretched to round(that * zoom), corners aligned, and trimmed."""
    side = int(np.ceil(n / zoom))
    stretched = round(side * zoom)
    trim = (stretched - n) // 2
    place = np.arange(trim, trim + n) * ((side - 1) / (stretched - 1) if stretched > 1 else 0.0)
    left = np.minimum(place.astype(np.int64), max(side - 2, 0))
    return left + (n - side) // 2, place - left


def zoomed(x: Tensor, left: Tensor, weight: Tensor) -> Tensor:
    """[B,n,n,C] at ``left`` int64 and the pixels right of it, both axes. a + (b - a) * t leaves flat areas alone."""
    right = (left + 1).clamp_(max=x.shape[1] - 1)
    for axis, shape in ((1, (1, -1, 1, 1)), (2, (1, 1, -1, 1))):
        near = x.index_select(axis, left)
        x = x.index_select(axis, right).sub_(near).mul_(weight.view(shape)).add_(near)
    return x


def motion_weights(radius: float, sigma: float) -> np.ndarray:
    """float64 [2 ceil(radius) + 1] one-sided Gaussian, normalised (ImageMagick 6, effect.c)."""
    i = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(i**2) / (2.0 * sigma * sigma))
    return weights / weights.sum()


def motion_offsets(angle: Tensor | np.ndarray, count: int) -> tuple[Tensor, Tensor]:
    """Pixel offsets (x, y), int32 [B,count], of the taps along a ray at ``angle`` [B] degrees, on its device.

    ImageMagick rounds i along / hypot - 1/2 up, and at multiples of 30 degrees that is a whole number but for the last
    bit: so this is its arithmetic. On the host numpy's, whose sine is the C library's; torch's depends on the batch.
    """
    lib: Any = torch if isinstance(angle, Tensor) and angle.is_cuda else np
    angle = angle.double() if isinstance(angle, Tensor) else angle
    if lib is torch:
        i = torch.arange(count, device=angle.device)
    else:
        angle, i = np.asarray(angle, np.float64), np.arange(count)
    ray = angle[:, None] * math.pi / 180
    x, y = count * lib.cos(ray), count * lib.sin(ray)
    length = lib.hypot(y, x)
    dx, dy = (lib.asarray(lib.ceil(i * along / length - 0.5), dtype=lib.int32) for along in (x, y))
    return torch.as_tensor(dx), torch.as_tensor(dy)


def motion_blur(images: Tensor, angle: Tensor | np.ndarray, radius: float, sigma: float) -> Tensor:
    """ImageMagick 6 (16 bit) motion blur of uint8 [B,n,n,C], bit-equal: float64 sum over the taps in order, rounded to
    16 bits, cut to 8."""
    weights = motion_weights(radius, sigma)
    dx, dy = (on(offset, images.device) for offset in motion_offsets(angle, len(weights)))
    blur = filter_kernels.motion if use_triton(images) else plain_motion
    return blur(images, on(weights, images.device), dx, dy)


def plain_motion(images: Tensor, weights: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Taps at ``dx``, ``dy`` int32 [B,T], ``weights`` float64 [T]. Each image has its own ray, so on the CPU shifted
    slices of one padded image at a time are cheapest."""
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
