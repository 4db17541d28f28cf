"""What a method is, and how the pages of this folder become one.

A page gives a ``Component``: host draws that return numpy arrays by Plan field, and whatever else the method needs.
``join`` merges the parts field by field into the ``Method`` that a training loop calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import InputError
from fastreg.kernels import philox
from fastreg.kernels.types import Plan, Targets

GROUP = 64  # mixing partners move inside groups of this many: the pixels of a pair are close in memory

Arrays = dict[str, np.ndarray]


class MethodContext(NamedTuple):
    """What all pages are told."""

    seed: int = 0
    dataset: str = "imagenet"
    size: tuple[int, int] = (224, 224)  # height, width of the pictures that augment makes
    scope: str = "batch"

    @property
    def cifar(self) -> bool:
        return self.dataset.startswith("cifar")


class DrawKeys(NamedTuple):
    """What one batch is drawn from."""

    samples: np.ndarray  # int64 [B], indices into the data set
    step: int
    epoch: int  # the key of per-sample draws, with the sample
    size: tuple[int, int]

    def owner(self, scope: str) -> tuple[np.ndarray | int, int]:
        """``(sample, step)`` of the counter: each sample's own, or one for the batch on whatever GPU it lies."""
        return (self.samples, self.epoch) if scope == "sample" else (0, self.step)


class Component(NamedTuple):
    """One page's contribution; a field left out is not touched."""

    name: str
    draw: Callable[[DrawKeys], Arrays] = lambda keys: {}  # arrays by Plan field, and "weight": lam of the targets
    step: Callable[..., Tensor] | None = None
    fields: Callable[[DrawKeys, int], Arrays] | None = None
    prepare: Callable[[], None] | None = None
    flip: bool = True
    crop: bool = True
    pixels: bool = False
    attacks: bool = False
    optimizer: str | None = None
    model: Mapping[str, Any] = MappingProxyType({})


class Method(NamedTuple):
    """A regularisation method as data.

    ``draw(labels, indices, step, *, epoch=None, size=None) -> (Plan, Targets)``: labels int64 [B] on the step's device,
    indices int64 [B] on the host (a device tensor works, but waits for the device). Batch-scope numbers are keyed by
    ``step``, per-sample ones by the sample and ``epoch`` (left out: the step); partners by the first sample of their
    group of 64, or of as many as a smaller batch has. So none depends on the number of GPUs, where each takes whole
    groups of 64; with fewer images on each, the partners do. ``size`` (int or height, width) overrides ``create``'s.

    ``step(model, images, targets, loss, *, indices=None, step=None, epoch=None) -> loss`` replaces
    ``loss(model(images), targets)``, or is None.

    ``fields(indices, step, device=None, *, layers=None, epoch=None) -> dict`` for ``models.set_fields``, or is None.

    ``plain`` is ``draw`` of the method's flips alone, for the end of a training that mixes no more; or None.

    ``prepare()`` opens what ``step`` needs beside its arguments; raises InputError where it is missing. Or is None.
    """

    draw: Callable[..., tuple[Plan, Targets]]
    step: Callable[..., Tensor] | None = None
    fields: Callable[..., dict[str, Tensor]] | None = None
    crop: bool = True  # whether training pictures are randomly cropped
    pixels: bool = False  # whether step takes float32 pixels in [0, 1] and a model that normalises them itself
    attacks: bool = False  # whether step runs the model in evaluation mode: processes must agree on its statistics
    optimizer: str | None = None  # the optimiser that the source trains with, where it is not SGD
    model: Mapping[str, Any] = MappingProxyType({})  # keyword arguments that create_model needs for this method
    name: str = "none"
    prepare: Callable[[], None] | None = None
    plain: Callable[..., tuple[Plan, Targets]] | None = None


