"""The random fields of each corruption, drawn from (seed, sample index, severity, operation).

Each function gives what its corruption takes as ``fields``, batch first, tensors on the device; numbers per sample stay
on the host, as numpy arrays. A field of many values takes value j from word
j % 4 of element j // 4 (``philox.field``), j counting in row-major order over the shape said beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.corruptions import field_kernels
from fastreg.kernels.corruptions.filters import on
from fastreg.kernels.corruptions.plasma import map_side, plasma
from fastreg.kernels.dispatch import use_triton


class Photographs(NamedTuple):
    """The five frost photographs, one behind the other."""

    pixels: Tensor  # uint8 [sum of rows times columns, 3] on the device
    start: np.ndarray  # int64 [5] each one's first pixel
    rows: np.ndarray  # int64 [5]
    columns: np.ndarray  # int64 [5]


class Key(NamedTuple):
    """What a draw depends on, and where its result goes."""

    seed: int
    samples: np.ndarray  # int64 [B], index into the data set
    severity: int
    device: torch.device
    photographs: Photographs | None = None  # of frost

    def field(self, kind: str, operation: str, *shape: int, span: int = 0, levels: Tensor | None = None) -> Tensor:
        """[B, *shape] values of ``kind`` (a key of ``field_kernels.DTYPES``) on the device. ``span`` is the number of
        integers, the threshold of impulses, or the photons at full white of counts, whose pixels are ``levels``."""
        table = None
        if kind == "poisson":
            table, span = on(photon_table(span).view(np.int32), self.device), 0
        samples = on(self.samples.astype(np.uint32).view(np.int32), self.device)
        draw = field_kernels.field if use_triton(samples) else host_field
        count = int(np.prod(shape))
        values = draw(kind, self.seed, samples, count, self.severity, operation, span, levels, table)
        return values.view(len(samples), *shape)

    def angle(self, operation: str, first: int) -> np.ndarray:
        """float32 [B], uniform on the 90 degrees from ``first`` on: a number per sample is the host's to draw."""
        uniform = philox.field(philox.uniform, self.seed, self.samples, 1, self.severity, operation)
        return uniform[:, 0] * 90 + first


def host_field(
    kind: str,
    seed: int,
    samples: Tensor,
    count: int,
    step: int,
    operation: str,
    span: int = 0,
    levels: Tensor | None = None,
    table: Tensor | None = None,
) -> Tensor:
    """``field_kernels.field`` by numpy: [B,count] values of ``kind`` for ``samples`` int32 [B]."""

    def draw(words: np.ndarray) -> np.ndarray:
        if kind == "integer":
            return philox.integers(words, span) - span // 2
        if kind == "impulse":
            return (words < span).view(np.uint8) | (words.astype(np.uint8) & np.uint8(1)) << 1
        if levels is not None and table is not None:
            rows = levels.flatten(1).cpu().numpy()
            return philox.poisson(words[:, :count], rows, table.cpu().numpy().view(np.uint32))
        return philox.normal(words) if kind == "normal" else philox.uniform(words)

    values = philox.field(draw, seed, samples.cpu().numpy().view(np.uint32), count, step, operation)
    return torch.from_numpy(values).to(samples.device, field_kernels.DTYPES[kind])


@lru_cache(maxsize=32)
def photon_table(photons: int) -> np.ndarray:
    """Poisson table for each of the 256 levels, uint32 [256, a power of two]."""
    return philox.poisson_table(np.arange(256) * photons / 255)


def gaussian_noise(key: Key, n: int, parameter, images) -> dict:
    return {"normal": key.field("normal", "gaussian_noise", n, n, 3)}


def speckle_noise(key: Key, n: int, parameter, images) -> dict:
    return {"normal": key.field("normal", "speckle_noise", n, n, 3)}


def shot_noise(key: Key, n: int, parameter, images: Tensor | None) -> dict:
    """Counts by inversion, one word per value; the rate is the pixel's own, so the images are needed."""
    if images is None:
        raise ValueError("shot_noise counts photons of the pixels: pass images= to draw its fields.")
    return {
        "counts": key.field("poisson", "shot_noise", n, n, 3, span=parameter, levels=images.to(key.device).contiguous())
    }


def impulse_noise(key: Key, n: int, parameter, images) -> dict:
    """The word against an even threshold says whether to replace, its lowest bit with what: independent draws."""
    code = key.field("impulse", "impulse_noise", n, n, 3, span=2 * round(parameter * 2**31))
    return {"replace": (code & 1).view(torch.bool), "salt": (code >> 1).view(torch.bool)}


def glass_blur(key: Key, n: int, parameter, images) -> dict:
    """Integers from -reach to reach - 1, [(dx, dy), passes, n, n]."""
    _, reach, passes = parameter
    shift = key.field("integer", "glass_blur", 2, passes, n, n, span=2 * reach)
    return {"dx": shift[:, 0], "dy": shift[:, 1]}


