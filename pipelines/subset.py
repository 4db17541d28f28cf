"""Some samples of a source as a source, and the split that ``val_share`` makes."""

from __future__ import annotations

import hashlib

import numpy as np

from fastreg.errors import InputError
from fastreg.pipelines.source import Source

WHOLE = 1 << 64


class Subset(Source):
    """Some samples of another source, in its order.

    Args:
        base: The other source.
        rows: int64 [n], indices of the samples in it.
        split: The name of this split.
    """

    def __init__(self, base: Source, rows: np.ndarray, split: str):
        self.base, self.rows = base, np.ascontiguousarray(rows, np.int64)
        self.name, self.split, self.root, self.is_sample = base.name, split, base.root, base.is_sample
        self.mean, self.std, self.layout = base.mean, base.std, base.layout
        self.labels, self.classes, self.canvas = base.labels[self.rows], base.classes, base.canvas
        digest = hashlib.sha256(self.rows.tobytes()).hexdigest()[:12]
        self.counts = f"{len(self.rows)} images, {len(self.classes)} classes, rows {digest} of {base.counts}"
        for name in ("pages", "heights", "widths"):
            if hasattr(base, name):
                setattr(self, name, getattr(base, name)[self.rows])
        for name in ("window", "fits_cache", "files"):  # the list is of the whole source
            if hasattr(base, name):
                setattr(self, name, getattr(base, name))

    @property
    def form(self) -> str:
        return self.base.form

    def check(self, index: int) -> None:
        self.base.check(int(self.rows[index]))

    def read(self, index: int) -> bytes | np.ndarray:
        return self.base.read(int(self.rows[index]))

    def gather(self, indices: np.ndarray, out: np.ndarray) -> None:
        self.base.gather(self.rows[indices], out)

    def describe(self, index: int) -> str:
        return self.base.describe(int(self.rows[index]))

    def key(self, index: int) -> str:
        return self.base.key(int(self.rows[index]))


def held_out(source: Source, share: float) -> np.ndarray:
    """Which samples ``val_share`` keeps from training.

    A sample is held out if the BLAKE2b digest of its own key (8 bytes, as a fraction of 2^64) is below ``share``. So
    it is independent of all other samples, and a larger share holds out more of the same.

    Args:
        source: The samples.
        share: Between 0 and 1.

    Returns:
        bool [N]
    """
    bound = int(share * WHOLE)
    digests = (
        hashlib.blake2b(source.key(k).encode("utf-8", "surrogateescape"), digest_size=8) for k in range(len(source))
    )
    return np.fromiter((int.from_bytes(d.digest(), "big") < bound for d in digests), bool, len(source))


def split_of(source: Source, split: str, share: float) -> Subset:
    """The training or the validation split of a source without a validation split.

    Args:
        source: All samples.
        split: ``"train"`` or ``"val"``.
        share: The share to validate on, between 0 and 1.

    Raises:
        InputError: The split would be empty.
    """
    out = held_out(source, share)
    rows = np.flatnonzero(out if split == "val" else ~out)
    if not len(rows):
        raise InputError(
            f"`val_share` {share:g} of the {len(source)} images of {source.root} leaves none for "
            f"{'validation' if split == 'val' else 'training'}: give another share."
        )
    return Subset(source, rows, split)
