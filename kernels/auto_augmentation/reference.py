"""The operations in plain torch, equal to Pillow to the bit: the oracle of the kernels, and the route of other devices.

Coefficients are computed on the host with Python's arithmetic, pixels on the images' device, in float64 where Pillow
has double.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fastreg.kernels.auto_augmentation.operations import AUTO_AUGMENT_OPERATIONS


def auto_augment_reference(
    images: Tensor, operations: Tensor, magnitudes: Tensor, mode: int, modes: Tensor | None, fill: list[int]
) -> Tensor:
    """``auto_augment`` on checked arguments. An operation or interpolation out of range changes nothing."""
    choices = torch.full_like(operations, mode) if modes is None else modes
    for slot in range(operations.shape[1]):
        result = images.clone()
        known = (choices[:, slot] >= 0) & (choices[:, slot] <= 2)
        for number, name in enumerate(AUTO_AUGMENT_OPERATIONS):
            rows = ((operations[:, slot] == number) & known).nonzero().squeeze(1)
            if not len(rows) or name == "Identity":
                continue
            chosen, m = images[rows], magnitudes[rows, slot]
            if name in _MATRIX:
                result[rows] = _geometric(chosen, name, m.tolist(), choices[rows, slot].tolist(), fill)
            else:
                result[rows] = _PIXELS[name](chosen, m)
        images = result
    return images


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.int().unbind(3)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16)[..., None]


def _blend(degenerate: Tensor, images: Tensor, m: Tensor) -> Tensor:
    """Pillow's blend: float32, clipped and truncated."""
    factor = (m.double() + 1.0).float().view(-1, 1, 1, 1)
    low = degenerate.int()
    return (low.float() + factor * (images.int() - low).float()).clamp_(0, 255).to(torch.uint8)


