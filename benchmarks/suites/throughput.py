"""Images per second of the whole training step: on batches that are ready on the device, and fed by each loader.

The step is the training loop's own (:class:`fastreg.training.train_step.TrainStep`): plan, augment, forward, loss,
backward, update. A bare loop of the same model on floats that are ready on the device shows the cost of all else. The
loops of timm and torchvision, if they are installed, take turns with the plain step.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from fastreg.benchmarks.cases import Case, absent, remove_failing, timed_beside
from fastreg.benchmarks.images import image_batch, image_source
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers.training import Build, training_peers
from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.suites import Benchmark
from fastreg.benchmarks.suites.loaders import as_beton
from fastreg.benchmarks.timing import Call, measure, over
from fastreg.distributed import World
from fastreg.environment import bf16_instructions
from fastreg.errors import InputError
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD, Batch
from fastreg.pipelines import make_loader, open_dataset
from fastreg.training import Config, make_config
from fastreg.training.setup import training_switches
from fastreg.training.train_step import TrainStep

BENCHMARK = Benchmark(
    help="the whole training step on batches that are ready, and fed by each loader, with the share of waiting",
    order=3,
    seconds=115,
    setup=4.0,
    needs=("imagenet",),
)

LOADERS = ("folder", "dali", "ffcv")
# the paper's ImageNet rows first (label smoothing costs nothing), then methods with an attack in their step, then
# automatic augmentation
METHODS = (
    "none", "mixup", "cutmix", "cutout", "shakedrop", "cutmix+shakedrop", "adversarial", "alp", "trivial_augment",
    "rand_augment", "augmix",
)  # fmt: skip
MAIN = ("mixup", "cutmix", "adversarial")
SETS = 4  # ready batches, used in turn
SAMPLE_SECONDS = 0.4  # one sample on a GPU, as consecutive steps, so the host may run ahead
WARM_UP = 3  # steps of a loader that are not counted
PLAIN = f"step none / {OURS}"


def cases(options: BenchmarkOptions, settings: dict[str, Any]) -> Iterator[Case]:
    config = configure(options)
    with training_switches(config, options.device):  # for all variants alike
        yield from _cases(config, options, settings)


def _cases(config: Config, options: BenchmarkOptions, settings: dict[str, Any]) -> Iterator[Case]:
    source, reason = (None, "") if options.scope == "main" else _source(options)
    classes = len(source.classes) if source else 1000
    settings |= {"model": config.model, "size": config.size, "batch_size": config.batch_size}
    settings |= {"images": image_source(options.data_dir), "classes": classes}
    ready = cache(lambda: ready_batches(config, options, classes))
    yield from _ready_cases(config, options, ready, classes)
    if options.scope == "main":
        return
    if source is None:
        for name in LOADERS:
            yield absent(f"step mixup, fed by {name}", OURS, reason)
        return
    settings["data"] = f"{source.name}{' sample' if source.is_sample else ''}, {len(source)} images"
    with tempfile.TemporaryDirectory() as folder:
        for name in LOADERS:
            yield Case(f"step mixup, fed by {name}", partial(_fed_step, config, options, source, Path(folder), name))


def configure(options: BenchmarkOptions, **more: Any) -> Config:
    """The training configuration: ResNet-50, 224 px, batch 256 on a GPU; ResNet-18, 64 px, batch 32 on a CPU.

    Args:
        options: its model, size and batch size come before the defaults of the device.
        more: further settings of :func:`fastreg.training.make_config`, which come before all others.
    """
    model, size, batch = ("resnet50", 224, 256) if options.gpu else ("resnet18", 64, 32)
    chosen = {
        "model": options.model or model,
        "size": options.size or size,
        "batch_size": options.batch_size or batch,
        "lr": 1e-3,
        "torchcompile": "off",
    }
    config, _ = make_config("imagenet", gpu=options.gpu, device=str(options.device), **{**chosen, **more})
    return config


def ready_batches(config: Config, options: BenchmarkOptions, classes: int) -> list[Batch]:
    """``SETS`` batches on the device."""
    n, device = config.batch_size or 0, options.device
    labels = torch.randint(classes, (SETS, n), generator=torch.Generator().manual_seed(0)).to(device)
    return [
        Batch(image_batch(n, config.size, device, i, options.data_dir), labels[i], torch.arange(i * n, (i + 1) * n))
        for i in range(SETS)
    ]


def step_of(config: Config, options: BenchmarkOptions, classes: int) -> Callable[[Batch], None]:
    """One training step of fastreg as a function of its batch."""
    train_step = TrainStep(config, classes, IMAGENET_MEAN, IMAGENET_STD, World(0, 1, options.device))
    train_step.net.train()
    count = 0

    def step(batch: Batch) -> None:
        nonlocal count
        train_step.forward_backward(batch, count, 0, config.size)
        train_step.update(count, 1 << 20)
        count += 1

    return step


def bare_step(config: Config, options: BenchmarkOptions, ready: list[Batch], classes: int) -> Call:
    """The shortest training loop: the same model, precision and optimizer on normalized floats that are ready."""
    train_step = TrainStep(config, classes, (0.0,) * 3, (1.0,) * 3, World(0, 1, options.device))
    net, optimizer, dtype = train_step.net.train(), train_step.optimizer, train_step.dtype
    floats = [((b.images.float() / 255 - 0.45) / 0.225).to(dtype).permute(0, 3, 1, 2) for b in ready]

    def step(i: int) -> None:
        with torch.autocast(options.device.type, dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(net(floats[i]).float(), ready[i].labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _ready_cases(
    config: Config, options: BenchmarkOptions, ready: Callable[[], list[Batch]], classes: int
) -> Iterator[Case]:
    """Each method takes turns with the plain step; the plain step takes turns with the bare loop."""
    n = config.batch_size or 0

    def method(reg: str, **more: Any) -> Call:
        return over(step_of(configure(options, reg=reg, **more), options, classes), ready())

    plain = cache(partial(method, "none"))

    def none() -> Iterator[Row | Absent]:
        variants = {OURS: plain(), "bare loop": bare_step(config, options, ready(), classes)}
        yield from remove_failing("step none", variants)
        for variant, timing in (_measure(options, variants) if variants else {}).items():
            yield Row.of("step none", variant, timing, images=n)

    def beside(name: str, variant: str, build: Callable[[], Call]) -> Iterator[Row | Absent]:
        try:
            call = build()
        except ImportError as error:
            yield Absent(name, variant, str(error))
            return
        yield from _pair(options, name, {variant: call}, (PLAIN, plain()), n)

    def setting(name: str, **more: Any) -> Case:
        return Case(f"step none, {name}", lambda: beside(f"step none, {name}", OURS, partial(method, "none", **more)))

    yield Case("step none", none)
    compiled = setting("compiled", torchcompile="default")
    if options.scope == "main" and options.gpu:
        yield compiled
    methods = MAIN if options.scope == "main" else METHODS[1:2] if options.quick and not options.gpu else METHODS[1:]
    for reg in methods:
        yield Case(f"step {reg}", partial(beside, f"step {reg}", OURS, partial(method, reg)))
    if options.scope == "main":
        return
    if not options.quick:
        yield from _grown(config, options, classes)
    if options.gpu and not options.quick and options.model is None:
        yield Case("step none, pyramidnet200 32 px", partial(_pyramidnet, options))
    for name, peer, build in training_peers():
        yield Case(
            f"{name}, {peer}", partial(beside, name, peer, partial(_peer, build, config, options, ready, classes))
        )
    if not options.quick:
        yield compiled
    if not options.quick and not options.gpu and bf16_instructions():
        yield setting("bf16", precision="bf16")


def _peer(
    build: Build, config: Config, options: BenchmarkOptions, ready: Callable[[], list[Batch]], classes: int
) -> Call:
    return build(config, options, ready(), classes)


def _measure(options: BenchmarkOptions, variants: dict[str, Call]) -> dict[str, Any]:
    seconds = options.seconds(4.0 if options.gpu else 6.0) * len(variants)
    return measure(variants, options.device, sets=SETS, seconds=seconds, eager=variants, sample_seconds=SAMPLE_SECONDS)


def _pair(
    options: BenchmarkOptions, name: str, variants: dict[str, Call], base: tuple[str, Call], n: int
) -> Iterator[Row | Absent]:
    seconds = 4.0 if options.gpu else 6.0
    yield from timed_beside(
        options, name, variants, base, sets=SETS, images=n, seconds=seconds, sample_seconds=SAMPLE_SECONDS
    )


def _grown(config: Config, options: BenchmarkOptions, classes: int) -> Iterator[Case]:
    """The plain step with a quarter of the batch, and with 5/7 of the side (160 px for 224)."""
    batch, size = max((config.batch_size or 0) // 4, 1), config.size * 5 // 7
    for name, more in ((f"batch {batch}", {"batch_size": batch}), (f"{size} px", {"size": size})):
        other = configure(options, reg="none", **more)
        yield Case(f"step none, {name}", partial(_alone, options, f"step none, {name}", other, classes))


def _pyramidnet(options: BenchmarkOptions) -> Iterator[Row | Absent]:
    """The paper's CIFAR model at its batch of 64, from which SCALING.md computes the cost of those rows."""
    config, _ = make_config(
        "cifar100", gpu=True, model="pyramidnet200", size=32, batch_size=64, device=str(options.device)
    )
    yield from _alone(options, "step none, pyramidnet200 32 px", config, 100)


