"""The binary cross-entropy in float64 on dense targets, and the comparison that tests of both routes share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.kernels import Targets, mixed_binary_cross_entropy
from tests.kernels.cross_entropy.losses import ROUNDING, labels


def dense(targets: Targets, C: int, eps: float) -> tuple[Tensor, Tensor]:
    """Targets [B, C] before the threshold, in float32, and row weights [B]: a loop over the rows, one by one."""
    t, weight = torch.zeros(len(targets.a), C), torch.zeros(len(targets.a), dtype=torch.float64)
    for row, (a, b, lam) in enumerate(zip(*targets, strict=True)):
        kept = [(label, share) for label, share in ((a, lam), (b, 1 - lam)) if label != -100]
        for label, share in kept:
            t[row, label] += share if len(kept) == 2 else 1.0
        weight[row] = sum(float(share) for _, share in kept)
    return (1 - eps) * t + eps / C, weight


def truth(
    z: Tensor,
    t: Tensor,
    weight: Tensor,
    threshold: float | None,
    sum_classes: bool,
    reduction: str,
    class_weight: Tensor | None = None,
) -> Tensor:
    """torch's loss in float64 on targets [B, C]."""
    if threshold is not None:
        t = (t.float() > threshold).double()  # in float32, also where targets are narrower
    factor = weight.unsqueeze(1) * (torch.ones(z.shape[1]) if class_weight is None else class_weight).double()
    terms = F.binary_cross_entropy_with_logits(z.double(), t.double(), reduction="none") * factor
    if reduction == "none":
        return terms.sum(1) if sum_classes else terms
    divisor = weight.sum() * (1 if sum_classes else z.shape[1])
    return terms.sum() / (divisor if reduction == "mean" else 1)


def check(
    dtype: torch.dtype,
    C: int,
    B: int,
    *,
    eps: float = 0.1,
    threshold: float | None = None,
    sum_classes: bool = False,
    reduction: str = "mean",
    kind: str = "pair",
    weighted: bool = False,
    upstream: str = "random",
) -> None:
    """Compare loss and gradient with ``truth``. ``kind``: "pair", "hard" or "dense" targets."""
    g = torch.Generator().manual_seed(C)
    z = (torch.randn(B, C, generator=g) * 4).to(dtype)
    class_weight = torch.rand(C, generator=g) * 2 if weighted else None
    pair = labels(B, C)
    if kind == "hard":
        pair = Targets(pair.a, pair.a, torch.ones(B))
    t, weight = dense(pair, C, eps)
    targets: Targets | Tensor = pair.a if kind == "hard" else pair
    if kind == "dense":
        targets = t = torch.rand(B, C, generator=g).to(dtype)
        weight = torch.ones(B, dtype=torch.float64)
    ours, theirs = z.clone().requires_grad_(), z.double().requires_grad_()
    loss = mixed_binary_cross_entropy(ours, targets, eps, threshold, sum_classes, reduction, class_weight=class_weight)
    expected = truth(theirs, t, weight, threshold, sum_classes, reduction, class_weight)
    assert loss.dtype == torch.float32
    assert loss.shape == expected.shape
    assert ((loss.double() - expected).abs() <= 2e-6 * expected.abs() + 1e-6).all()
    grad = torch.randn(loss.shape, generator=g)
    if upstream == "expanded":  # as the gradient of a sum or a mean
        grad = torch.tensor(0.7).expand(loss.shape)
    elif upstream == "rows":
        grad = torch.randn(B, 1, generator=g).expand(loss.shape)
    elif upstream == "transposed":
        grad = torch.randn(loss.shape[::-1], generator=g).T
    loss.backward(grad)
    expected.backward(grad.double())
    assert ours.grad is not None
    assert theirs.grad is not None
    assert ours.grad.dtype == dtype
    relative, smallest = ROUNDING[dtype]
    factor = grad.double().abs().reshape(B if loss.dim() else 1, -1)
    if reduction == "mean":
        factor = factor / (weight.sum() * (1 if sum_classes else C))
    bound = 1e-6 * factor + relative * theirs.grad.abs() * 1.0001 + smallest
    assert ((ours.grad.double() - theirs.grad).abs() <= bound).all()
