"""frost: the weighted sum of the image and a crop of a frost texture, clipped, on the 0-255 scale.

Of the five textures one is drawn, then a corner: rows in [0, H - n), columns in [0, W - n).

Bytes per value: 3. Limit at 4.8 TB/s, 256 x 224 x 224 x 3: 24 us. Last measured: not yet measured.

Source: ImageNet-C's generation script.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import levels, numbers, variant
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.pixels import Textures, on
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.registry import Op

BLOCK = 1024
LOADER = "fastreg.pipelines.frost.load_frost()"


def frost(images: Tensor, parameter: tuple[float, float], fields: dict) -> Tensor:
    """``parameter``: weight of the image, of the texture."""
    batch, n = images.shape[:2]
    first = torch.arange(batch, device=images.device) * (n * n)
    weights = on(np.array(parameter, float), images.device)
    return _blend(images, fields["texture"].contiguous(), first, torch.full_like(first, n), weights)


def frost_fused(name: str, images: Tensor, parameter: tuple[float, float], key: Key) -> Tensor:
    """Draw and apply in one launch: the kernel reads the crops from the textures."""
    weights = on(np.array(parameter, float), images.device)
    return _blend(images, *draw_crops(key, images.shape[1]), weights)


def draw_frost(key: Key, n: int, parameter, images) -> dict:
    pixels, first, stride = draw_crops(key, n)
    return {"texture": crops(pixels, first, stride, n)}


def draw_crops(key: Key, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of all textures uint8 [P, 3], and for each sample's crop the first pixel and the pixels between two rows,
    int64 [B]."""
    assert key.textures is not None
    pixels, start, rows, columns = key.textures
    words = philox.words(key.seed, 0, key.samples, key.severity, "frost")
    which = philox.integers(words[:, 0], len(rows))
    top = philox.integers(words[:, 1], rows[which] - n)
    left = philox.integers(words[:, 2], columns[which] - n)
    first = start[which] + top * columns[which] + left
    return pixels, on(first, key.device), on(columns[which], key.device)


def crops(pixels: Tensor, first: Tensor, stride: Tensor, n: int) -> Tensor:
    """uint8 [B, n, n, 3]: the crops that begin at pixel ``first`` of ``pixels``, their rows ``stride`` pixels apart."""
    line = torch.arange(n, device=pixels.device)
    place = first[:, None, None] + line[:, None] * stride[:, None, None] + line
    return pixels.index_select(0, place.flatten()).view(len(first), n, n, 3)


def join_textures(textures: Any, scale: float, n: int, device: torch.device) -> Textures:
    """Scale the frost textures and join them on the device.

    Args:
        textures: Five uint8 RGB arrays or tensors [H, W, 3], each larger than ``n`` pixels a side after scaling.
        scale: Factor of both sides.
        n: Side of the images.
        device: Device of the result.

    Returns:
        The textures. The last result is cached, and returned again for equal textures.

    Raises:
        TypeError: ``textures`` is not a sequence.
        ValueError: There are not five, or one is not uint8 RGB, or too small.
    """
    if textures is None:
        raise ValueError(f"`textures` is None: frost needs its five textures, which {LOADER} gives.")
    if isinstance(textures, str) or not isinstance(textures, Sequence | np.ndarray | Tensor):
        raise TypeError(
            f"`textures` is {type(textures).__name__}: give the five frost textures, uint8 arrays [H, W, 3]."
        )
    given = [np.asarray(texture.cpu() if isinstance(texture, Tensor) else texture) for texture in textures]
    if not given:
        raise ValueError(f"`textures` is empty: frost needs its five textures, which {LOADER} gives.")
    for number, texture in enumerate(given, 1):
        named = f"frost texture {number} in `textures`"
        if texture.dtype != np.uint8 or texture.ndim != 3 or texture.shape[2] != 3:
            raise ValueError(f"{named} is {texture.dtype} {list(texture.shape)}: give uint8 RGB [H, W, 3].")
        height, width = (round(side * scale) for side in texture.shape[:2])
        if height <= n or width <= n:
            scaled = f" (scaled by {scale:g})" if scale != 1 else ""
            raise ValueError(
                f"{named} is {height} x {width}{scaled}, not larger than the image of {n} px: "
                "give smaller images or larger textures."
            )
    if len(given) != 5:
        raise ValueError(f"`textures` holds {len(given)} textures: frost draws from five.")
    mark = scale, str(device)
    seen, joined = _last.get(mark, ([], None))
    if joined is None or not all(map(np.array_equal, seen, given)):  # comparing takes a quarter of a millisecond
        joined = _joined(given, scale, device)
        _last.clear()
        _last[mark] = [texture.copy() for texture in given], joined
    return joined