def _alone(options: BenchmarkOptions, name: str, config: Config, classes: int) -> Iterator[Row | Absent]:
    call = over(step_of(config, options, classes), ready_batches(config, options, classes))
    yield Row.of(name, OURS, _measure(options, {OURS: call})[OURS], images=config.batch_size or 0)


def _source(options: BenchmarkOptions) -> tuple[Any, str]:
    try:
        return open_dataset("imagenet", "train", options.data_dir), ""
    except InputError as error:
        if options.data_dir is not None:
            raise
        return None, str(error)


def _fed_step(
    config: Config, options: BenchmarkOptions, source: Any, folder: Path, name: str
) -> Iterator[Row | Absent]:
    """A step whose batches come from a loader; ``data_wait`` is the share of the time spent waiting for one."""
    case, size, batch = f"step mixup, fed by {name}", config.size, config.batch_size or 0
    if name == "ffcv":
        source, reason = as_beton(source, folder, "JPEG")
        if source is None:
            yield Absent(case, OURS, reason)
            return
    try:
        loader = make_loader(
            source, loader=name, train=True, batch_size=batch, size=size, device=options.device, workers=config.workers
        )
        loader_batches = endless(loader)
        next(loader_batches)
    except InputError as error:
        yield Absent(case, OURS, str(error))
        return
    step = step_of(configure(options, reg="mixup"), options, len(source.classes))
    waits: list[float] = []

    def call(i: int) -> None:
        start = time.perf_counter()
        fed = next(loader_batches)
        waits.append(time.perf_counter() - start)
        step(fed)

    for i in range(WARM_UP):
        call(i)
    waits.clear()
    with loader:
        seconds = options.seconds(16)
        timing = measure({name: call}, options.device, seconds=seconds, eager=(name,), sample_seconds=SAMPLE_SECONDS)[
            name
        ]
        loader_batches.close()
    share = min(1.0, 1e6 * math.fsum(waits) / len(waits) / timing.us)
    yield Row.of(case, OURS, timing, images=batch, more={"data_wait": round(share, 4)})


def endless(loader: Any) -> Generator[Batch]:
    """A loader's batches, epoch after epoch."""
    position = 0
    while True:
        for batch in loader.batches(position):
            yield batch
            position += loader.global_batch
