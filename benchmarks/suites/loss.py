"""The loss, forward and backward, beside PyTorch and Liger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastreg.benchmarks.cases import Case, timed
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers import need
from fastreg.benchmarks.peers.copy_kernel import copy, copy_bytes
from fastreg.benchmarks.peers.kernels import COMPILED, EAGER, compiled, plain_loss
from fastreg.benchmarks.record import COPY, OURS, Absent, Row
from fastreg.benchmarks.suites import Benchmark
from fastreg.benchmarks.timing import Call, buffer_sets
from fastreg.kernels import mixed_cross_entropy
from fastreg.kernels.types import Targets

BENCHMARK = Benchmark(help="mixed_cross_entropy, forward and backward", order=2, seconds=25)

EPS = 0.1
LIGER = "Liger (hard labels)"
# rows, classes, reduction; the odd number of classes rules out vector loads
CASES = ((1024, 1000, "none"), (1024, 1000, "mean"), (4096, 21848, "mean"), (4096, 21841, "mean"))
MAIN = ((1024, 1000, "mean"), (4096, 21841, "mean"))
ON_CPU = ((256, 1000, "mean"), (256, 100, "mean"))


def cases(options: BenchmarkOptions, settings: dict[str, Any]) -> Iterator[Case]:
    dtype = torch.bfloat16 if options.gpu else torch.float32
    settings |= {"dtype": str(dtype).removeprefix("torch."), "label_smoothing": EPS, "pass": "forward and backward"}
    sizes = (MAIN if options.scope == "main" else CASES) if options.gpu else ON_CPU
    for rows, classes, reduction in sizes:
        batch = options.batch_size or rows
        name = f"loss {batch} x {classes} {reduction}"
        yield Case(name, partial(_rows, options, name, batch, classes, reduction, dtype))


def _rows(
    options: BenchmarkOptions, name: str, batch: int, classes: int, reduction: str, dtype: torch.dtype
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

    def reduced(loss: Tensor) -> Tensor:
        return loss if reduction == "none" else loss.mean()

    variants: dict[str, Call] = {
        OURS: both(lambda z: mixed_cross_entropy(z, targets, EPS, reduction)),
        EAGER: both(lambda z: reduced(plain_loss(z, targets, EPS))),
        COMPILED: both(compiled(lambda z: reduced(plain_loss(z, targets, EPS)))),
    }
    try:
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
