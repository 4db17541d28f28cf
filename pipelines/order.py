"""The order of samples as pure functions of (seed, epoch, world size, position); resume is one integer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastreg.errors import InputError
from fastreg.kernels import philox

AHEAD = 100_000  # samples from which on the next epoch's order is computed ahead; below, it takes milliseconds
WINDOW = 256  # pages of 8 MiB that a rank shuffles together
SAMPLERS = ("random", "balanced")


@dataclass(frozen=True, eq=False)
class Order:
    """The sequence of samples of each rank: a pure function of seed, epoch, world size and position.

    A step consumes one global batch of ``batch_size * accumulate * world`` samples. Rank r takes the r-th contiguous
    slice, as ``accumulate`` micro-batches of ``batch_size``. Training shuffles every epoch and drops the incomplete
    last global batch, or divides it into micro-batches of nearly equal size (``drop_last`` False). Evaluation is
    sequential, with each sample exactly once for any world size; the last batch may be partial.

    The occurrences of a sample in an epoch, of which ``repeats`` and ``balance`` make several, are numbered from 0. The
    number is in the sample's key (``philox.sample_keys``), so each draws its own crop and augmentation.

    ``repeats`` k is repeated augmentation: an epoch shows n / k samples k times each. The repeats of a sample are in
    one global batch (or two in sequence, if k does not divide it), ordered by occurrence. k ranks or more therefore see
    different repeats, as in timm and torchvision, and one rank never has two of them side by side.

    ``balance`` gives every class the same share of the epoch's n samples, to within one: the images of a class in a
    random order, which starts again when it ends. Classes without images have no share.

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
        repeats: Occurrences of each sample in a training epoch, 1 or more.
        balance: int [n], the class of each sample, for a class-balanced training epoch; None: every sample once.
        drop_last: Training leaves out the incomplete last global batch. It does so anyway if there are fewer samples
            left than micro-batches.

    Raises:
        InputError: A number is out of range, the set is smaller than one global batch, or ``pages`` is given with
            ``repeats`` or ``balance``.

    Source:
        Repeats: Hoffer et al., Augment your batch (CVPR 2020); Berman et al., MultiGrain (arXiv 1902.05509), section 4.
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
    repeats: int = 1
    balance: np.ndarray | None = None
    drop_last: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "world", "repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"`{name}` is {getattr(self, name)}: give 1 or more.")
        if not 0 <= self.rank < self.world:
            raise InputError(f"`rank` is {self.rank}: give 0 to {self.world - 1} for a world size of {self.world}.")
        if self.train and self.n < self.global_batch:
            raise InputError(
                f"the training set has {self.n} images, fewer than one global batch of {self.global_batch} "
                f"({self.batch_size} x {self.accumulate} x {self.world}): lower `batch_size`."
            )
        if self.pages is not None and (self.repeats > 1 or self.balance is not None):
            raise InputError(
                "repeated augmentation (`aug_repeats`) and class-balanced sampling (`sampler` balanced) shuffle sample "
                "by sample, and page order (`order` pages) by pages: use one of the two."
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
        """The keys of an epoch's samples in their order, int64 [n]; the key of occurrence 0 is the sample index."""
        if not self.train:
            return np.arange(self.n, dtype=np.int64)
        if self.pages is not None:
            return self._by_pages(self.pages, epoch)
        count = -(-self.n // self.repeats)
        if self.balance is None:
            keys = philox.permutation(self.seed, self.n, epoch, "order")[:count]
        else:
            keys = self._balanced(self.balance, count, epoch)
        return keys if self.repeats == 1 else self._repeated(keys)

    def _balanced(self, classes: np.ndarray, count: int, epoch: int) -> np.ndarray:
        """Keys of ``count`` samples with equal shares of all classes, shuffled."""
        shuffled = philox.permutation(self.seed, self.n, epoch, "order_balanced")
        by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]  # each class in a random order
        _, sizes = np.unique(classes, return_counts=True)
        # a class's share is larger by one if the class is drawn for the remainder
        rank_of_class = philox.permutation(self.seed, len(sizes), epoch, "order_balanced", start=self.n)
        shares = count // len(sizes) + (rank_of_class < count % len(sizes))
        own = np.repeat(np.arange(len(sizes)), shares)
        turn = np.arange(count) - np.repeat(np.cumsum(shares) - shares, shares)  # from 0 in each class
        first = np.cumsum(sizes) - sizes
        keys = philox.sample_keys(by_class[first[own] + turn % sizes[own]], turn // sizes[own])
        return keys[philox.permutation(self.seed, count, epoch, "order")]

    def _repeated(self, keys: np.ndarray) -> np.ndarray:
        """Each key ``repeats`` times, as keys of its own occurrences, [n]; by occurrence inside a global batch."""
        indices, earlier = philox.split_keys(np.repeat(keys, self.repeats)[: self.n])
        at = np.arange(self.n)
        repeat = at % self.repeats
        order = np.lexsort((at, repeat, at // self.global_batch))
        return philox.sample_keys(indices, earlier * self.repeats + repeat)[order]

    def _by_pages(self, pages: np.ndarray, epoch: int) -> np.ndarray:
        names, page = np.unique(pages, return_inverse=True)
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

    def batches(
        self, position: int = 0, order_of: Callable[[int], np.ndarray] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """``micro_batches`` with their epoch, without those that have no samples."""
        found = self.micro_batches(position, order_of)
        return ((found.epoch, keys) for keys in found if len(keys))

    def micro_batches(self, position: int = 0, order_of: Callable[[int], np.ndarray] | None = None) -> MicroBatches:
        """This rank's micro-batches from a position to the end of that epoch.

        Args:
            position: Samples of all ranks since epoch 0; it must be between two micro-batches.
            order_of: ``epoch``, or a function that knows its result.

        Returns:
            The sample keys of each micro-batch, int64 [b]. The last ones of an evaluation may have none on some ranks.

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
        return MicroBatches(self, epoch, offset // micro, (order_of or self.epoch)(epoch))

    def share(self, k: int) -> slice:
        """The slice of an epoch's order that is this rank's micro-batch ``k`` of the epoch."""
        step, micro_batch = divmod(k, self.accumulate)
        share = self.rank * self.accumulate + micro_batch
        start = step * self.global_batch + share * self.batch_size
        if self.partial and step == self.steps_per_epoch - 1:
            shares, first = self.accumulate * self.world, step * self.global_batch
            return slice(*(first + self.partial * k // shares for k in (share, share + 1)))
        return slice(start, start + self.batch_size)


class MicroBatches(Sequence[np.ndarray]):
    """The sample keys of a rank's micro-batches, cut from the epoch's order when they are read.

    Args:
        order: The Order.
        epoch: Their epoch.
        first: Number of the first of them in the epoch.
        keys: ``order.epoch(epoch)``.
    """

    def __init__(self, order: Order, epoch: int, first: int, keys: np.ndarray):
        self.epoch, self._order, self._keys = epoch, order, keys
        self._numbers = range(first, order.steps_per_epoch * order.accumulate)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            return [self._keys[self._order.share(k)] for k in self._numbers[which]]
        return self._keys[self._order.share(self._numbers[which])]


class OrderAhead:
    """``Order.epoch``, whose result for a later epoch a thread may compute before.

    Args:
        order: The order.
    """

    def __init__(self, order: Order):
        self.order = order
        self._thread: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[np.ndarray]] | None = None

    def __call__(self, epoch: int) -> np.ndarray:
        ready, self._next = self._next, None
        return ready[1].result() if ready is not None and ready[0] == epoch else self.order.epoch(epoch)

    def prepare(self, epoch: int) -> None:
        """Start to compute the order of an epoch, for a large training set."""
        if self.order.train and self.order.n >= AHEAD and (self._next is None or self._next[0] != epoch):
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="fastreg-order")
            self._next = epoch, self._thread.submit(self.order.epoch, epoch)

    def close(self) -> None:
        """Wait for the thread, and drop its result."""
        self._next = None
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
            self._thread = None
