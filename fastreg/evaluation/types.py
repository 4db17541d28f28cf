"""What a suite comes down to: its settings and its steps, one per condition, and what they are made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fastreg.evaluation.conditions import Logits
from fastreg.evaluation.pixel_cache import Pixels


class EvalConfig(NamedTuple):
    """What the suites can be told; see :func:`fastreg.evaluation.evaluate`."""

    seed: int
    epsilon: float
    clip: bool
    fidelity: str
    constants: str
    corruptions: str | Iterable[str] | None
    severities: Iterable[int] | None
    frost_dir: str | Path | None
    imagenet_c_dir: str | Path | None
    cifar_c_dir: str | Path | None
    ood_dir: str | Path | None
    odin_split: bool


class Place(NamedTuple):
    """Where this process runs and how it reads."""

    device: Any
    rank: int
    world: int
    batch_size: int
    loading: dict[str, Any]  # loader, workers


class Condition(NamedTuple):
    """One condition. ``batches`` None: the canvas. ``out``: its confidences are compared with the clean ones."""

    logits: Logits
    batches: Callable[[Place], Iterator[Pixels]] | None = None
    n: int | None = None  # images, when they are not the canvas's
    extra: Mapping[str, Any] = MappingProxyType({})  # goes into the row; ``fingerprint`` is that of the files it reads
    out: bool = False


class SuitePlan(NamedTuple):
    """A suite's settings, and its steps by condition."""

    settings: dict[str, Any]
    steps: dict[str, Condition]
