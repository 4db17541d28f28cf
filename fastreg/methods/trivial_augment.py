"""TrivialAugment: one operation at one strength per image, both drawn uniformly. Not in the paper.

    operation ~ U{14 operations},  magnitude ~ U{bins from 0 to the operation's largest},  sign ~ U{-, +} if it has one

The operations and the wide ranges are those of TrivialAugmentWide: shears to 0.99, translations to 32 pixels, rotations
to 135 degrees, brightness, color, contrast and sharpness by factors from 0.01 to 1.99, 8 to 2 bits, any threshold of
solarize, autocontrast, equalize, or nothing.

Source: Müller and Hutter, TrivialAugment: tuning-free yet state-of-the-art data augmentation (ICCV 2021), section 3;
ranges and rounding of torchvision's TrivialAugmentWide.
Defaults: num_magnitude_bins 31; interpolation nearest; jsd False.
Cost: two launches of `augment` and those of `auto_augment`; not yet measured.
Example: ``fastreg train imagenet --reg trivial_augment+mixup``, ``methods.create("trivial_augment")``.
"""

from __future__ import annotations

from fastreg.kernels import philox
from fastreg.methods.automatic import automatic, take, top_bit, wide_space
from fastreg.methods.base import Arrays, Component, DrawKeys, MethodContext, whole


def trivial_augment(
    context: MethodContext,
    *,
    num_magnitude_bins: int = 31,
    interpolation: str = "nearest",
    jsd: bool = False,
    jsd_weight: float = 12.0,
) -> Component:
    bins = whole("num_magnitude_bins", num_magnitude_bins, 2)

    def draw(keys: DrawKeys) -> Arrays:
        words = philox.words(context.seed, 0, keys.samples[:, None], keys.epoch, "trivial_augment")
        operation = philox.integers(words[..., 0], len(wide_space(bins).operations))
        return take(wide_space(bins), operation, philox.integers(words[..., 1], bins), top_bit(words[..., 2]))

    return automatic(context, "trivial_augment", draw, interpolation=interpolation, jsd=jsd, jsd_weight=jsd_weight)
