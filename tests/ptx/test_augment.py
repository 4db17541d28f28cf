"""``augment`` on its three routes (streamed, odd rows, resampled), and with values that a GPU run does not check."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from fastreg.kernels import Plan, augment
from fastreg.kernels.augmentation.launch import augment_triton
from fastreg.kernels.augmentation.reference import augment_reference, draw_normals
from fastreg.kernels.augmentation.registry import _FIELDS, MEAN, STD, draw_plan
from tests.ptx.case import Case, check, generator, levels, rounded
from tests.ptx.emulator import Mode

SEED, STEP = 2**64 - 3, 5
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MIXES = (
    (),
    ("partner",),
    ("partner", "lam"),
    ("partner", "box"),
    ("box", "box_fill"),
    ("partner", "lam", "box"),
    ("partner", "box", "box_fill"),
    ("partner", "lam", "box", "box_fill"),
)
ERASED = (("erase",), ("erase", "erase_noise"), ("noise", "erase"))


def make(
    name: str,
    x: Tensor,
    plan: Plan,
    dtype: torch.dtype,
    size: tuple[int, int] | None = None,
    given_noise: bool = False,
    unchecked: bool = False,
) -> Case:
    """``unchecked``: the launcher alone, without the checks of ``augment``."""
    B, H, W, _ = x.shape
    h, w = size or (H, W)
    indices = torch.arange(B) * 7919 + 2**31
    noisy = plan.noise is not None or plan.erase_noise is not None
    field = draw_normals(SEED, indices, STEP, (h, w), x.device) if noisy else None
    if field is not None and given_noise:
        field = torch.randn(B, h, w, 3, generator=generator(h, w))
    shared = {"mean": MEAN, "std": STD, "size": (h, w)}
    drawn = {"seed": SEED, "step": STEP, **({"normal": field} if given_noise else {"indices": indices})}
    call: Callable[[], Tensor] = partial(augment, x, plan, dtype=dtype, **shared, **drawn)
    if unchecked:
        call = partial(augment_triton, x, plan, dtype=dtype, **shared, seed=0, step=0, indices=None, normal=None)
    reference = partial(augment_reference, x, plan, dtype=torch.float32, **shared, normal=field)
    return Case(name, call, reference, differs=rounded)


def combinations() -> Iterator[Case]:
    """Every eleventh combination of route, noise, flip and mix."""
    routes = {"streamed": (8, 8, 8, 8), "odd": (5, 7, 5, 7), "cropped": (9, 10, 6, 7)}
    dtypes = itertools.cycle(DTYPES)
    chosen = itertools.product(routes, (None, "drawn", "given"), (False, True), MIXES)
    for route, noise, flip, mix in itertools.islice(chosen, 10, None, 11):
        H, W, h, w = routes[route]
        fields = ("crop",) * (route == "cropped") + ("noise",) * bool(noise) + ("flip",) * flip + mix
        plan = draw_plan(fields, 2, h, w, (H, W), "cpu")
        if "partner" in mix:
            plan = plan._replace(partner=torch.tensor([1, 0]))
        name = f"{route}, {noise or 'no'} noise, {'+'.join(fields) or 'plain'}"
        yield make(name, levels(2, H, W, 3), plan, next(dtypes), (h, w), noise == "given")


def sizes() -> Iterator[Case]:
    """Training sizes; ends of blocks; arguments of 1, which Triton makes constants; a batch that is not aligned."""
    for name in ("cutmix", "all", "erase", "erase_noise"):
        plan = draw_plan(_FIELDS[name], 3, 224, 224, (224, 224), "cpu")
        yield make(f"224 px, {name}", levels(3, 224, 224, 3), plan, torch.bfloat16)
    plan = draw_plan(("crop", *_FIELDS["all"]), 2, 224, 224, (256, 256), "cpu")
    yield make("256 to 224 px, all", levels(2, 256, 256, 3), plan, torch.bfloat16, (224, 224))
    for erased, shape, mix in itertools.product(ERASED, ((8, 8, 8, 8), (5, 7, 5, 7), (9, 10, 6, 7)), MIXES[::7]):
        H, W, h, w = shape
        plan = draw_plan((*("crop",) * (h != H), *mix, *erased), 2, h, w, (H, W), "cpu")
        yield make(f"{H} to {h}, {'+'.join((*mix, *erased))}", levels(2, H, W, 3), plan, torch.float32, (h, w))
    plan = draw_plan(("flip", "partner", "box"), 3, 32, 40, (32, 40), "cpu")
    yield make("32 x 40", levels(3, 32, 40, 3), plan, torch.float32)
    for shape, size in (((1, 1, 8, 3), (1, 8)), ((1, 1, 1, 3), (1, 1)), ((1, 5, 1, 3), (4, 3)), ((1, 1, 5, 3), (3, 4))):
        fields = ("crop",) if shape[1:3] != size else ("flip", "noise", "partner", "box")
        plan = draw_plan(fields, 1, *size, shape[1:3], "cpu")
        yield make(f"{shape} to {size}", levels(*shape), plan, torch.float32, size)
    x = levels(2, 8, 8, 3)
    shifted = torch.empty(x.numel() + 1, dtype=torch.uint8)[1:].view(x.shape).copy_(x)
    yield make("not aligned", shifted, Plan(flip=torch.tensor([True, False])), torch.float32)


def crops() -> Iterator[Case]:
    shift = torch.tensor([[-4, 4, 32, 32], [0, 0, 32, 32], [3, -1, 32, 32]], dtype=torch.float32)
    yield make("shifted", levels(3, 32, 32, 3), Plan(crop=shift), torch.float32)
    wild = torch.tensor([[-4, 4, 12, 13], [2.5, -30, 9, 60], [50, 50, 8, 8], [0.25, 0.25, 0.5, 0.5]])
    yield make("outside the image", levels(4, 12, 13, 3), Plan(crop=wild), torch.float32, (12, 13))
    whole = Plan(crop=torch.tensor([[0.0, 0.0, 64.0, 64.0]]).expand(2, 4).contiguous())
    yield make("8/7, many sums at half a level", levels(2, 64, 64, 3), whole, torch.float32, (56, 56))


def unchecked() -> Iterator[Case]:
    """Values that ``augment`` does not check on a GPU: bad samples become NaN, and no others."""
    for W in (8, 7):
        box, fill = torch.tensor([[1, 2, 6, 5]] * 3, dtype=torch.int32), torch.tensor([0, 1, 2], dtype=torch.int8)
        plan = Plan(box=box, box_fill=fill)
        yield make(f"nothing to paste, {W}", levels(3, 8, W, 3), plan, torch.float32, unchecked=True)
        bad = Plan(partner=torch.tensor([1, 4, 2, -1]), lam=torch.tensor([0.5, 0.5, 1.5, 0.5]))
        yield nan_in(make(f"bad partners, {W}", levels(4, 8, W, 3), bad, torch.float32, unchecked=True), 1, 2, 3)
    crop = torch.tensor([[0, 0, torch.inf, 8], [0, 0, 8, 8], [0, torch.nan, 8, 8], [0, 0, 0, 8], [0, 0, 8, 8]])
    plan = Plan(crop=crop, partner=torch.tensor([0, 0, 2, 3, 4]), lam=torch.full((5,), 0.5))
    yield nan_in(make("bad crops", levels(5, 8, 8, 3), plan, torch.float32, (6, 6), unchecked=True), 0, 1, 2, 3)


def nan_in(case: Case, *samples: int) -> Case:
    def differs(result: Tensor, expected: None, mode: Mode) -> str:
        nan = result.isnan().flatten(1)
        whole, none = (k in samples for k in range(len(nan))), nan.any(1).tolist()
        return "" if nan.all(1).tolist() == none == [*whole] else f"NaN in the samples {none}"

    case.reference, case.differs = lambda: None, differs
    return case


@pytest.mark.parametrize("case", [*combinations(), *sizes(), *crops(), *unchecked()], ids=lambda case: case.name)
def test_augment(case, emulator):
    check(emulator, case)
