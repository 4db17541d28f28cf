"""The fast gradient sign step, and the attacks made of it.

    x' = clip(project(x + epsilon * sign(g)), 0, 1)

where project is a clip to [origin - radius, origin + radius], or nothing. Pixels are float32 in [0, 1]; normalization
is the model's first module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fastreg.kernels.attacks.kernels import start_triton, step_triton
from fastreg.kernels.attacks.reference import fgsm_step_reference, start_in_ball_reference
from fastreg.kernels.cross_entropy import mixed_cross_entropy
from fastreg.kernels.dispatch import to_device, use_compiled, use_triton
from fastreg.kernels.types import Targets

__all__ = ["fgsm_attack", "fgsm_step", "frozen", "input_gradient", "start_in_ball", "zero_sign_share"]

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
    """One signed step: ``images + epsilon * sign(grad)``, projected where ``origin`` is given, then clipped.

    Args:
        images: float32 [...], pixels in [0, 1], of any dense memory layout.
        grad: float32, float16 or bfloat16 [...], the shape of ``images``. A gradient of another memory layout is
            copied. A NaN gradient makes a NaN pixel.
        epsilon: Length of the step on the 0-1 scale, 0 or more.
        clip: Whether to clip the result to [0, 1].
        origin: float32 [...], center of the projection, the shape of ``images``. None: no projection.
        radius: Half-width of the projection on the 0-1 scale. Given with ``origin``.

    Returns:
        float32 [...], in the layout of ``images``.

    Raises:
        TypeError: ``images`` or ``grad`` has a wrong dtype.
        ValueError: A tensor has another shape or device, ``images`` has gaps in memory, ``epsilon`` is negative, or
            one of ``origin`` and ``radius`` is missing.

    Source:
        FGSM: Goodfellow et al., 2015; projection: Madry et al., 2018.
    """
    _check(images, grad, epsilon, origin, radius)
    run = _step_op if torch.compiler.is_compiling() else _step
    return run(images.detach(), grad.detach(), float(epsilon), clip, origin, radius)


def _step(
    images: Tensor, grad: Tensor, epsilon: float, clip: bool, origin: Tensor | None, radius: float | None
) -> Tensor:
    if use_triton(images):
        run = step_triton
    elif use_compiled(images, grad, origin):
        from fastreg.kernels.attacks.cpu import fgsm_step_cpu as run
    else:
        return fgsm_step_reference(images, grad, epsilon, clip, origin, radius)
    grad, origin = _with_layout(grad, images), origin if origin is None else _with_layout(origin, images)
    return run(images, grad, epsilon, clip, origin, radius)


def _with_layout(x: Tensor, images: Tensor) -> Tensor:
    """``x`` in the memory layout of ``images``."""
    if x.stride() == images.stride():
        return x
    return torch.empty_like(images, dtype=x.dtype).copy_(x)


# The operator that torch.compile sees; eager calls bypass torch.library.
_step_op = torch.library.custom_op("fastreg::fgsm_step", _step, mutates_args=())


@_step_op.register_fake
def _(images: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(images)


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
    """Adversarial images by FGSM, or by PGD where ``steps`` is above 1.

    Args:
        model: Module or function from float32 pixels [B, C, H, W] in [0, 1] to logits [B, classes], already in the mode
            under attack (``eval()`` for evaluation). Its parameters may be frozen and get no gradient.
        images: float32 [B, C, H, W], pixels in [0, 1].
        labels: int64 [B], or ``Targets``.
        epsilon: Radius of the ball around ``images`` on the 0-1 scale.
        steps: Number of steps, 1 or more.
        step_size: Length of a step on the 0-1 scale. None: ``epsilon`` for one step, else 2.5 * epsilon / steps.
        random_start: Whether to begin at a uniform draw in the ball.
        seed: Run seed of the random start.
        indices: int64 [B], positions in the data set, which key the random start per sample.
        clip: Whether to clip pixels to [0, 1].

    Returns:
        float32 [B, C, H, W], in the layout of ``images``.

    Raises:
        TypeError: ``images`` is not float32.
        ValueError: ``steps`` is below 1, ``epsilon`` is negative, or ``random_start`` comes without ``indices``.

    Source:
        FGSM: Goodfellow et al., 2015; PGD and its step size: Madry et al., 2018.
    """
    if steps < 1:
        raise ValueError(f"`steps` is {steps}: give 1 or more.")
    if step_size is None:
        step_size = epsilon if steps == 1 else 2.5 * epsilon / steps
    images = images.detach()
    adversarial = images
    if random_start:
        if indices is None:
            raise ValueError("`random_start` draws per sample: give `indices`, int64 [B].")
        adversarial = start_in_ball(images, epsilon, seed, indices, clip)
    project = steps > 1 or random_start or step_size > epsilon
    with frozen(model):
        for _ in range(steps):
            grad = input_gradient(model, adversarial, labels)
            origin, radius = (images, epsilon) if project else (None, None)
            adversarial = fgsm_step(adversarial, grad, step_size, clip, origin=origin, radius=radius)
    return adversarial


def input_gradient(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor | Targets) -> Tensor:
    """Gradient of each sample's own cross-entropy, without smoothing, by its pixels, times a power of two."""
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        loss = mixed_cross_entropy(model(pixels), labels, reduction="sum") * _SCALE
        return torch.autograd.grad(loss, pixels)[0]


