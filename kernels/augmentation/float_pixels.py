"""The end of ``augment`` on float pixels: normalization, mixing and boxes, in plain torch without a synchronization.

For pixels that ``augment`` has cropped and flipped and another operation has changed since, which may leave [0, 1].
About ten torch operations of one pass each; not yet measured. ``augment`` does the same in its one launch on bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastreg.kernels.types import Plan


def normalize_and_mix(
    pixels: Tensor,
    plan: Plan,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    erased: Tensor | float = 0.0,
) -> Tensor:
    """Normalize, blend, paste and erase float pixels, with the parameters of ``plan`` after its crop, flip and noise.

    Args:
        pixels: float32 [B, 3, h, w] on the 0-1 scale; values outside are kept.
        plan: ``partner``, ``lam``, ``box``, ``box_fill`` and ``erase``, on the pixels' device; the other fields are not
            used.
        mean: mean per channel on the 0-1 scale.
        std: standard deviation per channel on the 0-1 scale.
        dtype: float32, float16 or bfloat16.
        erased: float32 [B, 3, h, w], values of the pixels in ``plan.erase``; 0 is the mean.

    Returns:
        ``dtype`` [B, 3, h, w], channels_last.
    """
    shift, scale = (torch.stack([torch.full((), v, device=pixels.device) for v in values]) for values in (mean, std))
    shift, scale = shift.view(1, 3, 1, 1), scale.view(1, 3, 1, 1)
    own = (pixels - shift) / scale
    if plan.erase is not None:
        own = torch.where(_inside(plan.erase, own), erased, own)
    inside = fill = None
    if plan.box is not None:
        inside = _inside(plan.box, own)
        fill = (torch.zeros_like(plan.box[:, 0]) if plan.box_fill is None else plan.box_fill).view(-1, 1, 1, 1)
    partner = None if plan.partner is None else own[plan.partner]
    if inside is not None:
        own = torch.where(inside & (fill == 1), -shift / scale, own)
    if plan.lam is not None and partner is not None:
        own = torch.lerp(partner, own, plan.lam.view(-1, 1, 1, 1))
    if inside is not None:
        own = torch.where(inside & (fill == 2), 0.0, own)
        if partner is not None:
            own = torch.where(inside & (fill == 0), partner, own)
    return own.to(dtype, memory_format=torch.channels_last)


def _inside(box: Tensor, pixels: Tensor) -> Tensor:
    """Which pixels of each sample are in its box, bool [B, 1, h, w]."""
    y, x = (torch.arange(n, device=pixels.device) for n in pixels.shape[2:])
    y0, x0, y1, x1 = box[:, :, None].unbind(1)
    rows, columns = (y >= y0) & (y < y1), (x >= x0) & (x < x1)
    return (rows[:, :, None] & columns[:, None, :])[:, None]
