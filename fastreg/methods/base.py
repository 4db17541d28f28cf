"""``Method``, the interface of a training loop, and ``Component``, the contribution of one method to it.

A component's ``draw`` runs on the host and returns numpy arrays by Plan field, of one batch or of several at once.
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

GROUP = 64  # partners are permuted inside groups of this many samples: the pixels of a pair are close in memory

OPERATIONS = ("operations", "magnitudes", "interpolation", "chain_weights")  # Plan fields of automatic augmentation

Arrays = dict[str, np.ndarray]


class MethodContext(NamedTuple):
    """The settings from which every component is built."""

    seed: int = 0
    dataset: str = "imagenet"
    size: tuple[int, int] = (224, 224)  # height, width of the images that augment returns
    scope: str = "batch"

    @property
    def cifar(self) -> bool:
        return self.dataset.startswith("cifar")


class DrawKeys(NamedTuple):
    """The Philox keys of N batches of B samples each."""

    samples: np.ndarray  # int64 [N * B], indices into the data set, batch after batch
    steps: np.ndarray  # int64 [N], of each batch
    epoch: int  # with the sample, the key of per-sample draws
    size: tuple[int, int]

    @property
    def batch_size(self) -> int:
        return len(self.samples) // len(self.steps)

    def owner(self, scope: str) -> tuple[np.ndarray | int, np.ndarray | int]:
        """``(sample, step)`` of the counters: one per sample, or one per batch, the same on all GPUs."""
        return (self.samples, self.epoch) if scope == "sample" else (0, self.steps)


class Drawn(NamedTuple):
    """The result of a component's draw."""

    plan: Arrays  # by Plan field
    lam: np.ndarray | None = None  # float32 [B], the weight of the own label; None: 1


class Component(NamedTuple):
    """The contribution of one method to a joined one; a field at its default changes nothing.

    ``writes`` names the Plan fields that ``draw`` returns. ``mean_fill``: boxes are filled with the mean after
    normalization, so the method cannot join a method with ``pixels``. ``before_mixing`` takes the component's place
    beside a method that pastes boxes of a partner. The other fields are those of ``Method``.
    """

    name: str
    draw: Callable[[DrawKeys], Drawn] | None = None
    writes: tuple[str, ...] = ()
    mean_fill: bool = False
    before_mixing: Component | None = None
    step: Callable[..., Tensor] | None = None
    fields: Callable[[DrawKeys, int], Arrays] | None = None
    prepare: Callable[[], None] | None = None
    flip: bool = True
    crop: bool = True
    pixels: bool = False
    attacks: bool = False
    optimizer: str | None = None
    model: Mapping[str, Any] = MappingProxyType({})
    fill: str = "black"
    softmax: bool = False
    networks: Any = None
    original: Mapping[str, Any] = MappingProxyType({})


class Method(NamedTuple):
    """A regularization method as data, returned by :func:`fastreg.methods.create`.

    Args:
        draw: ``draw(labels, indices, step, *, epoch=None, size=None) -> (Plan, Targets)``. ``labels``: int64 [B] on the
            step's device. ``indices``: int64 [B] on the host, indices into the data set (a device tensor works, but
            synchronizes). Batch-scope numbers are keyed by ``step``, per-sample numbers by the sample and ``epoch``
            (default: the step), partners by the first sample of their group of 64 (or of the whole batch, if it is
            smaller). Draws therefore do not depend on how a batch is split across GPUs if each share is a multiple of
            64; below that only partners change. ``size`` (int, or height and width in pixels) overrides the size given
            to ``create``.
        step: ``step(model, images, targets, loss, *, indices=None, step=None, epoch=None)`` replaces
            ``loss(model(images), targets)``, with ``images`` float32 [B, 3, h, w]; returns the loss, float32 [].
            ``indices``, ``step`` and ``epoch`` as in ``draw``. None for most methods.
        fields: ``fields(indices, step, device=None, *, layers=None, epoch=None)`` returns the tensors for
            ``models.set_fields`` by name; ``layers`` is that of ``branch_layers``. None for most methods.
        crop: whether training images are cropped at random.
        pixels: whether ``step`` takes float32 pixels in [0, 1] and a model that normalizes them itself.
        attacks: whether ``step`` runs the model in evaluation mode; all ranks must then share its running statistics.
        optimizer: the optimizer of the source, if it is not SGD.
        model: keyword arguments that ``models.create_model`` needs for this method.
        name: the name given to ``create``, in the order of joining.
        prepare: opens further data of ``step``, such as OOD images (raises InputError if it is missing); None for most.
        plain: ``draw`` with the method's flips and operations of automatic augmentation only, for the last epochs of a
            run, without mixing, cutting, erasing or noise.
        fill: "black" or "mean", the pixels that geometric operations take from outside the image
            (``augment(..., fill=...)``).
        softmax: whether ``step`` compares softmax probabilities, which no loss with a sigmoid per class has.
        recreate: repeats the call of ``create`` when the method is unpickled in another process.
        networks: further networks that ``step`` trains, with ``start(device)``, ``state_dict()`` and
            ``load_state_dict(state)``; checkpoints contain them. None for most methods.
        original: parameters of the source's code where the defaults differ, by ``METHOD_parameter``.
    """

    draw: Callable[..., tuple[Plan, Targets]]
    step: Callable[..., Tensor] | None = None
    fields: Callable[..., dict[str, Tensor]] | None = None
    crop: bool = True
    pixels: bool = False
    attacks: bool = False
    optimizer: str | None = None
    model: Mapping[str, Any] = MappingProxyType({})
    name: str = "none"
    prepare: Callable[[], None] | None = None
    plain: Callable[..., tuple[Plan, Targets]] | None = None
    fill: str = "black"
    softmax: bool = False
    recreate: Callable[[], Method] | None = None
    networks: Any = None
    original: Mapping[str, Any] = MappingProxyType({})

    def __reduce__(self) -> tuple[Any, ...]:
        if self.recreate is None:
            raise TypeError("only a method made by fastreg.methods.create can be pickled")
        left_out = [name for name, value in self._asdict().items() if value is None]
        return _recreate, (self.recreate, left_out)