def zero_sign_share(grad: Tensor) -> Tensor:
    """Share of a gradient's entries that are zero, and so have no sign.

    Half precision flushes small gradients to zero: compare this share with that of float32 before trusting an attack.

    Args:
        grad: float32, float16 or bfloat16 [...].

    Returns:
        float32 [], from 0 to 1, on the device of ``grad``. Reading its value synchronizes.
    """
    return (grad == 0).float().mean()


def start_in_ball(images: Tensor, epsilon: float, seed: int, indices: Tensor, clip: bool = True) -> Tensor:
    """``images`` moved uniformly inside the epsilon ball. The draw is keyed by the sample, not by the batch."""
    if use_triton(images):
        return start_triton(images, epsilon, seed, to_device(indices, images.device, "indices"), clip)
    return start_in_ball_reference(images, epsilon, seed, indices, clip)


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Switch the parameters' gradients off: none are stored and none are accumulated."""
    live = [p for p in model.parameters() if p.requires_grad] if isinstance(model, torch.nn.Module) else []
    for p in live:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in live:
            p.requires_grad_(True)


def _check(images: Tensor, grad: Tensor, epsilon: float, origin: Tensor | None, radius: float | None) -> None:
    if images.dtype != torch.float32:
        raise TypeError(f"`images` is {images.dtype}: give torch.float32 pixels in [0, 1].")
    if grad.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"`grad` is {grad.dtype}: give torch.float32, torch.float16 or torch.bfloat16.")
    for name, other in (("grad", grad), ("origin", origin)):
        if other is not None and (other.shape != images.shape or other.device != images.device):
            raise ValueError(
                f"`{name}` has shape {list(other.shape)} on {other.device}: "
                f"give {list(images.shape)} on {images.device}, as `images`."
            )
    if not _dense(images):
        raise ValueError("`images` has gaps or overlaps in memory: call .contiguous() first.")
    if epsilon < 0:
        raise ValueError(f"`epsilon` is {epsilon}: give 0 or more.")
    if (origin is None) != (radius is None):
        raise ValueError("`origin` and `radius` make the projection: give both or neither.")


def _dense(x: Tensor) -> bool:
    """Whether the elements fill one run of memory, in any order of dimensions."""
    expected = 1
    for stride, length in sorted((s, n) for s, n in zip(x.stride(), x.shape) if n > 1):
        if stride != expected:
            return False
        expected *= length
    return True
