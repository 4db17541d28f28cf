"""Targets as data: limits that fastreg must meet on any GPU, on one card, or on a CPU.

Launches, shares of a copy and ratios apply to any CUDA GPU. Microseconds and images per second apply to one card. The
limits of memory-bound operations follow from the card's copy rate; both cards have the same multiprocessors and clocks,
so the limits of compute-bound operations are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from fastreg.benchmarks.record import OURS, Row
from fastreg.kernels import CORRUPTIONS

Rows = dict[tuple[str, str, str], Row]  # by (suite, operation, variant)
CUDA, CPU, H100, H200 = "any CUDA GPU", "any CPU", "H100", "H200"
CORRUPTION_PEERS = ("imagecorruptions", "kornia", "torch eager")
LOADER_PEERS = ("bare DALI", "DataLoader + OpenCV", "DataLoader + torchvision", "SPDL", "SPDL + simplejpeg")
COPY_RATE = {H100: 3.0e12, H200: 4.3e12}  # bytes per second of a copy that reads and writes; datasheets: 3.35 and 4.8


class Target(NamedTuple):
    """A limit for the rows of fastreg whose operation matches ``name``.

    ``measure`` is "us" or "launches" (at most ``limit``), "images_per_second" or "of_copy" (at least), or "ratio": time
    per image over that of ``against`` ("operation / variant", or a variant of the same operation), at most.
    """

    suite: str
    name: str  # * matches any text
    measure: str
    limit: float
    against: str = ""
    device: str = CUDA  # CUDA, CPU, or a word of the card's name
    tolerance: float = 0.03  # of the limit: the spread between runs

    @property
    def at_least(self) -> bool:
        return self.measure in ("images_per_second", "of_copy")

    @property
    def text(self) -> str:
        """The target in words."""
        return {
            "us": f"at most {self.limit:g} us",
            "launches": f"at most {self.limit:g} launches",
            "images_per_second": f"at least {self.limit:,.0f} images/s",
            "of_copy": f"at least {100 * self.limit:g} % of a copy",
            "ratio": f"time at most {self.limit:.3g} x {self.against}",
        }[self.measure]

    def applies(self, machine: dict[str, Any]) -> bool:
        """Whether the target is for this machine."""
        if self.device in (CUDA, CPU):
            return machine["device"] == ("cuda" if self.device == CUDA else "cpu")
        return self.device in machine["name"]

    def missed(self, value: float) -> bool:
        """Whether a figure is off by more than the tolerance."""
        if self.at_least:
            return value < self.limit * (1 - self.tolerance)
        return value > self.limit * (1 + self.tolerance)

    def values(self, rows: Rows) -> Iterator[tuple[str, float]]:
        """``(operation, figure)`` of every matching row of fastreg that has the figure."""
        for (suite, name, variant), row in rows.items():
            if suite != self.suite or variant != OURS or not fnmatchcase(name, self.name):
                continue
            if self.measure == "ratio":
                value = self._ratio(row, rows)
            elif self.measure == "launches":
                value = float(row.more.get("launches", 0))
            else:
                value = float(getattr(row, self.measure))
            if value > 0:
                yield name, value

    def _ratio(self, row: Row, rows: Rows) -> float:
        """Time per image over the base's, if possible over its time in the row's own rounds. 0 without a base."""
        operation, _, peer = self.against.rpartition(" / ")
        if row.more.get("beside") == self.against:
            return row.us / row.more["beside_us"]
        base = rows.get((self.suite, operation or row.name, peer))
        return row.us_per_image / base.us_per_image if base else 0.0


def _bound_by_memory(name: str, per_value: float) -> tuple[Target, ...]:
    """Limits in microseconds: 256 images of 3 x 224 x 224 values at 90 % of each card's copy rate.

    ``per_value``: least bytes of a value, those of its reads and of its write.
    """
    count = 256 * 3 * 224 * 224 * per_value
    return tuple(
        Target("kernels", name, "us", round(1e6 * count / (0.9 * rate)), device=card)
        for card, rate in COPY_RATE.items()
    )


def _on_each_card(suite: str, name: str, measure: str, limit: float) -> tuple[Target, ...]:
    return tuple(Target(suite, name, measure, limit, device=card) for card in (H100, H200))


class Explained(NamedTuple):
    """A target that some machines miss, by a figure of at most ``most``, and the reason."""

    suite: str
    name: str  # as the target's
    against: str
    most: float
    reason: str

    def covers(self, target: Target, name: str, value: float) -> bool:
        """Whether the reason is that of a missed target."""
        here = (self.suite, self.against) == (target.suite, target.against) and fnmatchcase(name, self.name)
        return here and value <= self.most


PLAIN = f"step none / {OURS}"
FEW_LAUNCHES = (
    "gaussian_noise", "impulse_noise", "frost", "brightness", "contrast", "pixelate", "jpeg_compression",
)  # fmt: skip

TARGETS = (
    # augment: batch 256, 224 x 224, bf16 out
    *_bound_by_memory("augment normalise", 3),
    *_bound_by_memory("augment cutmix", 3.12),  # in tiles that the box's border cuts, both images are read
    *_bound_by_memory("augment cutout", 3),
    *_bound_by_memory("augment occlusion", 3),
    *_bound_by_memory("augment mixup", 4),
    Target("kernels", "augment normalise", "of_copy", 0.90),
    Target("kernels", "augment mixup", "of_copy", 0.90),
    Target("kernels", "augment cutmix", "of_copy", 0.90),
    Target("kernels", "augment cutout", "of_copy", 0.90),
    Target("kernels", "augment occlusion", "of_copy", 0.90),
    Target("kernels", "augment mixup per sample", "ratio", 1.02, f"augment mixup / {OURS}"),
    Target("kernels", "augment cutmix per sample", "ratio", 1.02, f"augment cutmix / {OURS}"),
    # bound by arithmetic: 1.5 to 2 times the times of kernels/PREDICTIONS.md, which count no latency
    *_on_each_card("kernels", "augment crop", "us", 120),
    *_on_each_card("kernels", "augment crop mixup", "us", 240),
    Target("kernels", "augment*", "launches", 1, tolerance=0.0),
    *_on_each_card("kernels", "auto_augment trivial_augment", "us", 150),
    *_on_each_card("kernels", "auto_augment rand_augment", "us", 300),
    Target("kernels", "auto_augment trivial_augment", "launches", 2, tolerance=0.0),
    Target("kernels", "auto_augment rand_augment", "launches", 4, tolerance=0.0),
    Target("kernels", "auto_augment *", "ratio", 1 / 10, "kornia loop"),
    Target("kernels", "auto_augment *", "ratio", 1 / 10, "torchvision loop"),
    Target("kernels", "fgsm_step", "of_copy", 0.90),
    Target("kernels", "fgsm_step", "launches", 1, tolerance=0.0),
    # loss, forward and backward
    Target("loss", "loss 1024 x 1000 none", "launches", 2, tolerance=0.0),
    Target("loss", "loss 1024 x 1000 mean", "launches", 3, tolerance=0.0),
    Target("loss", "loss 1024 x 1000 *", "ratio", 1.0, "torch.compile"),
    Target("loss", "loss 4096 x 21848 mean", "of_copy", 0.85),
    Target("loss", "loss 4096 x 21841 mean", "of_copy", 0.70),
    # whole training steps: ResNet-50, 224 px, bf16
    Target("throughput", "step none, compiled", "images_per_second", 5000, device=H100, tolerance=0.02),
    Target("throughput", "step none", "images_per_second", 5500, device=H200, tolerance=0.02),
    Target("throughput", "step none", "ratio", 1.03, "bare loop"),
    Target("throughput", "step mixup", "ratio", 1.01, PLAIN, tolerance=0.01),
    Target("throughput", "step cutmix", "ratio", 1.01, PLAIN, tolerance=0.01),
    Target("throughput", "step cutout", "ratio", 1.01, PLAIN, tolerance=0.01),
    Target("throughput", "step cutmix+shakedrop", "ratio", 1.05, PLAIN, tolerance=0.01),
    Target("throughput", "step adversarial", "ratio", 1.33 * 1.05, PLAIN, tolerance=0.01),
    Target("throughput", "step alp", "ratio", 2.67 * 1.05, PLAIN, tolerance=0.01),
    Target("throughput", "step mixup, fed by *", "ratio", 1 / 0.95, f"step mixup / {OURS}", tolerance=0.01),
    # corruptions: batch 256, 224 x 224; predicted 770,000 images/s and more in one to three launches, 80,000 at least
    *(
        target
        for name in CORRUPTIONS
        for target in _on_each_card(
            "corruptions", f"corrupt {name} ?", "images_per_second", 200_000 if name in FEW_LAUNCHES else 40_000
        )
    ),
    *_on_each_card("corruptions", f"corrupt all {len(CORRUPTIONS)} x 5", "images_per_second", 150_000),
    *_on_each_card("corruptions", f"corrupt all {len(CORRUPTIONS)} x 5 jpeg", "images_per_second", 120_000),
    # loaders, 16 cores: crops of 160 px from JPEG, stored images as they are
    *_on_each_card("loaders", "load dali", "images_per_second", 10_000),
    *_on_each_card("loaders", "load ffcv canvases of 256", "images_per_second", 40_000),
    # evaluation: with the JPEG step, of bare inference
    Target("eval", "evaluate * 3 jpeg", "ratio", 1 / 0.85, "evaluate clean / bare loop"),
    # on any CPU; timings there are noisier
    Target("throughput", "step none", "ratio", 1.03, "bare loop", device=CPU, tolerance=0.05),
    *(
        Target("kernels", f"augment {name}", "ratio", 1.05, peer, device=CPU, tolerance=0.10)
        for name, peer in (
            ("normalise", "timm PrefetchLoader"),
            ("mixup", "timm batch"),
            ("cutmix", "timm batch"),
            ("mixup per sample", "timm elem"),
            ("cutmix per sample", "timm elem"),
            ("cutout", "timm RandomErasing"),
        )
    ),
    Target("kernels", "augment mixup, batch 32, 224 px", "of_copy", 0.30, device=CPU, tolerance=0.10),
    Target("kernels", "augment crop*", "ratio", 1 / 5, "reference", device=CPU, tolerance=0.10),
    Target("kernels", "fgsm_step", "ratio", 1.05, "torch.compile", device=CPU, tolerance=0.10),
    Target("loss", "*", "ratio", 1.05, "torch eager", device=CPU, tolerance=0.10),
    Target("loss", "*", "ratio", 1.05, "torch.compile", device=CPU, tolerance=0.10),
    Target("kernels", "auto_augment *", "ratio", 1.0, "torchvision on PIL", device=CPU, tolerance=0.10),
    *(Target("corruptions", "corrupt *", "ratio", 1.05, peer, device=CPU, tolerance=0) for peer in CORRUPTION_PEERS),
    Target("eval", "evaluate *", "ratio", 1.05, "torchattacks", device=CPU, tolerance=0),
    Target("eval", "read imagenet-c", "ratio", 1.05, "RobustBench loop", device=CPU, tolerance=0),
    Target("eval", "metric *", "ratio", 1.05, "torchmetrics", device=CPU, tolerance=0),
    # loaders, files of 500 x 375; on any CPU
    Target("loaders", "load folder", "ratio", 1 / 1.5, "DataLoader + Pillow", device=CPU),
    *(Target("loaders", "load folder*", "ratio", 1.05, peer, device=CPU, tolerance=0) for peer in LOADER_PEERS),
    Target("loaders", "load dali", "ratio", 1.03, "bare DALI", device=CPU),
    Target("loaders", "load ffcv JPEG", "ratio", 1.03, "bare FFCV", device=CPU),
    Target("loaders", "load ffcv raw images", "ratio", 1 / 5, "bare FFCV", device=CPU),
    Target("loaders", "load ffcv canvases of 256", "ratio", 1 / 5, "bare FFCV", device=CPU),
)

_CALL = "checks of labels and the Python part of autograd, a call's fixed cost, which a note below the table has"
EXPLAINED = (
    Explained("loss", "loss 256 x 100 mean", "torch.compile", 1.7, _CALL),
    Explained("loss", "float target loss 256 x 1000 mean", "torch.compile", 1.3, _CALL),
    Explained(
        "corruptions", "corrupt gaussian_noise ?", "torch eager", 1.2,
        "torch draws from one sequential generator; fastreg computes ten rounds of Philox for four values, by sample",
    ),
    Explained(
        "loaders", "load folder, PNG", "DataLoader + OpenCV", 1.15,
        "Pillow's decoder takes 1.09 times OpenCV's time on one thread; it refuses damaged files",
    ),
    Explained(
        "loaders", "load dali", "bare DALI", 1.10,
        "fastreg reads files and headers for its own crops; a note below the table has the time",
    ),
    Explained("loaders", "load ffcv canvases of 256", "bare FFCV", 0.30, "bound by the copy of 0.2 MB per image"),
)  # fmt: skip
