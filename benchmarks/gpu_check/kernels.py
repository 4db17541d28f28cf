"""Checks of every kernel by variant: the registry's rows, then ``augment``, losses, attacks, JPEG and corruptions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from fastreg import methods
from fastreg.benchmarks.gpu_check.check import CPU, DTYPES, EXACT, Check, Close, Tensors
from fastreg.benchmarks.images import frost_textures, image_batch
from fastreg.kernels import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    augment,
    corrupt,
    fgsm_step,
    jpeg_round_trip,
    mixed_binary_cross_entropy,
    mixed_cross_entropy,
)
from fastreg.kernels.registry import Op, operations
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD, Plan, Targets

OTHER_LOSSES = ("weighted", "weighted float target", "binary", "binary threshold", "binary float target")
REGS = ("none", "mixup", "cutmix", "cutout", "mixup+cutmix", "gaussian_noise", "cutmix+gaussian_noise")


def kernel_checks(quick: bool = False) -> Iterator[Check]:
    """All checks of kernels. Inputs are made when a check runs, so listing them costs nothing."""
    yield from registry_checks()
    yield from augment_checks(quick)
    yield from loss_checks(quick)
    yield from other_loss_checks()
    yield from attack_checks()
    yield from jpeg_checks(quick)
    yield from corruption_checks(quick)


def registry_checks() -> Iterator[Check]:
    """Every row of the registry on its small example, in the row's tolerance."""
    for op in operations():
        close = Close(op.tolerance + op.rare_tolerance, 1.0, op.tolerance)
        yield Check(f"registry {op.name}", partial(_registered, op), close)


def _registered(op: Op, device: torch.device) -> Tensors:
    function = op.reference if device.type == "cpu" else op.triton
    result = function(**op.example(device))
    return tuple(t.detach() for t in (result if isinstance(result, tuple) else (result,)))


def augment_checks(quick: bool) -> Iterator[Check]:
    """Methods, scopes and shapes; the three dtypes of a case share its float32 reference."""
    shapes = ((64, 224, 224), (5, 37, 53)) if quick else ((64, 224, 224), (5, 37, 53), (1, 32, 32))
    for shape, reg, scope in itertools.product(shapes, REGS, ("batch", "sample")):
        name = f"augment {reg} {scope} {'x'.join(map(str, shape))}"
        yield from _by_dtype(name, cache(partial(_augment_inputs, shape, reg, scope)))
    yield from _by_dtype("augment crop mixup", cache(_crop_inputs), size=224)


def _by_dtype(name: str, inputs: Any, size: int | None = None) -> Iterator[Check]:
    for dtype, close in DTYPES.items():
        yield Check(
            f"{name} {str(dtype).removeprefix('torch.')}",
            partial(_augmented, inputs, size, dtype),
            close,
            reference=partial(_augmented, inputs, size, torch.float32, CPU),
            group=name,
            dtypes=(dtype,),
        )


def _augment_inputs(shape: tuple[int, int, int], reg: str, scope: str) -> tuple[Tensor, Plan, Tensor]:
    batch, height, width = shape
    keys = torch.arange(batch) * 7
    method = methods.create(reg, size=(height, width), scope=scope)
    plan, _ = method.draw(torch.zeros(batch, dtype=torch.int64), keys, 3)
    return _noise((*shape, 3), len(reg)), plan, keys


def _crop_inputs() -> tuple[Tensor, Plan, Tensor]:
    boxes = torch.tensor([[10.0, 20.0, 200.0, 150.0], [0.0, 0.0, 256.0, 256.0], [100.0, 60.0, 31.0, 47.0]])
    plan, _ = methods.create("mixup", scope="sample").draw(torch.zeros(16, dtype=torch.int64), torch.arange(16), 0)
    return image_batch(16, 256, CPU), plan._replace(crop=boxes[torch.arange(16) % 3]), torch.arange(16)


def _augmented(inputs: Any, size: int | None, dtype: torch.dtype, device: torch.device) -> Tensors:
    images, plan, keys = inputs()
    on_device = Plan(*(field if field is None else field.to(device) for field in plan))
    given: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "dtype": dtype, "size": size}
    return (augment(images.to(device), on_device, indices=keys, step=3, **given),)


def loss_checks(quick: bool) -> Iterator[Check]:
    """Logits that every dtype represents exactly, so the three dtypes share a float32 reference."""
    shapes = ((256, 1000), (7, 37)) if quick else ((256, 1000), (7, 37), (33, 2), (64, 21841))
    for (batch, classes), eps, reduction in itertools.product(shapes, (0.0, 0.1, 1.0), ("none", "mean")):
        name = f"loss {batch}x{classes} smoothing {eps} {reduction}"
        inputs = cache(partial(_loss_inputs, batch, classes))
        for dtype in DTYPES:
            yield Check(
                f"{name} {str(dtype).removeprefix('torch.')}",
                partial(_loss, inputs, eps, reduction, dtype),
                DTYPES[dtype]._replace(largest=2e-5),
                reference=partial(_loss, inputs, eps, reduction, torch.float32, CPU),
                group=name,
                dtypes=(torch.float32, dtype),
            )


