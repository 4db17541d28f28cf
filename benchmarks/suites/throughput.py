"""Images per second of the whole training step: on images that lie ready, and fed by each loader.

The step is the training loop's own (:class:`fastreg.training.train_step.TrainStep`): plan, augment, forward, loss,
backward, update. A bare loop of the same model on floats that lie ready is the peer that says what the rest costs;
timm's and torchvision's loops stand beside it where they are installed.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from fastreg.benchmarks.cases import working
from fastreg.benchmarks.images import image_batch, photographs
from fastreg.benchmarks.options import Job
from fastreg.benchmarks.peers.training import training_peers
from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.suites.loaders import as_beton
from fastreg.benchmarks.timing import Call, measure, over
from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD, Batch
from fastreg.pipelines import make_loader, open_dataset
from fastreg.training import Config, make_config
from fastreg.training.setup import training_switches
from fastreg.training.train_step import TrainStep

Variants = dict[tuple[str, str], Call]  # by (operation, variant)
LOADERS = ("folder", "dali", "ffcv")
# those of the paper's ImageNet rows first (label smoothing costs nothing), then those with an attack in their step
METHODS = ("none", "mixup", "cutmix", "cutout", "shakedrop", "cutmix+shakedrop", "adversarial", "alp")
SETS = 4  # batches that lie ready, used in turn
SAMPLE_SECONDS = 0.4  # of consecutive steps in one sample on a GPU, so that the host may run ahead
WARM = 3  # steps of a loader that are not counted


def rows(job: Job, settings: dict[str, Any]) -> Iterator[Row | Absent]:
    config = configure(job)
    with training_switches(config):  # for all variants alike
        yield from _rows(config, job, settings)


def _rows(config: Config, job: Job, settings: dict[str, Any]) -> Iterator[Row | Absent]:
    source, why = _source(job)
    classes = len(source.classes) if source else 1000
    settings |= {"model": config.model, "size": config.size, "batch_size": config.batch_size}
    settings |= {"images": photographs(job.data_dir)[1], "classes": classes}
    ready = ready_batches(config, job, classes)
    yield from _ready_steps(config, job, ready, classes)
    if source is None:
        for name in LOADERS:
            yield Absent(f"step mixup, fed by {name}", OURS, why)
        return
    settings["data"] = f"{source.name}{' sample' if source.is_sample else ''}, {len(source)} images"
    with tempfile.TemporaryDirectory() as folder:
        for name in LOADERS:
            stored: Any = source
            if name == "ffcv":
                stored, why = as_beton(source, Path(folder), "JPEG")
            yield _fed_step(config, job, stored, name) if stored else Absent(f"step mixup, fed by {name}", OURS, why)


def configure(job: Job, **more: Any) -> Config:
    """ResNet-50 at 224 px, batch 256 on a GPU; ResNet-18 at 64 px, batch 32 on a CPU; the job's values before those."""
    model, size, batch = ("resnet50", 224, 256) if job.gpu else ("resnet18", 64, 32)
    chosen = {"model": job.model or model, "size": job.size or size, "batch_size": job.batch_size or batch, "lr": 1e-3}
    config, _ = make_config("imagenet", gpu=job.gpu, device=str(job.device), **{**chosen, **more})
    return config


def ready_batches(config: Config, job: Job, classes: int) -> list[Batch]:
    n = config.batch_size or 0
    labels = torch.randint(classes, (SETS, n), generator=torch.Generator().manual_seed(0)).to(job.device)
    return [
        Batch(image_batch(n, config.size, job.device, i, job.data_dir), labels[i], torch.arange(i * n, (i + 1) * n))
        for i in range(SETS)
    ]


def step_of(config: Config, job: Job, classes: int) -> Callable[[Batch], None]:
    """One training step of fastreg as a function of its batch."""
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    engine = TrainStep(config, classes, mean, std, World(0, 1, job.device))
    engine.net.train()
    count = 0

    def step(batch: Batch) -> None:
        nonlocal count
        engine.forward_backward(batch, count, 0, config.size)
        engine.update(count, 1 << 20)
        count += 1

    return step


