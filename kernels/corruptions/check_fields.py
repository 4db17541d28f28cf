"""Checks of the random fields that a caller gives to ``corrupt``: names, shapes, dtypes, and values on the CPU.

Checking values on a GPU would synchronize. There kernels keep every read inside their image whatever the values are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastreg.kernels.corruptions.table import Corruption


class Kind(NamedTuple):
    """Values that a field may hold.

    Args:
        dtypes: Keys of ``_DTYPES``.
        valid: ``valid(values, sizes)`` is true where a value is allowed. ``sizes`` is ``Corruption.sizes``.
        words: Allowed values in words, for the error.
    """

    dtypes: tuple[str, ...]
    valid: Callable[[Tensor, Mapping], Tensor] = lambda values, sizes: torch.ones((), dtype=torch.bool)
    words: str = ""


def _in_reach(shift: Tensor, sizes: Mapping) -> Tensor:
    """Shifts of pixels that do not move are never read, so they are not checked."""
    low, high = sizes["low"], sizes["high"]
    moved = slice(high + 2, shift.shape[-1] - high)
    shift = shift[..., moved, moved]
    return (shift >= low) & (shift <= high)


def _is_count(count: Tensor, sizes: Mapping) -> Tensor:
    count = count.double()
    return (count >= 0) & (count < 2**31) & (count == count.floor())


KINDS = {
    "float": Kind(("float",), lambda x, _: x.isfinite(), "finite numbers"),
    "number": Kind(("float", "integer"), lambda x, _: x.isfinite(), "finite numbers"),
    "count": Kind(("integer", "float"), _is_count, "whole numbers of 0 or more"),
    "positive": Kind(("float", "integer"), lambda x, _: x.isfinite() & (x > 0), "finite numbers above 0"),
    "rays": Kind(("integer",), lambda x, _: (x >= 1) & (x <= 199), "whole numbers from 1 to 199"),
    "byte": Kind(("integer", "uint8"), lambda x, _: (x >= 0) & (x <= 255), "whole numbers from 0 to 255"),
    "shift": Kind(("integer",), _in_reach, "whole numbers from {low} to {high} where pixels move"),
    "bool": Kind(("bool",)),
    "uint8": Kind(("uint8",)),
}
_DTYPES: dict[str, Callable[[torch.dtype], bool]] = {
    "float": lambda dtype: dtype.is_floating_point,
    "integer": lambda dtype: not dtype.is_floating_point and not dtype.is_complex and dtype != torch.bool,
    "bool": lambda dtype: dtype == torch.bool,
    "uint8": lambda dtype: dtype == torch.uint8,
}


def check_fields(fields: Any, row: Corruption, parameter: Any, images: Tensor) -> dict[str, Tensor]:
    """Check the fields that a caller gives.

    Args:
        fields: Mapping of a field's name to its values, a tensor or an array.
        row: The corruption.
        parameter: The severity's constant.
        images: uint8 [B, n, n, 3].

    Returns:
        The fields as tensors on the images' device. A number per sample on the host stays there.

    Raises:
        TypeError: ``fields`` is not a mapping, or a field is not a tensor or an array.
        ValueError: A field is missing or unknown, or has another shape, another dtype or forbidden values.
    """
    if not isinstance(fields, Mapping):
        raise TypeError(f"`fields` is {type(fields).__name__}: give a dict of names and values.")
    if set(fields) != set(row.fields):
        wanted = f"takes the fields {', '.join(row.fields)}" if row.fields else "draws nothing and takes no fields"
        raise ValueError(f"`fields` holds {', '.join(map(str, fields)) or 'none'}: {row.name} {wanted}.")
    n, sizes = images.shape[1], row.sizes(parameter)
    sides = {"n": n, "half": n * n // 2, **sizes}
    result = {}
    for field, (kind, shape) in row.fields.items():
        dtypes, valid, words = KINDS[kind]
        wanted_shape = [len(images), *(sides.get(side, side) for side in shape)]
        named = f"`fields[{field!r}]`"
        try:
            values = torch.as_tensor(fields[field]).detach()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{named} is {type(fields[field]).__name__}: give a tensor or an array.") from None
        if list(values.shape) != wanted_shape:
            raise ValueError(f"{named} has shape {list(values.shape)}: {row.name} takes {wanted_shape}.")
        if not any(_DTYPES[dtype](values.dtype) for dtype in dtypes):
            raise ValueError(f"{named} is {values.dtype}: {row.name} takes {' or '.join(dtypes)} values.")
        here = values if not shape and values.device.type == "cpu" else values.to(images.device)
        seen = values if values.device.type == "cpu" else here
        if seen.device.type == "cpu" and not valid(seen, sizes).all():
            raise ValueError(f"{named} holds other values: {row.name} takes {words.format(**sizes)}.")
        result[field] = here
    return result