def other_loss_checks() -> Iterator[Check]:
    """Class weights, float targets and the binary loss, under an upstream gradient per row or logit."""
    for (batch, classes), kind in itertools.product(((256, 1000), (7, 37), (64, 21841)), OTHER_LOSSES):
        name = f"{kind} loss {batch}x{classes}"
        inputs = cache(partial(_loss_inputs, batch, classes))
        for dtype in DTYPES:
            yield Check(
                f"{name} {str(dtype).removeprefix('torch.')}",
                partial(_other_loss, inputs, kind, dtype),
                DTYPES[dtype]._replace(largest=4e-5),
                reference=partial(_other_loss, inputs, kind, torch.float32, CPU),
                group=name,
                dtypes=(torch.float32, dtype),
            )


def _other_loss(inputs: Any, kind: str, dtype: torch.dtype, device: torch.device) -> Tensors:
    logits, targets = inputs()
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(logits.shape[1], generator=generator).to(device)
    given: Targets | Tensor = Targets(*(t.to(device) for t in targets))
    if "float" in kind:
        given = torch.rand(logits.shape, generator=generator).div(logits.shape[1] / 2).to(device)
    z = logits.to(device, dtype).requires_grad_()
    if "binary" in kind:
        threshold = 0.2 if "threshold" in kind else None
        loss = mixed_binary_cross_entropy(z, given, 0.1, threshold, reduction="none", class_weight=weight)
    else:
        loss = mixed_cross_entropy(z, given, 0.1, "none", class_weight=weight)
    (grad,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), grad


def _loss_inputs(batch: int, classes: int) -> tuple[Tensor, Targets]:
    generator = torch.Generator().manual_seed(classes)
    logits = 4 * torch.randn(batch, classes, generator=generator)
    a, b = (torch.randint(classes, (batch,), generator=generator) for _ in range(2))
    b[::3] = a[::3]
    exact = torch.where(logits.abs() < 2**-10, 0.0, logits.bfloat16().float())  # float16 represents them too
    return exact, Targets(a, b, torch.rand(batch, generator=generator))


def _loss(inputs: Any, eps: float, reduction: str, dtype: torch.dtype, device: torch.device) -> Tensors:
    logits, targets = inputs()
    z = logits.to(device, dtype).requires_grad_()
    loss = mixed_cross_entropy(z, Targets(*(t.to(device) for t in targets)), eps, reduction)
    (grad,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), grad


def attack_checks() -> Iterator[Check]:
    for layout in (torch.contiguous_format, torch.channels_last):
        yield Check(f"fgsm_step {str(layout).removeprefix('torch.')}", partial(_fgsm, layout), Close(1e-7))


def _fgsm(layout: torch.memory_format, device: torch.device) -> Tensors:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(8, 3, 65, 43, generator=generator).contiguous(memory_format=layout)
    grad = torch.randn(8, 3, 65, 43, generator=generator).contiguous(memory_format=layout)
    grad[0] = 0
    return (fgsm_step(pixels.to(device), grad.to(device), 8 / 255),)


def jpeg_checks(quick: bool) -> Iterator[Check]:
    qualities = (7, 25, 85) if quick else (1, 7, 10, 15, 25, 75, 85, 95, 100)
    for size, quality, kind in itertools.product((224, 37), qualities, ("photograph", "noise")):
        make = partial(_jpeg, size, quality, kind)
        yield Check(f"jpeg_round_trip {kind} {size} px quality {quality}", make, EXACT)


def _jpeg(size: int, quality: int, kind: str, device: torch.device) -> Tensors:
    images = image_batch(4, size, CPU) if kind == "photograph" else _noise((4, size, size, 3), 1)
    return (jpeg_round_trip(images.to(device), quality),)


def corruption_checks(quick: bool) -> Iterator[Check]:
    for name, severity in itertools.product((*CORRUPTIONS, *EXTRA_CORRUPTIONS), (3,) if quick else (1, 3, 5)):
        close = Close(2 if name == "spatter" else 1, 0.02)
        yield Check(f"corrupt {name} {severity}", partial(_corrupted, name, severity), close)


def _corrupted(name: str, severity: int, device: torch.device) -> Tensors:
    images, keys = image_batch(4, 224, CPU), torch.arange(4) * 11
    textures, _ = frost_textures()
    return (corrupt(images.to(device), name, severity, seed=9, indices=keys, textures=textures),)


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
