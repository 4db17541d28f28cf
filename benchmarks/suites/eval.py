"""Images per second of evaluation; of sequences, frames per second.

Conditions are compared with the bare model on floats that are ready, attacks with torchattacks, conditions from files
with RobustBench's loop, and metrics with torchmetrics.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fastreg.benchmarks import timing as clock
from fastreg.benchmarks.cases import Case, remove_failing, timed_beside
from fastreg.benchmarks.images import frost_textures, image_batch, image_source
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers.evaluation import EPSILON, SCALED, attacks, metric_cases, robustbench_folder
from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.suites import Benchmark
from fastreg.benchmarks.suites.throughput import configure
from fastreg.benchmarks.timing import Call, Timing, measure, over
from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.evaluation import attack_suites, conditions, perturbed_files, published_sets
from fastreg.evaluation.attacks import AutoAttack
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.feature_scores import FitData, knn
from fastreg.evaluation.features import FeatureModel, odin
from fastreg.evaluation.pixel_cache import Pixels
from fastreg.evaluation.sequences import SequenceLogits
from fastreg.kernels import CORRUPTIONS, PERTURBATIONS, perturb, perturbation_frames
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD
from fastreg.metrics import Tally
from fastreg.models import create_model

BENCHMARK = Benchmark(help="each kind of evaluation condition; the metrics", order=6, seconds=25, setup=1.0)

FILES = 128  # images in one pass over a folder
SETS = 4
ROBUST = 8  # images of AutoAttack
POINT = 1e-9  # epsilon that changes no pixel
SECONDS_OF_AUTOATTACK = 100  # for the plan of a dry run
CLASSES = 1000
KNOWN = 50_000  # training features: the default of ood-features
SCORES = 50_000  # confidences in one call of a metric: ImageNet's validation set
# samples in one call of the other metrics; the halves of CIFAR-100's test set are scaled
SCORED = {"tally": 256, "fit_temperature": SCALED, "fit_vector_scaling": SCALED}
CONSTANTS = {224: "imagenet224", 299: "imagenet299", 64: "tiny64", 32: "cifar32"}
SEQUENCE_CONSTANTS = {224: "imagenet224", 64: "tiny64", 32: "cifar32"}
QUICK = ("gaussian_noise", "motion_blur", "fog", "pixelate")
MAIN = ("gaussian_noise", "motion_blur", "fog")
QUICK_SEQUENCES = ("gaussian_noise", "rotate")
BARE = "evaluate clean / bare loop"


class Ready(NamedTuple):
    """A model and ``SETS`` batches on the device."""

    classifier: Classifier
    batches: list[Pixels]
    bare: Call  # the bare model on floats


class Features:
    """A pass that keeps the features; ``nearest``: with their distance to the 50th of ``KNOWN`` training features."""

    def __init__(self, nearest: bool):
        self.nearest = nearest
        self.model: FeatureModel | None = None

    def __call__(self, classifier: Classifier, batch: Pixels) -> torch.Tensor:
        if self.model is None:
            self.model = FeatureModel(classifier, batch.images.shape[1])
            width = self.model(batch)[1].shape[1]
            known = torch.randn(KNOWN, width, generator=torch.Generator().manual_seed(0)).to(classifier.device)
            labels, none = torch.zeros(KNOWN, dtype=torch.int64, device=known.device), known[:0]
            self.score = knn(FitData(known, labels, none, none[:, 0]))
        features = self.model(batch)[1]
        return self.score(features) if self.nearest else features


def cases(options: BenchmarkOptions, settings: dict[str, Any]) -> Iterator[Case]:
    config = configure(options)
    batch, size = config.batch_size or 0, config.size
    precision = "bf16" if options.gpu else "fp32"
    settings |= {"model": config.model, "size": size, "batch_size": batch, "precision": precision}
    settings["images"] = image_source(options.data_dir)
    ready = cache(partial(_ready, options, config.model, size, batch, precision))
    for name in _conditions(options):
        yield Case(f"evaluate {name}", partial(_condition, options, name, ready, size, batch))
    if options.scope == "main":
        return
    if not options.quick:
        yield Case("evaluate autoattack", partial(_autoattack, options, ready))
    for name in QUICK_SEQUENCES if options.quick else PERTURBATIONS:
        yield Case(f"evaluate sequences, {name}", partial(_sequences, options, name, ready, size, batch))
    yield from _metrics(options)
    yield Case("read imagenet-c", partial(_files, options, ready, size, batch))


def _ready(options: BenchmarkOptions, name: str, size: int, batch: int, precision: str) -> Ready:
    model = create_model(name, CLASSES).eval()
    device = options.device
    classifier = Classifier(
        model, mean=IMAGENET_MEAN, std=IMAGENET_STD, device=device, precision=precision, batch_size=batch
    )
    labels = torch.randint(CLASSES, (batch,), generator=torch.Generator().manual_seed(0)).to(device)
    batches = [
        Pixels(image_batch(batch, size, device, i, options.data_dir), labels, torch.arange(batch)) for i in range(SETS)
    ]
    floats = [(b.images.float() / 255 - 0.45).permute(0, 3, 1, 2).to(classifier.dtype) for b in batches]

    def bare(i: int) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(device.type, classifier.dtype, enabled=options.gpu):
            return model(floats[i])

    return Ready(classifier, batches, bare)


def _conditions(options: BenchmarkOptions) -> list[str]:
    if options.scope == "main":
        return ["clean", "fgsm", *(f"{name} 3" for name in MAIN)]
    attacks = ["fgsm"] if options.quick else ["fgsm", "pgd"]
    names, jpegs = (QUICK, (" jpeg",)) if options.quick else (CORRUPTIONS, ("", " jpeg"))
    features = ["features"] if options.quick else ["features", "features knn", "odin"]
    return ["clean", "occlusion", *attacks, *features, *(f"{name} 3{jpeg}" for name in names for jpeg in jpegs)]


def _logits(name: str, size: int) -> conditions.Logits:
    if name in ("clean", "occlusion"):
        return getattr(conditions, name)
    if name in ("fgsm", "pgd"):
        return conditions.Attack(epsilon=EPSILON, clip=True, steps=attack_suites.STEPS[name])
    if name == "odin":
        return lambda classifier, batch: odin(classifier, conditions.float_pixels(batch.images))
    if name.startswith("features"):
        return Features(nearest=name.endswith("knn"))
    corruption, severity, *jpeg = name.split()
    textures, _ = frost_textures()
    constants = CONSTANTS.get(size, "imagenet224")
    return conditions.corruption(
        corruption, int(severity), seed=0, constants=constants, jpeg=bool(jpeg), textures=textures
    )


def _condition(
    options: BenchmarkOptions, name: str, ready: Callable[[], Ready], size: int, batch: int
) -> Iterator[Row | Absent]:
    case = f"evaluate {name}"
    classifier, batches, bare = ready()
    variants: dict[str, Call] = {OURS: over(partial(_logits(name, size), classifier), batches)}
    if name in ("fgsm", "pgd") and options.scope != "main":
        try:
            variants["torchattacks"] = attacks(classifier, batches, name)
        except ImportError as error:
            yield Absent(case, "torchattacks", str(error))
    seconds = 1.0 if options.gpu else 3.0
    if name == "clean":  # the bare loop has a row of its own
        variants["bare loop"] = bare
        yield from remove_failing(case, variants)
        timings = measure(
            variants,
            options.device,
            sets=SETS,
            seconds=options.seconds(seconds) * len(variants),
            eager=(OURS,),  # its model is a captured graph already
            sample_seconds=0.1,
        )
        for variant, timing in timings.items():
            yield Row.of(case, variant, timing, images=batch)
        return
    yield from timed_beside(
        options,
        case,
        variants,
        (BARE, bare),
        sets=SETS,
        images=batch,
        seconds=seconds,
        sample_seconds=0.1,
        captured=(BARE,),
    )


def _autoattack(options: BenchmarkOptions, ready: Callable[[], Ready]) -> Iterator[Row | Absent]:
    """The whole standard AutoAttack, once, on images that stay robust: no attack may end early, the ball is a point."""
    if not options.gpu:
        yield Absent("evaluate autoattack", OURS, "it takes minutes for an image on a CPU")
        return
    classifier, batches, _ = ready()
    images = conditions.float_pixels(batches[0].images[:ROBUST])
    try:
        attack = AutoAttack(classifier.module, CLASSES, epsilon=POINT)
    except InputError as error:
        yield Absent("evaluate autoattack", OURS, str(error))
        return
    labels = classifier.pixels(images).argmax(1)
    if clock.stub is not None:
        timing = clock.stub.measure([OURS], SECONDS_OF_AUTOATTACK)[OURS]
    else:
        start = time.perf_counter()
        attack(images, labels)
        torch.cuda.synchronize()
        us = 1e6 * (time.perf_counter() - start)
        timing = Timing(us, us, us, 1, "clock")
    yield Row.of("evaluate autoattack", OURS, timing, images=len(images))


def _sequences(
    options: BenchmarkOptions, name: str, ready: Callable[[], Ready], size: int, batch: int
) -> Iterator[Row | Absent]:
    """As many sequences of ImageNet-P as fill a batch of the model, from images without surroundings."""
    case, constants = f"evaluate sequences, {name}", SEQUENCE_CONSTANTS.get(size, "imagenet224")
    classifier, batches, bare = ready()
    frames = perturbation_frames(name, constants)

    def make(part: Pixels) -> torch.Tensor:
        return perturb(part.images, name, indices=part.indices, constants=constants)

    logits = SequenceLogits(make, frames, perturbed_files.reference(name))
    count = max(1, batch // frames)
    few = [Pixels(*(values[:count] for values in whole)) for whole in batches]
    yield from timed_beside(
        options,
        case,
        {OURS: over(partial(logits, classifier), few)},
        (BARE, bare),
        sets=SETS,
        images=count * frames,
        seconds=1.0 if options.gpu else 3.0,
        sample_seconds=0.1,
        captured=(BARE,),
    )


def _files(options: BenchmarkOptions, ready: Callable[[], Ready], size: int, batch: int) -> Iterator[Row | Absent]:
    """A condition of ImageNet-C read from its files, beside RobustBench's loop; one call is one pass over them."""
    from PIL import Image

    name = "read imagenet-c"
    classifier = ready().classifier
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "brightness" / "3"
        pixels = image_batch(FILES, size, torch.device("cpu"), 9, options.data_dir).numpy()
        for i, image in enumerate(pixels):
            (stored / f"class{i % 4}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(stored / f"class{i % 4}" / f"{i:05}.JPEG", quality=85)
        eval_data = EvalData(stored, size)
        world, config = World(0, 1, options.device), EvalConfig(batch_size=batch)
        step = published_sets.imagenet_c(Path(folder), eval_data, [("brightness", 3)])[1]["brightness/3"]

        def ours(i: int) -> float:
            tally = Tally(options.device)
            for read in step.batches(world, config) if step.batches else ():
                tally.update(step.logits(classifier, read), read.labels)
            return tally.result()["error"]

        variants: dict[str, Call] = {OURS: ours}
        try:
            variants["RobustBench loop"] = robustbench_folder(classifier, stored, FILES)
        except ImportError as error:
            yield Absent(name, "RobustBench loop", str(error))
        yield from remove_failing(name, variants)
        timings = measure(variants, options.device, seconds=options.seconds(8), eager=variants, sample_seconds=0.1)
        for variant, timing in timings.items():
            yield Row.of(name, variant, timing, images=FILES)


def _metrics(options: BenchmarkOptions) -> Iterator[Case]:
    metrics, reason = metric_cases(options.device, SCORES)
    if reason:
        yield Case("metrics", lambda: [Absent("metrics", "torchmetrics", reason)])

    def rows(name: str, variants: dict[str, Call]) -> Iterator[Row | Absent]:
        timings = measure(variants, options.device, seconds=options.seconds(2), eager=variants)
        for variant, timing in timings.items():
            yield Row.of(f"metric {name}", variant, timing, images=SCORED.get(name, SCORES))

    for name, variants in metrics.items():
        yield Case(f"metric {name}", partial(rows, name, variants))
