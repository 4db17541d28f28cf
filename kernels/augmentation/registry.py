"""The registry rows of ``augment``: each regularizer by the stream kernel, some by the resample kernel."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fastreg.kernels import philox
from fastreg.kernels.augmentation import augment
from fastreg.kernels.augmentation.launch import chunks_for, switches
from fastreg.kernels.augmentation.reference import augment_reference, draw_normals
from fastreg.kernels.augmentation.resample import COLUMNS, ROWS, WARPS, resample_kernel
from fastreg.kernels.augmentation.stream import stream_kernel
from fastreg.kernels.registry import Op, Variant
from fastreg.kernels.types import IMAGENET_MEAN as MEAN
from fastreg.kernels.types import IMAGENET_STD as STD
from fastreg.kernels.types import Plan

# operation: the fields of its plan
_FIELDS: dict[str, tuple[str, ...]] = {
    "normalise": (),
    "flip": ("flip",),
    "mixup": ("flip", "partner", "lam"),
    "cutmix": ("flip", "partner", "box"),
    "cutout": ("flip", "box", "box_fill"),
    "gaussian_noise": ("flip", "noise"),
    "all": ("flip", "noise", "partner", "lam", "box", "box_fill"),
    "erase": ("flip", "partner", "lam", "box", "box_fill", "erase"),
    "erase_noise": ("flip", "partner", "lam", "box", "box_fill", "erase", "erase_noise"),
}


def draw_plan(fields: tuple[str, ...], B: int, h: int, w: int, input_size: tuple[int, int], device) -> Plan:
    """A plan with ``fields``, drawn per sample. Boxes may leave the image or be empty."""

    def unit(element: int) -> torch.Tensor:
        return torch.from_numpy(philox.uniform(philox.words(7, element, range(B), 0, "mix_choice")[:, :2]))

    size, area = torch.tensor([h, w]), torch.tensor(input_size)
    extent = (unit(0) * 0.8 + 0.2) * area

    def box(element: int) -> torch.Tensor:
        corner = (unit(element) * 1.4 - 0.4) * size
        return torch.cat((corner, corner + unit(element + 1) * size), 1).int()

    partner = philox.permutation(7, B, 0, "mix_choice")
    drawn = {
        "crop": torch.cat((unit(3) * (area - extent), extent), 1).float(),
        "flip": unit(4)[:, 0] < 0.5,
        "noise": (unit(5)[:, 0] * 0.2).where(unit(5)[:, 1] < 0.7, torch.tensor(0.0)),
        "partner": torch.from_numpy(partner),
        "lam": unit(6)[:, 0].clone(),
        "box": box(1),
        "box_fill": (unit(7)[:, 0] * 3 if "partner" in fields else unit(7)[:, 0] * 2 + 1).to(torch.int8),
        "operations": (unit(8) * 16).long()[:, :, None],  # two chains of one operation
        "magnitudes": unit(9)[:, :, None] * 0.3,
        "interpolation": (unit(10) * 3).to(torch.int8)[:, :, None],
        "chain_weights": unit(11) / 2,
        "erase": box(12),
        "erase_noise": (unit(14)[:, 0] * 2).where(unit(14)[:, 1] < 0.7, torch.tensor(0.0)),
    }
    return Plan(**{name: drawn[name].to(device) for name in fields})


def _example(fields: tuple[str, ...], small: tuple[int, ...], large: tuple[int, ...], device="cpu", *, small_case=True):
    B, H, W, h, w = small if small_case else large
    g = torch.Generator().manual_seed(0)
    return {
        "images": torch.randint(0, 256, (B, H, W, 3), generator=g, dtype=torch.uint8).to(device),
        "plan": draw_plan(fields, B, h, w, (H, W), device),
        "mean": MEAN,
        "std": STD,
        "dtype": torch.float32 if small_case else torch.bfloat16,
        "size": (h, w),
        "seed": 2**63 + 11,
        "indices": torch.arange(B) * 7919 + 2**31,
        "step": 3,
    }


def _reference(images, plan, *, mean, std, dtype, size, seed, indices, step):
    normal = None
    if plan.noise is not None or plan.erase_noise is not None:
        normal = draw_normals(seed, indices, step, size, images.device)
    return augment_reference(images, plan, mean=mean, std=std, dtype=dtype, size=size, normal=normal)


def _bytes(arguments: dict[str, Any]) -> int:
    """Each image once, its partner by the share that is blended or pasted, each output once."""
    images, plan, (h, w) = arguments["images"], arguments["plan"], arguments["size"]
    share = 1.0
    if plan.lam is not None:
        share = 2.0
    elif plan.partner is not None:
        y, x = (plan.box[:, k].clamp(0, n) for k, n in ((slice(0, 4, 2), h), (slice(1, 4, 2), w)))
        share += float(((y[:, 1] - y[:, 0]) * (x[:, 1] - x[:, 0])).clamp(min=0).float().mean()) / (h * w)
    return int(images.numel() * share) + len(images) * h * w * 3 * arguments["dtype"].itemsize


_SIGNATURE = {
    "images": "*u8",
    "words": "*i32",
    "crop": "*fp32",
    "flip": "*u1",
    "noise": "*fp32",
    "partner": "*i64",
    "lam": "*fp32",
    "box": "*i32",
    "box_fill": "*i8",
    "erase": "*i32",
    "erase_noise": "*fp32",
    "normal": "*fp32",
    "indices": "*i64",
    "seed": "i64",
    "step": "i32",
    **{f"{k}{c}": "fp32" for k in "st" for c in range(3)},
    "B": "i32",
    "H": "i32",
    "W": "i32",
}


def _stream(fields: tuple[str, ...], label: str, out: str = "*bf16") -> Variant:
    on = switches(Plan(**dict.fromkeys(fields, torch.empty(0))), draw=True)
    chunks = chunks_for(224 * 224 * 3, draw=bool(on["DRAW"]))
    constants = {"N": 224 * 224 * 3, "ROW": 224 * 3, "CHUNKS": chunks, "EMULATE": False, **on}
    flags = sum((bool(on["FLIP"]), bool(on["FLIP"] and on["PARTNER"]), bool(on["FILL"])))
    kind = "compute" if on["DRAW"] else "stream"
    signature = {"out": out, **_SIGNATURE}
    return Variant(label, stream_kernel, signature, constants, 1024 * chunks, 4, ("B",), kind, flags)


def _gather(fields: tuple[str, ...], label: str, side: int, resize: bool) -> Variant:
    on = switches(Plan(**dict.fromkeys(fields, torch.empty(0))), draw=True)
    constants = {"h": side, "w": side, "CROP": resize, "RESIZE": resize, "ROWS": ROWS, "COLUMNS": COLUMNS, **on}
    signature = {"out": "*bf16", **_SIGNATURE}
    divisible = ("B", "H", "W") if resize else ("B",)
    return Variant(label, resample_kernel, signature, constants, ROWS * COLUMNS * 3, WARPS, divisible, "gather")


def _op(name: str, fields: tuple[str, ...], small, large, aot, **tolerance) -> Op:
    example = partial(_example, fields, small, large)

    def make(device="cpu", small: bool = True) -> dict[str, Any]:
        return example(device, small_case=small)

    return Op(f"augment_{name}", augment, _reference, make, _bytes, aot, compiled=augment, **tolerance)


def _rows():
    same, one = (5, 16, 24, 16, 24), (1, 32, 32, 32, 32)
    for name, fields in _FIELDS.items():
        bare = tuple(f for f in fields if f != "flip")
        variants = [_stream(fields, f"augment_{name}")]
        if name in ("mixup", "cutmix"):
            variants.append(_stream(bare, f"augment_{name}, no flip"))
        if name == "mixup":
            variants.append(_stream(fields, "augment_mixup, fp32", "*fp32"))
        if name == "flip":
            variants.append(_stream(fields, "augment_flip, to bytes", "*u8"))
        yield _op(
            name, fields, one if name == "flip" else same, (256, 224, 224, 224, 224), tuple(variants), tolerance=2e-6
        )
    for name in ("flip", "mixup", "cutmix", "all", "erase_noise"):
        fields = ("crop", *_FIELDS[name])
        aot = () if name == "cutmix" else (_gather(fields, f"augment_crop_{name}", 224, True),)
        yield _op(f"crop_{name}", fields, (3, 19, 13, 8, 7), (256, 256, 256, 224, 224), aot, tolerance=2e-6)
    odd = (_gather(_FIELDS["all"], "augment_odd_all", 225, False),)
    yield _op("odd_all", _FIELDS["all"], (3, 9, 7, 9, 7), (256, 225, 225, 225, 225), odd, tolerance=2e-6)


OPS = tuple(_rows())
