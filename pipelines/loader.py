"""One contract over all decoders: the same samples, labels and boxes in the same order, whoever decodes."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Generator, Iterable, Iterator

import numpy as np
import torch

from fastreg.errors import InputError, RunError, extra, unknown
from fastreg.kernels.types import Batch
from fastreg.pipelines import crop
from fastreg.pipelines.cifar import ArraySource
from fastreg.pipelines.decode_canvas import CanvasDecoder, ResidentDecoder, SyntheticDecoder, untouched
from fastreg.pipelines.decoder import Decoded, Decoder, Job, Settings, default_workers, log
from fastreg.pipelines.order import Order
from fastreg.pipelines.source import Source
from fastreg.pipelines.staging import Staging

LOADERS = ("auto", "folder", "dali", "ffcv", "resident", "synthetic")


class Loader:
    """Batches of one source; made by ``make_loader``.

    ``size`` (output pixels per side) and ``resize`` (evaluation: the shorter side before the centre crop over ``size``)
    may be set between epochs; nothing is rebuilt. ``name`` is the decoder, ``why`` the one-line reason it was chosen,
    ``skipped`` the indices of images left out as broken.
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
        self.skipped: set[int] = set()
        self._decoder, self._staging = decoder, staging
        self._live: Generator[Decoded] | None = None  # the decoder's work for the one iterator that may go on
        self._turn = threading.RLock()  # a prefetching thread may ask for a batch while another ends the iterator

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    @property
    def global_batch(self) -> int:
        return self.order.global_batch

    def batches(self, position: int = 0) -> Iterator[Batch]:
        """This rank's micro-batches from global sample ``position`` to the end of that epoch.

        A loader has one live iterator: this call ends the one before, whose next() then raises InputError. Raises
        RunError naming the sample when an image cannot be decoded (unless bad images are skipped), InputError when
        ``position`` does not lie between two micro-batches.
        """
        jobs = [Job(epoch, indices, self.size, self.resize) for epoch, indices in self.order.batches(position)]
        with self._turn:
            self._end()
            self._live = work = self._decoder.run(iter(jobs))
        return self._batches(jobs, work)

    def _batches(self, jobs: Iterable[Job], work: Generator[Decoded]) -> Iterator[Batch]:
        try:
            for job in jobs:
                batch = self._batch(job, work)
                if batch is not None:
                    yield batch
                    del batch  # the consumer's alone, so that its buffer can be used again
        finally:
            with self._turn:
                if self._live is work:
                    self._end()

    def _batch(self, job: Job, work: Generator[Decoded]) -> Batch | None:
        """The next batch; None when none of its images could be decoded, which only evaluation can do without."""
        with self._turn:
            if self._live is not work:
                raise InputError(
                    "these batches ended when the loader was closed or asked for others: a loader gives one run of "
                    "batches at a time; make a second loader to read at two places."
                )
            images, boxes, bad = next(work)
            indices = job.indices
            if bad:
                self.skipped.update(indices[list(bad)].tolist())
                rows = np.setdiff1d(np.arange(len(indices)), bad)
                if len(rows) == 0:
                    # a training step left out would shift the position, and keep other processes waiting
                    if self.order.train or len(self.skipped) == len(self.source):
                        raise RunError(
                            f"no image of a batch of {len(indices)} could be decoded (first: "
                            f"{self.source.describe(int(indices[0]))}), which --on-bad-image skip cannot pass over: "
                            f"run `fastreg data verify`."
                        )
                    return None
                images, indices = images[torch.from_numpy(rows).to(images.device)], indices[rows]
                boxes = None if boxes is None else boxes[rows]
            return self._staging.batch(images, self.source.labels[indices], indices, boxes)

    def _end(self) -> None:
        """Drop what the live iterator has begun: nothing of it can reach the next one."""
        work, self._live = self._live, None
        if work is not None:
            work.close()

    def close(self) -> None:
        """End the live iterator, join threads and free buffers; the loader may be used again afterwards."""
        with self._turn:
            self._end()
            self._decoder.close()
            self._staging.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_) -> None:
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
    random_crop: bool = True,
    page_order: bool = False,
    shift: int = 4,
) -> Loader:
    """A Loader over ``source``.

    ``train`` gives shuffled batches with random-resized crops (CIFAR: ``shift`` pixels, for ``augment`` to cut);
    else the Resize-256/CenterCrop-224 protocol at ``size`` in stored order. ``batch_size`` is per rank and micro-batch,
    ``workers`` counts decoding threads (default: this process's share of the cores), ``on_bad_image`` is "error" or
    "skip", which leaves broken and unreadable images out of their batches (a training batch of nothing else stays an
    error); ``random_crop=False`` trains on the evaluation protocol's centre; ``page_order`` shuffles a .beton file page
    by page, for sets larger than memory. Raises InputError for unusable arguments or a decoder that is not installed.
    """
    if loader not in LOADERS:
        raise unknown("loader", loader, LOADERS)
    if on_bad_image not in ("error", "skip"):
        raise unknown("--on-bad-image", on_bad_image, ("error", "skip"))
    if size < 1:
        raise InputError(f"--size {size}: it must be 1 or more.")
    if resize < 1:
        raise InputError(f"resize {resize}: the shorter side must not be below the crop (1 or more).")
    device = torch.device(device)
    name, why = (loader, "as asked") if loader != "auto" else choose(source, device)
    log.debug("loader %s: %s", name, why)
    pages = getattr(source, "pages", None) if page_order else None
    if page_order and pages is None:
        raise InputError(
            f"--order pages reads a .beton file, which {source.root} is not: `fastreg data prepare` makes one."
        )
    order = Order(len(source), batch_size, train, seed, accumulate, rank, world, pages)
    staging = Staging(device)
    settings = Settings(
        train and random_crop, seed, default_workers(workers), device, on_bad_image, staging.buffer, shift
    )
    return Loader(name, why, source, order, _decoder(name, source, settings), staging, size, resize)


