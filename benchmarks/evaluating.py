"""Images per second of evaluation, condition by condition, beside the bare model on floats that lie ready; and the
metrics beside torchmetrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from fastreg import metrics
from fastreg.benchmarks.images import frost_textures, image_batch, photographs
from fastreg.benchmarks.job import Job
from fastreg.benchmarks.peers import IMAGENET_MEAN, IMAGENET_STD, need
from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.throughput import configure, grouped
from fastreg.benchmarks.timing import measure, over
from fastreg.evaluation import conditions
from fastreg.evaluation.canvas import Pixels
from fastreg.evaluation.classifier import Classifier
from fastreg.kernels import CORRUPTIONS
from fastreg.models import create_model

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
        variants["evaluate fgsm", "torchattacks"] = _torchattacks(classifier, ready)
    except ImportError as error:
        yield Absent("evaluate fgsm", "torchattacks", str(error))
    seconds = job.seconds(1.0 if job.gpu else 3.0) * len(variants)
    keyed = {"|".join(key): call for key, call in variants.items()}
    timings = measure(keyed, job.device, sets=SETS, seconds=seconds, eager=keyed, sample_seconds=0.1)
    for name, variant in grouped(variants):
        yield Row.of(name, variant, timings[f"{name}|{variant}"], images=batch)
    yield from _metrics(job)


def _conditions(job: Job, size: int) -> dict[str, conditions.Logits]:
    found: dict[str, conditions.Logits] = {"clean": conditions.clean, "occlusion": conditions.occlusion}
    found["fgsm"] = conditions.attack(epsilon=8 / 255, clip=True)
    textures, _ = frost_textures()
    names = ("gaussian_noise", "motion_blur", "fog", "pixelate") if job.quick else CORRUPTIONS
    for name in names:
        constants = CONSTANTS.get(size, "imagenet224")
        for jpeg in (False, True) if not job.quick else (True,):
            case = f"{name} 3{' jpeg' if jpeg else ''}"
            found[case] = conditions.corruption(name, 3, seed=0, constants=constants, jpeg=jpeg, textures=textures)
    return found


def _torchattacks(classifier: Classifier, ready: list[Pixels]) -> Callable[[int], Any]:
    """FGSM as torchattacks' README has it, then the model on its images; pixels lie ready as floats in [0, 1]."""
    attack = need("torchattacks").FGSM(classifier.module, eps=8 / 255)
    pixels = [(b.images.float() / 255).permute(0, 3, 1, 2).contiguous() for b in ready]

    def call(i: int) -> torch.Tensor:
        return classifier.pixels(attack(pixels[i], ready[i].labels))

    return call


def _metrics(job: Job) -> Iterator[Row | Absent]:
    generator = torch.Generator().manual_seed(1)
    confidence = torch.rand(SCORES, generator=generator).to(job.device)
    correct = (torch.rand(SCORES, generator=generator).to(job.device) < confidence).to(job.device)
    other = torch.rand(SCORES, generator=generator).to(job.device) ** 2
    both, inside = torch.cat([confidence, other]), torch.arange(2 * SCORES, device=job.device) < SCORES
    cases: dict[str, dict[str, Callable[[int], Any]]] = {
        "expected_calibration_error": {OURS: lambda i: metrics.expected_calibration_error(confidence, correct)},
        "detection_error": {OURS: lambda i: metrics.detection_error(confidence, other)},
        "auroc": {OURS: lambda i: metrics.auroc(confidence, other)},
    }
    try:
        peer = need("torchmetrics.functional.classification")
        cases["expected_calibration_error"]["torchmetrics"] = lambda i: peer.binary_calibration_error(
            confidence, correct.long(), n_bins=20
        )
        cases["auroc"]["torchmetrics"] = lambda i: peer.binary_auroc(both, inside.long())
    except ImportError as error:
        yield Absent("metrics", "torchmetrics", str(error))
    for name, variants in cases.items():
        timings = measure(variants, job.device, seconds=job.seconds(2), eager=variants)
        for variant, timing in timings.items():
            yield Row.of(f"metric {name}", variant, timing, images=SCORES)
