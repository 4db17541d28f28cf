"""One pass over a set, on the device, without a host synchronisation: counts and float64 sums that add up.

All sums are exact, so they do not depend on how the set is cut into batches and ranks: counts; confidences, which are
float32 values in [1/K, 1] and add without rounding in float64 up to some 10^5 samples; likelihoods and Brier scores,
each first rounded to a multiple of 2^-30 (1e-9), which add without rounding up to a sum of 2^23.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.metrics.classification import BINS, ece_of_bins, rank_of_label, sum_bins, summarise_bins

_SUMS = ("n", "nonfinite", "top1", "top5", "confidence", "nll", "brier", "impossible")
_GRID = 2.0**30


class Tally:
    """Adds up batches of logits; ``sums`` float64 [8] and ``bins`` float64 [3, 20] are all its state."""

    def __init__(self, device: torch.device | str = "cpu", bins: int = BINS):
        self.sums = torch.zeros(len(_SUMS), dtype=torch.float64, device=device)
        self.bins = torch.zeros(3, bins, dtype=torch.float64, device=device)

    def update(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Adds logits [B, K] and int64 labels [B]; returns the confidences float32 [B], NaN where there is no softmax.

        A row whose softmax does not exist counts as a miss and as ``nonfinite``, and in no other sum. A row that gives
        its own class probability 0 (a logit of -inf) counts as ``impossible`` and has no likelihood.
        """
        logits = logits.detach().float()
        log_p = logits.log_softmax(1)
        own = log_p.gather(1, labels[:, None]).squeeze(1)
        finite = ~own.isnan()  # a NaN or infinite logit makes the whole row NaN
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
        counted[0, 0] -= (~finite).sum()  # rows without a softmax landed in the first bin, with confidence 0 and no hit
        self.bins += counted
        return confidence

    def merge(self) -> None:
        """Adds the tallies of all ranks, when torch.distributed runs."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.sums)
            torch.distributed.all_reduce(self.bins)

    def result(self) -> dict[str, Any]:
        """Plain numbers: ``n``, ``nonfinite``, ``impossible``; ``error``, ``top5_error``, ``confidence``, ``ece`` and
        ``brier`` in percent; ``nll`` in nats; ``bins`` for a reliability diagram. Calibration is over the finite rows:
        without any it is None. The likelihood is None (it would be infinite) when a row gave its own class no chance.
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
