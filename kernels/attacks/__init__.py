"""The fast gradient sign step, and the attacks made of it.

    x' = clip(project(x + epsilon * sign(g)), 0, 1)

where project, when asked for, is a clip to [origin - radius, origin + radius].

Sources: FGSM, Goodfellow et al. 2015; PGD, Madry et al. 2018. Pixels are float32 in [0, 1]; normalisation is the
model's first module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.attacks.kernels import start_triton, step_triton
from fastreg.kernels.cross_entropy import mixed_cross_entropy
from fastreg.kernels.dispatch import sent, use_triton
from fastreg.kernels.types import Targets

# The loss is scaled by a power of two, so that float16 activations keep gradients of 2**-34; the sign does not change.
# Larger scales overflow: the logits' gradient is up to the scale itself, and float16 ends at 65504.
_SCALE = 1024.0


def fgsm_step(
    images: Tensor,
    grad: Tensor,
    epsilon: float,
    clip: bool = True,
    *,
    origin: Tensor | None = None,
    radius: float | None = None,
) -> Tensor:
    """One signed step: ``images + epsilon * sign(grad)``, then clipped to [0, 1] unless ``clip`` is False.

    images: float32, pixels in [0, 1], any dense layout, which the result keeps. ``grad``: the same shape, float32,
    float16 or bfloat16; in another layout it is copied first. A NaN gradient gives a NaN pixel. With ``origin`` and
    ``radius``, PGD's projection comes before the clip.

    Raises TypeError for a wrong dtype, ValueError for a wrong shape, device or layout or a negative epsilon.
    """
    _check(images, grad, epsilon, origin, radius)
    run = _step_op if torch.compiler.is_compiling() else _step
    return run(images.detach(), grad.detach(), float(epsilon), clip, origin, radius)


def _step(
    images: Tensor, grad: Tensor, epsilon: float, clip: bool, origin: Tensor | None, radius: float | None
) -> Tensor:
    if not use_triton(images):
        return fgsm_step_plain(images, grad, epsilon, clip, origin, radius)
    grad, origin = _like(grad, images), origin if origin is None else _like(origin, images)
    return step_triton(images, grad, epsilon, clip, origin, radius)


def _like(x: Tensor, images: Tensor) -> Tensor:
    """``x`` in the memory order of ``images``."""
    if x.stride() == images.stride():
        return x
    return torch.empty_like(images, dtype=x.dtype).copy_(x)


# What torch.compile sees; eager calls go past torch.library.
_step_op = torch.library.custom_op("fastreg::fgsm_step", _step, mutates_args=())


@_step_op.register_fake
def _(images, *_):
    return torch.empty_like(images)


def fgsm_step_plain(
    images: Tensor, grad: Tensor, epsilon: float, clip: bool, origin: Tensor | None, radius: float | None
) -> Tensor:
    """The reference, after the arguments are checked."""
    out = torch.where(grad.isnan(), grad, grad.sign()).float().mul_(epsilon)
    out = torch.add(images, out, out=torch.empty_like(images))
    if origin is not None and radius is not None:
        out.clamp_(origin - radius, origin + radius)
    return out.clamp_(0, 1) if clip else out


def fgsm_attack(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor | Targets,
    epsilon: float = 8 / 255,
    steps: int = 1,
    step_size: float | None = None,
    random_start: bool = False,
    seed: int = 0,
    indices: Tensor | None = None,
    clip: bool = True,
) -> Tensor:
    """Adversarial images, float32, of the same shape and layout: FGSM, or PGD with ``steps`` above 1.

    ``model`` takes float32 pixels in [0, 1]; put it in the mode it is to be attacked in (for evaluation: ``eval()``).
    Its parameters need no gradient and get none. labels: int64 [B], or pairs. ``step_size``: epsilon for one step, else
    2.5 * epsilon / steps (Madry et al.'s rule). ``random_start`` begins uniformly in the epsilon ball, keyed by
    ``seed`` and ``indices`` (int64 [B]), so it does not depend on the batch.
    """
    if steps < 1:
        raise ValueError(f"fgsm_attack needs at least one step, got {steps}")
    if step_size is None:
        step_size = epsilon if steps == 1 else 2.5 * epsilon / steps
    images = images.detach()
    adversarial = images
    if random_start:
        if indices is None:
            raise ValueError("random_start draws per sample: give indices")
        adversarial = start_in_ball(images, epsilon, seed, indices, clip)
    project = steps > 1 or random_start or step_size > epsilon
    with _frozen(model):
        for _ in range(steps):
            grad = input_gradient(model, adversarial, labels)
            origin, radius = (images, epsilon) if project else (None, None)
            adversarial = fgsm_step(adversarial, grad, step_size, clip, origin=origin, radius=radius)
    return adversarial


def input_gradient(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor | Targets) -> Tensor:
    """The gradient of each sample's own cross-entropy (plain, no smoothing) by its pixels, times a power of two."""
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        loss = mixed_cross_entropy(model(pixels), labels, reduction="sum") * _SCALE
        return torch.autograd.grad(loss, pixels)[0]


def zero_sign_share(grad: Tensor) -> Tensor:
    """The share of a gradient's entries with no sign, a float32 scalar on its device (reading it synchronises).

    Half precision flushes small gradients to zero: compare this share with float32's before trusting an attack.
    """
    return (grad == 0).float().mean()


def start_in_ball(images: Tensor, epsilon: float, seed: int, indices: Tensor, clip: bool = True) -> Tensor:
    """``images`` moved uniformly inside the epsilon ball: each pixel's move belongs to its sample, not to the batch."""
    if use_triton(images):
        return start_triton(images, epsilon, seed, sent(indices, images.device, "indices"), clip)
    return start_in_ball_plain(images, epsilon, seed, indices, clip)


def start_in_ball_plain(images: Tensor, epsilon: float, seed: int, indices: Tensor, clip: bool) -> Tensor:
    """The reference of ``start_in_ball``."""
    B, C, H, W = images.shape
    drawn = philox.field(philox.uniform, seed, indices.cpu().numpy(), H * W * C, 0, "attack_start")
    offset = (2 * drawn - 1).reshape(B, H, W, C) * np.float32(epsilon)
    start = torch.empty_like(images).copy_(images + torch.from_numpy(offset).to(images.device).permute(0, 3, 1, 2))
    return start.clamp(0, 1) if clip else start


@contextmanager
def _frozen(model) -> Iterator[None]:
    """Parameters without gradients while attacking: nothing is stored for them, nothing is added to them."""
    live = [p for p in model.parameters() if p.requires_grad] if isinstance(model, torch.nn.Module) else []
    for p in live:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in live:
            p.requires_grad_(True)


def _check(images, grad, epsilon, origin, radius) -> None:
    if images.dtype != torch.float32:
        raise TypeError(f"fgsm_step needs float32 pixels in [0, 1], got {images.dtype}")
    if grad.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"fgsm_step needs a float gradient, got {grad.dtype}")
    for name, other in (("grad", grad), ("origin", origin)):
        if other is not None and (other.shape != images.shape or other.device != images.device):
            raise ValueError(
                f"{name} {tuple(other.shape)} on {other.device} does not match images {tuple(images.shape)} "
                f"on {images.device}"
            )
    if not _dense(images):
        raise ValueError("fgsm_step needs images without gaps or overlaps in memory: call .contiguous() first")
    if epsilon < 0:
        raise ValueError(f"epsilon must not be negative, got {epsilon}")
    if (origin is None) != (radius is None):
        raise ValueError("give origin and radius together")


def _dense(x: Tensor) -> bool:
    """Whether the elements fill one run of memory, in any order of dimensions."""
    expected = 1
    for stride, length in sorted((s, n) for s, n in zip(x.stride(), x.shape) if n > 1):
        if stride != expected:
            return False
        expected *= length
    return True
