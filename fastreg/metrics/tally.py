"""``Tally``: the figures of a data set from batches of logits, without synchronizing with the device.

The state is counts and float64 sums, which add up over batches and ranks. All sums are exact, so they do not depend on
how the set is divided: confidences are float32 values in [1/K, 1], which add without rounding in float64 up to some
10^5 samples; likelihoods and Brier scores are rounded to multiples of 2^-30 (1e-9) and add without rounding up to a sum
of 2^23.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.metrics.calibration import BINS, ece_of_bins, sum_bins, summarise_bins
from fastreg.metrics.classification import rank_of_label

_SUMS = ("n", "nonfinite", "top1", "top5", "confidence", "nll", "brier", "impossible")
_GRID = 2.0**30


class Tally:
    """Running sums of a classifier's figures over batches of logits.

    Attributes:
        sums: float64 [8], the counts and sums named in ``_SUMS``.
        bins: float64 [3, bins], count, sum of confidences and sum of hits of each calibration bin.

    Args:
        device: Device of the sums; the device of the logits.
        bins: Number of calibration bins of equal width.
    """

    def __init__(self, device: torch.device | str = "cpu", bins: int = BINS) -> None:
        self.sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=device)
        self.bins = torch.zeros(3, bins, dtype=torch.float64, device=device)

    def update(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Add a batch.

        A row with NaN or +inf has no softmax: it counts as a miss and as ``nonfinite``, and is in no other sum. A row
        whose label has probability 0 (a logit of -inf) counts as ``impossible`` and has no likelihood.

        Args:
            logits: float32, float16 or bfloat16 [B, K].
            labels: int64 [B].

        Returns:
            Confidences, float32 [B]; NaN for a row without a softmax.
        """
        logits = logits.detach().float()
        log_p = logits.log_softmax(1)
        own = log_p.gather(1, labels[:, None]).squeeze(1)
        finite = ~own.isnan()  # NaN or +inf makes the whole row NaN
        p = log_p.exp()
        confidence = p.amax(1)
        rank = rank_of_label(logits, labels)
        one = torch.ones_like(own, dtype=torch.float64)
        brier = p.double().square().sum(1) - 2 * own.double().exp() + 1
        possible = own > -torch.inf
        nll = torch.where(possible, -own.double(), 0.0)
        nll, brier = ((x * _GRID).round() / _GRID for x in (nll, brier))
        columns = torch.stack((one, one, rank < 1, rank < 5, confidence.double(), nll, brier, ~possible))
        columns = torch.where(finite, columns, 0.0)
        columns[0] = 1.0
        columns[1] = (~finite).double()
        self.sums += columns.sum(1)
        counted = sum_bins(torch.where(finite, confidence, 0.0), columns[2], self.bins.shape[1])
        counted[0, 0] -= (~finite).sum()  # rows without a softmax are in the first bin, as misses of confidence 0
        self.bins += counted
        return confidence

    def merge(self) -> None:
        """Add the sums of all ranks, if torch.distributed is initialized."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.sums)
            torch.distributed.all_reduce(self.bins)

    def result(self) -> dict[str, Any]:
        """The figures of all batches so far. Synchronizes with the device.

        Returns:
            ``n``, ``nonfinite`` and ``impossible`` (counts); ``error``, ``top5_error``, ``confidence``, ``ece`` and
            ``brier`` in percent; ``nll`` in nats; ``bins``, the columns of ``reliability_bins``. ``confidence``,
            ``ece``, ``brier`` and ``nll`` are over the rows with a softmax, and None without any. ``nll`` is None if
            a row is ``impossible``, since it would be infinite.
        """
        sums = dict(zip(_SUMS, self.sums.tolist()))
        n, finite = max(sums["n"], 1.0), sums["n"] - sums["nonfinite"]
        return {
            "n": int(sums["n"]),
            "nonfinite": int(sums["nonfinite"]),
            "impossible": int(sums["impossible"]),
            "error": 100.0 * (sums["n"] - sums["top1"]) / n,
            "top5_error": 100.0 * (sums["n"] - sums["top5"]) / n,
            "confidence": 100.0 * sums["confidence"] / finite if finite else None,
            "nll": sums["nll"] / finite if finite and not sums["impossible"] else None,
            "brier": 100.0 * sums["brier"] / finite if finite else None,
            "ece": ece_of_bins(self.bins) if finite else None,
            "bins": summarise_bins(*(row.tolist() for row in self.bins)),
        }
