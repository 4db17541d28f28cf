"""The three tuples that travel between the rooms: pipelines make a Batch, methods a Plan and Targets."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """What a loader hands over. No loader flips, normalises or casts."""

    images: Tensor  # uint8 [B, H, W, 3], contiguous NHWC, on the step's device
    labels: Tensor  # int64 [B], on the step's device
    indices: Tensor  # int64 [B], index into the data set: the key of every draw; stays on the host, which draws
    crop: Tensor | None = None  # float32 [B, 4] top, left, height, width in canvas pixels; None: already cropped


class Targets(NamedTuple):
    """Label pairs for the loss; never a dense one-hot."""

    a: Tensor  # int64 [B]
    b: Tensor  # int64 [B]
    lam: Tensor  # float32 [B], weight of a; 1 - lam is b's


class Plan(NamedTuple):
    """What ``augment`` does to each sample; a field that is None is not done at all.

    Order: crop and resize, flip, noise with clip, black, normalise, blend or paste, mean fill.
    """

    crop: Tensor | None = None  # float32 [B, 4] top, left, height, width in canvas pixels
    flip: Tensor | None = None  # bool [B]
    noise: Tensor | None = None  # float32 [B], sigma on the 0-1 scale
    partner: Tensor | None = None  # int64 [B], position in the batch; read with its own crop, flip and noise
    lam: Tensor | None = None  # float32 [B], pixel blend of own and partner
    box: Tensor | None = None  # int32 [B, 4] y0, x0, y1, x1, half-open, output pixels
    box_fill: Tensor | None = None  # int8 [B]: 0 partner's pixels, 1 black before normalisation, 2 mean
