"""fastreg.kernels: every operation on pixels or logits that runs on the device.

It imports torch, Triton and numpy (JPEG, the corruptions and automatic augmentation also Pillow and OpenCV on the
CPU), nothing else of fastreg, and opens no files. Exports are lazy: an operation's module is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastreg.kernels.attacks import fgsm_attack, fgsm_step, zero_sign_share
    from fastreg.kernels.augmentation import augment
    from fastreg.kernels.auto_augmentation import AUTO_AUGMENT_OPERATIONS, auto_augment
    from fastreg.kernels.color import color_jitter
    from fastreg.kernels.corruptions import (
        C_BAR_CORRUPTIONS,
        CORRUPTION_CATEGORIES,
        CORRUPTIONS,
        EXTRA_CORRUPTIONS,
        corrupt,
        draw_fields,
    )
    from fastreg.kernels.cross_entropy import mixed_binary_cross_entropy, mixed_cross_entropy, scored_cross_entropy
    from fastreg.kernels.jpeg import jpeg_round_trip
    from fastreg.kernels.modules import BatchAugment, MixedBinaryCrossEntropy, MixedCrossEntropy
    from fastreg.kernels.perturbations import (
        EXTRA_PERTURBATIONS,
        PERTURBATIONS,
        draw_perturbation_fields,
        perturb,
        perturbation_frames,
    )
    from fastreg.kernels.types import Batch, Plan, Targets

_EXPORTS = {
    "augmentation": ("augment",),
    "auto_augmentation": ("auto_augment", "AUTO_AUGMENT_OPERATIONS"),
    "cross_entropy": ("mixed_binary_cross_entropy", "mixed_cross_entropy", "scored_cross_entropy"),
    "attacks": ("fgsm_attack", "fgsm_step", "zero_sign_share"),
    "color": ("color_jitter",),
    "corruptions": (
        "corrupt",
        "draw_fields",
        "CORRUPTIONS",
        "EXTRA_CORRUPTIONS",
        "C_BAR_CORRUPTIONS",
        "CORRUPTION_CATEGORIES",
    ),
    "jpeg": ("jpeg_round_trip",),
    "modules": ("BatchAugment", "MixedBinaryCrossEntropy", "MixedCrossEntropy"),
    "perturbations": (
        "perturb",
        "draw_perturbation_fields",
        "perturbation_frames",
        "PERTURBATIONS",
        "EXTRA_PERTURBATIONS",
    ),
    "types": ("Batch", "Plan", "Targets"),
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "Batch",
    "Plan",
    "Targets",
    "augment",
    "auto_augment",
    "AUTO_AUGMENT_OPERATIONS",
    "mixed_binary_cross_entropy",
    "mixed_cross_entropy",
    "scored_cross_entropy",
    "fgsm_step",
    "fgsm_attack",
    "zero_sign_share",
    "color_jitter",
    "corrupt",
    "draw_fields",
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "C_BAR_CORRUPTIONS",
    "CORRUPTION_CATEGORIES",
    "perturb",
    "draw_perturbation_fields",
    "perturbation_frames",
    "PERTURBATIONS",
    "EXTRA_PERTURBATIONS",
    "jpeg_round_trip",
    "BatchAugment",
    "MixedBinaryCrossEntropy",
    "MixedCrossEntropy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastreg.kernels' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fastreg.kernels.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
