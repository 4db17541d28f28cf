"""Options that every suite receives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

SCOPES = ("full", "quick", "main")


@dataclass(frozen=True)
class BenchmarkOptions:
    """Device, scope and sizes of a benchmark. A suite replaces None by its own value for the device.

    ``scope`` is ``"full"``, ``"quick"`` (fewer cases, a quarter of the time) or ``"main"`` (the rows of
    ``gpu_check speed``). ``uncounted`` collects ``(row, call)`` of captured calls, whose launches are counted last.
    """

    device: torch.device
    scope: str = "full"
    data_dir: str | None = None
    batch_size: int | None = None
    size: int | None = None
    model: str | None = None
    uncounted: list[tuple[Any, Callable[[int], Any]]] = field(default_factory=list)

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def quick(self) -> bool:
        return self.scope != "full"

    def seconds(self, full: float) -> float:
        """The time budget of a measurement: a quarter of the full one unless the scope is full."""
        return full / 4 if self.quick else full
