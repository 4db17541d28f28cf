"""Cost of repeating the paper: its 34 training rows and ImageNet-C, from measured single-GPU rates.

    seconds of a row = epochs * (training images / training rate + validation images / inference rate)

Eight GPUs count as eight times one GPU. Each of them has an eighth of the recipe's batch, so the cost is a lower bound
until it is measured. A method's rate on CIFAR is PyramidNet-200's plain rate divided by the method's cost on ResNet-50,
(time of its step) / (time of a plain step); ``PASSES`` replaces it for a method without a measured row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastreg.benchmarks.record import OURS, Row, duration, rows_of
from fastreg.kernels import CORRUPTIONS
from fastreg.recipes import PAPER

IMAGES = {"imagenet": (1_281_167, 50_000), "cifar100": (50_000, 10_000)}
IMAGENET_C = 75 * 50_000
GPUS = (1, 8)
PLAIN = {"imagenet": "step none", "cifar100": "step none, pyramidnet200 32 px"}
# passes of a method over those of a plain step; an attack's gradient is 2/3 of one (it needs no weight gradients)
PASSES = {"alp": 8 / 3, "ood_svhn": 2.0, "ood_gan": 2.0, "gaussian_noise": 1.0, "no_crop_flip": 1.0}
DOLLARS = 3.0  # per GPU-hour: an assumption, not an offer
MISSING = "not yet measured"


def scaling_block(found: list[dict[str, Any]]) -> str:
    """The table of SCALING.md for every GPU in ``found``; without one, the rows and their images."""
    gpus = [one for one in found if one["machine"]["device"] == "cuda"]
    if not gpus:
        lines = ["| row | images trained |", "| --- | ---: |"]
        lines += [f"| {label} | {images:,} |" for label, images, _ in _rows({})]
        return f"Rates and costs: {MISSING}.\n\n" + "\n".join(lines)
    return "\n\n".join(_machine_table(one) for one in gpus)


def _machine_table(one: dict[str, Any]) -> str:
    rows = {(s, r.name, r.variant): r for s, r in rows_of(one)}
    lines = ["| row | images trained | rate, images/s | 1 GPU, hours | 8 GPUs, hours | at $3 a GPU-hour |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    missing = False
    for label, images, cells in _rows(rows):
        missing |= not cells
        lines.append(f"| {label} | {images:,} | {' | '.join(cells or [''] * 4)} |")
    note = f"\n\nEmpty cells: {MISSING}." if missing else ""
    return f"**{one['machine']['name']}**\n\n" + "\n".join(lines) + note


def _rows(rows: dict[tuple[str, str, str], Row]) -> Iterator[tuple[str, int, list[str]]]:
    """``(row, images, cells)`` of the paper's rows, then of ImageNet-C; no cells where the rate is not measured."""
    for name, recipe in PAPER.items():
        dataset = name.split("/")[1]
        train, val = IMAGES[dataset]
        rate, how = training_rate(rows, dataset, recipe["reg"])
        epochs = recipe["epochs"]
        cells = [f"{rate:,.0f}{how}", *_cost(epochs * (train / rate + val / (3 * rate)))] if rate else []
        yield name.removeprefix("paper/"), epochs * train, cells
    rate = corruption_rate(rows)
    cells = [f"{rate:,.0f}", *_cost(IMAGENET_C / rate)] if rate else []
    yield "ImageNet-C, 75 conditions, ResNet-50", IMAGENET_C, cells


def training_rate(rows: dict[tuple[str, str, str], Row], dataset: str, reg: str) -> tuple[float, str]:
    """``(images per second, " (computed)" or "")`` of one recipe; (0, "") if a row that it needs is not measured."""
    plain = rows.get(("throughput", PLAIN[dataset], OURS))
    base = rows.get(("throughput", PLAIN["imagenet"], OURS))
    method = rows.get(("throughput", f"step {reg}", OURS))
    if plain is None or base is None:
        return 0.0, ""
    if method is not None:
        return plain.images_per_second * base.us / method.us, ""
    passes = 1.0
    for name in reg.split("+"):
        if name in PASSES:
            passes *= PASSES[name]
        elif ("throughput", f"step {name}", OURS) in rows:
            passes *= rows["throughput", f"step {name}", OURS].us / base.us
        else:
            return 0.0, ""
    return plain.images_per_second / passes, " (computed)"


def corruption_rate(rows: dict[tuple[str, str, str], Row]) -> float:
    """Harmonic mean of the rates of all conditions with their JPEG step; 0 unless all of them are measured."""
    seconds = [
        1 / r.images_per_second for (s, n, v), r in rows.items() if s == "eval" and v == OURS and n.endswith("3 jpeg")
    ]
    return len(seconds) / sum(seconds) if len(seconds) >= len(CORRUPTIONS) else 0.0


def growth_block(found: list[dict[str, Any]]) -> str:
    """Cost of an image by batch, side and number of classes: rows of fastreg that differ in nothing else."""
    lines = [
        "| machine | operation | images in a call | time of a call | time of an image |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for one in found:
        for suite, row in rows_of(one):
            base = row.name in ("augment mixup", "step none") or suite == "loss"
            if row.variant == OURS and row.images and (base or ", " in row.name):
                cells = [
                    one["machine"]["name"],
                    row.name,
                    f"{row.images}",
                    duration(row.us),
                    duration(row.us_per_image),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cost(seconds: float) -> list[str]:
    hours = seconds / 3600
    shown = "{:,.0f}" if hours >= 100 else "{:,.2g}"
    return [
        *(shown.format(hours / n) for n in GPUS),
        f"${DOLLARS * hours:,.0f}" if hours >= 1 else f"${DOLLARS * hours:,.2f}",
    ]
