"""auto_augment: every operation and interpolation at sides of every kind, in one and several slots."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from fastreg.kernels import AUTO_AUGMENT_OPERATIONS
from fastreg.kernels.auto_augmentation.apply import auto_augment_triton
from fastreg.kernels.auto_augmentation.reference import auto_augment_reference
from tests.kernels.auto_augmentation.cases import FILL, GEOMETRIC, every, sample_images
from tests.ptx.case import Case, check, generator, levels

MODES = ("nearest", "bilinear", "bicubic")


def cases() -> Iterator[Case]:
    """Equal to the bit: no product is contracted, divisions are rounded."""
    for which in (1, 5, 6, 7):
        for mode, name in enumerate(MODES):
            image = sample_images()[which]
            arguments = (*every(image, GEOMETRIC if mode else AUTO_AUGMENT_OPERATIONS), mode, None, list(FILL))
            yield _case(f"{image.shape[0]}x{image.shape[1]} {name}", arguments)
    for B, H, W, slots, dtype in ((3, 64, 64, 2, torch.int8), (2, 37, 51, 3, torch.int64), (1, 128, 40, 1, torch.int8)):
        draw = generator(B, H, W)
        operations = torch.randint(len(AUTO_AUGMENT_OPERATIONS), (B, slots), generator=draw)
        strengths = 40 * torch.rand((B, slots), generator=draw) - 20
        modes = torch.randint(-1, 4, (B, slots), generator=draw).to(dtype)
        arguments = (levels(B, H, W, 3), operations, strengths, 0, modes, list(FILL))
        yield _case(f"{B}x{H}x{W}, {slots} slots", arguments)


def _case(name: str, arguments: tuple) -> Case:
    return Case(name, *(partial(f, *arguments) for f in (auto_augment_triton, auto_augment_reference)))


@pytest.mark.parametrize("case", [*cases()], ids=lambda case: case.name)
def test_auto_augment(case, emulator):
    check(emulator, case)
