"""What fastreg has promised itself, as data. A target holds for machines whose name contains ``device``.

``measure``: "us" and "launches" at most ``limit``; "images_per_second" and "of_copy" at least; "ratio": time per image
over that of ``against`` ("operation / variant") at most. A target is missed when it is off by more than ``tolerance``
(a fraction), which stands for the spread between runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from fastreg.benchmarks.record import OURS, Row
from fastreg.benchmarks.report.terminal import per_image
from fastreg.kernels import CORRUPTIONS

Rows = dict[tuple[str, str, str], Row]  # by (suite, operation, variant)


class Target(NamedTuple):
    suite: str
    name: str  # the row's operation; * stands for anything
    measure: str
    limit: float
    against: str = ""
    device: str = "H200"
    tolerance: float = 0.03

    @property
    def at_least(self) -> bool:
        return self.measure in ("images_per_second", "of_copy")

    @property
    def asked(self) -> str:
        return {
            "us": f"at most {self.limit:g} us",
            "launches": f"at most {self.limit:g} launches",
            "images_per_second": f"at least {self.limit:,.0f} images/s",
            "of_copy": f"at least {100 * self.limit:g} % of a copy",
            "ratio": f"time at most {self.limit:.3g} x {self.against}",
        }[self.measure]

    def missed(self, value: float) -> bool:
        """Whether a figure is off by more than the tolerance."""
        if self.at_least:
            return value < self.limit * (1 - self.tolerance)
        return value > self.limit * (1 + self.tolerance)

    def values(self, rows: Rows) -> Iterator[tuple[str, float]]:
        """``(operation, figure)`` of every row of fastreg's that the target is about and that has one."""
        for (suite, name, variant), row in rows.items():
            if suite != self.suite or variant != OURS or not fnmatchcase(name, self.name):
                continue
            if self.measure == "ratio":
                other, _, peer = self.against.rpartition(" / ")
                base = rows.get((suite, other or name, peer))
                value = per_image(row) / per_image(base) if base else 0.0
            elif self.measure == "launches":
                value = float(row.more.get("launches", 0))
            else:
                value = float(getattr(row, self.measure))
            if value > 0:
                yield name, value


TARGETS = (
    # augment: batch 256, 224 x 224, bf16 out
    Target("kernels", "augment normalise", "us", 34),
    Target("kernels", "augment cutmix", "us", 34),
    Target("kernels", "augment cutout", "us", 34),
    Target("kernels", "augment occlusion", "us", 34),
    Target("kernels", "augment mixup", "us", 45),
    Target("kernels", "augment normalise", "of_copy", 0.90),
    Target("kernels", "augment mixup", "of_copy", 0.90),
    Target("kernels", "augment cutmix", "of_copy", 0.90),
    Target("kernels", "augment cutout", "of_copy", 0.90),
    Target("kernels", "augment occlusion", "of_copy", 0.90),
    Target("kernels", "augment mixup per sample", "ratio", 1.02, "augment mixup / fastreg"),
    Target("kernels", "augment cutmix per sample", "ratio", 1.02, "augment cutmix / fastreg"),
    Target("kernels", "augment crop", "us", 150),
    Target("kernels", "augment crop mixup", "us", 300),
    Target("kernels", "augment*", "launches", 1, tolerance=0.0),
    Target("kernels", "fgsm_step", "of_copy", 0.90),
    Target("kernels", "fgsm_step", "launches", 1, tolerance=0.0),
    # loss, forward and backward
    Target("loss", "loss 1024 x 1000 none", "launches", 2, tolerance=0.0),
    Target("loss", "loss 1024 x 1000 mean", "launches", 3, tolerance=0.0),
    Target("loss", "loss 1024 x 1000 *", "ratio", 1.0, "torch.compile"),
    Target("loss", "loss 4096 x 21848 mean", "of_copy", 0.85),
    Target("loss", "loss 4096 x 21841 mean", "of_copy", 0.70),
    # whole training steps: ResNet-50, 224 px, bf16
    Target("throughput", "step none", "images_per_second", 5500, tolerance=0.02),
    Target("throughput", "step mixup", "ratio", 1.01, "step none / fastreg", tolerance=0.01),
    Target("throughput", "step cutmix", "ratio", 1.01, "step none / fastreg", tolerance=0.01),
    Target("throughput", "step cutout", "ratio", 1.01, "step none / fastreg", tolerance=0.01),
    Target("throughput", "step cutmix+shakedrop", "ratio", 1.05, "step none / fastreg", tolerance=0.01),
    Target("throughput", "step adversarial", "ratio", 1.33 * 1.05, "step none / fastreg", tolerance=0.01),
    Target("throughput", "step alp", "ratio", 2.67 * 1.05, "step none / fastreg", tolerance=0.01),
    Target("throughput", "step mixup, fed by *", "ratio", 1 / 0.95, "step mixup / fastreg", tolerance=0.01),
    # corruptions: batch 256, 224 x 224
    *(Target("corruptions", f"corrupt {name} ?", "images_per_second", 20_000) for name in CORRUPTIONS),
    Target("corruptions", "corrupt all 15 x 5", "images_per_second", 100_000),
    Target("corruptions", "corrupt all 15 x 5 jpeg", "images_per_second", 80_000),
    # loaders, 16 cores: crops of 160 px from JPEG, canvases as they are
    Target("loaders", "load dali", "images_per_second", 10_000),
    Target("loaders", "load ffcv canvases of 256", "images_per_second", 40_000),
    # evaluation: with the JPEG step, of bare inference
    Target("eval", "evaluate * 3 jpeg", "ratio", 1 / 0.85, "evaluate clean / bare loop"),
    # on any CPU; timings there are noisier
    Target("throughput", "step none", "ratio", 1.03, "bare loop", device="cpu", tolerance=0.05),
    Target("corruptions", "corrupt *", "ratio", 1.0, "imagecorruptions", device="cpu", tolerance=0.10),
    Target("eval", "evaluate *", "ratio", 1.0, "torchattacks", device="cpu", tolerance=0.10),
    Target("eval", "read imagenet-c", "ratio", 1.0, "RobustBench loop", device="cpu", tolerance=0.10),
    Target("eval", "metric *", "ratio", 1.0, "torchmetrics", device="cpu", tolerance=0.10),
    # loaders, files of 500 x 375; on any CPU
    Target("loaders", "load folder", "ratio", 1 / 1.5, "DataLoader + Pillow", device="cpu"),
    Target("loaders", "load folder", "ratio", 1.0, "bare DALI", device="cpu"),
    Target("loaders", "load dali", "ratio", 1.03, "bare DALI", device="cpu"),
    Target("loaders", "load ffcv JPEG", "ratio", 1.03, "bare FFCV", device="cpu"),
    Target("loaders", "load ffcv raw images", "ratio", 1 / 5, "bare FFCV", device="cpu"),
    Target("loaders", "load ffcv canvases of 256", "ratio", 1 / 5, "bare FFCV", device="cpu"),
)
