"""White-box attacks beyond FGSM: projected gradient descent with all its settings, and AutoAttack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastreg.errors import InputError
from fastreg.kernels import philox
from fastreg.kernels.attacks import fgsm_step, frozen, input_gradient, start_in_ball

NORMS = ("linf", "l2")
TARGETS = (None, "least_likely")
_SMALL = 1e-12  # the least length of a gradient that is normalized


def pgd_attack(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float = 8 / 255,
    steps: int = 10,
    step_size: float | None = None,
    norm: str = "linf",
    restarts: int = 1,
    target: str | None = None,
    samples: int = 1,
    seed: int = 0,
    indices: Tensor,
    clip: bool = True,
) -> Tensor:
    """Adversarial images by projected gradient descent from random starts in the ball.

    A restart attacks only the images that the model still classifies as their label; the number of these images is read
    from the device.

    Args:
        model: from float32 pixels [B, C, H, W] in [0, 1] to logits [B, K], in the mode under attack.
        images: float32 [B, C, H, W], pixels in [0, 1].
        labels: int64 [B].
        epsilon: radius of the ball, on the 0-1 scale; for "l2" the length of the whole image's perturbation.
        steps: steps of each start, 1 or more.
        step_size: length of a step; None: ``epsilon`` / 4.
        norm: "linf" or "l2".
        restarts: number of random starts, 1 or more.
        target: None raises the loss of the label; "least_likely" lowers the loss of the class of least probability.
        samples: forward passes over which each gradient is averaged, for models with random outputs (expectation over
            transformations).
        seed: key of the random starts.
        indices: int64 [B], positions in the data set, which key the random starts.
        clip: keep pixels in [0, 1].

    Returns:
        float32 [B, C, H, W]: of each image the first start that the model misclassifies, else the first start.

    Raises:
        InputError: an unknown norm or target, or a number out of range.

    Source:
        Madry et al. 2018 (1706.06083); Athalye et al. 2018 (1802.00420) for the average over transformations.
    """
    _check(
        epsilon=epsilon, steps=steps, step_size=step_size, norm=norm, restarts=restarts, target=target, samples=samples
    )
    length = epsilon / 4 if step_size is None else step_size
    images = images.detach()
    result, left = images, torch.arange(len(images), device=images.device)
    with frozen(model):
        aim = labels
        if target is not None:
            with torch.no_grad():
                aim = model(images).argmin(1)
        for restart in range(restarts):
            origin, goal, keys = (images, aim, indices) if restart == 0 else (images[left], aim[left], indices[left])
            x = random_start(origin, epsilon, norm, seed + (restart << 32), keys, clip)
            for _ in range(steps):
                grad = input_gradient(model, x, goal)
                for _ in range(samples - 1):
                    grad += input_gradient(model, x, goal)
                x = _step(x, grad if target is None else -grad, length, norm, origin, epsilon, clip)
            if restart == 0:
                result = x
            if restart == restarts - 1 == 0:
                break
            with torch.no_grad():
                broken = model(x).argmax(1) != labels[left]
            if restart:
                result = result.index_copy(0, left[broken], x[broken])
            left = left[~broken]
            if len(left) == 0:
                break
    return result


def random_start(images: Tensor, epsilon: float, norm: str, seed: int, indices: Tensor, clip: bool) -> Tensor:
    """Uniform in the ball around ``images``: the first start of :func:`pgd_attack`."""
    if norm == "linf":
        return start_in_ball(images, epsilon, seed, indices, clip)
    samples = indices.cpu().numpy()
    size = images[0].numel()
    normal = philox.field(philox.normal, seed, samples, size + size % 2, 0, "attack_direction")[:, :size]
    radius = philox.field(philox.uniform, seed, samples, 1, 0, "attack_radius")[:, 0].astype(np.float64) ** (1 / size)
    length = np.sqrt(np.square(normal, dtype=np.float64).sum(1))
    moved = normal * (epsilon * radius / length).astype(np.float32)[:, None]
    x = images + torch.from_numpy(moved).view(images.shape).to(images.device)
    return x.clamp_(0, 1) if clip else x


def _step(x: Tensor, grad: Tensor, length: float, norm: str, origin: Tensor, epsilon: float, clip: bool) -> Tensor:
    if norm == "linf":
        return fgsm_step(x, grad, length, clip, origin=origin, radius=epsilon)
    x = x + length * grad / _lengths(grad).clamp_min(_SMALL)
    moved = x - origin
    x = origin + moved * (epsilon / _lengths(moved).clamp_min(_SMALL)).clamp_max(1)
    return x.clamp(0, 1) if clip else x


def _lengths(x: Tensor) -> Tensor:
    """float32 [B, 1, 1, 1], L2 norms of the images."""
    return x.flatten(1).norm(dim=1)[:, None, None, None]


def _check(
    *, epsilon: float, steps: int, step_size: float | None, norm: str, restarts: int, target: Any, samples: int
) -> None:
    if norm not in NORMS:
        raise InputError(f"`norm` is {norm!r}: give linf or l2.")
    if target not in TARGETS:
        raise InputError(f"`target` is {target!r}: give least_likely, or None for an untargeted attack.")
    for name, number in (("steps", steps), ("restarts", restarts), ("samples", samples)):
        if number < 1:
            raise InputError(f"`{name}` is {number}: give 1 or more.")
    for name, value in (("epsilon", epsilon), ("step_size", step_size)):
        if value is not None and not value > 0:
            raise InputError(f"`{name}` is {value:g}: give a number above 0.")


class AutoAttack:
    """The standard AutoAttack: APGD-CE, APGD-T, FAB-T and Square in turn, each on the images not yet misclassified.

    The four attacks are those of torchattacks, with the settings of the authors' code, which torchattacks' own
    ``AutoAttack`` does not have: 100 iterations instead of 10, and 9 target classes instead of all.

    Attributes:
        broken: by attack, the number of images that it made the model misclassify, so far.

    Args:
        module: from float32 pixels [B, 3, h, w] in [0, 1] to logits [B, K], with parameters.
        classes: K, 4 or more.
        epsilon: radius of the ball.
        norm: "linf" or "l2".
        seed: of torch's generators, which are restored afterwards.

    Raises:
        InputError: torchattacks is not installed, fewer than 4 classes, or an unknown norm.

    Source:
        Croce and Hein 2020 (2003.01690) and its code; torchattacks 3.5.
    """

    NAMES = ("apgd-ce", "apgd-t", "fab-t", "square")

    def __init__(self, module: nn.Module, classes: int, *, epsilon: float, norm: str = "linf", seed: int = 0) -> None:
        _check(epsilon=epsilon, steps=1, step_size=None, norm=norm, restarts=1, target=None, samples=1)
        if classes < 4:
            raise InputError(
                f"autoattack needs 4 or more classes, but the data has {classes}: its losses compare four."
            )
        torchattacks = need_torchattacks()
        given: dict[str, Any] = {"norm": "Linf" if norm == "linf" else "L2", "eps": epsilon, "seed": seed}
        self.attacks = (
            torchattacks.APGD(module, steps=100, loss="ce", **given),
            torchattacks.APGDT(module, steps=100, n_classes=classes, **given),
            torchattacks.FAB(module, steps=100, n_classes=classes, multi_targeted=True, **given),
            torchattacks.Square(module, n_queries=5000, **given),
        )
        for attack in self.attacks[1:3]:
            attack.n_target_classes = min(9, classes - 1)
        self.module = module
        self.broken = dict.fromkeys(self.NAMES, 0)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images.

        Args:
            images: float32 [B, 3, h, w], pixels in [0, 1].
            labels: int64 [B].

        Returns:
            float32 [B, 3, h, w]; an image that no attack changes the class of is returned unchanged.
        """
        result = images.clone().contiguous()
        with _own_generators(images.device), torch.no_grad():
            left = (self.module(result).argmax(1) == labels).nonzero().flatten()
            for name, attack in zip(self.NAMES, self.attacks):
                if len(left) == 0:
                    break
                attack.device = images.device  # torchattacks asks the first parameter, and a model may have none
                with torch.enable_grad():
                    x = attack(result[left], labels[left]).detach()
                wrong = self.module(x).argmax(1) != labels[left]
                result[left[wrong]] = x[wrong]
                self.broken[name] += int(wrong.sum())
                left = left[~wrong]
        return result


def need_torchattacks() -> Any:
    """The module. Raises InputError with the line that installs it."""
    try:
        import torchattacks
    except ImportError:
        raise InputError(
            "the suite autoattack needs torchattacks: pip install --no-deps torchattacks (its own requirements pin old "
            "releases)."
        ) from None
    return torchattacks


@contextmanager
def _own_generators(device: torch.device) -> Iterator[None]:
    """Torch's generators, restored afterwards: the attacks seed them."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
