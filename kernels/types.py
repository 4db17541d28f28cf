"""The tuples that pass between packages: pipelines make a Batch, methods a Plan and Targets."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# RGB statistics of ImageNet's training set on the 0-1 scale
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Batch(NamedTuple):
    """Images and labels as a loader returns them: not flipped, not normalized, not cast.

    Args:
        images: uint8 [B, H, W, 3], contiguous, on the device of the training step.
        labels: int64 [B], on the device of the training step.
        indices: int64 [B] on the CPU, positions in the data set.
        crop: float32 [B, 4], (top, left, height, width) in pixels of ``images``, for ``augment``. None: already
            cropped.
        occurrences: int64 [B] on the CPU, how often each sample occurred in the epoch before (repeated augmentation,
            class-balanced sampling). None: 0 for every sample.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    crop: Tensor | None = None
    occurrences: Tensor | None = None

    @property
    def keys(self) -> Tensor:
        """The keys of every random draw, int64 [B] on the CPU: ``indices``, with the occurrence in the upper 32 bits.

        Pass them as ``indices`` to ``Method.draw``, ``Method.step``, ``Method.fields`` and ``augment``.
        """
        return self.indices if self.occurrences is None else self.indices + (self.occurrences << 32)


class Targets(NamedTuple):
    """Label pairs for the loss, in place of a dense one-hot.

    Args:
        a: int64 [B], first label.
        b: int64 [B], second label.
        lam: float32 [B], weight of ``a``, in [0, 1]. The weight of ``b`` is 1 - lam.
    """

    a: Tensor
    b: Tensor
    lam: Tensor


class Plan(NamedTuple):
    """Per-sample parameters of ``augment``. A field that is None is skipped.

    Order of operations: crop and resize, flip, operations, noise with clip, normalize, erase, black fill, blend or
    paste, mean fill. Black is 0 before normalization.

    Args:
        crop: float32 [B, 4], (top, left, height, width) in input pixels.
        flip: bool [B], horizontal flip.
        noise: float32 [B], standard deviation of Gaussian noise on the 0-1 scale.
        partner: int64 [B], position in the batch of the second image, read with its own crop, flip, noise and erase.
        lam: float32 [B], weight of the sample's own pixels, in [0, 1]. The weight of the partner is 1 - lam.
        box: int32 [B, 4], (y0, x0, y1, x1) in output pixels, half-open.
        box_fill: int8 [B], fill of the box: 0 the partner's pixels, 1 black before normalization, 2 the mean (zero
            after normalization). None: 0 for every sample.
        operations: int64 [B, K], operations of automatic augmentation, indices into ``AUTO_AUGMENT_OPERATIONS``.
            [B, W, K]: W chains of operations on the image, mixed by ``chain_weights``. [B, V, W, K]: V augmented views
            beside the image itself, for (1 + V) B images, view after view; the other fields have B rows.
        magnitudes: float32 [B, K], or the shape of ``operations``, the operations' magnitudes.
        interpolation: int8 [B, K], or the shape of ``operations``, of the geometric operations: 0 nearest, 1 bilinear,
            2 bicubic. None: 0.
        chain_weights: float32 [B, W] or [B, V, W], weight of each chain. The image's own weight is 1 - their sum. None
            (only for W = 1): 1.
        erase: int32 [B, 4], (y0, x0, y1, x1) in output pixels, half-open: the box that random erasing fills in each
            image before it is mixed.
        erase_noise: float32 [B], standard deviation after normalization of the normal noise in ``erase``. None: 0, the
            mean color.
    """

    crop: Tensor | None = None
    flip: Tensor | None = None
    noise: Tensor | None = None
    partner: Tensor | None = None
    lam: Tensor | None = None
    box: Tensor | None = None
    box_fill: Tensor | None = None
    operations: Tensor | None = None
    magnitudes: Tensor | None = None
    interpolation: Tensor | None = None
    chain_weights: Tensor | None = None
    erase: Tensor | None = None
    erase_noise: Tensor | None = None
