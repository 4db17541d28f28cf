"""The loss in float64, and the comparison that the tests of the CPU route and of the kernels share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.kernels import Targets, mixed_cross_entropy

# dtype: rounding of a gradient, relative (the interpreter truncates bfloat16), and half a step of its smallest numbers
ROUNDING = {torch.float32: (0, 0), torch.float16: (2**-10, 6e-8), torch.bfloat16: (2**-7, 0), torch.float64: (0, 0)}
SOFTMAX = 5e-7  # error of the softmax in float32, in units of the row's upstream gradient


def truth(z: Tensor, targets: Targets | Tensor, eps: float | Tensor, reduction: str) -> Tensor:
    """torch's cross-entropy in float64 per label, weighted. Each row has its own smoothing."""
    a, b, lam = targets if isinstance(targets, Targets) else (targets, targets, torch.ones(len(z)))
    z, lam = z.double(), lam.double()
    rows, weight = torch.zeros_like(lam), torch.zeros_like(lam)
    for label, share in ((a, lam), (b, 1 - lam)):
        kept = label != -100
        hard = F.cross_entropy(z, label, reduction="none")
        uniform = -z.log_softmax(1).mean(1) * kept
        eps_ = torch.as_tensor(eps, dtype=torch.float64)
        rows = rows + share * ((1 - eps_) * hard + eps_ * uniform)
        weight = weight + share * kept
    return {"none": rows, "sum": rows.sum(), "mean": rows.sum() / weight.sum()}[reduction]


def labels(B: int, C: int, seed: int = 0) -> Targets:
    """Random pairs, among them equal labels, shares of 0 and 1, and ignored labels."""
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randint(0, C, (2, B), generator=g)
    lam = torch.rand(B, generator=g)
    b[0] = a[0]
    lam[1 % B] = 1.0
    if B > 4:
        lam[2], a[3], b[3], a[4] = 0.0, -100, -100, -100
    return Targets(a, b, lam)


def check(dtype: torch.dtype, C: int, B: int, eps, reduction: str, hard: bool = False, seed: int = 0) -> None:
    """Compare loss and gradient, under a random upstream gradient, with those of ``truth``."""
    g = torch.Generator().manual_seed(seed + C)
    z = (torch.randn(B, C, generator=g) * 4).to(dtype)
    targets = labels(B, C, seed).a if hard else labels(B, C, seed)
    upstream = torch.randn((B,) if reduction == "none" else (), generator=g)
    ours, theirs = z.clone().requires_grad_(), z.double().requires_grad_()
    loss = mixed_cross_entropy(ours, targets, eps, reduction)
    expected = truth(theirs, targets, eps, reduction)
    assert loss.dtype == torch.float32
    assert (loss.double() - expected).abs().max() <= 5e-6 * (B if reduction == "sum" else 1)
    loss.backward(upstream)
    expected.backward(upstream.double())
    assert ours.grad is not None
    assert theirs.grad is not None
    assert ours.grad.dtype == dtype
    relative, smallest = ROUNDING[dtype]
    rows = upstream.double().abs().reshape(-1, 1)
    if reduction == "mean":
        rows = rows / (B - 2 if B > 4 else B)  # at least so many rows count
    bound = SOFTMAX * rows + relative * theirs.grad.abs() + smallest
    assert ((ours.grad.double() - theirs.grad).abs() <= bound).all()
