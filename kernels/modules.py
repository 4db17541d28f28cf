"""fastreg's augmentation and loss as modules, for other training loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from fastreg.kernels.augmentation import augment
from fastreg.kernels.augmentation.operations import fill_levels
from fastreg.kernels.cross_entropy import mixed_binary_cross_entropy, mixed_cross_entropy
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD, Plan, Targets


class BatchAugment(nn.Module):
    """Draw a method's plan and apply it with ``augment``: ``images, targets = batch_augment(images, labels, indices)``.

    The call takes images uint8 [B, H, W, 3], labels int64 [B], and optionally indices int64 [B] on the CPU (positions
    in the data set, or ``Batch.keys``; without them, draws are keyed by the position in the batch) and crop float32
    [B, 4] as in ``Plan``. It returns ``dtype`` [B, 3, h, w] in channels_last, and ``Targets``. In ``eval()`` mode
    images are only normalized, and cropped where ``crop`` is given.

    Labels may also be float [B, C], soft or for several classes at once. The second result is then a tensor of that
    shape and dtype, mixed with the weights of the images, for ``MixedCrossEntropy`` or ``MixedBinaryCrossEntropy``.

    The buffer ``step`` counts the calls in training mode and keys the draws. It stays on the CPU and is saved in
    checkpoints. In a worker of a DataLoader the worker's seed is in the key, so that draws differ between workers
    and epochs; ``torch.manual_seed`` before the loop makes them repeatable.

    torch.compile runs the module outside of its graphs in training mode, and inside in ``eval()`` mode.

    Args:
        method: Result of ``fastreg.methods.create``, or an object with ``draw(labels, indices, step, *, size=None)``
            that returns (Plan, Targets), where ``size`` is the (height, width) of the output.
        mean: Mean per channel on the 0-1 scale, three numbers.
        std: Standard deviation per channel on the 0-1 scale, three positive numbers.
        dtype: float32, float16 or bfloat16, of the output.
        size: Output side or (height, width) in pixels. None: the size of the input.
        seed: Run seed of the pixel noise.

    Raises:
        ValueError: ``method`` has a training step of its own, or draws fields for the model. This module does neither.
            In a call: float labels that are not [B, C].
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
        name = _name_of(method)
        if getattr(method, "step", None) is not None:
            raise ValueError(
                f"`method` {name!r} changes the training step, and BatchAugment makes only images and targets: "
                "train with `fastreg train`, or call method.step(model, images, targets, loss) in your loop."
            )
        if getattr(method, "fields", None) is not None:
            raise ValueError(
                f"`method` {name!r} also draws for the model: pass method._replace(fields=None) here, and before each "
                "forward call fastreg.models.set_fields(model, method.fields(indices, step, device, layers=...))."
            )
        self.method, self.seed = method, seed
        self.options: dict[str, Any] = {"mean": mean, "std": std, "dtype": dtype, "size": size}
        self.fill = fill_levels(getattr(method, "fill", "black"), mean)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        return self  # the host draws, so the step stays on the CPU: reading it must not wait for a GPU

    def forward(
        self, images: Tensor, labels: Tensor, indices: Tensor | None = None, crop: Tensor | None = None
    ) -> tuple[Tensor, Targets | Tensor]:
        if torch.compiler.is_compiling() and self.training:  # the host draws with numpy, which no graph can contain
            return torch.compiler.disable(self._forward)(images, labels, indices, crop)
        return self._forward(images, labels, indices, crop)

    def _forward(
        self, images: Tensor, labels: Tensor, indices: Tensor | None, crop: Tensor | None
    ) -> tuple[Tensor, Targets | Tensor]:
        dense = labels if labels.is_floating_point() else None
        if dense is not None:
            if dense.dim() != 2 or len(dense) != len(images):
                raise ValueError(f"`labels` has shape {list(labels.shape)}: give int64 [B], or float [B, C].")
            labels = torch.arange(len(dense), device=dense.device)  # rows, which the method mixes as labels
        if not self.training:
            lam = torch.ones(len(labels), device=labels.device)
            targets = Targets(labels, labels, lam) if dense is None else dense
            return augment(images, Plan(crop=crop), **self.options), targets
        if indices is None:
            indices = torch.arange(len(images))
        step = _draw_step(int(self.step))
        self.step += 1
        size = self.options["size"] or tuple(images.shape[1:3])
        height, width = (size, size) if isinstance(size, int) else size
        plan, targets = self.method.draw(labels, indices, step, size=(height, width))
        plan = plan._replace(crop=crop) if crop is not None else plan
        augmented = augment(images, plan, seed=self.seed, indices=indices, step=step, fill=self.fill, **self.options)
        return augmented, targets if dense is None else _mixed(dense, targets)

    def extra_repr(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"method={_name_of(self.method)!r}, {options}, seed={self.seed}, step={int(self.step)}"


def _mixed(dense: Tensor, rows: Targets) -> Tensor:
    """Rows of targets [B, C], mixed."""
    lam = rows.lam.to(dense.device, dense.dtype).unsqueeze(1)
    a, b = (dense[row.to(dense.device)] for row in (rows.a, rows.b))
    return lam * a + (1 - lam) * b


def _draw_step(count: int) -> int:
    """The step that keys a call's draws: the call count, or in a DataLoader worker a hash of worker seed and count.

    Each worker has a copy of the module. Without persistent workers each epoch makes new copies, whose count is 0.
    """
    worker = get_worker_info()
    if worker is None:
        return count
    words = np.random.SeedSequence([worker.seed, count]).generate_state(1)
    return int(words[0] >> 1)


class MixedCrossEntropy(nn.Module):
    """``mixed_cross_entropy`` as a module. The call takes logits [B, C] and targets as the function does.

    ``class_weight`` is a buffer that moves with the module and is not saved in checkpoints.

    Args:
        label_smoothing: Number in [0, 1].
        reduction: "none", "sum" or "mean".
        class_weight: float32 [C], the factor of each class's term, or None.
    """

    class_weight: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, reduction: str = "mean", class_weight: Tensor | None = None):
        super().__init__()
        self.label_smoothing, self.reduction = label_smoothing, reduction
        self.register_buffer("class_weight", class_weight, persistent=False)

    def forward(self, logits: Tensor, targets: Targets | Tensor) -> Tensor:
        options = self.label_smoothing, self.reduction
        return mixed_cross_entropy(logits, targets, *options, class_weight=self.class_weight)

    def extra_repr(self) -> str:
        weight = "" if self.class_weight is None else f", class_weight=[{len(self.class_weight)}]"
        return f"label_smoothing={self.label_smoothing}, reduction={self.reduction!r}{weight}"


