"""A made-up record of an H200 in which every target is just met; its figures only feed the comparison."""

from __future__ import annotations

from typing import Any

from fastreg.benchmarks import record
from fastreg.benchmarks.record import COPY, OURS, Row
from fastreg.benchmarks.targets import TARGETS

MACHINE = {
    "slug": "nvidia-h200",
    "device": "cuda",
    "name": "NVIDIA H200",
    "cores": 16,
    "commit": None,
    "versions": {"torch": "2.13.0"},
}
# operation: microseconds, images in a call, the copy's microseconds, launches
KERNELS = {
    "augment normalise": (30.0, 256, 28.0, 1),
    "augment mixup": (40.0, 256, 37.0, 1),
    "augment mixup per sample": (40.2, 256, 37.0, 1),
    "augment cutmix": (31.0, 256, 28.5, 1),
    "augment cutmix per sample": (31.1, 256, 28.5, 1),
    "augment cutout": (30.0, 256, 28.0, 1),
    "augment occlusion": (30.0, 256, 28.0, 1),
    "augment crop": (115.0, 256, 0.0, 1),
    "augment crop mixup": (230.0, 256, 0.0, 1),
    "auto_augment trivial_augment": (140.0, 256, 0.0, 2),
    "auto_augment rand_augment": (280.0, 256, 0.0, 4),
    "fgsm_step": (105.0, 256, 98.0, 1),
}
LOSS = {
    "loss 1024 x 1000 none": (8.0, 1024, 4.0, 2),
    "loss 1024 x 1000 mean": (9.0, 1024, 4.0, 3),
    "loss 4096 x 21848 mean": (140.0, 4096, 125.0, 3),
    "loss 4096 x 21841 mean": (160.0, 4096, 125.0, 3),
}
STEPS = {
    "step none": 43_000.0,
    "step mixup": 43_100.0,
    "step cutmix": 43_100.0,
    "step cutout": 43_050.0,
    "step cutmix+shakedrop": 44_500.0,
    "step adversarial": 58_000.0,
}


def row(name: str, us: float, images: int = 0, copy: float = 0.0, variant: str = OURS, **more: Any) -> Row:
    return Row(name, variant, us, 0.98 * us, 1.02 * us, 20, images=images, limit_us=copy, more=more)


def gpu_record() -> dict[str, Any]:
    """A whole, valid record with a row for every target of the GPU."""
    suites: dict[str, list[Row]] = {"throughput": [row(name, us, 256) for name, us in STEPS.items()]}
    suites["throughput"].append(row("step none", 42_500.0, 256, variant="bare loop"))
    for suite, table in (("kernels", KERNELS), ("loss", LOSS)):
        suites[suite] = [row(name, us, n, copy, launches=k) for name, (us, n, copy, k) in table.items()]
        suites[suite] += [row(name, copy, n, copy, COPY) for name, (_, n, copy, _) in table.items() if copy]
    suites["loss"] += [row(name, 1.05 * us, n, variant="torch.compile") for name, (us, n, _, _) in LOSS.items()]
    loops = [name for name in KERNELS if name.startswith("auto_augment")]
    suites["kernels"] += [
        row(n, 10_000.0, 256, variant=f"{peer} loop") for n in loops for peer in ("kornia", "torchvision")
    ]
    names = [t.name.replace("?", "3") for t in TARGETS if t.suite == "corruptions" and t.applies(MACHINE)]
    suites["corruptions"] = [row(name, 1_100.0, 256) for name in names]
    suites["eval"] = [
        row("evaluate clean", 20_000.0, 256, variant="bare loop"),
        row("evaluate fog 3 jpeg", 22_000.0, 256),
    ]
    made = {
        name: record.suite("2026-01-01T00:00:00Z", 1.0, False, {"made up": True}, rows, [])
        for name, rows in suites.items()
    }
    whole = {"format": record.FORMAT, "machine": MACHINE, "suites": made}
    record.check(whole)
    return whole
