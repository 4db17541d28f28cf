"""Cases of ``fastreg.kernels``: corruptions, their random fields, JPEG, the loss and the attack step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from digests import Case, digest, random_bytes, synthetic_images

from fastreg.kernels import (
    CORRUPTION_CATEGORIES,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    Targets,
    corrupt,
    draw_fields,
    fgsm_step,
    jpeg_round_trip,
    mixed_cross_entropy,
)

NAMES = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
]
# constants, side, images, severities, severities with JPEG
SETS = (
    ("cifar32", 32, 4, (1, 2, 3, 4, 5), (1, 2, 3, 4, 5)),
    ("tiny64", 64, 2, (1, 2, 3, 4, 5), (1, 2, 3, 4, 5)),
    ("imagenet224", 224, 1, (1, 2, 3, 4, 5), (1, 3, 5)),
    ("imagenet299", 64, 1, (1, 5), ()),
)
SEED = 2**35 + 1
# OpenCV's filter rounds by instruction set: at 224 px some levels of severity 4 differ between SSE4 and AVX-512
OF_A_CPU = ("defocus_blur",)


class Skip(Exception):
    """A case that cannot run here, and the reason."""


def cases() -> Iterator[tuple[str, Callable[[Case], None]]]:
    yield "corrupt/names", names
    for constants, *how in SETS:
        for name in NAMES:
            yield f"corrupt/{constants}/{name}", partial(corrupted, name, constants, *how)
    for name in NAMES:
        yield f"fields/{name}", partial(fields, name)
    yield "jpeg_round_trip", jpeg
    yield "loss", loss
    yield "fgsm_step", attack


@cache
def frost() -> list[Any]:
    from fastreg.pipelines import load_frost

    try:
        return load_frost()
    except Exception as error:
        raise Skip(f"no frost images ({error})") from None


def own_arguments(name: str) -> dict[str, Any]:
    return {"textures": frost()} if name == "frost" else {}


def names(case: Case) -> None:
    case.portable["suite"], case.portable["extra"] = list(CORRUPTIONS), list(EXTRA_CORRUPTIONS)
    case.portable["categories"] = {key: list(value) for key, value in dict(CORRUPTION_CATEGORIES).items()}


def corrupted(
    name: str, constants: str, side: int, count: int, plain: tuple[int, ...], with_jpeg: tuple[int, ...], case: Case
) -> None:
    images = torch.from_numpy(synthetic_images(constants, count, side))
    indices = torch.tensor([3, 49_999, 0, 1_281_166])[:count]
    how: dict[str, Any] = {"seed": SEED, "indices": indices, "constants": constants, **own_arguments(name)}
    for jpeg, severities in ((False, plain), (True, with_jpeg)):
        for severity in severities:
            found = corrupt(images, name, severity, jpeg=jpeg, **how)
            table = case.local if name in OF_A_CPU else case.portable
            table[f"{severity}{' jpeg' if jpeg else ''}"] = digest(found)


def fields(name: str, case: Case) -> None:
    """The random fields at 32 px, and the result of ``corrupt`` with these fields."""
    images, indices = torch.from_numpy(synthetic_images("fields", 2, 32)), torch.tensor([7, 2**33])
    for severity in (1, 2, 3, 4, 5):
        own = own_arguments(name) | {"images": images}
        drawn = draw_fields(name, severity, seed=SEED, indices=indices, size=32, **own)
        case.add(f"{severity}", drawn)
        case.portable[f"{severity} about"] = {
            key: [str(value.dtype), *value.shape] for key, value in sorted(drawn.items())
        }
        table = case.local if name in OF_A_CPU else case.portable
        table[f"{severity} given"] = digest(corrupt(images, name, severity, fields=drawn))


def jpeg(case: Case) -> None:
    for height, width in ((32, 32), (33, 47)):
        images = torch.from_numpy(synthetic_images("jpeg", 2, height, width))
        for quality in (1, 25, 85, 100):
            case.add(f"{height}x{width} {quality}", {"images": jpeg_round_trip(images, quality)})


def loss(case: Case) -> None:
    """Value and gradient for each dtype, reduction, smoothing and kind of target."""
    count, classes = 9, 33
    values = torch.from_numpy(random_bytes("logits", count * classes).copy()).float().view(count, classes)
    a, b = torch.arange(count) * 5 % classes, torch.arange(count) * 11 % classes
    ignored = a.clone()
    ignored[::4] = -100
    lam = torch.linspace(0, 1, count)
    targets = {"hard": a, "ignored": ignored, "pairs": Targets(a, b, lam), "pairs ignored": Targets(a, ignored, lam)}
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for kind, target in targets.items():
            found = {}
            for smoothing in (0.0, 0.1, 1.0):
                for reduction in ("none", "sum", "mean"):
                    logits = (values / 16 - 8).to(dtype).requires_grad_()
                    result = mixed_cross_entropy(logits, target, smoothing, reduction)
                    (result * torch.arange(1, result.numel() + 1).view(result.shape)).sum().backward()
                    found |= {f"{smoothing} {reduction}": result, f"{smoothing} {reduction} gradient": logits.grad}
            case.add(f"{str(dtype).removeprefix('torch.')} {kind}", found)


def attack(case: Case) -> None:
    images = torch.from_numpy(synthetic_images("attack", 2, 16)).permute(0, 3, 1, 2).float() / 255
    gradient = torch.from_numpy(random_bytes("gradient", images.numel()).copy()).float().view(images.shape) - 128
    for epsilon in (0.0, 2 / 255, 8 / 255, 1.0):
        case.local[f"{epsilon}"] = digest(fgsm_step(images, gradient, epsilon))
        case.local[f"{epsilon} contiguous"] = digest(fgsm_step(images.contiguous(), gradient, epsilon))
