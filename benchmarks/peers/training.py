"""Other people's training steps, each set up as its own documentation says. What is not installed raises ImportError.

Kernels' peers are in kernel_peers.py, loaders' in loader_peers.py.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

from fastreg.errors import extra
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD, Batch

Build = Callable[..., Callable[[int], Any]]


EXTRAS = {"nvidia": "dali", "ffcv": "ffcv"}  # packages that are not of the extra "peers"
ALONE = ("torchattacks", "robustbench", "imagecorruptions")  # whose own requirements pin old releases


def need(package: str) -> Any:
    """The imported package; ImportError says how to install it or why it cannot be imported."""
    _admit_torchvision()
    threads = torch.get_num_threads()
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if not package.startswith(str(error.name)):
            raise ImportError(f"{package} cannot be imported ({error})") from None
        top = package.split(".")[0]
        install = f"pip install --no-deps {top}" if top in ALONE else extra(EXTRAS.get(top, "peers"))
        raise ImportError(f"{package} is not installed ({install})") from None
    except Exception as error:  # torchvision beside another torch build raises RuntimeError
        raise ImportError(f"{package} cannot be imported ({str(error).splitlines()[0]})") from None
    finally:
        torch.set_num_threads(threads)  # FFCV's import sets them to one, also for what is measured after it


@cache
def _admit_torchvision() -> None:
    """Import PyPI's torchvision, which is built for CUDA, beside a torch without it, for all that imports torchvision.

    Its compiled library cannot be loaded there, and its Python part then stops at two box operators whose schemas it
    expects from that library. They are declared, never implemented: transforms and models do not call them.
    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        pass
    except RuntimeError:
        for name in ("nms", "qnms"):
            _BOXES.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        with contextlib.suppress(Exception):  # what else is wrong with it is said by the import that wants it
            importlib.import_module("torchvision")


def training_peers() -> Iterator[tuple[str, str, Build]]:
    """``(operation, peer, build)``; ``build(config, job, ready, classes)`` returns a step as a function of the set."""
    yield "step mixup", "timm loop", _timm
    yield "step mixup", "torchvision loop", _torchvision


def _timm(config: Any, job: Any, ready: list[Batch], classes: int) -> Callable[[int], Any]:
    """timm's train.py with --amp --amp-dtype, --channels-last, --mixup 1 --opt sgd and its prefetcher's normalise."""
    timm = need("timm")
    loss_of = need("timm.loss").SoftTargetCrossEntropy()
    mixup = need("timm.data").Mixup(mixup_alpha=1.0, num_classes=classes)
    model = timm.create_model(config.model, num_classes=classes).to(job.device, memory_format=torch.channels_last)
    optimizer = need("timm.optim").create_optimizer_v2(model, opt="sgd", lr=config.lr, momentum=0.9, weight_decay=1e-4)
    stored = [batch.images.permute(0, 3, 1, 2).contiguous() for batch in ready]
    mean, std = (torch.tensor([255 * x for x in v], device=job.device).view(1, 3, 1, 1) for v in _STATS)

    def step(i: int) -> None:
        images = stored[i].float().sub_(mean).div_(std)
        images, targets = mixup(images, ready[i].labels)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(job.device.type, torch.bfloat16, enabled=job.gpu):
            loss = loss_of(model(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    model.train()
    return step


def _torchvision(config: Any, job: Any, ready: list[Batch], classes: int) -> Callable[[int], Any]:
    """torchvision's references/classification/train.py with --amp: NCHW, GradScaler, dense targets. Its mixing runs in
    the collate function on CPU workers; here it is inside the step, on the device.
    """
    models, v2 = need("torchvision.models"), need("torchvision.transforms.v2")
    model = models.get_model(config.model, num_classes=classes).to(job.device)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(job.device.type, enabled=job.gpu)
    mixup = v2.MixUp(alpha=1.0, num_classes=classes)
    convert = v2.Compose([v2.ToDtype(torch.float, scale=True), v2.Normalize(*_STATS)])
    stored = [batch.images.permute(0, 3, 1, 2).contiguous() for batch in ready]

    def step(i: int) -> None:
        images, targets = mixup(convert(stored[i]), ready[i].labels)
        with torch.autocast(job.device.type, enabled=job.gpu):
            loss = criterion(model(images), targets)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    model.train()
    return step


_BOXES = torch.library.Library("torchvision", "FRAGMENT")
_STATS = (IMAGENET_MEAN, IMAGENET_STD)
