"""``augment`` and ``auto_augment`` beside their peers, the attack's step, and every other row of the kernels' registry.

Bytes are the least that an operation must move; the limit is a copy with the same mix, timed in the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from fastreg import methods
from fastreg.benchmarks.cases import Case, timed
from fastreg.benchmarks.first_calls import FIRST_CALLS, first_calls
from fastreg.benchmarks.images import image_batch, image_source
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peak_memory import PEAK_MEMORY, PLANS, peak_memory
from fastreg.benchmarks.peers import normalization_stats
from fastreg.benchmarks.peers.auto_augment import LAWS, auto_augment_peers
from fastreg.benchmarks.peers.copy_kernel import copy, copy_bytes
from fastreg.benchmarks.peers.kernels import (
    COMPILED,
    EAGER,
    augment_peers,
    compiled,
    compiled_augment,
    plain_augment,
    plain_fgsm,
)
from fastreg.benchmarks.record import COPY, OURS, REFERENCE, Absent, Row
from fastreg.benchmarks.suites import Benchmark
from fastreg.benchmarks.suites.corruptions import one_thread
from fastreg.benchmarks.timing import Call, buffer_sets, over
from fastreg.kernels import augment, auto_augment, fgsm_step
from fastreg.kernels.registry import Op, operations
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD, Plan
from fastreg.pipelines.crop import random_boxes

BENCHMARK = Benchmark(
    help="augment case by case, auto_augment, the attack's step, every other row of the kernels' registry",
    order=1,
    seconds=30,
    setup=1.0,
)

# growth of the cost: factors of the suite's own batch and side (160 and 288 px for 224)
GROWTH = ((0.25, 1), (4, 1), (1, 5 / 7), (1, 9 / 7))
CANVAS = 256 / 224  # side of the stored images that crop-and-resize cases read, over the output's


class PlanCase(NamedTuple):
    """One plan to time. ``reads``: uint8 streams that the least work reads, 1 or 2; 0: no copy has its mix."""

    name: str
    plan: Plan
    reads: int = 1
    plain: bool = True  # whether plain_augment can do it


def cases(options: BenchmarkOptions, settings: dict[str, Any]) -> Iterator[Case]:
    size, batch = options.size or 224, options.batch_size or (256 if options.gpu else 8)
    dtype = torch.bfloat16 if options.gpu else torch.float32
    settings |= {"size": size, "batch_size": batch, "dtype": str(dtype).removeprefix("torch.")}
    settings["images"] = image_source(options.data_dir)
    labels = torch.randint(1000, (batch,), generator=torch.Generator().manual_seed(0)).to(options.device)
    peers = [] if options.scope == "main" else list(augment_peers(labels, dtype))
    covered = {"fgsm_step"}
    for case in plan_cases(options, batch, size):
        covered.add(case.name.replace(" ", "_"))
        beside = [(peer, build) for name, peer, build in peers if name == case.name]
        yield Case(case.name, partial(_augment, options, case, batch, size, dtype, beside))
    for law in LAWS:
        yield Case(f"auto_augment {law}", partial(_auto_augment, options, law, batch, size))
    yield Case("fgsm_step", partial(_fgsm, options, batch, size))
    if not options.gpu:
        yield Case(FIRST_CALLS, partial(first_calls, quick=options.quick))
        for plan in () if options.quick else PLANS:
            yield Case(f"{PEAK_MEMORY} {plan}", partial(peak_memory, plan))
    for share, side in () if options.quick else GROWTH:
        grown = _grown(options, round(batch * share), round(size * side))
        yield Case(grown.name, partial(_augment, options, grown, round(batch * share), round(size * side), dtype, []))
    if (
        options.gpu and not options.quick
    ):  # the registry's examples are sized for a GPU; the losses have their own suite
        for op in operations():
            if op.name not in covered and "cross_entropy" not in op.name:
                yield Case(op.name, partial(_registered, options, op))


def plan_cases(options: BenchmarkOptions, batch: int, size: int) -> Iterator[PlanCase]:
    """Plans as the methods draw them, flips included; "normalise" is the empty plan of evaluation."""
    labels, keys = torch.zeros(batch, dtype=torch.int64, device=options.device), torch.arange(batch)

    def drawn(reg: str, scope: str = "batch") -> Plan:
        return methods.create(reg, size=size, scope=scope).draw(labels, keys, 0)[0]

    yield PlanCase("augment normalise", Plan())
    yield PlanCase("augment mixup", drawn("mixup"), reads=2)
    yield PlanCase("augment mixup per sample", drawn("mixup", "sample"), reads=2)
    yield PlanCase("augment cutmix", drawn("cutmix"))
    yield PlanCase("augment cutout", drawn("cutout"))
    if options.quick and (options.scope == "main" or not options.gpu):
        return
    yield PlanCase("augment flip", drawn("none"))
    yield PlanCase("augment cutmix per sample", drawn("cutmix", "sample"))
    low, side = size // 4, size // 2
    box = torch.tensor([[low, low, low + side, low + side]], dtype=torch.int32, device=options.device)
    black = torch.ones(batch, dtype=torch.int8, device=options.device)
    yield PlanCase("augment occlusion", Plan(box=box.expand(batch, 4).contiguous(), box_fill=black))
    yield PlanCase("augment gaussian_noise", drawn("gaussian_noise"), plain=False)
    sides = np.full(batch, round(size * CANVAS))
    boxes = torch.from_numpy(random_boxes(0, np.arange(batch), 0, sides, sides).astype(np.float32)).to(options.device)
    yield PlanCase("augment crop", drawn("none")._replace(crop=boxes), reads=0, plain=False)
    yield PlanCase("augment crop mixup", drawn("mixup")._replace(crop=boxes), reads=0, plain=False)


def _grown(options: BenchmarkOptions, batch: int, size: int) -> PlanCase:
    labels = torch.zeros(batch, dtype=torch.int64, device=options.device)
    plan, _ = methods.create("mixup", size=size).draw(labels, torch.arange(batch), 0)
    return PlanCase(f"augment mixup, batch {batch}, {size} px", plan, reads=2, plain=False)


def _reference(size: int, **arguments: Any) -> torch.Tensor:
    """``augment`` in plain torch, which a CPU without numba runs."""
    row = next(op for op in operations() if op.name == "augment_normalise")
    return row.reference(size=(size, size), seed=0, step=0, **arguments)


def _augment(
    options: BenchmarkOptions,
    case: PlanCase,
    batch: int,
    size: int,
    dtype: torch.dtype,
    peers: list[tuple[str, Callable]],
) -> Iterator[Row | Absent]:
    device = options.device
    side = size if case.plan.crop is None else round(size * CANVAS)
    moved = batch * size * size * 3 * (case.reads + dtype.itemsize) if case.reads else 0
    sets = buffer_sets(device, batch * 3 * (side * side + size * size * dtype.itemsize))
    images = [image_batch(batch, side, device, i, options.data_dir) for i in range(sets)]
    keys = torch.arange(batch, device=device)  # on the device, so the call can be captured
    given: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "dtype": dtype, "size": size, "indices": keys}
    variants: dict[str, Call] = {OURS: lambda i: augment(images[i], case.plan, **given)}
    if case.plain:
        stats = normalization_stats(device)
        variants[EAGER] = lambda i: plain_augment(images[i], case.plan, dtype, stats)
        if options.scope != "main":
            variants[COMPILED] = lambda i: compiled_augment(images[i], case.plan, dtype, stats)
    elif not options.gpu:
        variants[REFERENCE] = lambda i: _reference(images=images[i], plan=case.plan, **given)
    planes = [x.permute(0, 3, 1, 2).contiguous() for x in images] if peers else []
    for peer, build in peers:
        try:
            variants[peer] = over(build(), planes)
        except ImportError as error:
            yield Absent(case.name, peer, str(error))
    if case.reads:
        others = [x.flip(0) for x in images] if case.reads == 2 else []
        variants[COPY] = lambda i: copy([images[i], *([others[i]] if others else [])], dtype)()
    yield from timed(options, case.name, variants, sets=sets, images=batch, moved=moved)


def _auto_augment(options: BenchmarkOptions, law: str, batch: int, size: int) -> Iterator[Row | Absent]:
    """The operations that a method draws for one batch; on a CPU on one thread, as the peers."""
    name, device = f"auto_augment {law}", options.device
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    plan = methods.create(law, size=size).draw(labels, torch.arange(batch), 0)[0]
    operations, magnitudes = plan.operations, plan.magnitudes
    assert operations is not None
    assert magnitudes is not None
    slots = operations.shape[1]
    sets = buffer_sets(device, 2 * slots * batch * 3 * size * size)
    images = [image_batch(batch, size, device, i, options.data_dir) for i in range(sets)]
    with one_thread(options):
        variants: dict[str, Call] = {OURS: lambda i: auto_augment(images[i], operations, magnitudes)}
        peers = {} if options.scope == "main" else auto_augment_peers(law, device)
        for peer, build in peers.items():
            try:
                variants[peer] = build(images)
            except ImportError as error:
                yield Absent(name, peer, str(error))
        moved = 2 * slots * images[0].numel()
        yield from timed(options, name, variants, sets=sets, images=batch, moved=moved, eager=tuple(peers))


def _fgsm(options: BenchmarkOptions, batch: int, size: int) -> Iterator[Row | Absent]:
    sets = buffer_sets(options.device, 3 * batch * size * size * 3 * 4)
    stock = (image_batch(batch, size, options.device, i, options.data_dir) for i in range(sets))
    pixels = [(images / 255).permute(0, 3, 1, 2) for images in stock]  # float32, channels_last
    grads = [torch.randn_like(x) for x in pixels]
    variants: dict[str, Call] = {
        OURS: lambda i: fgsm_step(pixels[i], grads[i], 8 / 255),
        EAGER: lambda i: plain_fgsm(pixels[i], grads[i], 8 / 255),
    }
    if options.scope != "main":
        variants[COMPILED] = over(compiled(lambda x, g: plain_fgsm(x, g, 8 / 255)), pixels, grads)
    variants[COPY] = lambda i: copy([pixels[i], grads[i]], torch.float32)()
    moved = copy_bytes([pixels[0], grads[0]], torch.float32)
    yield from timed(options, "fgsm_step", variants, sets=sets, images=batch, moved=moved)


def _registered(options: BenchmarkOptions, op: Op) -> Iterator[Row | Absent]:
    """The Triton route alone: a reference may draw on the host, up to 15 seconds a call, and is no peer."""
    first = op.example(options.device, small=False)
    moved = op.bytes(first)
    arguments = [
        first,
        *(op.example(options.device, small=False) for _ in range(buffer_sets(options.device, moved) - 1)),
    ]
    variants: dict[str, Call] = {OURS: lambda i: op.triton(**arguments[i])}
    yield from timed(options, op.name, variants, sets=len(arguments), images=0, moved=moved)
