"""PyTorch, timm, torchvision and kornia in place of the kernels, each set up as in its documentation.

``plain_augment`` and ``plain_loss`` are the operations written in plain PyTorch. Called directly they are the peer
"torch eager", through torch.compile the peer "torch.compile", which every table has.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.benchmarks.peers import IMAGENET_STATS, need, normalization_stats
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD, Plan, Targets

_numbers = itertools.count()
EAGER, COMPILED = "torch eager", "torch.compile"
Stats = tuple[Tensor, Tensor]  # mean and std, each [1, 3, 1, 1], on the device


def plain_augment(images: Tensor, plan: Plan, dtype: torch.dtype, stats: Stats) -> Tensor:
    """Flip, Mixup or CutMix, Cutout, occlusion and normalize in plain PyTorch, without crop and noise.

    Args:
        images: uint8 [B, H, W, 3].
        plan: as for :func:`fastreg.kernels.augment`.
        dtype: of the result.
        stats: mean and std from :func:`fastreg.benchmarks.peers.normalization_stats`.

    Returns:
        [B, 3, H, W].
    """
    mean, std = stats
    x = images.permute(0, 3, 1, 2).float() / 255
    if plan.flip is not None:
        x = torch.where(plan.flip[:, None, None, None], x.flip(3), x)
    inside = torch.zeros(1, dtype=torch.bool, device=x.device)
    if plan.box is not None:
        rows, columns = (torch.arange(n, device=x.device) for n in x.shape[2:])
        y0, x0, y1, x1 = (plan.box[:, k, None] for k in range(4))
        down, across = (rows >= y0) & (rows < y1), (columns >= x0) & (columns < x1)
        inside = (down[:, :, None] & across[:, None, :])[:, None]
    fill = torch.zeros(len(x), device=x.device) if plan.box_fill is None else plan.box_fill
    fill = fill[:, None, None, None]
    if plan.box_fill is not None:
        x = torch.where(inside & (fill == 1), 0.0, x)
    x = (x - mean) / std
    if plan.lam is not None:
        lam = plan.lam[:, None, None, None]
        x = lam * x + (1 - lam) * x[plan.partner]
    elif plan.partner is not None:
        x = torch.where(inside & (fill == 0), x[plan.partner], x)
    if plan.box_fill is not None:
        x = torch.where(inside & (fill == 2), 0.0, x)
    return x.to(dtype)


def plain_loss(logits: Tensor, targets: Targets, eps: float) -> Tensor:
    """Mixup's loss as mixup-cifar10 writes it: the weighted sum of two cross-entropies, one value per row."""
    a = F.cross_entropy(logits, targets.a, label_smoothing=eps, reduction="none")
    b = F.cross_entropy(logits, targets.b, label_smoothing=eps, reduction="none")
    return targets.lam * a + (1 - targets.lam) * b


def plain_weighted_loss(logits: Tensor, targets: Targets, eps: float, weight: Tensor) -> Tensor:
    """Mixup's loss with class weights, and its mean."""
    a = F.cross_entropy(logits, targets.a, weight, label_smoothing=eps, reduction="none")
    b = F.cross_entropy(logits, targets.b, weight, label_smoothing=eps, reduction="none")
    lam = targets.lam
    return (lam * a + (1 - lam) * b).sum() / (lam * weight[targets.a] + (1 - lam) * weight[targets.b]).sum()


def plain_binary_loss(logits: Tensor, targets: Targets, eps: float) -> Tensor:
    """The mean binary cross-entropy on dense targets, as timm's Mixup makes them."""
    classes, lam = logits.shape[1], targets.lam[:, None]
    a, b = (F.one_hot(label, classes) * (1 - eps) + eps / classes for label in (targets.a, targets.b))
    return F.binary_cross_entropy_with_logits(logits.float(), lam * a + (1 - lam) * b)


def plain_fgsm(images: Tensor, grad: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * grad.sign()).clamp(0, 1)


