"""AutoAugment: one of 25 pairs of operations per image, each applied with its own probability. Not in the paper.

    pair ~ U{25 pairs of the policy};  for each of its two operations: applied with probability p, sign ~ U{-, +}

A policy was found by a search on its data set. Operations have 10 magnitudes: shears to 0.3, translations to 150/331 of
the image's side, rotations to 30 degrees, factors from 0.1 to 1.9, 8 to 4 bits.

Source: Cubuk et al., AutoAugment: learning augmentation policies from data (CVPR 2019), appendix; policies and ranges
of torchvision's AutoAugment.
Defaults: policy that of the data set (cifar10 on CIFAR, else imagenet); interpolation nearest; jsd False.
Cost: two launches of `augment` and those of `auto_augment`; not yet measured.
Example: ``fastreg train cifar10 --reg auto_augment_policy``, ``methods.create("auto_augment_policy",
policy="imagenet")``.
"""

from __future__ import annotations

import numpy as np

from fastreg.errors import unknown
from fastreg.kernels import philox
from fastreg.methods.automatic import OPERATION_ID, automatic, search_space, take, top_bit
from fastreg.methods.base import Arrays, Component, DrawKeys, MethodContext

# operation, probability and magnitude (of 10; "-": it has none)
POLICIES = {
    "imagenet": """
        Posterize .4 8, Rotate .6 9 | Solarize .6 5, AutoContrast .6 - | Equalize .8 -, Equalize .6 -
        Posterize .6 7, Posterize .6 6 | Equalize .4 -, Solarize .2 4 | Equalize .4 -, Rotate .8 8
        Solarize .6 3, Equalize .6 - | Posterize .8 5, Equalize 1 - | Rotate .2 3, Solarize .6 8
        Equalize .6 -, Posterize .4 6 | Rotate .8 8, Color .4 0 | Rotate .4 9, Equalize .6 -
        Equalize 0 -, Equalize .8 - | Invert .6 -, Equalize 1 - | Color .6 4, Contrast 1 8
        Rotate .8 8, Color 1 2 | Color .8 8, Solarize .8 7 | Sharpness .4 7, Invert .6 -
        ShearX .6 5, Equalize 1 - | Color .4 0, Equalize .6 - | Equalize .4 -, Solarize .2 4
        Solarize .6 5, AutoContrast .6 - | Invert .6 -, Equalize 1 - | Color .6 4, Contrast 1 8
        Equalize .8 -, Equalize .6 -
    """,
    "cifar10": """
        Invert .1 -, Contrast .2 6 | Rotate .7 2, TranslateX .3 9 | Sharpness .8 1, Sharpness .9 3
        ShearY .5 8, TranslateY .7 9 | AutoContrast .5 -, Equalize .9 - | ShearY .2 7, Posterize .3 7
        Color .4 3, Brightness .6 7 | Sharpness .3 9, Brightness .7 9 | Equalize .6 -, Equalize .5 -
        Contrast .6 7, Sharpness .6 5 | Color .7 7, TranslateX .5 8 | Equalize .3 -, AutoContrast .4 -
        TranslateY .4 3, Sharpness .2 6 | Brightness .9 6, Color .2 8 | Solarize .5 2, Invert 0 -
        Equalize .2 -, AutoContrast .6 - | Equalize .2 -, Equalize .6 - | Color .9 9, Equalize .6 -
        AutoContrast .8 -, Solarize .2 8 | Brightness .1 3, Color .7 0 | Solarize .4 5, AutoContrast .9 -
        TranslateY .9 9, TranslateY .7 9 | AutoContrast .9 -, Solarize .8 3 | Equalize .8 -, Invert .1 -
        TranslateY .7 9, AutoContrast .9 -
    """,
}
_BINS = 10


def parse(policy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Operations (indices into AUTO_AUGMENT_OPERATIONS), probabilities and magnitudes (bins) of a policy, [25, 2]."""
    pairs = [pair.split(",") for line in policy.strip().splitlines() for pair in line.split("|")]
    words = [[operation.split() for operation in pair] for pair in pairs]
    operations = np.array([[OPERATION_ID[name] for name, _, _ in pair] for pair in words])
    probabilities = np.array([[float(p) for _, p, _ in pair] for pair in words], np.float32)
    levels = np.array([[0 if level == "-" else int(level) for _, _, level in pair] for pair in words])
    return operations, probabilities, levels


def auto_augment_policy(
    context: MethodContext,
    *,
    policy: str | None = None,
    interpolation: str = "nearest",
    jsd: bool = False,
    jsd_weight: float = 12.0,
) -> Component:
    policy = ("cifar10" if context.cifar else "imagenet") if policy is None else policy
    if policy not in POLICIES:
        raise unknown("`policy`", str(policy), POLICIES)
    operations, probabilities, levels = parse(POLICIES[policy])

    def draw(keys: DrawKeys) -> Arrays:
        words = philox.words(context.seed, np.arange(3), keys.samples[:, None], keys.epoch, "policy")
        pair = philox.integers(words[:, 0, 0], len(operations))
        space = search_space(_BINS, keys.size, "Invert")
        row = (space.operations == operations[pair][..., None]).argmax(-1)
        drawn = take(space, row, levels[pair], top_bit(words[:, 1:, 1]))
        applied = philox.uniform(words[:, 1:, 0]) < probabilities[pair]
        drawn["operations"] = np.where(applied, drawn["operations"], OPERATION_ID["Identity"])
        return drawn

    return automatic(context, "auto_augment_policy", draw, interpolation=interpolation, jsd=jsd, jsd_weight=jsd_weight)
