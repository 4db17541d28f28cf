"""The losses, forward and backward, beside PyTorch and Liger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreg.benchmarks.cases import Case, timed
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers import need
from fastreg.benchmarks.peers.copy_kernel import copy, copy_bytes
from fastreg.benchmarks.peers.kernels import (
    COMPILED,
    EAGER,
    compiled,
    plain_binary_loss,
    plain_loss,
    plain_weighted_loss,
)
from fastreg.benchmarks.record import COPY, OURS, Absent, Row
from fastreg.benchmarks.suites import Benchmark
from fastreg.benchmarks.timing import Call, buffer_sets, measure
from fastreg.kernels import mixed_binary_cross_entropy, mixed_cross_entropy
from fastreg.kernels.types import Targets

BENCHMARK = Benchmark(help="the losses, forward and backward", order=2, seconds=40)

EPS = 0.1
LIGER = "Liger (hard labels)"
# name, rows, classes, reduction; the odd number of classes rules out vector loads
MAIN = (("loss", 1024, 1000, "mean"), ("loss", 4096, 21841, "mean"))
OTHERS = ("weighted loss", "float target loss", "binary loss")
CASES = (
    ("loss", 1024, 1000, "none"), ("loss", 1024, 1000, "mean"), ("loss", 4096, 21848, "mean"),
    ("loss", 4096, 21841, "mean"), *((name, 1024, 1000, "mean") for name in OTHERS),
    *((name, 4096, 21841, "mean") for name in OTHERS),
)  # fmt: skip
ON_CPU = (("loss", 256, 1000, "mean"), ("loss", 256, 100, "mean"), *((name, 256, 1000, "mean") for name in OTHERS))


def cases(options: BenchmarkOptions, settings: dict[str, Any]) -> Iterator[Case]:
    dtype = torch.bfloat16 if options.gpu else torch.float32
    settings |= {"dtype": str(dtype).removeprefix("torch."), "label_smoothing": EPS, "pass": "forward and backward"}
    sizes = (MAIN if options.scope == "main" else CASES) if options.gpu else ON_CPU
    for kind, rows, classes, reduction in sizes:
        batch = options.batch_size or rows
        name = f"{kind} {batch} x {classes} {reduction}"
        yield Case(name, partial(_rows, options, kind, name, batch, classes, reduction, dtype))
    if not options.gpu:
        yield Case("fixed cost", partial(_fixed_cost, options, settings))


def _fixed_cost(options: BenchmarkOptions, settings: dict[str, Any]) -> Iterator[Row]:
    """A note, and no row: the part of a call that is no arithmetic. A small batch takes little more."""
    labels = torch.zeros(2, dtype=torch.int64)
    targets = Targets(labels, labels, torch.ones(2))

    def call(_: int) -> Any:
        z = torch.zeros(2, 2).requires_grad_()
        return torch.autograd.grad(mixed_cross_entropy(z, targets, EPS), z)

    us = measure({OURS: call}, options.device, sets=1, seconds=options.seconds(1.0))[OURS].us
    settings["notes"] = [
        f"fixed cost: {us:.0f} us of each call of fastreg, forward and backward, are checks of labels and shares and "
        "the Python part of autograd; torch.compile has neither"
    ]
    yield from ()


def _rows(
    options: BenchmarkOptions, kind: str, name: str, batch: int, classes: int, reduction: str, dtype: torch.dtype
) -> Iterator[Row | Absent]:
    sets = buffer_sets(options.device, 2 * batch * classes * dtype.itemsize)
    generator = torch.Generator().manual_seed(0)
    logits = [(4 * torch.randn(batch, classes, generator=generator)).to(options.device, dtype) for _ in range(sets)]
    a, b = (torch.randint(classes, (batch,), generator=generator).to(options.device) for _ in range(2))
    targets = Targets(a, b, torch.rand(batch, generator=generator).to(options.device))
    # passed in, so that no variant spends a launch on making it
    upstream = torch.ones(batch if reduction == "none" else (), device=options.device)

    def both(loss_of: Callable[[Tensor], Tensor], logits: list[Tensor] = logits) -> Call:
        def call(i: int) -> Any:
            z = logits[i].detach().requires_grad_()
            return torch.autograd.grad(loss_of(z), z, upstream)

        return call

    soft = torch.rand(batch, classes, generator=generator).to(options.device)
    weight = (2 * torch.rand(classes, generator=generator)).to(options.device)
    ours, plain = _losses(kind, targets, soft, weight, reduction)
    variants: dict[str, Call] = {OURS: both(ours), EAGER: both(plain), COMPILED: both(compiled(plain))}
    try:
        if kind != "loss":
            raise ImportError("no float targets, no class weights on pairs")
        liger = need("liger_kernel.transformers").LigerCrossEntropyLoss(label_smoothing=EPS, reduction=reduction)
        if not options.gpu:
            raise ImportError("Liger's kernels need a GPU")
        own = [z.clone() for z in logits]  # it writes its gradient into the logits
        variants[LIGER] = both(lambda z: liger(z, targets.a), own)
    except ImportError as error:
        yield Absent(name, LIGER, str(error))
    mixes = [[z, z.clone()] for z in logits]  # forward reads, backward reads and writes
    variants[COPY] = lambda i: copy(mixes[i], dtype)()
    moved = copy_bytes(mixes[0], dtype)
    # Liger reads the number of labels back on every call, which cannot be captured
    yield from timed(options, name, variants, sets=sets, images=batch, moved=moved, seconds=4.0, eager=[LIGER])


def _losses(
    kind: str, targets: Targets, soft: Tensor, weight: Tensor, reduction: str
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The loss of a case, by fastreg and in plain PyTorch."""

    def reduced(z: Tensor) -> Tensor:
        rows = plain_loss(z, targets, EPS)
        return rows if reduction == "none" else rows.mean()

    if kind == "weighted loss":
        return (
            lambda z: mixed_cross_entropy(z, targets, EPS, reduction, class_weight=weight),
            lambda z: plain_weighted_loss(z, targets, EPS, weight),
        )
    if kind == "float target loss":
        return (
            lambda z: mixed_cross_entropy(z, soft, EPS, reduction),
            lambda z: F.cross_entropy(z, soft, label_smoothing=EPS, reduction=reduction),
        )
    if kind == "binary loss":
        return (
            lambda z: mixed_binary_cross_entropy(z, targets, EPS, reduction=reduction),
            lambda z: plain_binary_loss(z, targets, EPS),
        )
    return lambda z: mixed_cross_entropy(z, targets, EPS, reduction), reduced