def _recreate(recreate: Callable[[], Method], left_out: Sequence[str]) -> Method:
    """The method made by ``recreate``, without the fields that ``_replace`` had set to None."""
    return recreate()._replace(**dict.fromkeys(left_out))  # type: ignore[arg-type]


def ship(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Copy host arrays to ``device`` as one buffer (pinned for CUDA), asynchronously."""
    return ship_batches(arrays, 1, device)[0]


def ship_batches(arrays: Arrays, count: int, device: torch.device) -> list[dict[str, Tensor]]:
    """``ship`` of ``count`` batches, whose rows follow each other in each array, in one copy.

    Every array of every batch begins at a multiple of 16 bytes, as kernels are specialized by that.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    sizes = [array.nbytes // count for array in arrays.values()]
    starts = list(itertools.accumulate((-(-size // 16) * 16 for size in sizes), initial=0))
    width = max(starts[-1], 16)  # also of empty batches
    buffer = torch.empty((count, width), dtype=torch.uint8, pin_memory=device.type == "cuda")
    host = buffer.numpy()
    for start, size, array in zip(starts, sizes, arrays.values()):
        host[:, start : start + size] = array.reshape(-1).view(np.uint8).reshape(count, size)
    on_device = buffer.to(device, non_blocking=True)
    batches: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for start, size, (name, array) in zip(starts, sizes, arrays.items()):
        typed = on_device[:, start : start + size].view(torch.from_numpy(np.empty(0, array.dtype)).dtype)
        for batch, own in zip(batches, typed.view(count, len(array) // count, *array.shape[1:]).unbind()):
            batch[name] = own
    return batches


def partners(context: MethodContext, keys: DrawKeys, operation: str) -> np.ndarray:
    """int64 [N * B]: a permutation of each batch's positions inside groups of 64 (the last may be smaller).

    Keyed by the step and the group's first sample.
    """
    batches, size = len(keys.steps), keys.batch_size
    samples, position = keys.samples.reshape(batches, size), np.arange(size)
    first = samples[:, position // GROUP * GROUP]
    step = keys.epoch if context.scope == "sample" else keys.steps[:, None]
    words = philox.words(context.seed, position % GROUP, first, step, operation).astype(np.uint64)
    groups = -(-size // GROUP)
    order = np.full((batches, groups * GROUP), np.iinfo(np.uint64).max)  # the last group's rest stays at its end
    order[:, :size] = (words[..., 0] << np.uint64(32)) | words[..., 1]
    inside = order.reshape(batches, groups, GROUP).argsort(axis=2, kind="stable")
    return (inside + GROUP * np.arange(groups)[:, None]).reshape(batches, -1)[:, :size].ravel()


def per_sample(values: Any, keys: DrawKeys, dtype: Any) -> np.ndarray:
    """Repeat values of each batch [N, ...] for its samples; values of each sample stay. Contiguous, [N * B, ...]."""
    values = np.asarray(values, dtype)
    if len(values) == len(keys.samples):
        return np.ascontiguousarray(values)
    return np.repeat(values, keys.batch_size, axis=0)


def number(parameter: str, value: Any, low: float, high: float = np.inf, open_low: bool = False) -> float:
    """``value`` as a float in [low, high] (without ``low`` if ``open_low``). Raises InputError naming the parameter."""
    if isinstance(value, int | float | np.number) and low <= value <= high and not (open_low and value == low):
        return float(value)
    least = f"greater than {low:g}" if open_low else f"at least {low:g}"
    most = f" and at most {high:g}" if high < np.inf else ""
    raise InputError(f"`{parameter}` is {value!r}: give a number {least}{most}.")


def whole(parameter: str, value: Any, low: int, high: int = 2**31) -> int:
    """``value`` as an int in [low, high]. Raises InputError naming the parameter."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and low <= value <= high:
        return int(value)
    most = f" and at most {high}" if high < 2**31 else ""
    raise InputError(f"`{parameter}` is {value!r}: give a whole number of at least {low}{most}.")


def as_size(size: Any) -> tuple[int, int]:
    """``(height, width)`` from an int or a pair."""
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    if height < 1 or width < 1:
        raise InputError(f"`size` is {size!r}: give 1 or more pixels.")
    return int(height), int(width)
