"""The loss in float64, and the comparison that the tests of the CPU route and of the kernels share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.kernels import Targets, mixed_cross_entropy

# dtype: rounding of a gradient, relative (the interpreter truncates bfloat16), and half a step of its smallest numbers
ROUNDING = {torch.float32: (0, 0), torch.float16: (2**-10, 6e-8), torch.bfloat16: (2**-7, 0), torch.float64: (0, 0)}
SOFTMAX = 5e-7  # error of the softmax in float32, in units of the row's upstream gradient


def truth(
    z: Tensor,
    targets: Targets | Tensor,
    eps: float | Tensor,
    reduction: str,
    class_weight: Tensor | None = None,
) -> Tensor:
    """The loss in float64 from torch's log-softmax, one label at a time. Each row has its own smoothing."""
    z, v = z.double(), torch.ones(z.shape[1]).double() if class_weight is None else class_weight.double()
    terms = -z.log_softmax(1) * v
    eps_ = torch.as_tensor(eps, dtype=torch.float64)
    if isinstance(targets, Tensor) and targets.is_floating_point():
        column = eps_.view(-1, 1)
        rows = (terms * (targets.double() * (1 - column) + column / z.shape[1])).sum(1)
        return {"none": rows, "sum": rows.sum(), "mean": rows.sum() / len(rows)}[reduction]
    a, b, lam = targets if isinstance(targets, Targets) else (targets, targets, torch.ones(len(z)))
    lam = lam.double()
    rows, weight = torch.zeros_like(lam), torch.zeros_like(lam)
    for label, share in ((a, lam), (b, 1 - lam)):
        kept = label != -100
        hard = F.nll_loss(-terms, label, reduction="none")
        rows = rows + share * ((1 - eps_) * hard + eps_ * terms.mean(1) * kept)
        weight = weight + share * kept * v[label.clamp(min=0)]
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


def check(
    dtype: torch.dtype,
    C: int,
    B: int,
    eps: float | Tensor,
    reduction: str,
    kind: str = "pair",
    weighted: bool = False,
    seed: int = 0,
) -> None:
    """Compare loss and gradient, under a random upstream gradient, with those of ``truth``.

    ``kind``: "pair", "hard", or "dense" targets: probabilities, and a row of several labels.
    """
    g = torch.Generator().manual_seed(seed + C)
    z = (torch.randn(B, C, generator=g) * 4).to(dtype)
    targets = labels(B, C, seed).a if kind == "hard" else labels(B, C, seed)
    upstream = torch.randn((B,) if reduction == "none" else (), generator=g)
    weight = torch.rand(C, generator=g) * 2 if weighted else None
    largest = 1.0 if weight is None else float(weight.max())
    if kind == "dense":
        targets = torch.randn(B, C, generator=g).softmax(1)
        targets[0, : min(C, 3)] = 1.0
        targets = targets.to(dtype)
        largest *= 4  # sum of the first row
    ours, theirs = z.clone().requires_grad_(), z.double().requires_grad_()
    loss = mixed_cross_entropy(ours, targets, eps, reduction, class_weight=weight)
    expected = truth(theirs, targets, eps, reduction, weight)
    assert loss.dtype == torch.float32
    assert (loss.double() - expected).abs().max() <= 5e-6 * largest * (B if reduction == "sum" else 1)
    loss.backward(upstream)
    expected.backward(upstream.double())
    assert ours.grad is not None
    assert theirs.grad is not None
    assert ours.grad.dtype == dtype
    relative, smallest = ROUNDING[dtype]
    rows = upstream.double().abs().reshape(-1, 1)
    if reduction == "mean":
        plain = kind != "dense" and weight is None
        rows = rows / ((B - 2 if B > 4 else B) if plain else _divisor(targets, weight))  # at least so many rows count
    bound = SOFTMAX * rows * largest + relative * theirs.grad.abs() + smallest
    assert ((ours.grad.double() - theirs.grad).abs() <= bound).all()


def _divisor(targets: Targets | Tensor, weight: Tensor | None) -> float:
    """Divisor of the mean: the number of rows, or the sum of the weights of the labels that are not ignored."""
    if isinstance(targets, Tensor):
        if targets.is_floating_point():
            return len(targets)
        targets = Targets(targets, targets, torch.ones(len(targets)))
    shares = ((targets.a, targets.lam), (targets.b, 1 - targets.lam))
    total = sum(
        float(share * (1 if weight is None else weight[label]))
        for labels_, shares_ in shares
        for label, share in zip(labels_, shares_, strict=True)
        if label != -100
    )
    return total
