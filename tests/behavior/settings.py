"""Cases of recipes, data sets, models, metrics and ``evaluate`` on arrays."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digests import Case, digest, plain, random_bytes, synthetic_images
from pixels import NAMES
from tiny import fastreg, write_cifar, write_folders
from torch import nn

from fastreg import metrics, recipes
from fastreg.evaluation import SUITES, evaluate
from fastreg.models import create_model
from fastreg.pipelines import open_dataset

MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "resnet18 cifar": {"stem": "cifar", "shakedrop": True},
    "resnet50": {"stochastic_depth": 0.1, "blurpool": True, "zero_init_residual": True},
    "pyramidnet110": {"shakedrop": True},
    "cifarnet": {},
}
SUITE_NAMES = [
    "clean",
    "fgsm",
    "pgd",
    "occlusion",
    "imagenet-c",
    "cifar-c",
    "calibration",
    "confidence",
    "ood",
    "paper",
]
OF_ARRAYS = "clean,fgsm,pgd,occlusion,cifar-c,calibration,confidence"


def cases() -> Iterator[tuple[str, Callable[[Case], None]]]:
    yield "recipes/names", recipe_names
    yield "recipes/resolved", resolved
    yield "datasets", datasets
    for name in MODELS:
        yield f"models/{name}", partial(model, name)
    yield "metrics", measured
    for mean in ("data", None):
        yield f"evaluate/mean {mean}", partial(evaluated, mean)


def recipe_names(case: Case) -> None:
    for table in ("PAPER", "FAST"):
        case.portable[table] = dict.fromkeys(getattr(recipes, table), True)
    for dataset in ("imagenet", "cifar100", "cifar10"):
        for gpu in (False, True):
            case.portable[f"auto {dataset} {gpu}"] = plain(recipes.resolve("auto", dataset, gpu=gpu)[0])


def resolved(case: Case) -> None:
    """All settings of every recipe, as the command line resolves them."""
    case.portable |= json.loads(fastreg("recipes", "--json", cwd=Path.cwd()))


def datasets(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_folders(Path(folder) / "imagenet")
        write_cifar(Path(folder) / "cifar100")
        for name in ("imagenet", "cifar100"):
            for split in ("train", "val", "test"):
                source = open_dataset(name, split, Path(folder) / name)
                case.portable[f"{name} {split}"] = {
                    "n": len(source),
                    "classes": list(source.classes),
                    "labels": source.labels.tolist(),
                    "fingerprint": source.fingerprint,
                    "mean": plain(source.mean),
                    "std": plain(source.std),
                    "sample": source.is_sample,
                    "content": digest([source.read(i) for i in range(len(source))]),
                }


def model(name: str, case: Case) -> None:
    """Names and shapes of a state dict; initial values, logits and gradients from one seed."""
    torch.manual_seed(17)
    net = create_model(name.split()[0], 7, **MODELS[name])
    state = net.state_dict()
    case.portable["state"] = digest([[key, *value.shape] for key, value in state.items()])
    case.local["initial"] = digest(state)
    net.eval()
    images = torch.from_numpy(synthetic_images("model", 2, 32)).permute(0, 3, 1, 2).float() / 255
    logits = net(images)
    logits.logsumexp(1).sum().backward()
    case.local["logits"] = digest(logits)
    case.local["gradients"] = digest({key: p.grad for key, p in net.named_parameters() if p.grad is not None})


def measured(case: Case) -> None:
    """Every figure of ``fastreg.metrics`` on fixed inputs."""
    count, classes = 200, 9
    values = random_bytes("metrics", count * classes).reshape(count, classes).astype(np.float64) / 32
    probabilities = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    labels = random_bytes("labels", count).astype(np.int64) % classes
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    inside, outside = confidence[:120], confidence[120:] * 0.9
    five = random_bytes("errors", 15 * 5).reshape(15, 5) / 255
    errors = {name: row.tolist() for name, row in zip(NAMES, five)}  # the suite's 15 come first
    calls: dict[str, tuple[Any, ...]] = {
        "top1_error": (values, labels),
        "top5_error": (values, labels),
        "expected_calibration_error": (confidence, correct),
        "reliability_bins": (confidence, correct),
        "brier_score": (probabilities, labels),
        "negative_log_likelihood": (probabilities, labels),
        "average_confidence": (confidence,),
        "corruption_errors": (errors,),
        "mean_corruption_error": (errors,),
        "relative_mean_corruption_error": (errors, 0.3),
        "category_corruption_errors": (errors,),
        "category_errors": (errors,),
        "mean_error": (errors,),
        "missing_corruptions": (list(errors)[3:],),
        "detection_error": (inside, outside),
        "auroc": (inside, outside),
        "fpr95": (inside, outside),
        "aupr": (inside, outside),
    }
    for name, arguments in calls.items():
        case.local[name] = plain(getattr(metrics, name)(*arguments))
    for bins in (1, 7, 30):
        case.local[f"expected_calibration_error {bins}"] = metrics.expected_calibration_error(confidence, correct, bins)


def evaluated(mean: str | None, case: Case) -> None:
    torch.manual_seed(23)
    first, second = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 6))
    images, labels = synthetic_images("evaluate", 24, 32), torch.arange(24) % 6
    how: dict[str, Any] = {"corruptions": "fog,pixelate,gaussian_noise,glass_blur", "severities": (1, 4)}
    how |= {"mean": mean, "std": mean, "batch_size": 10, "seed": 4, "device": "cpu"}
    card = evaluate(net.eval(), OF_ARRAYS, (torch.from_numpy(images), labels), **how)
    scorecard(card.to_dict(), case)
    case.portable["suites"] = dict.fromkeys((name for name in SUITE_NAMES if name in SUITES), True)
    case.portable["parameters"] = dict.fromkeys(inspect.signature(evaluate).parameters, True)


def scorecard(content: dict[str, Any], case: Case, key: str = "") -> None:
    """A scorecard without prose, dates, durations, versions and paths."""
    head = f"{key} " if key else ""
    own = {name: value for name, value in content["model"].items() if name not in ("digest", "name")}
    case.portable[f"{head}format"] = content["format"]
    case.portable[f"{head}about"] = {"model": own, "data": content["data"], "settings": content["settings"]}
    case.local[f"{head}digest"] = content["model"]["digest"]
    case.local[f"{head}summary"] = content["summary"]
    for suite, found in content["suites"].items():
        settings = {name: value for name, value in found["settings"].items() if name != "folder"}
        case.portable[f"{head}{suite}"] = {"settings": settings, "wanted": found["wanted"]}
        case.local[f"{head}{suite}"] = {
            condition: {name: _short(value) for name, value in row.items() if name != "seconds"}
            for condition, row in found["results"].items()
        }


def _short(value: Any) -> Any:
    return digest(value) if isinstance(value, list | dict) else value
