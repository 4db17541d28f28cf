"""Cases of ``fastreg.methods``: the draws of each method, and the gradients of methods that replace the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from digests import Case, plain, random_bytes, synthetic_images
from torch import nn

from fastreg import methods
from fastreg.kernels import augment, mixed_cross_entropy

NAMES = [
    "none",
    "mixup",
    "cutmix",
    "cutout",
    "gaussian_noise",
    "shakedrop",
    "adversarial",
    "alp",
    "ood_svhn",
    "ood_gan",
    "no_crop_flip",
    "random_erasing",
    "stochastic_depth",
    "alternating_flip",
    "mixup+cutmix",
    "cutmix+shakedrop",
    "cutout+mixup",
    "mixup+shakedrop",
    "cutout+shakedrop",
    "mixup+random_erasing",
    "mixup+gaussian_noise",
    "mixup+alternating_flip",
    "mixup+cutmix+stochastic_depth",
    "mixup+adversarial",
]
PARAMETERS: list[tuple[str, dict[str, Any]]] = [
    ("mixup", {"alpha": 0.2, "prob": 0.7}),
    ("cutmix", {"alpha": 0.4, "prob": 0.3}),
    ("mixup+cutmix", {"mixup_alpha": 0.3, "cutmix_alpha": 0.8, "switch_prob": 0.3, "prob": 0.9}),
    ("cutout", {"length": 9}),
    ("gaussian_noise", {"sigma": 0.1, "prob": 1.0}),
    ("random_erasing", {"prob": 0.25, "area": (0.1, 0.3)}),
    ("mixup+random_erasing", {"random_erasing_prob": 0.1}),
    ("stochastic_depth", {"rate": 0.3}),
]
REFUSED = ("cutmix+cutout", "mixup+mixup", "adversarial+alp", "shakedrop+stochastic_depth", "alp+cutout", "ls", "no")
CALLS = ((0, 0, None), (7, 2, (48, 40)), (100_000, None, None))  # step, epoch, size
COUNT = 130  # two groups of mixing partners and a rest
STEPS = ("adversarial", "alp", "ood_svhn", "ood_gan", "mixup+adversarial")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cases() -> Iterator[tuple[str, Callable[[Case], None]]]:
    for name in NAMES:
        yield f"draws/{name}", partial(draws, name)
    for number, (name, parameters) in enumerate(PARAMETERS):
        yield f"draws/parameters/{number} {name}", partial(parameterized, name, parameters)
    yield "draws/refused", refused
    for name in NAMES:
        yield f"augment/{name}", partial(augmented, name)
    for name in STEPS:
        yield f"steps/{name}", partial(step, name)


def keys(count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor]:
    """(labels, indices) int64 [count]"""
    values = torch.from_numpy(random_bytes("keys", 4 * count).copy()).view(torch.int32).long()
    return values.abs() % 100, values.abs() % 1_281_167


def draws(name: str, case: Case) -> None:
    for dataset in ("cifar100", "imagenet"):
        for scope in ("batch", "sample"):
            method = methods.create(name, seed=3, dataset=dataset, scope=scope)
            draw(method, f"{dataset} {scope}", case)
    method = methods.create(name)
    own = ("crop", "pixels", "attacks", "optimizer", "name")
    case.portable["about"] = plain({key: getattr(method, key) for key in own} | {"model": dict(method.model)})
    case.portable["has"] = {key: getattr(method, key) is not None for key in ("step", "fields", "prepare", "plain")}


def parameterized(name: str, parameters: dict[str, Any], case: Case) -> None:
    draw(methods.create(name, seed=2**40 + 7, dataset="cifar10", size=(32, 28), **parameters), "sizes", case)


def draw(method: Any, key: str, case: Case) -> None:
    labels, indices = keys()
    found: dict[str, Any] = {}
    for step, epoch, size in CALLS:
        for kind, call in (("draw", method.draw), ("plain", method.plain)):
            if call is not None:
                plan, targets = call(labels, indices, step, epoch=epoch, size=size)
                both = plan._asdict() | {f"targets {name}": value for name, value in targets._asdict().items()}
                found |= {f"{kind} {step} {name}": value for name, value in both.items()}
        if method.fields is not None:
            for layers in (None, 5):
                fields = method.fields(indices, step, layers=layers, epoch=epoch)
                found |= {f"fields {step} {layers} {name}": value for name, value in fields.items()}
    case.add(key, found)


def refused(case: Case) -> None:
    for name in REFUSED:
        try:
            methods.create(name)
        except Exception as error:  # the type is the result
            case.portable[name] = type(error).__name__
        else:
            case.portable[name] = "accepted"


def augmented(name: str, case: Case) -> None:
    """``augment`` under a method's plan: same size, resized to float16, and cropped to bfloat16."""
    count = 6
    images, (labels, indices) = torch.from_numpy(synthetic_images("augment", count, 24, 20)), keys(count)
    crop = torch.tensor(
        [[0.0, 0, 24, 20], [2, 3, 11, 13], [-2, -3, 24, 20], [1.5, 0.25, 20, 16], [0, 0, 5, 5], [4] * 4]
    )
    for key, scope, size, dtype, cropped in (
        ("same size", "batch", (24, 20), torch.float32, None),
        ("resized", "batch", (17, 31), torch.float16, None),
        ("cropped", "sample", (16, 16), torch.bfloat16, crop),
    ):
        method = methods.create(name, seed=5, dataset="cifar10", scope=scope)
        plan, _ = method.draw(labels, indices, 4, epoch=1, size=size)
        how: dict[str, Any] = {"mean": MEAN, "std": STD, "dtype": dtype, "size": size}
        found = augment(images, plan._replace(crop=cropped), **how, seed=5, indices=indices, step=1)
        case.add(key, {"images": found, "strides": torch.tensor(found.stride())})


class Generator(nn.Module):
    latent = 6

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(self.latent, 3 * 8 * 8)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layer(z).tanh().view(-1, 3, 8, 8)


def step(name: str, case: Case) -> None:
    """Loss, gradients and buffers after one training step on float32 pixels."""
    own: dict[str, Any] = {}
    torch.manual_seed(11)
    if name == "ood_svhn":
        own["ood"] = synthetic_images("ood", 5, 32)
    if name == "ood_gan":
        own["ood"] = Generator()
    convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    model = nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 8, 10)).train()
    method = methods.create(name, seed=3, dataset="cifar100", size=16, **own)
    labels, indices = keys(8)
    _, targets = method.draw(labels % 10, indices, 2, epoch=1)
    images = torch.from_numpy(synthetic_images("step", 8, 16)).permute(0, 3, 1, 2).float() / 255
    assert method.step is not None
    loss = partial(mixed_cross_entropy, label_smoothing=0.1)
    value = method.step(model, images, targets, loss, indices=indices, step=2, epoch=1)
    value.backward()
    found = {"loss": value} | {f"gradient {key}": p.grad for key, p in model.named_parameters()}
    case.add("step", found | {f"buffer {key}": buffer for key, buffer in model.named_buffers()})
