"""One more corruption, a drawn shift of brightness, added by the steps of CONTRIBUTING.md."""

from __future__ import annotations

from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.corruptions.constants import CONSTANTS
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.pixels import on, quantize, unit
from fastreg.kernels.corruptions.table import Corruption, register

SEVERITIES = (0.1, 0.2, 0.3, 0.4, 0.5)  # largest shift, on the 0-1 scale


def dummy(images: Tensor, reach: float, fields: dict) -> Tensor:
    shift = on(fields["share"], images.device).double() * reach
    return quantize(unit(images).add_(shift.view(-1, 1, 1, 1)))


def draw_dummy(key: Key, n: int, reach: float, images) -> dict:
    return {"share": key.field("uniform", "dummy", 1)[:, 0]}


def add() -> None:
    """Add the corruption: its severities, its random operation, its row."""
    for constants in CONSTANTS.values():
        constants["dummy"] = SEVERITIES
    philox.OPERATIONS["dummy"] = 95  # the last id of the corruptions
    register(Corruption("dummy", dummy, draw_dummy, {"share": ("number", ())}))
