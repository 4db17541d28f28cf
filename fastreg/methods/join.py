"""Joins the components of one or several methods into a ``Method``, field by field."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import InputError
from fastreg.kernels import philox
from fastreg.kernels.types import Plan, Targets
from fastreg.methods.base import OPERATIONS, Arrays, Component, DrawKeys, Method, MethodContext, as_size, ship


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
        PlanDraw(context, components, flip),
        steps[0].step if steps else None,
        None if fields is None else FieldDraw(context, fields),
        prepare=next((component.prepare for component in components if component.prepare), None),
        plain=PlanDraw(context, unmixed, flip),
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


def _refuse(one: Component, two: Component, why: str) -> None:
    raise InputError(f"methods {one.name!r} and {two.name!r} {why}: train with only one of them.")


@dataclass(frozen=True)
class PlanDraw:
    """``Method.draw`` of some components. ``arrays`` draws for several batches at once, in host memory."""

    context: MethodContext
    components: Sequence[Component]
    flip: bool

    def __call__(
        self, labels: Tensor, indices: Tensor, step: int, *, epoch: int | None = None, size: Any = None
    ) -> tuple[Plan, Targets]:
        keys = make_keys(self.context, indices, [step], step if epoch is None else epoch, size)
        return plan_and_targets(ship(self.arrays(keys), labels.device), labels)

    def arrays(self, keys: DrawKeys) -> Arrays:
        """Plan fields and the weights of the own labels, by name."""
        arrays: Arrays = {}
        lam = np.ones(len(keys.samples), np.float32)
        if self.flip:
            word = philox.words(self.context.seed, 0, keys.samples, keys.epoch, "flip")[:, 0]
            arrays["flip"] = philox.uniform(word) < 0.5
        for component in self.components:
            if component.draw is None:
                continue
            drawn = component.draw(keys)
            if drawn.plan.keys() != set(component.writes):
                raise ValueError(f"{component.name} drew {sorted(drawn.plan)} but declares {sorted(component.writes)}")
            arrays |= drawn.plan
            lam = lam if drawn.lam is None else drawn.lam
        return {**arrays, "label_weight": lam}


@dataclass(frozen=True)
class FieldDraw:
    """``Method.fields`` of one component. ``arrays`` draws for several batches at once, in host memory."""

    context: MethodContext
    draw: Callable[[DrawKeys, int], Arrays]

    def __call__(
        self, indices: Tensor, step: int, device: Any = None, *, layers: int | None = None, epoch: int | None = None
    ) -> dict[str, Tensor]:
        keys = make_keys(self.context, indices, [step], step if epoch is None else epoch)
        return ship(self.arrays(keys, layers), torch.device(device or "cpu"))

    def arrays(self, keys: DrawKeys, layers: int | None = None) -> Arrays:
        """Fields of the model by name, for ``layers`` residual blocks (default: those of the paper's model)."""
        return self.draw(keys, layers or (66 if self.context.cifar else 16))  # PyramidNet-200, ResNet-50


def plan_and_targets(arrays: dict[str, Tensor], labels: Tensor) -> tuple[Plan, Targets]:
    """The plan and the targets of one batch, from the arrays of ``PlanDraw`` on its device."""
    fields = {name: array for name, array in arrays.items() if name != "label_weight"}
    partner_labels = labels[fields["partner"]] if "partner" in fields else labels
    return Plan(**fields), Targets(labels, partner_labels, arrays["label_weight"])


def make_keys(context: MethodContext, indices: Any, steps: Sequence[int], epoch: int, size: Any = None) -> DrawKeys:
    """The keys of one batch, or of several of equal length whose ``indices`` follow each other."""
    samples = indices.to("cpu").numpy() if isinstance(indices, Tensor) else np.asarray(indices)
    return DrawKeys(samples, np.asarray(steps, np.int64), epoch, context.size if size is None else as_size(size))