def bare_step(config: Config, job: Job, ready: list[Batch], classes: int) -> Callable[[int], None]:
    """A loop as short as it gets: the same model, precision and optimiser on normalised floats that lie ready."""
    engine = TrainStep(config, classes, (0.0,) * 3, (1.0,) * 3, World(0, 1, job.device))
    net, optimizer, dtype = engine.net.train(), engine.optimizer, engine.dtype
    floats = [((b.images.float() / 255 - 0.45) / 0.225).to(dtype).permute(0, 3, 1, 2) for b in ready]

    def step(i: int) -> None:
        with torch.autocast(job.device.type, dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(net(floats[i]).float(), ready[i].labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _ready_steps(config: Config, job: Job, ready: list[Batch], classes: int) -> Iterator[Row | Absent]:
    variants: Variants = {}
    for reg in METHODS[:2] if job.quick and not job.gpu else METHODS:
        variants["step " + reg, OURS] = over(step_of(configure(job, reg=reg), job, classes), ready)
    variants["step none", "bare loop"] = bare_step(config, job, ready, classes)
    yield from together(job, variants, config.batch_size or 0)
    if not job.quick:
        yield from _grown(config, job, classes)
    if job.gpu and not job.quick and job.model is None:
        yield from _pyramidnet(job)
    peers: Variants = {}
    for name, peer, build in training_peers():
        try:
            peers[name, peer] = build(config, job, ready, classes)
        except ImportError as error:
            yield Absent(name, peer, str(error))
    if job.gpu and not job.quick:
        compiled = configure(job, reg="none", torchcompile="default")
        peers["step none, compiled", OURS] = over(step_of(compiled, job, classes), ready)
    yield from together(job, peers, config.batch_size or 0)


def together(job: Job, variants: Variants, batch: int) -> Iterator[Row | Absent]:
    """Time whole steps interleaved, 3 to 4 seconds for each."""
    keyed = {f"{name}|{variant}": call for (name, variant), call in variants.items()}
    for absent in working("", keyed):
        name, variant = absent.variant.split("|")
        yield Absent(name, variant, absent.reason)
    if not keyed:
        return
    seconds = job.seconds(4.0 if job.gpu else 6.0) * len(keyed)
    timings = measure(keyed, job.device, sets=SETS, seconds=seconds, eager=keyed, sample_seconds=SAMPLE_SECONDS)
    for name, variant in grouped([key for key in variants if "|".join(key) in timings]):
        yield Row.of(name, variant, timings[f"{name}|{variant}"], images=batch)


def _grown(config: Config, job: Job, classes: int) -> Iterator[Row | Absent]:
    """The plain step with a quarter of the batch, and with 5/7 of the side (160 px for 224)."""
    batch, size = (config.batch_size or 0) // 4, config.size * 5 // 7
    for name, more in ((f"batch {batch}", {"batch_size": batch}), (f"{size} px", {"size": size})):
        other = configure(job, reg="none", **more)
        ready = ready_batches(other, job, classes)
        steps: Variants = {(f"step none, {name}", OURS): over(step_of(other, job, classes), ready)}
        yield from together(job, steps, other.batch_size or 0)


def _pyramidnet(job: Job) -> Iterator[Row]:
    """The paper's CIFAR model at its batch of 64: what the cost of those rows is computed from."""
    config, _ = make_config("cifar100", gpu=True, model="pyramidnet200", size=32, batch_size=64, device=str(job.device))
    ready = ready_batches(config, job, 100)
    call = over(step_of(config, job, 100), ready)
    timing = measure({OURS: call}, job.device, sets=SETS, seconds=5, eager=(OURS,), sample_seconds=SAMPLE_SECONDS)[OURS]
    yield Row.of("step none, pyramidnet200 32 px", OURS, timing, images=64)


def grouped(keys: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """(operation, variant) pairs with those of one operation together, in order of first appearance."""
    names = list(dict.fromkeys(name for name, _ in keys))
    return sorted(keys, key=lambda key: names.index(key[0]))


def _source(job: Job) -> tuple[Any, str]:
    try:
        return open_dataset("imagenet", "train", job.data_dir), ""
    except InputError as error:
        if job.data_dir is not None:
            raise
        return None, str(error)


def _fed_step(config: Config, job: Job, source: Any, name: str) -> Row | Absent:
    """A step whose batches come from a loader; ``data_wait`` is the share of the time spent waiting for one."""
    size, batch = config.size, config.batch_size or 0
    try:
        loader = make_loader(
            source, loader=name, train=True, batch_size=batch, size=size, device=job.device, workers=config.workers
        )
        loader_batches = endless(loader)
        next(loader_batches)
    except InputError as error:
        return Absent(f"step mixup, fed by {name}", OURS, str(error))
    step = step_of(configure(job, reg="mixup"), job, len(source.classes))
    waits: list[float] = []

    def call(i: int) -> None:
        start = time.perf_counter()
        fed = next(loader_batches)
        waits.append(time.perf_counter() - start)
        step(fed)

    for i in range(WARM):
        call(i)
    waits.clear()
    with loader:
        seconds = job.seconds(16)
        timing = measure({name: call}, job.device, seconds=seconds, eager=(name,), sample_seconds=SAMPLE_SECONDS)[name]
        loader_batches.close()
    share = min(1.0, 1e6 * math.fsum(waits) / len(waits) / timing.us)
    more = {"data_wait": round(share, 4)}
    return Row.of(f"step mixup, fed by {name}", OURS, timing, images=batch, more=more)


def endless(loader: Any) -> Generator[Batch]:
    """A loader's batches, epoch after epoch."""
    position = 0
    while True:
        for batch in loader.batches(position):
            yield batch
            position += loader.global_batch
