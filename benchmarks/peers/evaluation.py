"""Evaluation with torchattacks, RobustBench and torchmetrics; a package that is missing raises ImportError."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastreg import metrics
from fastreg.benchmarks.peers import need
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.pixel_cache import Pixels

Call = Callable[[int], Any]
EPSILON = 8 / 255
CLASSES = 1000
SCALED, SCALED_CLASSES = 5000, 100  # logits of a fit: half of CIFAR-100's test set


def attacks(classifier: Classifier, ready: list[Pixels], name: str) -> Call:
    """FGSM or PGD as in torchattacks' README, then the model on the attacked images, from floats on the device."""
    package = need("torchattacks")
    if name == "fgsm":
        attack: Any = package.FGSM(classifier.module, eps=EPSILON)
    else:
        attack = package.PGD(classifier.module, eps=EPSILON, alpha=EPSILON / 4, steps=10, random_start=True)
    pixels = [(b.images.float() / 255).permute(0, 3, 1, 2).contiguous() for b in ready]
    return lambda i: classifier.pixels(attack(pixels[i], ready[i].labels))


def robustbench_folder(classifier: Classifier, folder: Path, n: int) -> Call:
    """One condition as RobustBench's ``benchmark`` evaluates ImageNet-C.

    A DataLoader of two workers reads all images as one batch of floats; ``clean_accuracy`` then takes batches of 100.
    RobustBench's own image list needs the real set, so torchvision's ImageFolder, its base class, lists this one.
    """
    accuracy, datasets = need("robustbench.utils").clean_accuracy, need("torchvision.datasets")
    images = datasets.ImageFolder(str(folder), need("torchvision.transforms").ToTensor())

    def call(i: int) -> float:
        loader = torch.utils.data.DataLoader(images, batch_size=n, shuffle=False, num_workers=2)
        x, y = next(iter(loader))
        return accuracy(classifier.module, x, y, 100, classifier.device)

    return call


def metric_cases(device: torch.device, n: int) -> tuple[dict[str, dict[str, Call]], str]:
    """Calls of each metric by variant.

    Args:
        device: the device of scores and logits.
        n: scores in one call; ``tally`` takes logits of 256 images.

    Returns:
        ``(calls, reason)``: ``calls[metric][variant]``, and why torchmetrics is missing, or an empty string.
    """
    generator = torch.Generator().manual_seed(1)
    confidence = torch.rand(n, generator=generator)
    correct = (torch.rand(n, generator=generator) < confidence).to(device)
    other = (torch.rand(n, generator=generator) ** 2).to(device)
    confidence = confidence.to(device)
    both, inside = torch.cat([confidence, other]), (torch.arange(2 * n, device=device) < n).long()
    logits = (3 * torch.randn(256, CLASSES, generator=generator)).to(device)
    labels = torch.randint(CLASSES, (256,), generator=generator).to(device)
    tally = metrics.Tally(device)
    scaled = 2 * torch.randn(SCALED, SCALED_CLASSES, generator=generator)
    drawn = torch.multinomial((scaled / 1.5).softmax(1), 1, generator=generator)[:, 0]
    cases: dict[str, dict[str, Call]] = {
        "expected_calibration_error": {"fastreg": lambda i: metrics.expected_calibration_error(confidence, correct)},
        "detection_error": {"fastreg": lambda i: metrics.detection_error(confidence, other)},
        "auroc": {"fastreg": lambda i: metrics.auroc(confidence, other)},
        "aupr": {"fastreg": lambda i: metrics.aupr(confidence, other)},
        "tally": {"fastreg": lambda i: tally.update(logits, labels)},
        "fit_temperature": {"fastreg": lambda i: metrics.fit_temperature(scaled, drawn)},  # on the host, as in a suite
        "fit_vector_scaling": {"fastreg": lambda i: metrics.fit_vector_scaling(scaled, drawn)},
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
        "tally": lambda i: _updated(running, logits, labels),  # fastreg's also has likelihood and Brier score
    }
    for name, call in theirs.items():
        cases[name]["torchmetrics"] = call
    return cases, ""


def _updated(running: Any, logits: Tensor, labels: Tensor) -> None:
    running.update(logits, labels)
    running["ece"].reset()  # it keeps every confidence until the end
