"""The order of samples as pure functions of (seed, epoch, world size, position); resume is one integer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastreg.errors import InputError
from fastreg.kernels import philox


@dataclass(frozen=True)
class Order:
    """Which samples each rank sees, and when.

    A step consumes one global batch of ``batch_size * accumulate * world`` samples; rank r takes its r-th contiguous
    slice, as ``accumulate`` micro-batches of ``batch_size``. Training shuffles every epoch and drops the incomplete
    last global batch; evaluation is sequential, each sample exactly once on any world size, the last batch partial.
    """

    n: int
    batch_size: int
    train: bool
    seed: int = 0
    accumulate: int = 1
    rank: int = 0
    world: int = 1

    def __post_init__(self):
        for name in ("batch_size", "accumulate", "world"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more.")
        if not 0 <= self.rank < self.world:
            raise InputError(f"rank {self.rank} is outside a world of {self.world}.")
        if self.train and self.n < self.global_batch:
            raise InputError(
                f"the training set has {self.n} images, fewer than one global batch of {self.global_batch} "
                f"({self.batch_size} x {self.accumulate} x {self.world}): lower --batch-size."
            )

    @property
    def global_batch(self) -> int:
        return self.batch_size * self.accumulate * self.world

    @property
    def steps_per_epoch(self) -> int:
        return self.n // self.global_batch if self.train else -(-self.n // self.global_batch)

    @property
    def samples_per_epoch(self) -> int:
        """How far one epoch moves the global position."""
        return self.steps_per_epoch * self.global_batch

    def epoch(self, epoch: int) -> np.ndarray:
        """int64 [n]: the order of the whole set in ``epoch``."""
        if not self.train:
            return np.arange(self.n, dtype=np.int64)
        return np.asarray(philox.permutation(self.seed, self.n, epoch, "order"), dtype=np.int64)

    def batches(self, position: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """(epoch, int64 [b] sample indices of this rank's next micro-batch), from ``position`` to the epoch's end.

        ``position`` counts samples of all ranks over all epochs; it lies between two micro-batches.
        """
        micro = self.batch_size * self.world
        if position < 0 or position % micro:
            raise InputError(
                f"position {position} is not a whole number of batches of {micro}: "
                f"resume with the batch size and number of GPUs of the run."
            )
        epoch, offset = divmod(position, self.samples_per_epoch)
        order = self.epoch(epoch)
        for k in range(offset // micro, self.steps_per_epoch * self.accumulate):
            step, part = divmod(k, self.accumulate)
            start = step * self.global_batch + (self.rank * self.accumulate + part) * self.batch_size
            indices = order[start : start + self.batch_size]
            if len(indices):
                yield epoch, indices
