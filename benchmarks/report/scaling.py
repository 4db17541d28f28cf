"""What the paper costs to repeat: its 34 training rows and ImageNet-C, from measured single-GPU rates.

    seconds of a row = epochs * (training images / training rate + validation images / inference rate)

Eight GPUs are taken to be eight times as fast: each has the recipe's batch divided by eight, so this is a lower bound
until it has been measured. A method's rate on CIFAR is PyramidNet-200's plain rate divided by the method's cost on
ResNet-50, (time of its step) / (time of a plain one); where that has no row, by the arithmetic in ``PASSES``.
"""

from __future__ import annotations

from typing import Any

from fastreg.benchmarks.record import OURS, Row, rows_of
from fastreg.benchmarks.report.terminal import duration, per_image
from fastreg.recipes import PAPER

IMAGES = {"imagenet": (1_281_167, 50_000), "cifar100": (50_000, 10_000)}
IMAGENET_C = 75 * 50_000
GPUS = (1, 8)
PLAIN = {"imagenet": "step none", "cifar100": "step none, pyramidnet200 32 px"}
# a method's passes over a plain step's, where it has no measured row; an attack's is 2/3 (it needs no weight gradients)
PASSES = {"alp": 8 / 3, "ood_svhn": 2.0, "ood_gan": 2.0, "gaussian_noise": 1.0, "no_crop_flip": 1.0}
DOLLARS = 3.0  # per GPU-hour, for the last column: an assumption, not a quotation
MISSING = "not yet measured"


def scaling_block(found: list[dict[str, Any]]) -> str:
    """The page's table for every GPU that has been measured, or the same table with its cells empty."""
    gpus = [one for one in found if one["machine"]["device"] == "cuda"]
    return "\n\n".join(_page(one) for one in gpus) if gpus else _page(None)


def _page(one: dict[str, Any] | None) -> str:
    rows = {(s, r.name, r.variant): r for s, r in rows_of(one)} if one else {}
    lines = ["| row | images trained | rate, images/s | 1 GPU, hours | 8 GPUs, hours | at $3 a GPU-hour |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, recipe in PAPER.items():
        dataset = name.split("/")[1]
        train, val = IMAGES[dataset]
        rate, how = training_rate(rows, dataset, recipe["reg"])
        epochs = recipe["epochs"]
        cells = [MISSING] * 4
        if rate:
            seconds = epochs * (train / rate + val / (3 * rate))
            cells = [f"{rate:,.0f}{how}", *_cost(seconds)]
        lines.append(f"| {name.removeprefix('paper/')} | {epochs * train:,} | {' | '.join(cells)} |")
    rate = corruption_rate(rows)
    cells = [f"{rate:,.0f}", *_cost(IMAGENET_C / rate)] if rate else [MISSING] * 4
    lines.append(f"| ImageNet-C, 75 conditions, ResNet-50 | {IMAGENET_C:,} | {' | '.join(cells)} |")
    where = one["machine"]["name"] if one else "On a GPU"
    return f"**{where}**\n\n" + "\n".join(lines)


def training_rate(rows: dict[tuple[str, str, str], Row], dataset: str, reg: str) -> tuple[float, str]:
    """``(images per second, how it was found)`` of one recipe; (0, "") where its parts have not been measured."""
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
    """Harmonic mean of the measured conditions with their JPEG step; 0 without all fifteen."""
    seconds = [
        1 / r.images_per_second for (s, n, v), r in rows.items() if s == "eval" and v == OURS and n.endswith("3 jpeg")
    ]
    return len(seconds) / sum(seconds) if len(seconds) >= 15 else 0.0


def growth_block(found: list[dict[str, Any]]) -> str:
    """How the cost of an image grows with batch, side and classes: fastreg's rows that differ in nothing else."""
    lines = [
        "| machine | operation | images in a call | time of a call | time of an image |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for one in found:
        for suite, row in rows_of(one):
            base = row.name in ("augment mixup", "step none") or suite == "loss"
            if row.variant == OURS and row.images and (base or ", " in row.name):
                cells = [one["machine"]["name"], row.name, f"{row.images}", duration(row.us), duration(per_image(row))]
                lines.append(f"| {' | '.join(cells)} |")
    if not any(one["machine"]["device"] == "cuda" for one in found):
        lines.append(f"| a GPU | all of these | {MISSING} | {MISSING} | {MISSING} |")
    lines.append(f"| several GPUs | step none | {MISSING} | {MISSING} | {MISSING} |")
    return "\n".join(lines)


def _cost(seconds: float) -> list[str]:
    hours = seconds / 3600
    shown = "{:,.0f}" if hours >= 100 else "{:,.2g}"
    return [
        *(shown.format(hours / n) for n in GPUS),
        f"${DOLLARS * hours:,.0f}" if hours >= 1 else f"${DOLLARS * hours:,.2f}",
    ]