def join(context: MethodContext, parts: Sequence[Component]) -> Method:
    """One method out of several. Raises InputError if two of them want the same thing."""
    stepping = [part for part in parts if part.step is not None]
    if len(stepping) > 1:
        _refuse(stepping[0], stepping[1], "both change the training step")
    fielding = [(part, part.fields) for part in parts if part.fields is not None]
    if len(fielding) > 1:
        _refuse(fielding[0][0], fielding[1][0], "both scale the model's residual branches")
    flip = all(part.flip for part in parts)
    probe = DrawKeys(np.arange(2), 0, 0, context.size)
    written = [(part, part.draw(probe)) for part in parts]
    for (one, a), (two, b) in itertools.combinations(written, 2):
        if a.keys() & b.keys():
            _refuse(one, two, f"both draw the plan's {' and '.join(sorted(a.keys() & b.keys()))}")
    pixels = any(part.pixels for part in parts)
    for part, arrays in written:
        if pixels and "box_fill" in arrays and (arrays["box_fill"] == 2).any():
            attack = next(p for p in parts if p.pixels)
            _refuse(attack, part, "do not fit (one works on pixels, the other fills with the mean of normalised ones)")

    def drawing(drawn: Sequence[Component]) -> Callable[..., tuple[Plan, Targets]]:
        def draw(labels: Tensor, indices: Tensor, step: int, *, epoch: int | None = None, size=None):
            keys = _keys(context, indices, step, epoch, size)
            arrays: Arrays = {}
            if flip:
                word = philox.words(context.seed, 0, keys.samples, keys.epoch, "flip")[:, 0]
                arrays["flip"] = philox.uniform(word) < 0.5
            for part in drawn:
                arrays |= part.draw(keys)
            weight = arrays.pop("weight", None)
            if weight is None:
                weight = np.ones(len(labels), np.float32)
            sent = ship({**arrays, "weight": weight}, labels.device)
            lam = sent.pop("weight")
            other = labels[sent["partner"]] if "partner" in sent else labels
            return Plan(**sent), Targets(labels, other, lam)

        return draw

    fields = None
    if fielding:
        fields = _fields(context, fielding[0][1])
    return Method(
        drawing(parts),
        stepping[0].step if stepping else None,
        fields,
        prepare=next((part.prepare for part in parts if part.prepare), None),
        plain=drawing([part for part, arrays in written if arrays.keys() <= {"flip"}]),
        crop=all(part.crop for part in parts),
        pixels=pixels,
        attacks=any(part.attacks for part in parts),
        model={key: value for part in parts for key, value in part.model.items()},
        optimizer=next((part.optimizer for part in parts if part.optimizer), None),
        name="+".join(part.name for part in parts),
    )


def _fields(context: MethodContext, page: Callable[[DrawKeys, int], Arrays]) -> Callable[..., dict[str, Tensor]]:
    def fields(indices: Tensor, step: int, device=None, *, layers: int | None = None, epoch: int | None = None):
        keys = _keys(context, indices, step, epoch, None)
        return ship(page(keys, layers or default_layers(context)), torch.device(device or "cpu"))

    return fields


def default_layers(context: MethodContext) -> int:
    """Residual blocks of the paper's model: PyramidNet-200 on CIFAR, ResNet-50 on ImageNet."""
    return 66 if context.cifar else 16


def ship(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Host arrays as tensors on ``device``: one buffer, pinned for CUDA, and one copy that nobody waits for."""
    starts = list(itertools.accumulate((-(-array.nbytes // 16) * 16 for array in arrays.values()), initial=0))
    staged = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    host = staged.numpy()
    for start, array in zip(starts, arrays.values()):
        host[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    there = staged.to(device, non_blocking=True)
    sent = {}
    for start, (name, array) in zip(starts, arrays.items()):
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        sent[name] = there[start : start + array.nbytes].view(dtype).view(array.shape)
    return sent


def partners(context: MethodContext, keys: DrawKeys, operation: str) -> np.ndarray:
    """int64 [B]: a permutation of the positions inside groups of 64 (the last, or only, group may be smaller), keyed by
    step and the group's first sample."""
    count = len(keys.samples)
    position = np.arange(count)
    first = keys.samples[position // GROUP * GROUP]
    step = keys.owner(context.scope)[1]
    words = philox.words(context.seed, position % GROUP, first, step, operation).astype(np.uint64)
    return np.lexsort(((words[:, 0] << np.uint64(32)) | words[:, 1], position // GROUP))


def per_sample(values: Any, keys: DrawKeys, dtype: Any) -> np.ndarray:
    """Values of the batch or of each sample, as a contiguous array [B, ...]."""
    values = np.asarray(values, dtype)
    return np.broadcast_to(values, (len(keys.samples), *values.shape[1:])).copy()


def number(flag: str, value: Any, low: float, high: float = np.inf, open_low: bool = False) -> float:
    """``value`` as a float in [low, high], without ``low`` itself if ``open_low``; InputError names the argument."""
    if isinstance(value, int | float | np.number) and low <= value <= high and not (open_low and value == low):
        return float(value)
    least = f"greater than {low:g}" if open_low else f"at least {low:g}"
    most = f" and at most {high:g}" if high < np.inf else ""
    raise InputError(f"{flag} must be a number {least}{most}, not {value!r}.")


def as_size(size: Any) -> tuple[int, int]:
    """``(height, width)`` from an int or a pair."""
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    if height < 1 or width < 1:
        raise InputError(f"size must be positive, but is {size!r}.")
    return int(height), int(width)


def _keys(context: MethodContext, indices: Tensor, step: int, epoch: int | None, size: Any) -> DrawKeys:
    samples = indices.to("cpu").numpy() if isinstance(indices, Tensor) else np.asarray(indices)
    return DrawKeys(samples, step, step if epoch is None else epoch, context.size if size is None else as_size(size))


def _refuse(one: Component, two: Component, why: str) -> None:
    raise InputError(f"methods {one.name!r} and {two.name!r} {why}: train with only one of them.")