def compiled(function: Callable) -> Callable:
    """torch.compile for fixed shapes.

    torch.compile keeps its cache and its limit of recompilations per code object. Each case gets a code object of its
    own; with a shared one, the ninth case would run as eager code.
    """

    def case(*values: Any) -> Any:
        return function(*values)

    case.__code__ = case.__code__.replace(co_name=f"case_{next(_numbers)}")
    return torch.compile(case, dynamic=False)


@cache
def _compiled_plan(fields: tuple[str, ...], dtype: torch.dtype) -> Callable:
    return compiled(
        lambda images, mean, std, *values: plain_augment(images, Plan(**dict(zip(fields, values))), dtype, (mean, std))
    )


def compiled_augment(images: Tensor, plan: Plan, dtype: torch.dtype, stats: Stats) -> Tensor:
    """``plain_augment`` through torch.compile, one graph per set of fields."""
    given = {name: field for name, field in plan._asdict().items() if field is not None}
    return _compiled_plan(tuple(given), dtype)(images, *stats, *given.values())


def augment_peers(labels: Tensor, dtype: torch.dtype) -> Iterator[tuple[str, str, Callable]]:
    """Peers of ``augment``, case by case.

    All results are normalized: in ``dtype`` if the peer's documentation has a way to it (timm), else in float32. Peers
    that mix also make targets, because their API always does. No peer flips, since its loader does; fastreg's
    cases include the flip.

    Args:
        labels: int64 [B], on the device.
        dtype: of the result.

    Yields:
        ``(case, peer, build)``; ``build()`` returns a function of uint8 [B, 3, H, W], each peer's own layout.
    """
    device = labels.device
    mean, std = normalization_stats(device, dtype, scale=255.0)

    def prefetched(x: Tensor) -> Tensor:
        """timm's PrefetchLoader: uint8 NCHW to float, minus mean, divided by std, in place."""
        return x.to(dtype).sub_(mean).div_(std)

    def timm_mixup(**how: Any) -> Callable:
        mixup = need("timm.data").Mixup(num_classes=1000, **how)
        return lambda x: mixup(prefetched(x), labels)

    def timm_erasing() -> Callable:
        erase = need("timm.data.random_erasing").RandomErasing(probability=1.0, mode="const", device=device.type)
        return lambda x: erase(prefetched(x))

    def torchvision_mix(name: str) -> Callable:
        v2 = need("torchvision.transforms.v2")
        mix = getattr(v2, name)(alpha=1.0, num_classes=1000)
        ready = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET_STATS)])
        return lambda x: mix(ready(x), labels)

    def kornia_mix(name: str, **how: Any) -> Callable:
        augmentation = need("kornia.augmentation")
        mix = getattr(augmentation, name)(data_keys=["input", "class"], p=1.0, **how)
        normalize = augmentation.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)).to(device)
        return lambda x: mix(normalize(x.float() / 255), labels)

    def timm_prefetch() -> Callable:
        need("timm")
        return prefetched

    yield "augment normalise", "timm PrefetchLoader", timm_prefetch
    yield "augment mixup", "timm batch", lambda: timm_mixup(mixup_alpha=1.0, mode="batch")
    yield "augment mixup per sample", "timm elem", lambda: timm_mixup(mixup_alpha=1.0, mode="elem")
    yield "augment cutmix", "timm batch", lambda: timm_mixup(mixup_alpha=0.0, cutmix_alpha=1.0, mode="batch")
    yield "augment cutmix per sample", "timm elem", lambda: timm_mixup(mixup_alpha=0.0, cutmix_alpha=1.0, mode="elem")
    yield "augment cutout", "timm RandomErasing", timm_erasing
    yield "augment mixup", "torchvision v2", lambda: torchvision_mix("MixUp")
    yield "augment cutmix", "torchvision v2", lambda: torchvision_mix("CutMix")
    yield "augment mixup per sample", "kornia", lambda: kornia_mix("RandomMixUpV2")
    yield "augment cutmix per sample", "kornia", lambda: kornia_mix("RandomCutMixV2", use_correct_lambda=True)
