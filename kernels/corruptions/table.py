"""The table of corruptions: one row per corruption, made beside its formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from fastreg.kernels.corruptions.constants import CONSTANTS
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.dispatch import use_triton

_EMPTY: Mapping = MappingProxyType({})


class Corruption(NamedTuple):
    """One corruption: its formula, its random fields and where it runs.

    Args:
        name: Name in ``CONSTANTS``, and of the parameter ``name`` of ``corrupt``.
        apply: ``apply(images, parameter, fields)`` gives uint8 [B, n, n, 3]. ``parameter`` is the severity's constant.
        draw: ``draw(key, n, parameter, images)`` gives the random fields. None: the corruption draws nothing.
        fields: For each field its kind, a key of ``check_fields.KINDS``, and its shape behind the batch. "n" is the
            side of the image, "half" half its number of pixels; other words are keys of ``sizes``.
        sizes: ``sizes(parameter)`` gives the numbers that the fields' shapes and ranges depend on.
        fused: ``fused(name, images, parameter, key)`` draws and applies in one kernel, with no field in memory.
        textures: Draws from the frost textures.
    """

    name: str
    apply: Callable[..., Tensor]
    draw: Callable[..., dict[str, Tensor]] | None = None
    fields: Mapping[str, tuple[str, tuple]] = _EMPTY
    sizes: Callable[[Any], Mapping[str, int]] = lambda parameter: _EMPTY
    fused: Callable[..., Tensor] | None = None
    textures: bool = False

    def generate(self, images: Tensor, parameter: Any, key: Key) -> Tensor:
        """Draw the random fields and apply the corruption: uint8 [B, n, n, 3]."""
        assert self.draw is not None
        if self.fused and use_triton(images):
            return self.fused(self.name, images, parameter, key)
        return self.apply(images, parameter, self.draw(key, images.shape[1], parameter, images))


TABLE: dict[str, Corruption] = {}


def register(*rows: Corruption) -> None:
    """Add corruptions to ``TABLE``.

    Args:
        rows: The corruptions. Their severities must be in every set of ``CONSTANTS``.

    Raises:
        ValueError: A set of constants has no severities for a row.
    """
    for row in rows:
        missing = [name for name, severities in CONSTANTS.items() if row.name not in severities]
        if missing:
            raise ValueError(f"`rows` holds {row.name!r}: add its five severities to {', '.join(missing)}.")
        TABLE[row.name] = row