class MixedBinaryCrossEntropy(nn.Module):
    """``mixed_binary_cross_entropy`` as a module. The call takes logits [B, C] and targets as the function does.

    ``class_weight`` is a buffer that moves with the module and is not saved in checkpoints.

    Args:
        label_smoothing: Number in [0, 1].
        target_threshold: Number that targets are compared with. None: targets stay as they are.
        sum_classes: Whether to sum over the classes and then reduce over the rows.
        reduction: "none", "sum" or "mean".
        class_weight: float32 [C], the factor of each class's terms, or None.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        label_smoothing: float = 0.0,
        target_threshold: float | None = None,
        sum_classes: bool = False,
        reduction: str = "mean",
        class_weight: Tensor | None = None,
    ):
        super().__init__()
        self.label_smoothing, self.target_threshold = label_smoothing, target_threshold
        self.sum_classes, self.reduction = sum_classes, reduction
        self.register_buffer("class_weight", class_weight, persistent=False)

    def forward(self, logits: Tensor, targets: Targets | Tensor) -> Tensor:
        options = self.label_smoothing, self.target_threshold, self.sum_classes, self.reduction
        return mixed_binary_cross_entropy(logits, targets, *options, class_weight=self.class_weight)

    def extra_repr(self) -> str:
        weight = "" if self.class_weight is None else f", class_weight=[{len(self.class_weight)}]"
        return (
            f"label_smoothing={self.label_smoothing}, target_threshold={self.target_threshold}, "
            f"sum_classes={self.sum_classes}, reduction={self.reduction!r}{weight}"
        )


def _name_of(method: Any) -> str:
    return getattr(method, "name", type(method).__name__)
