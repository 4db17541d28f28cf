"""Random fields that a caller gives to ``corrupt``: their names, shapes and types; their values where they lie on the
CPU. On a GPU a look at values would stop the stream: there kernels keep what they read inside their images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Kind(NamedTuple):
    """What a field holds. ``reach`` is the one of glass_blur's severity."""

    types: tuple[str, ...]  # "float", "integer", "bool", "uint8"
    law: Callable[[Tensor, int], Tensor] = lambda values, reach: torch.ones((), dtype=torch.bool)
    words: str = ""


def _in_reach(shift: Tensor, reach: int) -> Tensor:
    """Only at the pixels that are moved: what lies elsewhere is never read."""
    moved = slice(reach + 1, shift.shape[-1] - reach + 1)
    shift = shift[..., moved, moved]
    return (shift >= -reach) & (shift < reach)


def _whole(count: Tensor, reach: int) -> Tensor:
    count = count.double()
    return (count >= 0) & (count < 2**31) & (count == count.floor())


KINDS = {
    "float": Kind(("float",), lambda x, _: x.isfinite(), "finite numbers"),
    "number": Kind(("float", "integer"), lambda x, _: x.isfinite(), "finite numbers"),
    "count": Kind(("integer", "float"), _whole, "whole numbers from 0 on"),
    "shift": Kind(("integer",), _in_reach, "whole numbers from {low} to {high} where pixels move"),
    "bool": Kind(("bool",)),
    "uint8": Kind(("uint8",)),
}


def checked(
    fields: Any, table: Mapping[str, tuple[str, tuple]], name: str, parameter: Any, images: Tensor
) -> dict[str, Tensor]:
    """``fields`` as tensors, on the images' device but for a number per sample, which the host may keep.

    ``table``: name of a field -> kind, shape behind the batch. TypeError or ValueError names the field that is wrong.
    """
    if not isinstance(fields, Mapping):
        raise TypeError(f"fields must be a dict of a field's name and its values; got {type(fields).__name__}.")
    if set(fields) != set(table):
        takes = f"takes the fields {', '.join(table)}" if table else "draws nothing and takes no fields"
        raise ValueError(f"{name} {takes}; got {', '.join(map(str, fields)) or 'none'}.")
    reach, passes = parameter[1:] if name == "glass_blur" else (0, 0)
    numbers = {"n": images.shape[1], "passes": passes}
    result = {}
    for field, (kind, shape) in table.items():
        types, law, words = KINDS[kind]
        wanted = (len(images), *(numbers.get(side, side) for side in shape))
        try:
            values = torch.as_tensor(fields[field]).detach()
        except (TypeError, ValueError, RuntimeError):
            was = type(fields[field]).__name__
            raise TypeError(f"{name}: field {field} must be a tensor or an array; got {was}.") from None
        if tuple(values.shape) != wanted:
            raise ValueError(f"{name}: field {field} must have shape {wanted}; got {tuple(values.shape)}.")
        if not any(_is(values.dtype, kind) for kind in types):
            raise ValueError(f"{name}: field {field} must hold {' or '.join(types)} values; got {values.dtype}.")
        here = values if not shape and values.device.type == "cpu" else values.to(images.device)
        seen = values if values.device.type == "cpu" else here
        if seen.device.type == "cpu" and not law(seen, reach).all():
            raise ValueError(f"{name}: field {field} must hold {words.format(low=-reach, high=reach - 1)}.")
        result[field] = here
    return result


def _is(dtype: torch.dtype, kind: str) -> bool:
    integer = not dtype.is_floating_point and not dtype.is_complex and dtype != torch.bool
    return {
        "float": dtype.is_floating_point,
        "integer": integer,
        "bool": dtype == torch.bool,
        "uint8": dtype == torch.uint8,
    }[kind]
