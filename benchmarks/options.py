"""What every suite is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch


class Job(NamedTuple):
    """A benchmark to run. None means the suite's own choice for the device."""

    device: torch.device
    quick: bool = False
    data_dir: str | None = None
    batch_size: int | None = None
    size: int | None = None
    model: str | None = None
    say: Callable[[str], None] = print

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def seconds(self, full: float) -> float:
        """A time budget: a quarter of it when quick."""
        return full / 4 if self.quick else full
