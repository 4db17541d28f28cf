"""The order of samples as pure functions of (seed, epoch, world size, position); resume is one integer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastreg.errors import InputError
from fastreg.kernels import philox

WINDOW = 256  # pages of 8 MiB that a rank shuffles together


@dataclass(frozen=True, eq=False)
class Order:
    """The sequence of samples of each rank: a pure function of seed, epoch, world size and position.

    A step consumes one global batch of ``batch_size * accumulate * world`` samples. Rank r takes the r-th contiguous
    slice, as ``accumulate`` micro-batches of ``batch_size``. Training shuffles every epoch and drops the incomplete
    last global batch, or divides it into micro-batches of nearly equal size (``drop_last`` False). Evaluation is
    sequential, with each sample exactly once for any world size; the last batch may be partial.

    Attributes:
        n: Samples of the set.
        batch_size: Samples per rank and micro-batch.
        train: Shuffle; False: stored order.
        seed: Key of the shuffle.
        accumulate: Micro-batches per step.
        rank: This process's rank.
        world: World size.
        pages: int [n], the page that holds each sample, for a quasi-random shuffle: pages are shuffled and dealt to the
            ranks in runs, and each rank shuffles inside windows of ``WINDOW`` pages, so that it reads a page about
            once.
        window: Pages that a rank shuffles together; None: ``WINDOW``.
        drop_last: Training leaves out the incomplete last global batch. It does so anyway if there are fewer samples
            left than micro-batches.

    Raises:
        InputError: A number is out of range, or the set is smaller than one global batch.
    """

    n: int
    batch_size: int
    train: bool
    seed: int = 0
    accumulate: int = 1
    rank: int = 0
    world: int = 1
    pages: np.ndarray | None = None
    window: int | None = None
    drop_last: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "world"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` is {getattr(self, name)}: give 1 or more.")
        if not 0 <= self.rank < self.world:
            raise InputError(f"`rank` is {self.rank}: give 0 to {self.world - 1} for a world size of {self.world}.")
        if self.train and self.n < self.global_batch:
            raise InputError(
                f"the training set has {self.n} images, fewer than one global batch of {self.global_batch} "
                f"({self.batch_size} x {self.accumulate} x {self.world}): lower `batch_size`."
            )

    @property
    def global_batch(self) -> int:
        return self.batch_size * self.accumulate * self.world

    @property
    def steps_per_epoch(self) -> int:
        return self.n // self.global_batch + bool(self.partial) if self.train else -(-self.n // self.global_batch)

    @property
    def partial(self) -> int:
        """Samples of the incomplete last global batch that training keeps; 0 if it drops them."""
        left = self.n % self.global_batch
        return left if self.train and not self.drop_last and left >= self.accumulate * self.world else 0

    @property
    def samples_per_epoch(self) -> int:
        """Samples by which one epoch advances the global position."""
        return self.steps_per_epoch * self.global_batch

    def epoch(self, epoch: int) -> np.ndarray:
        """The order of the whole set in an epoch, int64 [n]."""
        if not self.train:
            return np.arange(self.n, dtype=np.int64)
        if self.pages is None:
            return philox.permutation(self.seed, self.n, epoch, "order")
        names, page = np.unique(self.pages, return_inverse=True)
        rank_of_page = np.empty(len(names), np.int64)
        rank_of_page[philox.permutation(self.seed, len(names), epoch, "order")] = np.arange(len(names))
        by_page = np.argsort(rank_of_page[page], kind="stable")
        full = self.n // self.global_batch
        used, share = full * self.global_batch, full * self.batch_size * self.accumulate
        window = max(1, (self.window or WINDOW) * self.n // len(names))
        runs = [
            by_page[start : start + share][
                philox.permutation(self.seed, share, epoch, "order_window", group=window, start=start)
            ]
            for start in range(0, used, share)
        ]
        steps = np.stack(runs).reshape(self.world, full, -1).transpose(1, 0, 2)
        return np.concatenate([steps.ravel(), by_page[used:]])

    def batches(self, position: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """This rank's micro-batches from a position to the end of that epoch.

        Args:
            position: Samples of all ranks since epoch 0; it must be between two micro-batches.

        Yields:
            The epoch and the sample indices, int64 [b], of the next micro-batch.

        Raises:
            InputError: ``position`` is negative or inside a micro-batch.
        """
        micro = self.batch_size * self.world
        if position < 0 or position % micro:
            raise InputError(
                f"`position` {position} is not a whole number of batches of {micro}: "
                f"resume with the batch size and world size of the run."
            )
        epoch, offset = divmod(position, self.samples_per_epoch)
        order = self.epoch(epoch)
        for k in range(offset // micro, self.steps_per_epoch * self.accumulate):
            step, micro_batch = divmod(k, self.accumulate)
            share = self.rank * self.accumulate + micro_batch
            start = step * self.global_batch + share * self.batch_size
            stop = start + self.batch_size
            if self.partial and step == self.steps_per_epoch - 1:
                shares = self.accumulate * self.world
                start, stop = (step * self.global_batch + self.partial * k // shares for k in (share, share + 1))
            indices = order[start:stop]
            if len(indices):
                yield epoch, indices
