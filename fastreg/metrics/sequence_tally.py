"""``SequenceTally``: flips and top-5 distances of sequences from batches of logits, without synchronizing.

The state is counts, which add up over batches and ranks: figures are exact, and do not depend on how a set is divided.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastreg.metrics.stability import TOP, pair_distances, pairs

_COUNTS = ("sequences", "frames", "misses", "flips", "distance", "nonfinite_frames", "nonfinite")


class SequenceTally:
    """Running counts of the stability of a classifier over sequences of frames.

    Attributes:
        counts: int64 [7], the counts named in ``_COUNTS``.

    Args:
        device: Device of the counts; the device of the logits.
        reference: The frame that frames 2 to F are compared with: ``"previous"``, or ``"first"`` for noise.
    """

    def __init__(self, device: torch.device | str = "cpu", reference: str = "previous") -> None:
        self.counts = torch.zeros(len(_COUNTS), dtype=torch.int64, device=device)
        self.reference = reference

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch of whole sequences.

        A frame with NaN or +inf has no prediction, as in ``Tally``: it is a miss, and each of its pairs is a flip with
        the largest distance. Ties go to the lower class.

        Args:
            logits: float32, float16 or bfloat16 [V, F, K]: V sequences of F frames.
            labels: int64 [V].
        """
        logits = logits.detach()
        bad = ~logits.amax(-1).isfinite()  # NaN makes the maximum NaN
        # stable, so that ties are in the order of the classes on every device
        ranking = logits.sort(dim=-1, descending=True, stable=True).indices[..., :TOP]
        k = ranking.shape[-1]
        first, second = pairs(bad, self.reference)
        lost = first | second
        before, after = pairs(ranking[..., 0], self.reference)
        most = sum(TOP - rank for rank in range(k))
        distance = torch.where(lost, most, pair_distances(ranking, self.reference))
        misses = (ranking[..., 0] != labels[:, None]) | bad
        every = torch.ones_like(bad)
        parts = (every[:, 0], every, misses, lost | (before != after), distance, bad, bad.any(1))
        self.counts += torch.stack([part.sum() for part in parts])

    def merge(self) -> None:
        """Add the counts of all ranks, if torch.distributed is initialized."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.counts)

    def result(self) -> dict[str, Any]:
        """The figures of all batches so far. Synchronizes with the device.

        Returns:
            ``frames``, the number per sequence; ``flip_probability`` and ``error`` (of all frames) in percent;
            ``top5_distance``, from 0 to 15; ``nonfinite`` and ``nonfinite_frames``, the sequences and frames without a
            prediction. Figures of no sequence are 0.
        """
        counts = dict(zip(_COUNTS, self.counts.tolist()))
        compared = max(counts["frames"] - counts["sequences"], 1)
        return {
            "frames": counts["frames"] // max(counts["sequences"], 1),
            "flip_probability": 100.0 * counts["flips"] / compared,
            "top5_distance": counts["distance"] / compared,
            "error": 100.0 * counts["misses"] / max(counts["frames"], 1),
            "nonfinite": counts["nonfinite"],
            "nonfinite_frames": counts["nonfinite_frames"],
        }
