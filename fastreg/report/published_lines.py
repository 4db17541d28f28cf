"""Lines of ImageNet models through the logits of two accuracies: ImageNet's validation set, and a natural set.

Least squares through the models of standard training with 55 % or more on ImageNet, as in the source's figures, from
the accuracies that it publishes (``robustness_top1s.csv`` and ``plotting/model_types.py`` of
modestyachts/imagenet-testbed). ImageNet-A and -R have no such line: the source draws them over the accuracy on their
200 classes, and that of A has a kink at ResNet-50.

Source: Taori et al., Measuring robustness to natural distribution shifts in image classification (NeurIPS 2020).
"""

from __future__ import annotations

import math
from typing import NamedTuple

_ACCURACY = 100.0
TAORI = "Taori et al. 2020"


class Line(NamedTuple):
    """A line through the logits of two accuracies of baseline models. ``source``: whose, if they are published."""

    slope: float
    offset: float
    models: int
    source: str = ""

    def expected(self, clean_error: float) -> float:
        """The error on the shifted images, in percent, of a model with this clean error in percent."""
        return _ACCURACY / (1 + math.exp(self.slope * logit(_ACCURACY - clean_error) + self.offset))


def logit(percent: float) -> float:
    share = min(max(percent / _ACCURACY, 1e-4), 1 - 1e-4)  # 0 and 1 have no logit
    return math.log(share / (1 - share))


# summary key -> line; the sets of V2 are those in the format of the validation set
PUBLISHED_LINES = {
    "imagenetv2_matched_frequency_error": Line(0.9232, -0.4977, 85, TAORI),
    "imagenetv2_threshold07_error": Line(1.0020, -0.1810, 85, TAORI),
    "imagenetv2_top_images_error": Line(0.9816, 0.1221, 85, TAORI),
    "imagenet_sketch_error": Line(1.0709, -2.3701, 85, TAORI),
    "objectnet_error": Line(1.1993, -2.0243, 85, TAORI),
}
IMAGES = 50_000  # of the validation set on which the lines hold