def _contrast(images: Tensor, m: Tensor) -> Tensor:
    pixels = images.shape[1] * images.shape[2]
    total = _gray(images).sum((1, 2, 3), dtype=torch.int64)
    return _blend(((2 * total + pixels) // (2 * pixels)).view(-1, 1, 1, 1), images, m)


def _sharpness(images: Tensor, m: Tensor) -> Tensor:
    """The 3 x 3 mean with weight 5 in the middle; outermost pixels stay. The sum over 13 is never a half."""
    smooth, x = images.clone(), images.int()
    H, W = x.shape[1:3]
    if H > 2 and W > 2:
        taps = (x[:, j : H - 2 + j, i : W - 2 + i] for j in range(3) for i in range(3))
        total = sum(taps, 4 * x[:, 1:-1, 1:-1])
        smooth[:, 1:-1, 1:-1] = ((2 * total + 13) // 26).to(torch.uint8)
    return _blend(smooth, images, m)


def _by_table(images: Tensor, tables: Tensor) -> Tensor:
    """Levels by ``tables``, integers [B, 256] or [B, 3, 256]."""
    tables = tables.expand(len(images), 3, 256) if tables.ndim == 3 else tables[:, None].expand(-1, 3, -1)
    flat = images.flatten(1, 2).transpose(1, 2).long()
    return tables.to(torch.uint8).gather(2, flat).transpose(1, 2).reshape(images.shape)


def _histogram(images: Tensor) -> Tensor:
    """int64 [B, 3, 256]."""
    flat = images.flatten(1, 2).transpose(1, 2).long()
    return torch.zeros((len(images), 3, 256), dtype=torch.int64, device=images.device).scatter_add_(
        2, flat, torch.ones_like(flat)
    )


def _levels(images: Tensor) -> Tensor:
    return torch.arange(256, device=images.device)


def _range(images: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest level of each channel, int64 [B, 3, 1]."""
    flat = images.flatten(1, 2).long()
    return flat.amin(1)[..., None], flat.amax(1)[..., None]


def _auto_contrast(images: Tensor, m: Tensor) -> Tensor:
    low, high = _range(images)
    spread = (high - low).clamp(min=1).double()
    scale = torch.full_like(spread, 255) / spread  # 255 / tensor would be a reciprocal times 255, rounded twice
    level = _levels(images)
    stretched = (level.double() * scale + -low.double() * scale).clamp(0, 255).long()
    return _by_table(images, torch.where(high > low, stretched, level))


def _equalize(images: Tensor, m: Tensor) -> Tensor:
    counts = _histogram(images)
    low, high = _range(images)
    step = (images.shape[1] * images.shape[2] - counts.gather(2, high)) // 255
    table = (step // 2 + counts.cumsum(2) - counts) // step.clamp(min=1)
    return _by_table(images, torch.where((high > low) & (step > 0), table.clamp(max=255), _levels(images)))


def _posterize(images: Tensor, m: Tensor) -> Tensor:
    mask = (256 - 2.0 ** (8 - m.clamp(0, 8).trunc())).to(torch.uint8)
    return images & mask.view(-1, 1, 1, 1)


def _solarize(images: Tensor, m: Tensor) -> Tensor:
    return torch.where(images >= m.view(-1, 1, 1, 1), 255 - images, images)


def _solarize_add(images: Tensor, m: Tensor) -> Tensor:
    added = (images.int() + m.clamp(-256, 256).int().view(-1, 1, 1, 1)).clamp(0, 255)
    return torch.where(images < 128, added.to(torch.uint8), images)


_PIXELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Brightness": lambda images, m: _blend(torch.zeros_like(images), images, m),
    "Color": lambda images, m: _blend(_gray(images), images, m),
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": lambda images, m: 255 - images,
    "SolarizeAdd": _solarize_add,
}


def _rotation(m: float, H: int, W: int) -> tuple[float, ...]:
    """PIL.Image.rotate's."""
    angle = -math.radians(m % 360.0)
    c, s = round(math.cos(angle), 15), round(math.sin(angle), 15)
    return c, s, (c * (-W / 2) + s * (-H / 2)) + W / 2, -s, c, (-s * (-W / 2) + c * (-H / 2)) + H / 2


# a0 to a5 from the magnitude and the image's sides: x_in = a0 (x + 1/2) + a1 (y + 1/2) + a2
_MATRIX: dict[str, Callable[[float, int, int], tuple[float, ...]]] = {
    "ShearX": lambda m, H, W: (1.0, m, 0.0, 0.0, 1.0, 0.0),
    "ShearY": lambda m, H, W: (1.0, 0.0, 0.0, m, 1.0, 0.0),
    "TranslateX": lambda m, H, W: (1.0, 0.0, -float(int(m)), 0.0, 1.0, 0.0),
    "TranslateY": lambda m, H, W: (1.0, 0.0, 0.0, 0.0, 1.0, -float(int(m))),
    "Rotate": _rotation,
}


def _geometric(images: Tensor, name: str, magnitudes: list[float], modes: list[int], fill: list[int]) -> Tensor:
    _, H, W, _ = images.shape
    y = torch.arange(H, device=images.device)[:, None]
    x = torch.arange(W, device=images.device)[None, :]
    results = []
    for image, m, mode in zip(images, magnitudes, modes):
        a = _MATRIX[name](m, H, W)
        row, column = _source(a, y, x) if mode else _fixed_source(a, y, x, H, W)
        inside = ((row >= 0) & (row < H) & (column >= 0) & (column < W))[..., None]
        level = _interpolate(image, row, column, mode) if mode else image[row.clamp(0, H - 1), column.clamp(0, W - 1)]
        results.append(torch.where(inside, level, torch.tensor(fill, dtype=torch.uint8, device=images.device)))
    return torch.stack(results)


def _source(a: tuple[float, ...], y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    y, x = y.double() + 0.5, x.double() + 0.5
    return a[3] * x + a[4] * y + a[5], a[0] * x + a[1] * y + a[2]


def _fixed_source(a: tuple[float, ...], y: Tensor, x: Tensor, H: int, W: int) -> tuple[Tensor, Tensor]:
    """Row and column of the nearest pixel, int64, by Pillow's 16.16 fixed point, or in float64 where that overflows."""
    k = _fixed(a, H, W)
    a = _from_centers(a)
    if k is not None:
        return (k[3] * x + k[4] * y + k[5]) >> 16, (k[0] * x + k[1] * y + k[2]) >> 16
    y, x = y.double(), x.double()
    limit = 2.0**40  # of what fits an integer; such pixels are outside
    row, column = a[5] + a[4] * y + a[3] * x, a[2] + a[1] * y + a[0] * x
    return row.floor().clamp(-limit, limit).long(), column.floor().clamp(-limit, limit).long()


def fixed_point(name: str, m: float, H: int, W: int) -> list[int] | None:
    """a0 to a5 of a geometric operation, half pixels in a2 and a5, in units of 1 / 65536; None if Pillow takes float64.

    Args:
        name: The operation.
        m: Its magnitude.
        H, W: Sides of the image, pixels.
    """
    return _fixed(_MATRIX[name](m, H, W), H, W)


def _fixed(a: tuple[float, ...], H: int, W: int) -> list[int] | None:
    corners = [v * p + w * q + u for p, q in ((0, 0), (W, H), (0, H), (W, 0)) for v, w, u in (a[:3], a[3:])]
    if a[1] == a[3] == 0 or max(map(abs, corners)) >= 32768:
        return None
    return [math.floor(v * 65536.0 + 0.5) for v in _from_centers(a)]


def _from_centers(a: tuple[float, ...]) -> tuple[float, ...]:
    return a[0], a[1], a[2] + a[0] * 0.5 + a[1] * 0.5, a[3], a[4], a[5] + a[3] * 0.5 + a[4] * 0.5


def _interpolate(image: Tensor, row: Tensor, column: Tensor, mode: int) -> Tensor:
    """Bilinear (1) or bicubic (2) in float64, clipped and truncated; the image's border repeats."""
    H, W, _ = image.shape
    row, column = row - 0.5, column - 0.5
    top, left = row.floor().clamp(-2, H), column.floor().clamp(-2, W)
    dy, dx = (row - top)[..., None], (column - left)[..., None]
    image = image.double()
    taps = range(2) if mode == 1 else range(-1, 3)
    between: Callable[..., Tensor] = _linear if mode == 1 else _cubic

    def line(j: int) -> Tensor:
        y = (top.long() + j).clamp(0, H - 1)
        return between(*(image[y, (left.long() + i).clamp(0, W - 1)] for i in taps), dx)

    return between(*(line(j) for j in taps), dy).clamp(0, 255).to(torch.uint8)


def _linear(a: Tensor, b: Tensor, d: Tensor) -> Tensor:
    return a + (b - a) * d


def _cubic(v0: Tensor, v1: Tensor, v2: Tensor, v3: Tensor, d: Tensor) -> Tensor:
    p2 = -v0 + v2
    p3 = 2 * (v0 - v1) + v2 - v3
    p4 = -v0 + v1 - v2 + v3
    return v1 + d * (p2 + d * (p3 + d * p4))
