"""The kernels: ``augment`` case by case beside its peers, the attack's step, and every other row of the registry.

Bytes are the least that the operation must move; the limit is a plain copy with the same mix, timed in the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from fastreg import methods
from fastreg.benchmarks.cases import timed
from fastreg.benchmarks.images import image_batch, photographs
from fastreg.benchmarks.options import Job
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
from fastreg.benchmarks.peers.training import IMAGENET_MEAN, IMAGENET_STD
from fastreg.benchmarks.record import COPY, OURS, Absent, Row
from fastreg.benchmarks.timing import buffer_sets, over
from fastreg.kernels import augment, fgsm_step
from fastreg.kernels.registry import Op, operations
from fastreg.kernels.types import Plan
from fastreg.pipelines.crop import random_boxes

# batch and side over the suite's own: how the cost grows; 160 and 288 px for 224
GROWTH = ((0.25, 1), (4, 1), (1, 5 / 7), (1, 9 / 7))
CANVAS = 256 / 224  # side of the canvas that crop-and-resize cases read, over the output's


class Case(NamedTuple):
    """One plan to time. ``reads``: uint8 streams that the least work reads, 1 or 2; 0: no copy has its mix."""

    name: str
    plan: Plan
    reads: int = 1
    plain: bool = True  # whether plain_augment can do it


def rows(job: Job, settings: dict[str, Any]) -> Iterator[Row | Absent]:
    size, batch = job.size or 224, job.batch_size or (256 if job.gpu else 8)
    dtype = torch.bfloat16 if job.gpu else torch.float32
    settings |= {"size": size, "batch_size": batch, "dtype": str(dtype).removeprefix("torch.")}
    settings["images"] = photographs(job.data_dir)[1]
    labels = torch.randint(1000, (batch,), generator=torch.Generator().manual_seed(0)).to(job.device)
    peers = list(augment_peers(labels, dtype))
    timed_already = {"fgsm_step"}
    for case in cases(job, batch, size):
        timed_already.add(case.name.replace(" ", "_"))
        yield from _augment(job, case, batch, size, dtype, [(p, build) for n, p, build in peers if n == case.name])
    yield from _fgsm(job, batch, size)
    for share, side in () if job.quick else GROWTH:
        yield from _grown(job, round(batch * share), round(size * side), dtype)
    if job.gpu and not job.quick:  # the registry's own examples are sized for a GPU; the losses have their own suite
        for op in operations():
            if op.name not in timed_already and "cross_entropy" not in op.name:
                yield from _registered(job, op)


def cases(job: Job, batch: int, size: int) -> Iterator[Case]:
    """Plans as the methods draw them, flips included; "normalise" is the empty plan of evaluation."""
    labels, keys = torch.zeros(batch, dtype=torch.int64, device=job.device), torch.arange(batch)

    def drawn(reg: str, scope: str = "batch") -> Plan:
        return methods.create(reg, size=size, scope=scope).draw(labels, keys, 0)[0]

    yield Case("augment normalise", Plan())
    yield Case("augment mixup", drawn("mixup"), reads=2)
    yield Case("augment mixup per sample", drawn("mixup", "sample"), reads=2)
    yield Case("augment cutmix", drawn("cutmix"))
    yield Case("augment cutout", drawn("cutout"))
    if job.quick and not job.gpu:
        return
    yield Case("augment flip", drawn("none"))
    yield Case("augment cutmix per sample", drawn("cutmix", "sample"))
    low, side = size // 4, size // 2
    box = torch.tensor([[low, low, low + side, low + side]], dtype=torch.int32, device=job.device)
    black = torch.ones(batch, dtype=torch.int8, device=job.device)
    yield Case("augment occlusion", Plan(box=box.expand(batch, 4).contiguous(), box_fill=black))
    yield Case("augment gaussian_noise", drawn("gaussian_noise"), plain=False)
    sides = np.full(batch, round(size * CANVAS))
    boxes = torch.from_numpy(random_boxes(0, np.arange(batch), 0, sides, sides).astype(np.float32)).to(job.device)
    yield Case("augment crop", drawn("none")._replace(crop=boxes), reads=0, plain=False)
    yield Case("augment crop mixup", drawn("mixup")._replace(crop=boxes), reads=0, plain=False)


def _grown(job: Job, batch: int, size: int, dtype: torch.dtype) -> Iterator[Row | Absent]:
    labels = torch.zeros(batch, dtype=torch.int64, device=job.device)
    plan, _ = methods.create("mixup", size=size).draw(labels, torch.arange(batch), 0)
    case = Case(f"augment mixup, batch {batch}, {size} px", plan, reads=2, plain=False)
    yield from _augment(job, case, batch, size, dtype, [])


def _augment(
    job: Job, case: Case, batch: int, size: int, dtype: torch.dtype, peers: list[tuple[str, Callable]]
) -> Iterator[Row | Absent]:
    side = size if case.plan.crop is None else round(size * CANVAS)
    moved = batch * size * size * 3 * (case.reads + dtype.itemsize) if case.reads else 0
    sets = buffer_sets(job.device, batch * 3 * (side * side + size * size * dtype.itemsize))
    images = [image_batch(batch, side, job.device, i, job.data_dir) for i in range(sets)]
    keys = torch.arange(batch, device=job.device)  # on the device, so that the call can be captured
    given: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "dtype": dtype, "size": size, "indices": keys}
    variants: dict[str, Callable[[int], Any]] = {OURS: lambda i: augment(images[i], case.plan, **given)}
    if case.plain:
        variants[EAGER] = lambda i: plain_augment(images[i], case.plan, dtype)
        variants[COMPILED] = lambda i: compiled_augment(images[i], case.plan, dtype)
    planes = [x.permute(0, 3, 1, 2).contiguous() for x in images] if peers else []
    for peer, build in peers:
        try:
            variants[peer] = over(build(), planes)
        except ImportError as error:
            yield Absent(case.name, peer, str(error))
    if case.reads:
        others = [x.flip(0) for x in images] if case.reads == 2 else []
        variants[COPY] = lambda i: copy([images[i], *([others[i]] if others else [])], dtype)()
    yield from timed(job, case.name, variants, sets=sets, images=batch, moved=moved, eager=[p for p, _ in peers])


def _fgsm(job: Job, batch: int, size: int) -> Iterator[Row | Absent]:
    sets = buffer_sets(job.device, 3 * batch * size * size * 3 * 4)
    stock = (image_batch(batch, size, job.device, i, job.data_dir) for i in range(sets))
    pixels = [(images / 255).permute(0, 3, 1, 2) for images in stock]  # float32, channels_last
    grads = [torch.randn_like(x) for x in pixels]
    fused = compiled(lambda x, g: plain_fgsm(x, g, 8 / 255))
    variants: dict[str, Callable[[int], Any]] = {
        OURS: lambda i: fgsm_step(pixels[i], grads[i], 8 / 255),
        EAGER: lambda i: plain_fgsm(pixels[i], grads[i], 8 / 255),
        COMPILED: over(fused, pixels, grads),
        COPY: lambda i: copy([pixels[i], grads[i]], torch.float32)(),
    }
    moved = copy_bytes([pixels[0], grads[0]], torch.float32)
    yield from timed(job, "fgsm_step", variants, sets=sets, images=batch, moved=moved)


def _registered(job: Job, op: Op) -> Iterator[Row | Absent]:
    first = op.example(job.device, small=False)
    moved = op.bytes(first)
    arguments = [first, *(op.example(job.device, small=False) for _ in range(buffer_sets(job.device, moved) - 1))]
    variants: dict[str, Callable[[int], Any]] = {
        OURS: lambda i: op.triton(**arguments[i]),
        EAGER: lambda i: op.reference(**arguments[i]),
    }
    yield from timed(job, op.name, variants, sets=len(arguments), images=0, moved=moved)
