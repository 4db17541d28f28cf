"""Training steps of timm and torchvision, set up as their reference scripts do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers import IMAGENET_STATS, need, normalization_stats
from fastreg.kernels.types import Batch

Build = Callable[..., Callable[[int], Any]]


def training_peers() -> Iterator[tuple[str, str, Build]]:
    """Yield ``(operation, peer, build)``; ``build(config, options, ready, classes)`` returns a step by buffer set."""
    yield "step mixup", "timm loop", _timm
    yield "step mixup", "torchvision loop", _torchvision


def _timm(config: Any, options: BenchmarkOptions, ready: list[Batch], classes: int) -> Callable[[int], Any]:
    """timm's train.py: --amp --amp-dtype bfloat16 --channels-last --mixup 1 --opt sgd, its prefetcher's arithmetic."""
    timm = need("timm")
    loss_of = need("timm.loss").SoftTargetCrossEntropy()
    mixup = need("timm.data").Mixup(mixup_alpha=1.0, num_classes=classes)
    model = timm.create_model(config.model, num_classes=classes).to(options.device, memory_format=torch.channels_last)
    optimizer = need("timm.optim").create_optimizer_v2(model, opt="sgd", lr=config.lr, momentum=0.9, weight_decay=1e-4)
    stored = [batch.images.permute(0, 3, 1, 2).contiguous() for batch in ready]
    mean, std = normalization_stats(options.device, scale=255.0)

    def step(i: int) -> None:
        images = stored[i].float().sub_(mean).div_(std)
        images, targets = mixup(images, ready[i].labels)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(options.device.type, torch.bfloat16, enabled=options.gpu):
            loss = loss_of(model(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    model.train()
    return step


def _torchvision(config: Any, options: BenchmarkOptions, ready: list[Batch], classes: int) -> Callable[[int], Any]:
    """torchvision's references/classification/train.py with --amp: NCHW, GradScaler, dense targets.

    The script mixes in the collate function on CPU workers; here mixing is part of the step, on the device.
    """
    models, v2 = need("torchvision.models"), need("torchvision.transforms.v2")
    model = models.get_model(config.model, num_classes=classes).to(options.device)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(options.device.type, enabled=options.gpu)
    mixup = v2.MixUp(alpha=1.0, num_classes=classes)
    convert = v2.Compose([v2.ToDtype(torch.float, scale=True), v2.Normalize(*IMAGENET_STATS)])
    stored = [batch.images.permute(0, 3, 1, 2).contiguous() for batch in ready]

    def step(i: int) -> None:
        images, targets = mixup(convert(stored[i]), ready[i].labels)
        with torch.autocast(options.device.type, enabled=options.gpu):
            loss = criterion(model(images), targets)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    model.train()
    return step