def motion_blur(key: Key, n: int, parameter, images) -> dict:
    return {"angle": key.angle("motion_angle", -45)}


def snow(key: Key, n: int, parameter, images) -> dict:
    return {"normal": key.field("normal", "snow", n, n), "angle": key.angle("snow_angle", -135)}


def fog(key: Key, n: int, parameter, images) -> dict:
    """The plasma map of the next power of two, cropped."""
    side = map_side(n)
    return {"plasma": plasma(key.field("uniform", "fog", side, side), parameter[1], n)}


def elastic_transform(key: Key, n: int, parameter, images) -> dict:
    """Corners uniform within ``reach`` pixels, [3, (x, y)]; dx and dy uniform within one, [(dx, dy), n, n]."""
    corners = key.field("uniform", "elastic_corners", 3, 2).mul_(2).sub_(1).mul_(parameter[2])
    shift = key.field("uniform", "elastic_shift", 2, n, n).mul_(2).sub_(1)
    return {"corner_shift": corners, "dx": shift[:, 0], "dy": shift[:, 1]}


def spatter(key: Key, n: int, parameter, images) -> dict:
    return {"normal": key.field("normal", "spatter", n, n)}


def frost(key: Key, n: int, parameter, images) -> dict:
    """A photograph out of the five, then a corner: rows in [0, H - n), columns in [0, W - n)."""
    pixels, first, stride = frost_crops(key, n)
    line = torch.arange(n, device=key.device)
    place = first[:, None, None] + line[:, None] * stride[:, None, None] + line
    return {"texture": pixels.index_select(0, place.flatten()).view(len(first), n, n, 3)}


def frost_crops(key: Key, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """All photographs' pixels uint8 [P,3], and of each sample's crop the first pixel and the pixels in a row of its
    photograph, int64 [B]."""
    assert key.photographs is not None
    pixels, start, rows, columns = key.photographs
    words = philox.words(key.seed, 0, key.samples, key.severity, "frost")
    which = philox.integers(words[:, 0], len(rows))
    top = philox.integers(words[:, 1], rows[which] - n)
    left = philox.integers(words[:, 2], columns[which] - n)
    first = start[which] + top * columns[which] + left
    return pixels, on(first, key.device), on(columns[which], key.device)


def photographs(textures: Any, scale: float, n: int, device: torch.device) -> Photographs:
    """The frost photographs, scaled and joined on the device. TypeError or ValueError if they are not five uint8 RGB
    arrays, each larger than n pixels a side once it is scaled."""
    if textures is None:
        raise ValueError(
            "frost needs its five photographs: pass textures= (fastreg.pipelines.frost.load_frost() has them)."
        )
    if isinstance(textures, str) or not isinstance(textures, Sequence | np.ndarray | Tensor):
        raise TypeError(f"textures must be the five frost photographs, uint8 arrays; got {type(textures).__name__}.")
    given = [np.asarray(texture.cpu() if isinstance(texture, Tensor) else texture) for texture in textures]
    if not given:
        raise ValueError("frost needs its five photographs; textures is empty.")
    for number, photograph in enumerate(given, 1):
        if photograph.dtype != np.uint8 or photograph.ndim != 3 or photograph.shape[2] != 3:
            raise ValueError(
                f"frost photograph {number} must be uint8 RGB [H,W,3]; got {photograph.dtype} {photograph.shape}."
            )
        height, width = (round(side * scale) for side in photograph.shape[:2])
        if height <= n or width <= n:
            scaled = f" (scaled by {scale:g})" if scale != 1 else ""
            raise ValueError(
                f"frost photograph {number} is {height} x {width}{scaled}, not larger than the image of {n} px: "
                "use smaller images or larger photographs."
            )
    if len(given) != 5:
        raise ValueError(f"frost draws from its five photographs; textures holds {len(given)}.")
    mark = scale, str(device)
    seen, joined = _prepared.get(mark, ([], None))
    if joined is None or not all(map(np.array_equal, seen, given)):  # a quarter of a millisecond
        joined = _joined(given, scale, device)
        _prepared.clear()
        _prepared[mark] = [photograph.copy() for photograph in given], joined
    return joined


_prepared: dict = {}  # the last photographs seen, and what was made of them


def _joined(textures: list[np.ndarray], scale: float, device: torch.device) -> Photographs:
    import cv2

    scaled = [cv2.resize(t, None, fx=scale, fy=scale) if scale != 1 else t for t in textures]
    rows, columns = (np.array([p.shape[axis] for p in scaled], np.int64) for axis in (0, 1))
    start = np.concatenate(([0], np.cumsum(rows * columns)[:-1]))
    return Photographs(on(np.concatenate([p.reshape(-1, 3) for p in scaled]), device), start, rows, columns)
