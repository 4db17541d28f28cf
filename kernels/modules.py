"""fastreg's augmentation and loss as modules, for training loops that are not fastreg's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastreg.kernels.augmentation import augment
from fastreg.kernels.cross_entropy import mixed_cross_entropy
from fastreg.kernels.types import Plan, Targets

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BatchAugment(nn.Module):
    """``images, targets = batch_augment(images, labels, indices)``: draw a method's plan, then one launch.

    ``method``: what ``fastreg.methods.create`` returns, or anything with ``draw(labels, indices, step, *, size=None) ->
    (Plan, Targets)``, where ``size`` is the (height, width) of the images that come out: boxes lie in it. ValueError if
    the method has a training step of its own, or fields for the model, which this module would leave out.

    Takes uint8 [B, H, W, 3] and int64 [B]; returns ``dtype`` [B, 3, h, w] in channels_last layout and ``Targets``.
    ``indices`` (int64 [B], on the CPU) are the samples' places in the data set: with them the draws belong to the
    samples; without, to the places in the batch. In ``eval()`` mode images are only normalised.

    ``step`` counts the calls in training mode and keys the draws: a buffer on the CPU, which a checkpoint carries on.
    """

    step: Tensor

    def __init__(
        self,
        method: Any,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
        size: int | tuple[int, int] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        name = getattr(method, "name", type(method).__name__)
        if getattr(method, "step", None) is not None:
            raise ValueError(
                f"method {name!r} changes the training step, and BatchAugment only makes images and targets: "
                "train with fastreg train, or call method.step(model, images, targets, loss) in your loop."
            )
        if getattr(method, "fields", None) is not None:
            raise ValueError(
                f"method {name!r} also draws for the model: pass method._replace(fields=None) here, and before each "
                "forward call fastreg.models.set_fields(model, method.fields(indices, step, device, layers=...))."
            )
        self.method, self.seed = method, seed
        self.given: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype, "size": size}
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def _apply(self, fn, recurse=True):
        return self  # the count stays on the CPU, where the host draws: reading it must not wait for a GPU

    def forward(
        self, images: Tensor, labels: Tensor, indices: Tensor | None = None, crop: Tensor | None = None
    ) -> tuple[Tensor, Targets]:
        if not self.training:
            whole = torch.ones(len(labels), device=labels.device)
            return augment(images, Plan(crop=crop), **self.given), Targets(labels, labels, whole)
        if indices is None:
            indices = torch.arange(len(images))
        step = int(self.step)
        self.step += 1
        size = self.given["size"] or tuple(images.shape[1:3])
        height, width = (size, size) if isinstance(size, int) else size
        plan, targets = self.method.draw(labels, indices, step, size=(height, width))
        plan = plan._replace(crop=crop) if crop is not None else plan
        return augment(images, plan, seed=self.seed, indices=indices, step=step, **self.given), targets


class MixedCrossEntropy(nn.Module):
    """``mixed_cross_entropy`` as a module; takes ``Targets``, or int64 [B] of hard labels."""

    def __init__(self, label_smoothing: float = 0.0, reduction: str = "mean"):
        super().__init__()
        self.label_smoothing, self.reduction = label_smoothing, reduction

    def forward(self, logits: Tensor, targets: Targets | Tensor) -> Tensor:
        return mixed_cross_entropy(logits, targets, self.label_smoothing, self.reduction)

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}, reduction={self.reduction!r}"
