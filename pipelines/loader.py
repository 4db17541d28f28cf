"""Loaders: batches of one source. Samples, labels, boxes and their order are the same for every decoder."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch

from fastreg.errors import InputError, RunError, unknown
from fastreg.kernels import philox
from fastreg.kernels.types import Batch
from fastreg.log import log
from fastreg.pipelines import crop
from fastreg.pipelines.decoder import BatchRequest, Decoded, Decoder, DecodeSettings, worker_count
from fastreg.pipelines.loader_table import FORMS, INTERPOLATIONS, LOADERS, loader_names
from fastreg.pipelines.order import SAMPLERS, Order, OrderAhead
from fastreg.pipelines.source import Source
from fastreg.pipelines.staging import Staging


class Loader:
    """Batches of one source; made by ``make_loader``. Also a context manager, which closes it.

    Attributes:
        name: Name of its row in ``LOADERS``.
        why: The reason for the choice of this loader, one clause.
        source: The Source.
        order: The Order.
        size: Output pixels per side; may be set between epochs.
        resize: Evaluation: shorter side after the resize, as a multiple of ``size``; may be set between epochs.
        coming: The keys of the micro-batches of the valid iterator, from its first on.
        skipped: Indices of the samples left out as broken.
    """

    def __init__(
        self,
        name: str,
        why: str,
        source: Source,
        order: Order,
        decoder: Decoder,
        staging: Staging,
        size: int,
        resize: float,
    ):
        self.name, self.why, self.source, self.order = name, why, source, order
        self.size, self.resize = size, resize
        self.coming: Sequence[np.ndarray] = ()
        self.skipped: set[int] = set()
        self._decoder, self._staging, self._order_of = decoder, staging, OrderAhead(order)
        self._live: Generator[Decoded] | None = None  # the decoder's generator behind the one valid iterator
        self._turn = threading.RLock()  # a prefetching thread may ask for a batch while another ends the iterator

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    @property
    def global_batch(self) -> int:
        """Samples of one step over all ranks."""
        return self.order.global_batch

    def batches(self, position: int = 0) -> Iterator[Batch]:
        """This rank's micro-batches from a position to the end of that epoch.

        A loader supports one iterator at a time: a call invalidates the iterator of the call before.

        Args:
            position: Global sample position: samples of all ranks since epoch 0.

        Returns:
            An iterator of Batches on the loader's device.

        Raises:
            InputError: ``position`` is not between two micro-batches, or the iterator is no longer valid.
            RunError: An image cannot be decoded (and broken images are not skipped); the message names it.
        """
        pending: deque[BatchRequest] = deque()  # those that the decoder has and the consumer has not
        coming = self.order.micro_batches(position, self._order_of)
        size, resize = self.size, self.resize

        def requests() -> Iterator[BatchRequest]:
            for keys in coming:
                if len(keys):
                    pending.append(BatchRequest(coming.epoch, keys, size, resize))
                    yield pending[-1]

        with self._turn:
            self._end()
            self._live = decoding = self._decoder.run(requests())
            self.coming = coming
        return self._batches(coming.epoch, len(coming) // 2, pending, decoding)

    def _batches(
        self, epoch: int, half: int, pending: deque[BatchRequest], decoding: Generator[Decoded]
    ) -> Iterator[Batch]:
        try:
            for number in count():
                if number == half:  # not before the first batches
                    self._order_of.prepare(epoch + 1)
                with self._turn:
                    if self._live is not decoding:
                        raise InputError(
                            "this iterator is no longer valid: the loader was closed or asked for other batches, and "
                            "it supports one iterator at a time; make a second loader."
                        )
                    decoded = next(decoding, None)
                    batch = None if decoded is None else self._batch(pending.popleft(), decoded)
                if decoded is None:
                    break
                del decoded
                if batch is not None:
                    yield batch
                    del batch  # leaves the consumer the only reference, so that the buffer can be reused
        finally:
            with self._turn:
                if self._live is decoding:
                    self._end()

    def _batch(self, request: BatchRequest, decoded: Decoded) -> Batch | None:
        """A decoded batch; None if none of its images could be decoded, which only evaluation accepts."""
        images, boxes, bad = decoded
        keys, indices = request.keys, request.indices
        if bad:
            self.skipped.update(indices[list(bad)].tolist())
            rows = np.setdiff1d(np.arange(len(indices)), bad)
            if len(rows) == 0:
                # a skipped training step would shift the position, and other ranks would wait
                if self.order.train or len(self.skipped) == len(self.source):
                    raise RunError(
                        f"no image of a batch of {len(indices)} could be decoded (first: "
                        f"{self.source.describe(int(indices[0]))}), and a whole batch cannot be skipped: "
                        f"run `fastreg data verify`."
                    )
                return None
            images, keys = images[torch.from_numpy(rows).to(images.device)], keys[rows]
            boxes = None if boxes is None else boxes[rows]
        labels = self.source.labels[philox.split_keys(keys)[0]]
        return self._staging.batch(images, labels, keys, boxes)

    def _end(self) -> None:
        """Drop all pending work of the valid iterator, so that it does not reach the next iterator."""
        decoding, self._live = self._live, None
        if decoding is not None:
            decoding.close()

    def close(self) -> None:
        """Invalidate the iterator, join threads and free buffers; the loader may be used again."""
        with self._turn:
            self._end()
            self._decoder.close()
            self._staging.close()
            self._order_of.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_loader(
    source: Source,
    *,
    loader: str = "auto",
    train: bool,
    batch_size: int,
    size: int,
    seed: int = 0,
    accumulate: int = 1,
    rank: int = 0,
    world: int = 1,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    on_bad_image: str = "error",
    resize: float = crop.RESIZE,
    interpolation: str = "bilinear",
    random_crop: bool = True,
    page_order: bool = False,
    shift: int = 4,
    repeats: int = 1,
    sampler: str = "random",
    drop_last: bool = True,
) -> Loader:
    """Make a Loader over a source.

    Args:
        source: The split to read.
        loader: ``"auto"`` or a key of ``LOADERS``.
        train: Shuffled batches with random-resized crops (small arrays: random shifts, applied by ``augment``). False:
            stored order, with the Resize-256/CenterCrop-224 protocol at ``size``.
        batch_size: Images per rank and micro-batch.
        size: Output pixels per side.
        seed: Key of order and boxes.
        accumulate: Micro-batches per step.
        rank: This process's rank.
        world: World size.
        device: Device of the batches.
        workers: Decoding threads; None: this process's share of the cores.
        on_bad_image: ``"error"``, or ``"skip"`` to leave broken and unreadable images out of their batches.
        resize: Evaluation: shorter side after the resize, as a multiple of ``size``.
        interpolation: Evaluation: ``"bilinear"``, ``"bicubic"``, ``"lanczos"`` or ``"nearest"``.
        random_crop: False: training images are the center crops of the evaluation protocol.
        page_order: Shuffle a .beton file page by page, or shards, for sets larger than memory or the cache.
        shift: Largest random shift of small arrays, in pixels.
        repeats: Repeated augmentation: occurrences of each sample in a training epoch, of the same length.
        sampler: ``"random"``, or ``"balanced"`` for equal shares of all classes in training.
        drop_last: Training: leave out the incomplete last global batch of an epoch.

    Returns:
        The Loader.

    Raises:
        InputError: An argument is unusable, the loader cannot read this source, or it is not installed.
    """
    if loader not in loader_names():
        raise unknown("loader", loader, loader_names())
    if on_bad_image not in ("error", "skip"):
        raise unknown("`on_bad_image`", on_bad_image, ("error", "skip"))
    if interpolation not in INTERPOLATIONS:
        raise unknown("`interpolation`", interpolation, INTERPOLATIONS)
    if sampler not in SAMPLERS:
        raise unknown("`sampler`", sampler, SAMPLERS)
    if size < 1:
        raise InputError(f"`size` is {size}: give 1 or more.")
    if resize < 1:
        raise InputError(f"`resize` is {resize}: give 1 or more; the shorter side must not be below the crop.")
    device = torch.device(device)
    name, why = (loader, "as asked") if loader != "auto" else choose_loader(source, device, interpolation)
    log.debug("loader %s: %s", name, why)
    _require_readable(name, source, train and random_crop)
    if not LOADERS[name].resizes_by(interpolation, source.form):
        able = [other for other, spec in LOADERS.items() if spec.real and interpolation in spec.interpolations]
        raise InputError(
            f"`loader` {name!r} has no {interpolation} `interpolation`: use {' or '.join(map(repr, able))}, "
            f"or bilinear."
        )
    pages = getattr(source, "pages", None) if page_order else None
    if page_order and pages is None:
        raise InputError(
            f"page order (`order` pages) reads a .beton file or shards, which {source.root} is not: "
            "`fastreg data prepare` makes one."
        )
    window = getattr(source, "window", None)
    balance = np.asarray(source.labels) if train and sampler == "balanced" else None
    shown: dict[str, Any] = {"repeats": repeats if train else 1, "balance": balance, "drop_last": drop_last}
    order = Order(len(source), batch_size, train, seed, accumulate, rank, world, pages, window, **shown)
    if train and not page_order and not getattr(source, "fits_cache", True):
        log.warning(
            "%s is larger than the cache: in random order its shards are downloaded again and again; shuffle by pages, "
            "or enlarge the cache.",
            source.root,
        )
    staging = Staging(device)
    settings = DecodeSettings(
        train and random_crop, seed, worker_count(workers), device, on_bad_image, staging.buffer, shift, interpolation
    )
    decoder = LOADERS[name].load()(source, settings)
    return Loader(name, why, source, order, decoder, staging, size, resize)


def choose_loader(source: Source, device: torch.device, interpolation: str = "bilinear") -> tuple[str, str]:
    """The loader that ``loader="auto"`` selects, and the reason as one clause.

    The selected loader is the first row of ``LOADERS`` that is preferred for this form of source and device, has the
    interpolation and is installed, otherwise ``folder``.
    """
    missing = ""
    for name, spec in LOADERS.items():
        if not spec.resizes_by(interpolation, source.form):
            continue
        if source.form in spec.auto_for and spec.auto_device in ("", device.type):
            if spec.is_installed:
                return name, spec.auto_reason
            missing = missing or f"; after `{spec.install_command(torch.version.cuda)}` {spec.auto_reason}"
    if source.form == "canvases":
        return "folder", f"stored canvases need no decoding{missing}"
    if device.type != "cuda":
        return "folder", f"no GPU, where Pillow in threads is fastest{missing}"
    return "folder", f"Pillow in threads{missing}"


def _require_readable(name: str, source: Source, train: bool) -> None:
    if LOADERS[name].reads(source.form, train):
        return
    make_one = ", or make a .beton file with `fastreg data prepare`"
    forms = LOADERS[name].trains_on if train else LOADERS[name].evaluates_on
    readers = [other for other, spec in LOADERS.items() if spec.real and spec.reads(source.form, train)]
    raise InputError(
        f"`loader` {name!r} {'trains on' if train else 'evaluates'} {' or '.join(FORMS[form] for form in forms)}; "
        f"{source.name} at {source.root} consists of {FORMS[source.form]}: use {' or '.join(map(repr, readers))}"
        f"{make_one if 'beton' in forms and source.form == 'images' else ''}."
    )
