"""A probe of a model before the work: whether its outputs are logits and its gradients are usable."""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.errors import InputError
from fastreg.evaluation.classifier import Classifier
from fastreg.kernels import augment
from fastreg.kernels.attacks import input_gradient
from fastreg.kernels.types import Plan

SAME = 1e-3  # of the largest logit: what a GPU's order of summation may change, and more


def probe(classifier: Classifier, size: int, gradients: bool) -> list[str]:
    """Run a model on two random images.

    Args:
        classifier: the model.
        size: side of the images in pixels.
        gradients: whether to probe the gradients too, for attacks.

    Returns:
        Notes for the card about outputs that are probabilities, that differ for the same images or that depend on the
        rest of the batch, and about gradients that are zero.

    Raises:
        InputError: attacks are measured, and the model has no gradient by its input.
    """
    on_gpu = [classifier.device] if classifier.device.type == "cuda" else []
    with torch.random.fork_rng(on_gpu):
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8, generator=generator)
        images = drawn.to(classifier.device)
        first = classifier.images(images[:2])
        messages = _outputs(first)
        if not _same(first, classifier.images(images[:2])):
            messages.append(
                "its logits change when the same images come again (dropout or noise in eval mode): so do the figures."
            )
        elif not _same(first[:1], classifier.images(images[[0, 2]])[:1]):
            messages.append(
                "its logits for an image depend on the others in the batch (batch statistics in eval mode): so do the "
                "figures, on `batch_size`."
            )
        return messages + (_gradients(classifier, images[:2], first) if gradients else [])


def _outputs(logits: Tensor) -> list[str]:
    sums = logits.sum(1)
    if logits.shape[1] > 1 and (logits >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        return [
            "its outputs are probabilities, not logits: confidence, calibration, detection and attacks apply a second "
            "softmax to them; leave the model's own out."
        ]
    return []


def _gradients(classifier: Classifier, images: Tensor, logits: Tensor) -> list[str]:
    pad = classifier.padded  # one shape for a compiled model
    pixels = pad(augment(images, Plan(), mean=(0.0,) * 3, std=(1.0,) * 3, dtype=torch.float32))
    learning = [parameter for parameter in classifier.module.parameters() if parameter.requires_grad]
    largest = []
    try:
        for parameter in learning:  # as attacks do, which a compiled model sees
            parameter.requires_grad_(False)
        for labels in (logits.argmin(1), logits.argmax(1)):
            gradient = input_gradient(classifier.module, pixels, pad(labels))
            largest.append(gradient[: len(images)].abs().max())
    except (InputError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # a model may raise anything
        why = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"attacks need the gradient of the logits by the pixels, and the model gives none "
            f"({type(error).__name__}: {why}): leave attacks out of `suites`, or give a differentiable model."
        ) from error
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
    if largest[0] == 0:
        return [
            "its gradient by the pixels is zero: attacks change nothing, and their errors do not measure robustness."
        ]
    if largest[1] == 0:
        return [
            "its gradient is zero where it is confident (a saturated softmax): the attacks are weaker than they look."
        ]
    return []


def _same(a: Tensor, b: Tensor) -> bool:
    limit = SAME * float(a.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return torch.allclose(a, b, rtol=0.0, atol=limit, equal_nan=True)
