"""The uint8 stage of a plan with ``operations``: crop and flip, automatic augmentation, and the mix of AugMix's chains.

    chain_i = operations K of chain i on the image x, in order     x' = round((1 - sum_i w_i) x + sum_i w_i chain_i)

Launches: one for crop, resize and flip, those of ``auto_augment`` for the K slots of all chains together, and for a mix
of W chains 2 W + 4 of torch in float32. The rest of the plan is one launch more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastreg.kernels.auto_augmentation import auto_augment
from fastreg.kernels.checks import check_range, check_tensor
from fastreg.kernels.dispatch import to_device
from fastreg.kernels.philox import view_keys
from fastreg.kernels.types import Plan

BLACK = (0, 0, 0)
_FIRST = ("crop", "flip")  # applied before the operations, in the order of Plan
_OWN = {"operations": torch.int64, "magnitudes": torch.float32, "interpolation": torch.int8}


def fill_levels(fill: str, mean: Sequence[float]) -> tuple[int, int, int]:
    """The RGB levels of a method's ``fill``: "black", or "mean" of ``mean`` on the 0-1 scale, as in timm."""
    if fill == "black":
        return BLACK
    red, green, blue = (min(255, round(255 * float(value))) for value in mean)
    return red, green, blue


def apply_operations(
    images: Tensor,
    plan: Plan,
    to_bytes: Callable[[Tensor, Tensor | None, Tensor | None], Tensor],
    fill: Sequence[int],
    indices: Tensor | None,
) -> tuple[Tensor, Plan, Tensor | None]:
    """Images after crop, flip and operations, uint8 [N, h, w, 3]; the rest of the plan; and the keys of its noise.

    N is B, or (1 + V) B for a plan of V views: the images themselves, then view after view. ``to_bytes`` crops, resizes
    and flips. The plan has passed ``check_operations``.
    """
    B, device = len(images), images.device
    pixels = to_bytes(images, plan.crop, plan.flip)
    fields = {
        name: None if field is None else to_device(field, device, f"plan.{name}")
        for name, field in plan._asdict().items()
    }
    own = {name: fields.pop(name) for name in (*_OWN, "chain_weights")}
    rest = Plan(**{**fields, **dict.fromkeys(_FIRST)})
    operations, weights = own["operations"], own["chain_weights"]
    assert operations is not None
    if operations.ndim == 2:
        return _operated(pixels, own, fill), rest, indices
    views = operations.shape[1] if operations.ndim == 4 else 1
    chains, slots = operations.shape[-2:]
    rows = (B * views * chains, slots)
    flat = {name: None if (field := own[name]) is None else field.reshape(rows) for name in _OWN}
    chained = _operated(pixels.repeat_interleave(views * chains, 0), flat, fill)
    mixed = chained.view(B, views, chains, *pixels.shape[1:])
    if weights is None:
        mixed = mixed[:, :, 0]
    else:
        mixed = _mixed(pixels[:, None], mixed, weights.view(B, views, chains))
    if operations.ndim == 3:
        return mixed[:, 0], rest, indices
    pixels = torch.cat((pixels, mixed.transpose(0, 1).flatten(0, 1)))
    return pixels, _for_views(rest, 1 + views), None if indices is None else _keys_for_views(indices, 1 + views)


def _operated(pixels: Tensor, own: dict[str, Tensor | None], fill: Sequence[int]) -> Tensor:
    operations, magnitudes, interpolation = (own[name] for name in _OWN)
    assert operations is not None
    assert magnitudes is not None
    mode: str | Tensor = "nearest" if interpolation is None else interpolation
    return auto_augment(pixels, operations, magnitudes, interpolation=mode, fill=fill)


def _mixed(pixels: Tensor, chained: Tensor, weights: Tensor) -> Tensor:
    """The convex combination of images [B, 1, h, w, 3] and chains [B, V, W, h, w, 3], in float32 and rounded once."""
    own = (1 - weights.sum(-1))[:, :, None, None, None]
    total = own * pixels.float()
    for i in range(weights.shape[-1]):
        total.addcmul_(chained[:, :, i].float(), weights[:, :, i, None, None, None])
    return total.round_().clamp_(0, 255).to(torch.uint8)


def _for_views(plan: Plan, copies: int) -> Plan:
    """A plan for ``copies`` views, one after the other. A view's partners are of the same view."""
    if plan.partner is not None:
        count = len(plan.partner)
        start = torch.arange(0, copies * count, count, device=plan.partner.device)
        partner = plan.partner.repeat(copies) + start.repeat_interleave(count)
    else:
        partner = None
    fields = {
        name: None if field is None else field.repeat(copies, *[1] * (field.ndim - 1))
        for name, field in plan._asdict().items()
    }
    return Plan(**{**fields, "partner": partner})


def _keys_for_views(indices: Tensor, copies: int) -> Tensor:
    return torch.cat([view_keys(indices, view) for view in range(copies)])


def check_operations(plan: Plan, images: Tensor) -> int:
    """Check the fields of automatic augmentation; returns the number of images that a sample becomes."""
    operations = plan.operations
    if operations is None:
        for name in ("magnitudes", "interpolation", "chain_weights"):
            if getattr(plan, name) is not None:
                raise ValueError(f"`plan.{name}` belongs to operations: give `plan.operations`.")
        return 1
    if plan.magnitudes is None:
        raise ValueError("`plan.operations` need magnitudes: give `plan.magnitudes`.")
    B = len(images)
    dims = operations.ndim if isinstance(operations, Tensor) else 0
    if dims not in (2, 3, 4):
        found = list(operations.shape) if isinstance(operations, Tensor) else type(operations).__name__
        raise ValueError(f"`plan.operations` is {found}: give int64 [B, K], [B, W, K] or [B, V, W, K].")
    shape = (B, *operations.shape[1:])
    for name, dtype in _OWN.items():
        _check_field(plan, name, dtype, shape, images)
    if plan.chain_weights is not None and dims == 2:
        raise ValueError("`plan.chain_weights` mixes chains: give `plan.operations` as [B, W, K] or [B, V, W, K].")
    if plan.chain_weights is None and dims > 2 and shape[-2] != 1:
        raise ValueError(f"`plan.operations` has {shape[-2]} chains per image: give `plan.chain_weights`.")
    _check_field(plan, "chain_weights", torch.float32, shape[:-1], images)
    if plan.chain_weights is not None and not plan.chain_weights.is_cuda and not torch.compiler.is_compiling():
        check_range("plan.chain_weights", plan.chain_weights, 0, 1)
    return 1 + shape[1] if dims == 4 else 1


def _check_field(plan: Plan, name: str, dtype: torch.dtype, shape: tuple[int, ...], images: Tensor) -> None:
    field = getattr(plan, name)
    if field is not None:
        check_tensor(f"plan.{name}", field, dtype, shape)
        if field.device != images.device and field.device.type != "cpu":
            raise ValueError(f"`plan.{name}` is on {field.device}: give it on {images.device} or on the CPU.")
