"""``Method``, the interface of a training loop, and ``Component``, the contribution of one method to it.

A component's ``draw`` runs on the host and returns numpy arrays by Plan field. ``join`` merges components field by
field.
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
    """The Philox keys of one batch."""

    samples: np.ndarray  # int64 [B], indices into the data set
    step: int
    epoch: int  # with the sample, the key of per-sample draws
    size: tuple[int, int]

    def owner(self, scope: str) -> tuple[np.ndarray | int, int]:
        """``(sample, step)`` of the counter: one per sample, or one for the whole batch on all GPUs."""
        return (self.samples, self.epoch) if scope == "sample" else (0, self.step)


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
            run, without mixing, cutting or noise.
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


def join(context: MethodContext, components: Sequence[Component]) -> Method:
    """Merge components into one method. Raises InputError if two of them change the same thing."""
    if any({"partner", "box"} <= set(component.writes) for component in components):
        components = [component.before_mixing or component for component in components]
    _refuse_conflicts(components)
    steps = [component for component in components if component.step is not None]
    fields = next((component.fields for component in components if component.fields is not None), None)
    flip = all(component.flip for component in components)
    unmixed = [component for component in components if set(component.writes) <= {"flip", *OPERATIONS}]
    return Method(
        _plan_draw(context, components, flip),
        steps[0].step if steps else None,
        None if fields is None else _field_draw(context, fields),
        prepare=next((component.prepare for component in components if component.prepare), None),
        plain=_plan_draw(context, unmixed, flip),
        crop=all(component.crop for component in components),
        pixels=any(component.pixels for component in components),
        attacks=any(component.attacks for component in components),
        model={key: value for component in components for key, value in component.model.items()},
        optimizer=next((component.optimizer for component in components if component.optimizer), None),
        softmax=any(component.softmax for component in components),
        fill=next((component.fill for component in components if component.writes[:1] == OPERATIONS[:1]), "black"),
        name="+".join(component.name for component in components),
        original={f"{one.name}_{key}": value for one in components for key, value in one.original.items()},
        networks=next((component.networks for component in components if component.networks is not None), None),
    )


def _refuse_conflicts(components: Sequence[Component]) -> None:
    for one, two in itertools.combinations(components, 2):
        if one.step is not None and two.step is not None:
            _refuse(one, two, "both change the training step")
        if one.fields is not None and two.fields is not None:
            _refuse(one, two, "both scale the model's residual branches")
        if shared := sorted(set(one.writes) & set(two.writes)):
            _refuse(one, two, f"both draw the plan's {' and '.join(shared)}")
    on_pixels = next((component for component in components if component.pixels), None)
    filled = next((component for component in components if component.mean_fill), None)
    if on_pixels is not None and filled is not None:
        _refuse(
            on_pixels,
            filled,
            "do not fit together (one works on pixels, the other fills boxes after normalization)",
        )


def _plan_draw(
    context: MethodContext, components: Sequence[Component], flip: bool
) -> Callable[..., tuple[Plan, Targets]]:
    """``Method.draw`` of some components."""

    def draw(
        labels: Tensor, indices: Tensor, step: int, *, epoch: int | None = None, size: Any = None
    ) -> tuple[Plan, Targets]:
        keys = _keys(context, indices, step, epoch, size)
        arrays: Arrays = {}
        lam = np.ones(len(labels), np.float32)
        if flip:
            word = philox.words(context.seed, 0, keys.samples, keys.epoch, "flip")[:, 0]
            arrays["flip"] = philox.uniform(word) < 0.5
        for component in components:
            if component.draw is None:
                continue
            drawn = component.draw(keys)
            if drawn.plan.keys() != set(component.writes):
                raise ValueError(f"{component.name} drew {sorted(drawn.plan)} but declares {sorted(component.writes)}")
            arrays |= drawn.plan
            lam = lam if drawn.lam is None else drawn.lam
        on_device = ship({**arrays, "label_weight": lam}, labels.device)
        lam_on_device = on_device.pop("label_weight")
        partner_labels = labels[on_device["partner"]] if "partner" in on_device else labels
        return Plan(**on_device), Targets(labels, partner_labels, lam_on_device)

    return draw


def _field_draw(context: MethodContext, draw: Callable[[DrawKeys, int], Arrays]) -> Callable[..., dict[str, Tensor]]:
    """``Method.fields`` of one component."""

    def fields(
        indices: Tensor, step: int, device: Any = None, *, layers: int | None = None, epoch: int | None = None
    ) -> dict[str, Tensor]:
        keys = _keys(context, indices, step, epoch, None)
        return ship(draw(keys, layers or default_layers(context)), torch.device(device or "cpu"))

    return fields


def default_layers(context: MethodContext) -> int:
    """Residual blocks of the paper's model: PyramidNet-200 on CIFAR, ResNet-50 on ImageNet."""
    return 66 if context.cifar else 16


def ship(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Copy host arrays to ``device`` as one buffer (pinned for CUDA), asynchronously."""
    starts = list(itertools.accumulate((-(-array.nbytes // 16) * 16 for array in arrays.values()), initial=0))
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    host = buffer.numpy()
    for start, array in zip(starts, arrays.values()):
        host[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    on_device = buffer.to(device, non_blocking=True)
    tensors = {}
    for start, (name, array) in zip(starts, arrays.items()):
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        tensors[name] = on_device[start : start + array.nbytes].view(dtype).view(array.shape)
    return tensors


def partners(context: MethodContext, keys: DrawKeys, operation: str) -> np.ndarray:
    """int64 [B]: a permutation of the batch positions inside groups of 64 (the last, or only, group may be smaller).

    Keyed by the step and the group's first sample.
    """
    count = len(keys.samples)
    position = np.arange(count)
    first = keys.samples[position // GROUP * GROUP]
    step = keys.owner(context.scope)[1]
    words = philox.words(context.seed, position % GROUP, first, step, operation).astype(np.uint64)
    return np.lexsort(((words[:, 0] << np.uint64(32)) | words[:, 1], position // GROUP))


def per_sample(values: Any, keys: DrawKeys, dtype: Any) -> np.ndarray:
    """Broadcast values of the batch, or of each sample, to a contiguous array [B, ...]."""
    values = np.asarray(values, dtype)
    return np.broadcast_to(values, (len(keys.samples), *values.shape[1:])).copy()


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


def _keys(context: MethodContext, indices: Tensor, step: int, epoch: int | None, size: Any) -> DrawKeys:
    samples = indices.to("cpu").numpy() if isinstance(indices, Tensor) else np.asarray(indices)
    return DrawKeys(samples, step, step if epoch is None else epoch, context.size if size is None else as_size(size))


def _refuse(one: Component, two: Component, why: str) -> None:
    raise InputError(f"methods {one.name!r} and {two.name!r} {why}: train with only one of them.")
