"""Every kernel on the GPU against its CPU reference, on random inputs, and twice: equal bits, or there is a race.

``python -m fastreg.benchmarks.gpu_check.parity --out FILE [--device cuda] [--quick]``; exit 1 when a check fails.
Tolerances are data: uint8 results are equal or one level apart in a small share of values, floats as close as their
dtype allows.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastreg import files, methods
from fastreg.benchmarks.gpu_check.cuda_graphs import replays
from fastreg.benchmarks.gpu_check.evaluation import agreements
from fastreg.benchmarks.gpu_check.loaders import arrivals
from fastreg.benchmarks.images import frost_textures, image_batch
from fastreg.kernels import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    augment,
    corrupt,
    fgsm_step,
    jpeg_round_trip,
    mixed_cross_entropy,
)
from fastreg.kernels.registry import Op, operations
from fastreg.kernels.types import IMAGENET_MEAN as MEAN
from fastreg.kernels.types import IMAGENET_STD as STD
from fastreg.kernels.types import Plan, Targets

CPU = torch.device("cpu")


class Close(NamedTuple):
    """How close is close: the largest difference, and the share of values that may differ at all."""

    largest: float
    share: float = 1.0
    relative: float = 0.0  # of the reference's magnitude, added to ``largest``


UNCHECKED = "not checked"  # how the detail of a check begins whose reference lacks a package
EXACT = Close(0.0, 0.0)
DTYPES = {
    torch.float32: Close(3e-6, relative=1e-6),
    torch.float16: Close(3e-6, relative=2**-10),
    torch.bfloat16: Close(3e-6, relative=2**-7),
}


class Check(NamedTuple):
    """``make(device)`` computes the tensors to compare from inputs that are the same on every device."""

    name: str
    make: Callable[[torch.device], tuple[Tensor, ...]]
    close: Close


def checks(quick: bool = False) -> Iterator[Check]:
    yield from _registered()
    yield from _augment(quick)
    yield from _loss(quick)
    yield from _attack()
    yield from _graphs()
    yield from _jpeg(quick)
    yield from _corruptions(quick)
    for name, make, largest, share in (*arrivals(), *agreements()):
        yield Check(name, make, Close(largest, share))


def _registered() -> Iterator[Check]:
    """Every row of the registry on its small example, in the tolerance that the row names."""
    for op in operations():

        def make(device: torch.device, op: Op = op) -> tuple[Tensor, ...]:
            function = op.reference if device.type == "cpu" else op.triton
            result = function(**op.example(device))
            return tuple(t.detach() for t in (result if isinstance(result, tuple) else (result,)))

        close = Close(op.tolerance + op.rare_tolerance, 1.0, op.tolerance)
        yield Check(f"registry {op.name}", make, close)


def _augment(quick: bool) -> Iterator[Check]:
    regs = ("none", "mixup", "cutmix", "cutout", "mixup+cutmix", "gaussian_noise", "cutmix+gaussian_noise")
    shapes = ((64, 224, 224), (5, 37, 53)) if quick else ((64, 224, 224), (5, 37, 53), (1, 32, 32))
    for (batch, height, width), reg, scope in itertools.product(shapes, regs, ("batch", "sample")):
        images = _noise((batch, height, width, 3), len(reg))
        keys = torch.arange(batch) * 7
        method = methods.create(reg, size=(height, width), scope=scope)
        plan, _ = method.draw(torch.zeros(batch, dtype=torch.int64), keys, 3)
        for dtype, close in DTYPES.items():
            yield _augmented(f"augment {reg} {scope} {batch}x{height}x{width}", images, plan, keys, dtype, close)
    canvas = image_batch(16, 256, CPU)
    boxes = torch.tensor([[10.0, 20.0, 200.0, 150.0], [0.0, 0.0, 256.0, 256.0], [100.0, 60.0, 31.0, 47.0]])
    plan, _ = methods.create("mixup", scope="sample").draw(torch.zeros(16, dtype=torch.int64), torch.arange(16), 0)
    plan = plan._replace(crop=boxes[torch.arange(16) % 3])
    for dtype, close in DTYPES.items():
        one_level = close._replace(largest=close.largest + 1 / 255 / min(STD))
        yield _augmented("augment crop mixup", canvas, plan, torch.arange(16), dtype, one_level, size=224)


def _augmented(
    name: str, images: Tensor, plan: Plan, keys: Tensor, dtype: torch.dtype, close: Close, size: Any = None
) -> Check:
    def make(device: torch.device) -> tuple[Tensor, ...]:
        sent = Plan(*(field if field is None else field.to(device) for field in plan))
        given: dict[str, Any] = {"mean": MEAN, "std": STD, "dtype": dtype, "size": size, "indices": keys, "step": 3}
        return (augment(images.to(device), sent, **given),)

    return Check(f"{name} {str(dtype).removeprefix('torch.')}", make, close)


def _loss(quick: bool) -> Iterator[Check]:
    shapes = ((256, 1000), (7, 37)) if quick else ((256, 1000), (7, 37), (33, 2), (64, 21841))
    for (batch, classes), eps, reduction in itertools.product(shapes, (0.0, 0.1, 1.0), ("none", "mean")):
        generator = torch.Generator().manual_seed(classes)
        logits = 4 * torch.randn(batch, classes, generator=generator)
        a, b = (torch.randint(classes, (batch,), generator=generator) for _ in range(2))
        b[::3] = a[::3]
        targets = Targets(a, b, torch.rand(batch, generator=generator))
        for dtype in DTYPES:

            def make(
                device: torch.device,
                logits: Tensor = logits,
                targets: Targets = targets,
                eps: float = eps,
                reduction: str = reduction,
                dtype: torch.dtype = dtype,
            ) -> tuple[Tensor, ...]:
                z = logits.to(device, dtype).requires_grad_()
                loss = mixed_cross_entropy(z, Targets(*(t.to(device) for t in targets)), eps, reduction)
                (grad,) = torch.autograd.grad(loss.sum(), z)
                return loss.detach(), grad

            name = f"loss {batch}x{classes} smoothing {eps} {reduction} {str(dtype).removeprefix('torch.')}"
            yield Check(name, make, DTYPES[dtype]._replace(largest=2e-5))


def _attack() -> Iterator[Check]:
    generator = torch.Generator().manual_seed(5)
    for layout in (torch.contiguous_format, torch.channels_last):
        pixels = torch.rand(8, 3, 65, 43, generator=generator).contiguous(memory_format=layout)
        grad = torch.randn(8, 3, 65, 43, generator=generator).contiguous(memory_format=layout)
        grad[0] = 0

        def make(device: torch.device, pixels: Tensor = pixels, grad: Tensor = grad) -> tuple[Tensor, ...]:
            return (fgsm_step(pixels.to(device), grad.to(device), 8 / 255),)

        yield Check(f"fgsm_step {str(layout).removeprefix('torch.')}", make, Close(1e-7))


def _graphs() -> Iterator[Check]:
    for name, make, tolerance in replays():
        yield Check(name, make, Close(tolerance, relative=1e-5))


def _jpeg(quick: bool) -> Iterator[Check]:
    for size, quality in itertools.product((224, 37), (7, 25, 85) if quick else (1, 7, 10, 15, 25, 75, 85, 95, 100)):
        for kind, images in (("photograph", image_batch(4, size, CPU)), ("noise", _noise((4, size, size, 3), 1))):

            def make(device: torch.device, images: Tensor = images, quality: int = quality) -> tuple[Tensor, ...]:
                return (jpeg_round_trip(images.to(device), quality),)

            yield Check(f"jpeg_round_trip {kind} {size} px quality {quality}", make, EXACT)


def _corruptions(quick: bool) -> Iterator[Check]:
    textures, _ = frost_textures()
    images, keys = image_batch(4, 224, CPU), torch.arange(4) * 11
    for name, severity in itertools.product((*CORRUPTIONS, *EXTRA_CORRUPTIONS), (3,) if quick else (1, 3, 5)):

        def make(device: torch.device, name: str = name, severity: int = severity) -> tuple[Tensor, ...]:
            return (corrupt(images.to(device), name, severity, seed=9, indices=keys, textures=textures),)

        close = Close(2 if name == "spatter" else 1, 0.02)
        yield Check(f"corrupt {name} {severity}", make, close)


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def run_check(check: Check, device: torch.device) -> dict[str, Any]:
    """``{"name", "ok", "detail", "seconds"}`` of one check; an exception is a failure."""
    start = time.perf_counter()
    try:
        reference = check.make(CPU)
    except ModuleNotFoundError as error:  # a reference that calls Pillow, on a machine without it
        return {"name": check.name, "ok": True, "detail": f"{UNCHECKED}: {error}", "seconds": 0.0}
    except Exception as error:
        return {"name": check.name, "ok": False, "detail": f"the reference fails: {_first_line(error)}", "seconds": 0.0}
    try:
        first, second = check.make(device), check.make(device)
        detail = _compare(first, second, reference, check.close)
    except Exception as error:  # a kernel that does not run is a failed check, not the end of the others
        detail = _first_line(error)
    return {"name": check.name, "ok": not detail, "detail": detail, "seconds": round(time.perf_counter() - start, 3)}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def _compare(first: tuple[Tensor, ...], second: tuple[Tensor, ...], wanted: tuple[Tensor, ...], close: Close) -> str:
    """What is wrong, or nothing."""
    for a, again, reference in zip(first, second, wanted, strict=True):
        if not torch.equal(a.nan_to_num(), again.nan_to_num()):
            return f"two runs differ in {int((a != again).sum())} values: a race"
        if a.shape != reference.shape or a.dtype != reference.dtype:
            return f"{a.dtype} {tuple(a.shape)}, the reference has {reference.dtype} {tuple(reference.shape)}"
        got, right = a.cpu().double(), reference.double()
        difference = (got - right).abs()
        difference = torch.where(got.isnan() & right.isnan(), 0.0, difference)
        beyond = ~(difference <= close.largest + close.relative * right.abs().nan_to_num())
        share = float((difference > 0).double().mean())
        if beyond.any() or share > close.share:
            return f"largest difference {float(difference.max()):.3g}, {share:.3%} of values differ (allowed {close})"
    return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare every kernel with its CPU reference.")
    parser.add_argument("--out", help="a JSON file for the results")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    results: list[dict[str, Any]] = []
    written = time.monotonic()
    for check in checks(given.quick):
        results.append(run_check(check, device))
        if not results[-1]["ok"]:
            print(f"FAILED {check.name}: {results[-1]['detail']}", flush=True)
        if given.out and time.monotonic() - written > 3:  # a time limit may end this process at any moment
            files.write_json(given.out, results)
            written = time.monotonic()
    if given.out:
        files.write_json(given.out, results)
    failed = sum(not result["ok"] for result in results)
    unchecked = [result["detail"] for result in results if result["detail"].startswith(UNCHECKED)]
    print(f"{len(results) - failed - len(unchecked)} of {len(results)} checks hold on {device}, {failed} fail")
    if unchecked:
        print(f"{len(unchecked)} {unchecked[0]}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
