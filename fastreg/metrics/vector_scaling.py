"""Vector scaling: a scale and a bias per class that make logits most likely."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.errors import InputError
from fastreg.metrics.inputs import fit_arguments

ELEMENTS = 1 << 17  # logits that are float64 at a time: they stay in the cache
STEPS = 500
FLAT = 1e-6  # largest slope at the minimum, in nats


def fit_vector_scaling(logits: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """The scale w and bias b that minimize the mean of -log softmax(w * logits + b)[label], in float64 by L-BFGS.

    The loss is convex. A number added to all biases changes nothing: they are given with a mean of 0.

    Args:
        logits: Float [N, K]. -inf excludes a class of a sample.
        labels: Class indices, integers [N].

    Returns:
        w and b, float64 [K] each, for ``w * logits + b``; not percent.

    Raises:
        InputError: A logit is NaN or inf, a label is not one of the classes or has a logit of -inf, a class has no
            label (the best bias of that class is -inf), or the loss has no smallest value, as for samples that some w
            and b classify without error.

    Source:
        Guo et al., On calibration of modern neural networks (ICML 2017), section 4.2.
    """
    z, y = fit_arguments(logits, labels)
    absent = (torch.bincount(y, minlength=z.shape[1]) == 0).nonzero().flatten()
    if len(absent):
        raise InputError(
            f"`labels` lacks {len(absent)} of {z.shape[1]} classes, such as {int(absent[0])}, whose best bias is -inf: "
            f"add samples of each class."
        )
    unit = float(torch.where(z.isfinite(), z, 0.0).double().square().mean().sqrt()) or 1.0
    both = torch.zeros(2, z.shape[1], dtype=torch.float64, device=z.device)  # of logits over their unit
    both[0] = 1
    both.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [both],
        max_iter=STEPS,
        max_eval=2 * STEPS,
        history_size=20,
        tolerance_grad=FLAT / 10,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        loss, both.grad, _ = _loss_and_slope(z, y, both.detach(), unit)
        return loss

    optimizer.step(closure)
    scale, bias = both.detach()
    _, slope, wrong = _loss_and_slope(z, y, both.detach(), unit)
    if not bool(slope.abs().max() <= FLAT) or not bool(wrong):  # without errors, larger values are always better
        raise InputError("`labels` are such that no scale and bias have the smallest loss: add samples.")
    return scale / unit, bias - bias.mean()


def _loss_and_slope(z: Tensor, y: Tensor, both: Tensor, unit: float) -> tuple[Tensor, Tensor, Tensor]:
    """The mean loss, its derivatives [2, K] by scale and bias, and the number of labels without the largest logit."""
    scale, bias = both
    loss = torch.zeros((), dtype=torch.float64, device=z.device)
    slope, wrong = torch.zeros_like(both), torch.zeros((), dtype=torch.int64, device=z.device)
    count = max(1, ELEMENTS // z.shape[1])
    for rows, labels in zip(z.split(count), y.split(count)):
        known = rows.isfinite()
        finite = torch.where(known, rows, 0.0).double() / unit
        log_p = torch.where(known, scale * finite + bias, -torch.inf).log_softmax(1)
        own = labels[:, None]
        likely = log_p.gather(1, own)
        loss -= likely.sum()
        wrong += (likely[:, 0] < log_p.amax(1)).sum()
        excess = log_p.exp().scatter_add(1, own, torch.full_like(own, -1, dtype=torch.float64))
        slope += torch.stack(((excess * finite).sum(0), excess.sum(0)))
    return loss / len(z), slope / len(z), wrong
