"""RandAugment: operations drawn uniformly per image, all at one magnitude. Not in the paper.

    law "torchvision": num_ops operations ~ U{14}, magnitude of num_magnitude_bins steps, sign ~ U{-, +}
    law "timm": num_ops operations ~ U{15} (or ``weights``), each applied with probability prob, at a level of
    N(magnitude, mstd^2) (mstd > 100: U(0, magnitude)) clipped to [0, magnitude_max]; sign ~ U{-, +}

timm's ``--aa rand-m9-mstd0.5-inc1`` is ``law="timm", magnitude=9, mstd=0.5, inc=True``. Its law draws bilinear or
bicubic per operation and fills with the mean color; `timm_levels.py` has its ranges and what differs. A translation is
up to 150/331 of the side in torchvision's law, up to ``translate_pct`` of it in timm's.

Source: Cubuk et al., RandAugment: practical automated data augmentation with a reduced search space (CVPR 2020
workshops), section 3; torchvision's RandAugment; timm's rand_augment_transform.
Defaults: law torchvision; num_ops 2, magnitude 9, num_magnitude_bins 31, interpolation nearest; law timm: prob 0.5,
mstd 0, inc False, magnitude_max 10, weights False, translate_pct 0.45; jsd False.
Cost: two launches of `augment` and those of `auto_augment` for each operation; not yet measured.
Example: ``fastreg train imagenet --reg rand_augment+cutmix``, ``methods.create("rand_augment", law="timm")``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastreg.errors import InputError, unknown
from fastreg.kernels import philox
from fastreg.methods.automatic import OPERATION_ID, automatic, search_space, take, top_bit
from fastreg.methods.base import Arrays, Component, DrawKeys, MethodContext, number, whole
from fastreg.methods.timm_levels import RAND_AUGMENT, WEIGHTS, arguments, draw_levels

LAWS = ("torchvision", "timm")
_OF_TIMM = {
    "prob": 0.5, "mstd": 0.0, "inc": False, "magnitude_max": 10.0, "weights": False, "translate_pct": 0.45,
}  # fmt: skip


def rand_augment(
    context: MethodContext,
    *,
    law: str = "torchvision",
    num_ops: int = 2,
    magnitude: float = 9,
    num_magnitude_bins: int | None = None,
    interpolation: str | None = None,
    prob: float | None = None,
    mstd: float | None = None,
    inc: bool | None = None,
    magnitude_max: float | None = None,
    weights: bool | None = None,
    translate_pct: float | None = None,
    jsd: bool = False,
    jsd_weight: float = 12.0,
) -> Component:
    """Parameters of one law are refused with the other."""
    if law not in LAWS:
        raise unknown("`law`", str(law), LAWS)
    num_ops = whole("num_ops", num_ops, 1, 15)
    timm: dict[str, Any] = {
        "prob": prob, "mstd": mstd, "inc": inc, "magnitude_max": magnitude_max, "weights": weights,
        "translate_pct": translate_pct,
    }  # fmt: skip
    given = [name for name, value in timm.items() if value is not None]
    if law == "torchvision" and given:
        raise InputError(f"`{given[0]}` belongs to `law` timm of rand_augment: give `law` timm too.")
    if law == "timm" and num_magnitude_bins is not None:
        raise InputError("`num_magnitude_bins` belongs to `law` torchvision of rand_augment: leave it out.")
    if law == "timm":
        options = {name: default if timm[name] is None else timm[name] for name, default in _OF_TIMM.items()}
        draw, mode, fill = _timm_draw(context, num_ops, magnitude, options), interpolation, "mean"
    else:
        bins = whole("num_magnitude_bins", 31 if num_magnitude_bins is None else num_magnitude_bins, 2)
        level = whole("magnitude", magnitude, 0, bins - 1)
        draw, mode, fill = _torchvision_draw(context, num_ops, level, bins), interpolation or "nearest", "black"
    return automatic(context, "rand_augment", draw, interpolation=mode, jsd=jsd, jsd_weight=jsd_weight, fill=fill)


def _torchvision_draw(context: MethodContext, num_ops: int, level: int, bins: int) -> Any:
    def draw(keys: DrawKeys) -> Arrays:
        space = search_space(bins, keys.size)
        words = philox.words(context.seed, np.arange(num_ops), keys.samples[:, None], keys.epoch, "rand_augment")
        operation = philox.integers(words[..., 0], len(space.operations))
        return take(space, operation, np.full_like(operation, level), top_bit(words[..., 1]))

    return draw


def _timm_draw(context: MethodContext, num_ops: int, magnitude: float, options: dict[str, Any]) -> Any:
    most = number("magnitude_max", options["magnitude_max"], 0, open_low=True)
    magnitude = number("magnitude", magnitude, 0)
    mstd = number("mstd", options["mstd"], 0)
    prob = number("prob", options["prob"], 0, 1)
    pct = number("translate_pct", options["translate_pct"], 0, 1)
    weighted = bool(options["weights"])
    increasing = bool(options["inc"]) or weighted

    def draw(keys: DrawKeys) -> Arrays:
        samples = keys.samples[:, None]
        words = philox.words(context.seed, np.arange(num_ops), samples, keys.epoch, "rand_augment")
        if weighted:
            choice = _without_replacement(context, keys, num_ops)
        else:
            choice = philox.integers(words[..., 0], len(RAND_AUGMENT))
        normal = philox.words(context.seed, np.arange(num_ops), samples, keys.epoch, "rand_magnitude")
        level = draw_levels(normal, magnitude, mstd, most)
        drawn = arguments(
            RAND_AUGMENT, choice, level, words[..., 1:3], increasing=increasing, size=keys.size, translate_pct=pct
        )
        applied = philox.uniform(words[..., 3]) < prob
        drawn["operations"] = np.where(applied, drawn["operations"], OPERATION_ID["Identity"])
        return drawn

    return draw


def _without_replacement(context: MethodContext, keys: DrawKeys, count: int) -> np.ndarray:
    """``count`` different operations per sample, int64 [B, count], drawn without replacement with ``WEIGHTS``.

    The smallest of independent exponential numbers with these rates have that distribution, in ascending order.
    """
    uniform = philox.field(philox.uniform, context.seed, keys.samples, len(WEIGHTS), keys.epoch, "rand_choice")
    exponential = -np.log1p(-uniform.astype(np.float64)) / WEIGHTS
    return np.argsort(exponential, axis=1, kind="stable")[:, :count]