def choose(source: Source, device: torch.device) -> tuple[str, str]:
    """What ``--loader auto`` takes, and the one-line reason."""
    if isinstance(source, ArraySource):
        return "resident", f"{len(source)} small arrays fit in the memory of {device}"
    if source.canvas is not None:
        return "folder", "stored canvases need no decoding"
    if device.type != "cuda":
        return "folder", "no GPU, where Pillow in threads is fastest"
    if importlib.util.find_spec("nvidia.dali") is None:
        return "folder", f"Pillow in threads; after `{extra('dali')}` the GPU would decode"
    return "dali", "a GPU decodes the JPEG files"


def _decoder(name: str, source: Source, settings: Settings) -> Decoder:
    arrays = isinstance(source, ArraySource)
    if name == "synthetic":
        return SyntheticDecoder(source, settings)
    if name == "resident":
        if settings.train and source.canvas is None:
            raise InputError(
                f"loader 'resident' trains on stored canvases (CIFAR, or a .beton of --raw), and {source.root} holds "
                f"encoded images: use 'folder'."
            )
        return ResidentDecoder(source, settings, _decoder("folder", source, settings))
    if name == "folder" or (name == "ffcv" and source.canvas is not None and not arrays):
        from fastreg.pipelines.decode_pillow import PillowDecoder

        return (CanvasDecoder if untouched(source, settings) else PillowDecoder)(source, settings)
    if arrays:
        raise InputError(
            f"loader {name!r} decodes image files, and {source.name} is arrays: use 'resident' or 'folder'."
        )
    if name == "dali":
        from fastreg.pipelines.decode_dali import DaliDecoder

        return DaliDecoder(source, settings)
    from fastreg.pipelines.decode_ffcv import FfcvDecoder

    return FfcvDecoder(source, settings)
