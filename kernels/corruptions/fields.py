"""The random fields of each corruption, drawn on the host from (seed, sample index, severity, operation).

Each function gives what its corruption takes as ``fields``, batch first. A field of many values takes value j from word
j % 4 of element j // 4 (``philox.field``), j counting in row-major order over the shape said beside it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.corruptions.plasma import map_side, plasma


class Key(NamedTuple):
    """What a draw depends on, and where its result goes."""

    seed: int
    samples: np.ndarray  # int64 [B], index into the data set
    severity: int
    device: torch.device
    textures: object = None  # the frost photographs
    texture_scale: float = 1.0

    def field(self, draw, operation: str, *shape: int) -> np.ndarray:
        """[B, *shape] values of ``draw`` (``philox.uniform``, ...)."""
        count = int(np.prod(shape))
        return philox.field(draw, self.seed, self.samples, count, self.severity, operation).reshape(-1, *shape)

    def send(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor


def gaussian_noise(key: Key, n: int, parameter, images) -> dict:
    return {"normal": key.send(key.field(philox.normal, "gaussian_noise", n, n, 3))}


def speckle_noise(key: Key, n: int, parameter, images) -> dict:
    return {"normal": key.send(key.field(philox.normal, "speckle_noise", n, n, 3))}


@lru_cache(maxsize=32)
def photon_table(photons: int) -> np.ndarray:
    """Poisson table for each of the 256 levels."""
    return philox.poisson_table(np.arange(256) * photons / 255)


def shot_noise(key: Key, n: int, parameter, images: Tensor | None) -> dict:
    """Counts by inversion, one word per value; the rate is the pixel's own, so the images are needed."""
    if images is None:
        raise ValueError("shot_noise counts photons of the pixels: pass images= to draw its fields.")
    table = photon_table(parameter)
    words = key.field(lambda words: words, "shot_noise", n, n, 3)
    return {"counts": key.send(philox.poisson(words, images.cpu().numpy(), table))}


def impulse_noise(key: Key, n: int, parameter, images) -> dict:
    """The word against an even threshold says whether to replace, its lowest bit with what: independent draws."""
    words = key.field(lambda words: words, "impulse_noise", n, n, 3)
    threshold = 2 * round(parameter * 2**31)
    return {"replace": key.send(words < threshold), "salt": key.send((words & 1).astype(bool))}


def glass_blur(key: Key, n: int, parameter, images) -> dict:
    """Integers from -reach to reach - 1, [passes, n, n, (dx, dy)]."""
    _, reach, passes = parameter
    shift = key.field(lambda w: philox.integers(w, 2 * reach), "glass_blur", passes, n, n, 2) - reach
    return {"dx": key.send(shift[..., 0]), "dy": key.send(shift[..., 1])}


def motion_blur(key: Key, n: int, parameter, images) -> dict:
    return {"angle": key.send(key.field(philox.uniform, "motion_angle", 1)[:, 0] * 90 - 45)}


def snow(key: Key, n: int, parameter, images) -> dict:
    angle = key.field(philox.uniform, "snow_angle", 1)[:, 0] * 90 - 135
    return {"normal": key.send(key.field(philox.normal, "snow", n, n)), "angle": key.send(angle)}


def fog(key: Key, n: int, parameter, images) -> dict:
    side = map_side(n)
    uniform = key.send(key.field(philox.uniform, "fog", side, side)).double().mul_(2).sub_(1)
    return {"plasma": plasma(uniform, parameter[1])[:, :n, :n].float()}


def elastic_transform(key: Key, n: int, parameter, images) -> dict:
    """Corners uniform within ``reach`` pixels, [3, (x, y)]; dx and dy uniform within one, [(dx, dy), n, n]."""
    corners = key.field(philox.uniform, "elastic_corners", 3, 2) * 2 - 1
    shift = key.field(philox.uniform, "elastic_shift", 2, n, n) * 2 - 1
    shift = shift.astype(np.float32)
    corners = (corners * parameter[2]).astype(np.float32)
    return {"corner_shift": key.send(corners), "dx": key.send(shift[:, 0]), "dy": key.send(shift[:, 1])}


def spatter(key: Key, n: int, parameter, images) -> dict:
    return {"normal": key.send(key.field(philox.normal, "spatter", n, n))}


def frost(key: Key, n: int, parameter, images) -> dict:
    """A photograph out of the five, then a corner: rows in [0, H - n), columns in [0, W - n)."""
    if key.textures is None:
        raise ValueError(
            "frost needs its five photographs: pass textures= (fastreg.pipelines.frost.load_frost() has them)."
        )
    pixels, start, rows, columns = _photographs(key.textures, key.texture_scale, key.device)
    for number, (height, width) in enumerate(zip(rows, columns), 1):
        if height <= n or width <= n:
            scaled = f" (scaled by {key.texture_scale:g})" if key.texture_scale != 1 else ""
            raise ValueError(
                f"frost photograph {number} is {height} x {width}{scaled}, not larger than the image of {n} px: "
                "use smaller images or larger photographs."
            )
    words = philox.words(key.seed, 0, key.samples, key.severity, "frost")
    which = philox.integers(words[:, 0], len(rows))
    top = philox.integers(words[:, 1], rows[which] - n)
    left = philox.integers(words[:, 2], columns[which] - n)
    first, stride = key.send(start[which] + top * columns[which] + left), key.send(columns[which])
    line = torch.arange(n, device=key.device)
    place = (first[:, None, None] + line[:, None] * stride[:, None, None] + line).view(-1)
    return {"texture": pixels.index_select(0, place).view(-1, n, n, 3)}


_prepared: dict = {}  # the last photographs seen, scaled and joined on their device


def _photographs(textures, scale: float, device: torch.device) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """All pixels uint8 [sum, 3], and per photograph: start, height, width."""
    textures = list(textures)
    mark = (tuple(id(t) for t in textures), scale, str(device))
    if mark not in _prepared:
        import cv2

        scaled = []
        for number, texture in enumerate(textures, 1):
            photograph = np.asarray(texture.cpu() if isinstance(texture, Tensor) else texture)
            if photograph.dtype != np.uint8 or photograph.ndim != 3 or photograph.shape[2] != 3:
                raise ValueError(
                    f"frost photograph {number} must be uint8 RGB [H,W,3]; got {photograph.dtype} {photograph.shape}."
                )
            if scale != 1:
                photograph = cv2.resize(photograph, None, fx=scale, fy=scale)
            scaled.append(photograph)
        if not scaled:
            raise ValueError("frost needs its five photographs; textures is empty.")
        rows, columns = (np.array([p.shape[axis] for p in scaled], np.int64) for axis in (0, 1))
        start = np.concatenate(([0], np.cumsum(rows * columns)[:-1]))
        pixels = torch.from_numpy(np.concatenate([p.reshape(-1, 3) for p in scaled])).to(device)
        _prepared.clear()  # textures are kept beside the result, so that their ids stay theirs
        _prepared[mark] = (textures, (pixels, start, rows, columns))
    return _prepared[mark][1]
