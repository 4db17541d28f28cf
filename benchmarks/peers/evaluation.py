"""Other people's evaluation: torchattacks, RobustBench's way through files, torchmetrics. What is missing raises
ImportError.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastreg import metrics
from fastreg.benchmarks.peers.training import need
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.pixel_cache import Pixels

Call = Callable[[int], Any]
EPSILON = 8 / 255
CLASSES = 1000


def attacks(classifier: Classifier, ready: list[Pixels], pgd: bool) -> dict[str, Call]:
    """FGSM and PGD as torchattacks' README has them, then the model on their images; pixels lie ready as floats."""
    package = need("torchattacks")
    made = {"fgsm": package.FGSM(classifier.module, eps=EPSILON)}
    if pgd:
        made["pgd"] = package.PGD(classifier.module, eps=EPSILON, alpha=EPSILON / 4, steps=10, random_start=True)
    pixels = [(b.images.float() / 255).permute(0, 3, 1, 2).contiguous() for b in ready]

    def attacked(attack: Any, i: int) -> Tensor:
        return classifier.pixels(attack(pixels[i], ready[i].labels))

    return {name: partial(attacked, attack) for name, attack in made.items()}


def robustbench_folder(classifier: Classifier, folder: Path, n: int) -> Call:
    """One condition as RobustBench's ``benchmark`` goes through ImageNet-C: all its images by a DataLoader of two
    workers as one batch of floats, then ``clean_accuracy`` in batches of 100. Its own image list needs the real set,
    so torchvision's folder, from which it is made, lists this one.
    """
    accuracy, datasets = need("robustbench.utils").clean_accuracy, need("torchvision.datasets")
    images = datasets.ImageFolder(str(folder), need("torchvision.transforms").ToTensor())

    def call(i: int) -> float:
        loader = torch.utils.data.DataLoader(images, batch_size=n, shuffle=False, num_workers=2)
        x, y = next(iter(loader))
        return accuracy(classifier.module, x, y, 100, classifier.device)

    return call


def metric_cases(device: torch.device, n: int) -> tuple[dict[str, dict[str, Call]], str]:
    """``({metric: {variant: call}}, why torchmetrics is missing)``; scores of ``n`` images, logits of 256."""
    generator = torch.Generator().manual_seed(1)
    confidence = torch.rand(n, generator=generator)
    correct = (torch.rand(n, generator=generator) < confidence).to(device)
    other = (torch.rand(n, generator=generator) ** 2).to(device)
    confidence = confidence.to(device)
    both, inside = torch.cat([confidence, other]), (torch.arange(2 * n, device=device) < n).long()
    logits = (3 * torch.randn(256, CLASSES, generator=generator)).to(device)
    labels = torch.randint(CLASSES, (256,), generator=generator).to(device)
    tally = metrics.Tally(device)
    cases: dict[str, dict[str, Call]] = {
        "expected_calibration_error": {"fastreg": lambda i: metrics.expected_calibration_error(confidence, correct)},
        "detection_error": {"fastreg": lambda i: metrics.detection_error(confidence, other)},
        "auroc": {"fastreg": lambda i: metrics.auroc(confidence, other)},
        "aupr": {"fastreg": lambda i: metrics.aupr(confidence, other)},
        "tally": {"fastreg": lambda i: tally.update(logits, labels)},
    }
    try:
        peer, package = need("torchmetrics.functional.classification"), need("torchmetrics")
    except ImportError as error:
        return cases, str(error)
    given: dict[str, Any] = {"num_classes": CLASSES, "validate_args": False}
    running = package.MetricCollection({
        "top1": package.classification.MulticlassAccuracy(average="micro", **given),
        "top5": package.classification.MulticlassAccuracy(average="micro", top_k=5, **given),
        "ece": package.classification.MulticlassCalibrationError(n_bins=20, **given),
    }).to(device)  # fmt: skip
    theirs: dict[str, Call] = {
        "expected_calibration_error": lambda i: peer.binary_calibration_error(confidence, correct.long(), n_bins=20),
        "auroc": lambda i: peer.binary_auroc(both, inside),
        "aupr": lambda i: peer.binary_average_precision(both, inside),
        "tally": lambda i: _updated(running, logits, labels),  # fastreg's has likelihood and Brier score besides
    }
    for name, call in theirs.items():
        cases[name]["torchmetrics"] = call
    return cases, ""


def _updated(running: Any, logits: Tensor, labels: Tensor) -> None:
    running.update(logits, labels)
    running["ece"].reset()  # it keeps every confidence until the end
