"""``corrupt`` and ``draw_fields`` of every corruption against the CPU route."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from fastreg.kernels import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt, draw_fields
from fastreg.kernels.corruptions.glass import shuffle_reference, shuffle_triton
from fastreg.kernels.corruptions.table import TABLE
from tests.kernels.corruptions.golden_cases import frost_textures
from tests.ptx.case import Case, check, generator, levels
from tests.ptx.emulator import Mode

# Normals agree to 1e-6, and the smoothing of elastic's fields to 1e-15: share of values, levels.
LOOSE = {
    **dict.fromkeys(("gaussian_noise", "speckle_noise", "snow"), (1e-3, 1)),
    "spatter": (1e-3, 255),
    "elastic_transform": (1e-4, 1),
}
SIZES = ((32, "cifar32", (1, 5)), (224, "imagenet224", (5,)), (1, "cifar32", (1, 5)))


def images(n: int, B: int) -> Tensor:
    """Noise, flat areas, a ramp."""
    x = levels(B, n, n, 3)
    x[1::3] = x[1::3] // 85 * 85
    if B > 2:
        ramp = torch.arange(n).view(n, 1, 1) * 2 + torch.arange(n).view(1, n, 1) + torch.arange(3) * 40
        x[2] = (ramp % 256).to(torch.uint8)
    return x


def corrupted() -> Iterator[Case]:
    for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS):
        rare, most = LOOSE.get(name, (0, 0))
        for n, constants, severities in SIZES:
            x = images(n, 1 if n == 224 else 3)
            indices = torch.tensor([5, 2**31 + 9, 0])[: len(x)]
            key = {"seed": 2**63 + 7, "indices": indices, "constants": constants, "textures": frost_textures()}
            for severity in severities:
                run = partial(corrupt, x, name, severity, **key)
                share = 1.0 if n == 1 and name == "elastic_transform" else rare
                yield Case(f"{name} {severity}, {n} px", run, run, 0, share, most)


def drawn() -> Iterator[Case]:
    """The fields drawn on the device, then the images corrupted with them."""
    for name, row in TABLE.items():
        if row.draw is None:
            continue
        x = images(32, 3)
        key = {"seed": 9, "indices": torch.tensor([5, 2**31 + 9, 0]), "size": 32, "textures": frost_textures()}

        def run(name=name, x=x, key=key) -> tuple[Tensor, ...]:
            fields = draw_fields(name, 3, images=x, **key)
            return *fields.values(), corrupt(x, name, 3, fields=fields)

        yield Case(f"fields of {name}", run, run, differs=partial(fields_differ, name))


def fields_differ(name: str, result: tuple[Tensor, ...], expected: tuple[Tensor, ...], mode: Mode) -> str:
    tolerance = 1e-6 if "normal" in TABLE[name].fields else 0
    for a, b in zip(result[:-1], expected[:-1]):
        if (off := (a.double() - b.double()).abs().max().item()) > tolerance:
            return f"a field is off by {off:.3g}"
    off = (result[-1].int() - expected[-1].int()).abs()
    share, most = (off > 0).double().mean().item(), int(off.max())
    rare, limit = LOOSE.get(name, (0, 0))
    return f"{share:.2%} of levels are off by up to {most}" if most > limit or share > rare else ""


def wild_shifts() -> Case:
    level = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=generator(1))
    wild = torch.randint(-(2**15), 2**15, (2, 2, 3, 32, 32), generator=generator(2)).short()
    clamped = wild.clamp(-4, 3)
    return Case(
        "glass, wild shifts",
        partial(shuffle_triton, level, *wild, reach=4),
        partial(shuffle_reference, level, *clamped, reach=4),
    )


@pytest.mark.parametrize("case", [*corrupted(), *drawn(), wild_shifts()], ids=lambda case: case.name)
def test_corruptions(case, emulator):
    check(emulator, case)
