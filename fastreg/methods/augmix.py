"""AugMix: mixes chains of operations with the image, and keeps the outputs of its views alike. Not in the paper.

    x' = m x + (1 - m) sum_i w_i chain_i(x),  w ~ Dirichlet(alpha, ..., alpha) over width chains, m ~ Beta(alpha, alpha)
    a chain: depth operations ~ U{9} (depth < 1: 1, 2 or 3), magnitude ~ U{the lowest severity of 10}, sign ~ U{-, +}
    loss = CE(x, y) + jsd_weight JSD(x, x', x''),   x' and x'' two draws; JSD as in jsd.py

With ``jsd`` a batch takes three times the memory and work of a plain one; without it each image becomes x'. Mixing is
in float32 with one rounding (torchvision truncates). Operations that resemble corruptions of ImageNet-C (brightness,
color, contrast, sharpness) are left out unless ``all_ops``, as in the authors' code; torchvision has them by default.
``law="timm"`` draws timm's 13 operations at levels of U(0, severity), with its ranges, interpolation and fill.

Source: Hendrycks et al., AugMix: a simple data processing method to improve robustness and uncertainty (ICLR 2020),
section 3, and its code for the loss; magnitudes of torchvision's AugMix; timm's augment_and_mix_transform.
Defaults: severity 3, width 3, depth -1, alpha 1, all_ops False, interpolation bilinear, jsd True, jsd_weight 12.
Cost: by arithmetic 3 plain steps, and the operations of 6 chains; not yet measured.
Example: ``fastreg train cifar10 --reg augmix``, ``methods.create("augmix", jsd=False)``.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from fastreg.errors import InputError, unknown
from fastreg.kernels import philox
from fastreg.methods.automatic import OPERATION_ID, Space, automatic, space, take, top_bit
from fastreg.methods.base import Arrays, Component, DrawKeys, MethodContext, number, whole
from fastreg.methods.rand_augment import LAWS
from fastreg.methods.timm_levels import AUGMIX, arguments, draw_levels

_BINS = 10
_GEOMETRY = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_REST = ("Posterize", "Solarize", "AutoContrast", "Equalize")
_COLORS = ("Brightness", "Color", "Contrast", "Sharpness")
_TRANSLATE_PCT = 0.3  # of timm's create_transform


def augmix(
    context: MethodContext,
    *,
    law: str = "torchvision",
    severity: float = 3,
    width: int = 3,
    depth: int = -1,
    alpha: float = 1.0,
    all_ops: bool | None = None,
    mstd: float | None = None,
    interpolation: str | None = None,
    jsd: bool = True,
    jsd_weight: float = 12.0,
) -> Component:
    """``all_ops`` is for the law "torchvision", ``mstd`` for "timm"."""
    if law not in LAWS:
        raise unknown("`law`", str(law), LAWS)
    width, depth = whole("width", width, 1, 16), whole("depth", depth, -1, 16)
    alpha = number("alpha", alpha, 0, open_low=True)
    slots = depth if depth > 0 else 3
    if law == "timm":
        if all_ops is not None:
            raise InputError("`all_ops` belongs to `law` torchvision of augmix: leave it out.")
        magnitude = number("severity", severity, 0)
        spread = math.inf if mstd is None else number("mstd", mstd, 0)
    else:
        if mstd is not None:
            raise InputError("`mstd` belongs to `law` timm of augmix: give `law` timm too.")
        bins = whole("severity", severity, 1, _BINS)

    def draw(keys: DrawKeys) -> Arrays:
        samples, count = keys.samples[:, None], width * slots
        words = philox.words(context.seed, np.arange(count), samples, keys.epoch, "augmix")
        if law == "timm":
            normal = philox.words(context.seed, np.arange(count), samples, keys.epoch, "augmix_magnitude")
            level = draw_levels(normal, magnitude, spread, 10.0)
            choice = philox.integers(words[..., 0], len(AUGMIX))
            drawn = arguments(
                AUGMIX, choice, level, words[..., 1:3], increasing=True, size=keys.size, translate_pct=_TRANSLATE_PCT
            )
        else:
            own = _space(bool(all_ops), keys.size)
            level = philox.integers(words[..., 1], bins)
            drawn = take(own, philox.integers(words[..., 0], len(own.operations)), level, top_bit(words[..., 2]))
        drawn = {name: array.reshape(-1, width, slots) for name, array in drawn.items()}
        if depth < 1:
            lengths = 1 + philox.integers(words[..., 3].reshape(-1, width, slots)[..., :1], 3)
            drawn["operations"] = np.where(np.arange(slots) < lengths, drawn["operations"], OPERATION_ID["Identity"])
        mix = philox.dirichlet(context.seed, alpha, width, keys.samples, keys.epoch, "augmix_chains")
        blend = philox.beta(context.seed, alpha, keys.samples, keys.epoch, "augmix_blend")
        return drawn | {"chain_weights": blend[:, None] * mix}

    if law == "timm":
        mode, fill = interpolation, "mean"
    else:
        mode, fill = interpolation or "bilinear", "black"
    return automatic(
        context, "augmix", draw, interpolation=mode, jsd=jsd, jsd_weight=jsd_weight, fill=fill, chains=True
    )


@cache
def _space(all_ops: bool, size: tuple[int, int]) -> Space:
    top = dict.fromkeys(("ShearX", "ShearY"), 0.3) | dict.fromkeys(_COLORS, 0.9)
    top |= {"TranslateX": size[1] / 3.0, "TranslateY": size[0] / 3.0, "Rotate": 30.0}
    return space((*_GEOMETRY, *_REST, *(_COLORS if all_ops else ())), _BINS, top, (4, 4))
