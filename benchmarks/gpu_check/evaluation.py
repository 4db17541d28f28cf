"""Whole evaluations of a trained model: half precision and a captured forward pass on the GPU, float32 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastreg.benchmarks.gpu_check.check import Check, Close, Tensors
from fastreg.evaluation import evaluate
from fastreg.evaluation.classifier import Classifier

CLASSES, SIDE, TRAINING, TESTING = 6, 32, 1000, 4000
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
POINTS = 0.05  # difference of a clean error through half precision, in percent
CHANGED = 0.001  # share of predictions that half precision may change
SUITES = "clean,fgsm,pgd,occlusion,cifar-c,ood"
# percent, for suites whose images come from the model's own gradient or are near its decision boundary
LOOSE = 1.0


def evaluation_checks() -> Iterator[Check]:
    """Predictions, the clean error, and a card with attacks, corruptions and OOD sets."""
    yield Check("evaluation predictions, half precision", _predictions, Close(float(CLASSES), CHANGED))
    yield Check("evaluation clean error, half precision", partial(_errors, "clean", TESTING), Close(POINTS))
    yield Check("evaluation card, half precision", partial(_errors, SUITES, TESTING // 4), Close(LOOSE))


def _precision(device: torch.device) -> str:
    return "bf16" if device.type == "cuda" else "fp32"


def _predictions(device: torch.device) -> Tensors:
    net, images, _ = trained()
    batch = TESTING // 5
    classifier = Classifier(net, mean=MEAN, std=STD, device=device, precision=_precision(device), batch_size=batch)
    try:
        predictions = [classifier.images(chunk.to(device)).argmax(1) for chunk in images.split(batch)]
        if classifier.replayed is not None and classifier.replayed.refused:
            raise RuntimeError(f"the forward pass was not captured: {classifier.replayed.refused}")
        return (torch.cat(predictions).cpu(),)
    finally:
        net.cpu()


def _errors(suites: str, n: int, device: torch.device) -> Tensors:
    """The error of every condition in percent; the last batch is short. Attacks need deterministic gradients."""
    net, images, labels = trained()
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):
            card = evaluate(
                net,
                suites,
                (images[:n], labels[:n]),
                mean=MEAN,
                std=STD,
                device=device,
                precision=_precision(device),
                batch_size=n // 5 - 1,
                corruptions="gaussian_noise,motion_blur,contrast",
                severities=[3],
            )
    finally:
        net.cpu()
    rows = [row for suite in card.suites for row in card.results(suite).values()]
    return (torch.tensor([row["error"] if "error" in row else row["detection_error"] for row in rows]),)


@cache
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A small net trained for about two seconds on the CPU to classify the angle of noisy stripes, with test data.

    Returns:
        The net in evaluation mode, images uint8 [4000, 32, 32, 3] and labels int64 [4000]. The net is right with a wide
        margin on nine in ten images; some are hard.
    """
    generator = torch.Generator().manual_seed(0)
    n = TESTING + TRAINING
    labels = torch.randint(CLASSES, (n,), generator=generator)
    angle = (labels + 0.7 * torch.rand(n, generator=generator)) * torch.pi / CLASSES
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
    phase = 6 * torch.rand(n, 1, 1, generator=generator)
    stripes = 128 + 30 * (along + phase).sin()[..., None] + 90 * torch.randn(n, SIDE, SIDE, 3, generator=generator)
    images = stripes.clamp(0, 255).byte()
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 5, 2, 2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)),
    )
    inputs = (images[TESTING:].permute(0, 3, 1, 2) / 255 - MEAN[0]) / STD[0]
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(120):
        rows = torch.randint(TRAINING, (100,), generator=generator)
        F.cross_entropy(net(inputs[rows]), labels[TESTING:][rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return net.eval(), images[:TESTING], labels[:TESTING]