_last: dict = {}  # (scale, device): the last textures given, and the result for them


def _joined(textures: list[np.ndarray], scale: float, device: torch.device) -> Textures:
    import cv2

    scaled = [cv2.resize(t, None, fx=scale, fy=scale) if scale != 1 else t for t in textures]
    rows, columns = (np.array([p.shape[axis] for p in scaled], np.int64) for axis in (0, 1))
    start = np.concatenate(([0], np.cumsum(rows * columns)[:-1]))
    return Textures(on(np.concatenate([p.reshape(-1, 3) for p in scaled]), device), start, rows, columns)


def frost_reference(images: Tensor, pixels: Tensor, first: Tensor, stride: Tensor, weights: Tensor) -> Tensor:
    """uint8 [B, n, n, 3]: the sum of images and the crops of ``pixels`` uint8 [..., 3], weighted by float64 [2]."""
    image_weight, texture_weight = weights.tolist()
    texture = crops(pixels.view(-1, 3), first, stride, images.shape[1])
    x = images.double().mul_(image_weight).add_(texture.double().mul_(texture_weight))
    return x.clamp_(0, 255).to(torch.uint8)


@triton.jit
def frost_kernel(
    images_ptr,  # uint8 [B, n, n, 3]
    out_ptr,
    pixels_ptr,  # uint8 [P, 3]: the textures, one after the other
    first_ptr,  # int64 [B]: first pixel of the crop
    stride_ptr,  # int64 [B]: pixels in a row of the texture
    weights_ptr,  # float64 [2]
    n,
    BLOCK: tl.constexpr,
):
    value = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    live = value < n * n * 3
    y = value // (n * 3)
    place = (tl.load(first_ptr + image) + y * tl.load(stride_ptr + image)) * 3 + value % (n * 3)
    level = tl.load(images_ptr + image * (n * n * 3) + value, mask=live, other=0).to(tl.float64)
    texture = tl.load(pixels_ptr + place, mask=live, other=0).to(tl.float64)
    x = level * tl.load(weights_ptr) + texture * tl.load(weights_ptr + 1)
    x = tl.minimum(tl.maximum(x, 0.0), 255.0).to(tl.int32).to(tl.uint8)
    tl.store(out_ptr + image * (n * n * 3) + value, x, mask=live)


def frost_triton(images: Tensor, pixels: Tensor, first: Tensor, stride: Tensor, weights: Tensor) -> Tensor:
    """``frost_reference`` in one launch."""
    batch, n = images.shape[:2]
    out = torch.empty_like(images)
    grid = (triton.cdiv(n * n * 3, BLOCK), batch)
    frost_kernel[grid](images, out, pixels, first, stride, weights, n, BLOCK=BLOCK, enable_fp_fusion=False)
    return out


_blend = routed(frost_triton, "color.frost", frost_reference)
_TEXTURE = {"texture": ("uint8", ("n", "n", 3))}
ROWS = (Corruption("frost", frost, draw_frost, _TEXTURE, fused=frost_fused, textures=True),)


def _example(device="cpu", small: bool = True) -> dict[str, Any]:
    images = levels(device, small)
    first = torch.arange(len(images), device=device) * images.shape[1]
    stride = first * 0 + images.shape[1]
    pixels = images.flip(0, 1).reshape(-1, 3)
    return {"images": images, "pixels": pixels, "first": first, "stride": stride, "weights": numbers(device, 0.6, 0.75)}


OPS = (
    Op(
        "frost", frost_triton, frost_reference, _example, lambda a: 3 * a["images"].numel(),
        (variant("frost", frost_kernel, BLOCK, "gather", {"first_ptr": "*i64"}),), compiled=_blend,
    ),
)  # fmt: skip
