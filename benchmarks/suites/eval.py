"""Images per second of evaluation: condition by condition beside the bare model on floats that lie ready, from files
beside RobustBench's loop, attacks beside torchattacks, metrics beside torchmetrics.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fastreg.benchmarks.cases import working
from fastreg.benchmarks.images import frost_textures, image_batch, photographs
from fastreg.benchmarks.options import Job
from fastreg.benchmarks.peers.evaluation import EPSILON, attacks, metric_cases, robustbench_folder
from fastreg.benchmarks.peers.training import IMAGENET_MEAN, IMAGENET_STD
from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.suites.throughput import configure, grouped
from fastreg.benchmarks.timing import measure, over
from fastreg.distributed import World
from fastreg.evaluation import conditions
from fastreg.evaluation import published_sets as official
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.pixel_cache import Pixels
from fastreg.kernels import CORRUPTIONS
from fastreg.metrics import Tally
from fastreg.models import create_model

FILES = 128  # images in one pass over a folder
SETS = 4
SCORES = 50_000  # confidences in one call of a metric: ImageNet's validation set
CONSTANTS = {224: "imagenet224", 299: "imagenet299", 64: "tiny64", 32: "cifar32"}


def rows(job: Job, settings: dict[str, Any]) -> Iterator[Row | Absent]:
    config = configure(job)
    batch, size = config.batch_size or 0, config.size
    precision = "bf16" if job.gpu else "fp32"
    settings |= {"model": config.model, "size": size, "batch_size": batch, "precision": precision}
    settings["images"] = photographs(job.data_dir)[1]
    model = create_model(config.model, 1000).eval()
    given: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "device": job.device, "precision": precision}
    classifier = Classifier(model, **given, batch_size=batch)
    labels = torch.randint(1000, (batch,), generator=torch.Generator().manual_seed(0)).to(job.device)
    ready = [
        Pixels(image_batch(batch, size, job.device, i, job.data_dir), labels, torch.arange(batch)) for i in range(SETS)
    ]
    floats = [(b.images.float() / 255 - 0.45).permute(0, 3, 1, 2).to(classifier.dtype) for b in ready]

    def bare(i: int) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(job.device.type, classifier.dtype, enabled=job.gpu):
            return model(floats[i])

    variants: dict[tuple[str, str], Callable[[int], Any]] = {("evaluate clean", "bare loop"): bare}
    for name, logits in _conditions(job, size).items():
        variants[f"evaluate {name}", OURS] = over(partial(logits, classifier), ready)
    try:
        for name, attack in attacks(classifier, ready, pgd=not job.quick).items():
            variants[f"evaluate {name}", "torchattacks"] = attack
    except ImportError as error:
        yield Absent("evaluate fgsm, pgd", "torchattacks", str(error))
    seconds = job.seconds(1.0 if job.gpu else 3.0) * len(variants)
    keyed = {"|".join(key): call for key, call in variants.items()}
    eager = keyed.keys() - {"evaluate clean|bare loop"}  # fastreg's model is one captured graph, and so is the peer's
    timings = measure(keyed, job.device, sets=SETS, seconds=seconds, eager=eager, sample_seconds=0.1)
    for name, variant in grouped(variants):
        yield Row.of(name, variant, timings[f"{name}|{variant}"], images=batch)
    yield from _metrics(job)
    yield from _files(job, classifier, size, batch)


def _conditions(job: Job, size: int) -> dict[str, conditions.Logits]:
    found: dict[str, conditions.Logits] = {"clean": conditions.clean, "occlusion": conditions.occlusion}
    found["fgsm"] = conditions.attack(epsilon=EPSILON, clip=True)
    if not job.quick:
        found["pgd"] = conditions.attack(epsilon=EPSILON, clip=True, steps=conditions.PGD_STEPS)
    textures, _ = frost_textures()
    names = ("gaussian_noise", "motion_blur", "fog", "pixelate") if job.quick else CORRUPTIONS
    for name in names:
        constants = CONSTANTS.get(size, "imagenet224")
        for jpeg in (False, True) if not job.quick else (True,):
            case = f"{name} 3{' jpeg' if jpeg else ''}"
            found[case] = conditions.corruption(name, 3, seed=0, constants=constants, jpeg=jpeg, textures=textures)
    return found


def _files(job: Job, classifier: Classifier, size: int, batch: int) -> Iterator[Row | Absent]:
    """A condition of ImageNet-C read from its files, beside RobustBench's way; one call is one pass over them."""
    name = "read imagenet-c"
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "brightness" / "3"
        pixels = image_batch(FILES, size, torch.device("cpu"), 9, job.data_dir).numpy()
        for i, image in enumerate(pixels):
            (part / f"class{i % 4}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(part / f"class{i % 4}" / f"{i:05}.JPEG", quality=85)
        eval_data = EvalData(part, size)
        world, config = World(0, 1, job.device), EvalConfig(batch_size=batch)
        step = official.imagenet_c(Path(folder), eval_data, [("brightness", 3)])[1]["brightness/3"]

        def ours(i: int) -> float:
            tally = Tally(job.device)
            for read in step.batches(world, config) if step.batches else ():
                tally.update(step.logits(classifier, read), read.labels)
            return tally.result()["error"]

        variants: dict[str, Callable[[int], Any]] = {OURS: ours}
        try:
            variants["RobustBench loop"] = robustbench_folder(classifier, part, FILES)
        except ImportError as error:
            yield Absent(name, "RobustBench loop", str(error))
        yield from working(name, variants)
        timings = measure(variants, job.device, seconds=job.seconds(8), eager=variants, sample_seconds=0.1)
        for variant, timing in timings.items():
            yield Row.of(name, variant, timing, images=FILES)


def _metrics(job: Job) -> Iterator[Row | Absent]:
    cases, why = metric_cases(job.device, SCORES)
    if why:
        yield Absent("metrics", "torchmetrics", why)
    for name, variants in cases.items():
        timings = measure(variants, job.device, seconds=job.seconds(2), eager=variants)
        for variant, timing in timings.items():
            yield Row.of(f"metric {name}", variant, timing, images=256 if name == "tally" else SCORES)
