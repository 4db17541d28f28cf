"""spatter: drops of water (severities 1 to 3) or mud (4 and 5), where a smooth random field exceeds a threshold.

    water  x + wet (175, 238, 238) / 255        mud  x (1 - cover) + cover (63, 42, 20) / 255

Not in mCE. Edge detection and distance transform of the water are OpenCV's, on the host, image by image.

Source: ImageNet-C's generation script.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.gaussian import filter_field, filter_images
from fastreg.kernels.corruptions.pixels import on, quantize, unit
from fastreg.kernels.corruptions.table import Corruption

WATER = np.array((175, 238, 238), np.float32) / np.float32(255)  # pale turquoise
_MUD = np.array((63, 42, 20), np.float32) / np.float32(255)


def spatter(images: Tensor, parameter: tuple, fields: dict) -> Tensor:
    """``parameter``: mean, std and sigma of the field, threshold, strength, 1 for mud or 0 for water."""
    mean, std, sigma, threshold, strength, mud = parameter
    layer = filter_field(fields["normal"].double() * std + mean, sigma, "edge")
    layer.masked_fill_(layer < threshold, 0)
    x = unit(images, torch.float32)
    if mud:
        cover = (layer > threshold).double()[..., None]
        cover = filter_images(cover, float(strength)).float()
        cover.masked_fill_(cover < 0.8, 0)
        return quantize(x.mul_(1 - cover).add_(cover * on(_MUD, x.device)))
    wet = torch.from_numpy(np.stack([water(l) for l in layer.mul_(255).to(torch.uint8).cpu().numpy()]))
    wet = wet.to(x.device).mul_(strength)[..., None]
    return quantize(x.add_(wet * on(WATER, x.device)))


def draw_spatter(key: Key, n: int, parameter, images) -> dict:
    return {"normal": key.field("normal", "spatter", n, n)}


def water(layer: np.ndarray) -> np.ndarray:
    """float32 [n, n], at most 1: brightness of the water from the uint8 liquid layer. Without a drop the published code
    divides zero by zero, and the image becomes black."""
    import cv2

    distance = cv2.distanceTransform(255 - cv2.Canny(layer, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    distance = cv2.equalizeHist(distance)
    emboss = np.array(((-2, -1, 0), (-1, 1, 1), (0, 1, 2)), np.float32)
    distance = cv2.filter2D(distance, cv2.CV_8U, emboss)
    wet = layer * cv2.blur(distance, (3, 3)).astype(np.float32)
    with np.errstate(invalid="ignore"):
        return wet / wet.max()


ROWS = (Corruption("spatter", spatter, draw_spatter, {"normal": ("float", ("n", "n"))}),)
