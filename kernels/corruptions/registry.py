"""The registry's rows of the corruptions. Large examples are ImageNet-C's costliest severities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastreg.kernels import philox
from fastreg.kernels.corruptions import (
    blur,
    elastic,
    field_kernels,
    fields,
    filter_kernels,
    filters,
    noise,
    noise_kernels,
)
from fastreg.kernels.corruptions.constants import IMAGENET224
from fastreg.kernels.registry import Op, Variant


def _levels(device, small: bool) -> torch.Tensor:
    shape = (2, 19, 19, 3) if small else (256, 224, 224, 3)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8).to(device)


def _uniform(device, small: bool, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(device)


def _gaussian(device="cpu", small: bool = True) -> dict[str, Any]:
    weights = filters.on(filters.gaussian_weights(2 if small else 6), torch.device(device))
    return {"x": filters.unit(_levels(device, small)), "weights": weights}


def _motion(device="cpu", small: bool = True) -> dict[str, Any]:
    images = _levels(device, small)
    weights = filters.on(filters.motion_weights(*((4, 2) if small else (20, 15))), torch.device(device))
    angle = _uniform(device, small, len(images)) * 360
    dx, dy = filters.motion_offsets(angle, len(weights))
    return {"images": images, "weights": weights, "dx": dx, "dy": dy}


def _zoom(device="cpu", small: bool = True) -> dict[str, Any]:
    x = filters.unit(_levels(device, small), torch.float32)
    grids = [filters.zoom_grid(x.shape[1], zoom) for zoom in blur.zoom_factors((1.16, 0.04 if small else 0.01))]
    left, weight = (filters.on(np.stack(part), x.device) for part in zip(*grids))
    return {"x": x, "left": left, "weight": weight.float()}


def _warp(device="cpu", small: bool = True) -> dict[str, Any]:
    x = filters.unit(_levels(device, small), torch.float32)
    corners = (_uniform(device, small, len(x), 3, 2) - 0.5) * x.shape[1]
    return {"x": x, "matrix": elastic.affine_inverse(corners, x.shape[1])}


def _displace(device="cpu", small: bool = True) -> dict[str, Any]:
    x = filters.unit(_levels(device, small), torch.float32)
    shifts = _uniform(device, small, 2, *x.shape[:3]).double() - 0.5
    return {"x": x, "shifts": shifts, "alpha": filters.on(np.array([2.0 * x.shape[1]]), x.device)}


def _glass(device="cpu", small: bool = True) -> dict[str, Any]:
    levels = _levels(device, small)
    reach, shape = (2, (len(levels), 2, *levels.shape[1:3]))
    dx, dy = ((_uniform(device, small, 2, *shape) * 2 * reach).floor() - reach).short().unbind(0)
    return {"levels": levels, "dx": dx, "dy": dy, "reach": reach}


def _field(kind: str, span: int = 0):
    def example(device="cpu", small: bool = True) -> dict[str, Any]:
        levels = _levels(device, small)
        case = {"seed": 2**63 + 5, "samples": torch.arange(len(levels), dtype=torch.int32, device=device) - 1}
        case |= {"kind": kind, "count": levels[0].numel(), "step": 3, "operation": "gaussian_noise", "span": span}
        if kind == "poisson":
            table = philox.poisson_table(np.arange(256) * 60 / 255)
            case |= {"levels": levels, "table": filters.on(table.view(np.int32), levels.device)}
        return case

    return example


def _noise(name: str):
    def example(device="cpu", small: bool = True) -> dict[str, Any]:
        images = _levels(device, small)
        key = fields.Key(2**63 + 5, np.arange(len(images)) + 2**31, 5, images.device)
        return {"name": name, "images": images, "parameter": IMAGENET224[name][4], "key": key}

    return example


def _host_noise(name: str, images: torch.Tensor, parameter, key: fields.Key) -> torch.Tensor:
    n = images.shape[1]
    samples = filters.on(key.samples.astype(np.uint32).view(np.int32), key.device)
    place = (key.seed, samples, n * n * 3, key.severity, name)
    if name == "shot_noise":
        table = filters.on(fields.photon_table(parameter).view(np.int32), key.device)
        drawn = {"counts": fields.host_field("poisson", *place, levels=images, table=table)}
    elif name == "impulse_noise":
        code = fields.host_field("impulse", *place, span=2 * round(parameter * 2**31))
        drawn = {"replace": (code & 1).bool(), "salt": (code & 2).bool()}
    else:
        drawn = {"normal": fields.host_field("normal", *place)}
    drawn = {field: values.view(images.shape) for field, values in drawn.items()}
    return getattr(noise, name)(images, parameter, drawn)


def _touched(arguments: dict[str, Any]) -> int:
    """Every tensor read once, and uint8 or the input's type written once."""
    tensors = [t for t in arguments.values() if isinstance(t, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors) + tensors[0].numel() * tensors[0].element_size()


def _drawn(arguments: dict[str, Any]) -> int:
    return len(arguments["samples"]) * arguments["count"] * field_kernels.DTYPES[arguments["kind"]].itemsize


_POINTERS = {
    **dict.fromkeys(("images_ptr", "levels_ptr"), "*u8"),
    **dict.fromkeys(("samples_ptr", "table_ptr", "left_ptr"), "*i32"),
    **dict.fromkeys(("rows_ptr", "columns_ptr", "weights_ptr"), "*fp64"),
    "weight_ptr": "*fp32",
    "seed": "i64",
    **dict.fromkeys(("n", "radius", "taps", "zooms", "reach", "passes", "step", "count", "span"), "i32"),
}


def _variant(label: str, kernel, elements: int, types: dict[str, str], kind: str = "gather", **constants) -> Variant:
    return Variant(label, kernel, _POINTERS | types, constants, elements, 4, ("n", "count"), kind, fusion=False)


_F, _C, _B = filter_kernels, field_kernels, filter_kernels.BLOCK
_BYTES, _DOUBLES = {"out_ptr": "*u8"}, {"x_ptr": "*fp64", "out_ptr": "*fp64"}
_LAST = _DOUBLES | _BYTES
_FLOATS = {"x_ptr": "*fp32", "out_ptr": "*fp32", "place_ptr": "*fp64", "alpha_ptr": "*fp64"}
_RAY, _SHIFT = (
    _BYTES | dict.fromkeys(("dx_ptr", "dy_ptr"), "*i32"),
    _BYTES | dict.fromkeys(("dx_ptr", "dy_ptr"), "*i16"),
)
_TYPES = {"normal": "*fp32", "integer": "*i16", "impulse": "*u8", "poisson": "*i16"}


def _field_variant(kind: str) -> Variant:
    constants = {"OPERATION": 64, "KIND": kind, "WIDTH": 256, "BLOCK": _C.BLOCK}
    return _variant(f"field_{kind}", _C.field_kernel, _C.BLOCK * 4, {"out_ptr": _TYPES[kind]}, "compute", **constants)


def _noise_op(name: str) -> Op:
    constants = {"OPERATION": 64, "KIND": name, "WIDTH": 128, "BLOCK": noise_kernels.BLOCK}
    kind = "compute" if name == "shot_noise" else "stream"
    types = _BYTES | {"sigma_ptr": "*fp64"}
    variant = _variant(name, noise_kernels.noise_kernel, noise_kernels.BLOCK * 4, types, kind, **constants)
    # normals agree to 1e-6, so that one in many thousands is cut to another level
    rare = {"rare": 0.001, "rare_tolerance": 1.0} if name in ("gaussian_noise", "speckle_noise") else {}
    return Op(name, noise_kernels.noise, _host_noise, _noise(name), _touched, (variant,), **rare)


OPS = (
    Op(
        "gaussian_filter", _F.gaussian, filters.plain_gaussian, _gaussian, _touched,
        (_variant("gaussian_filter", _F.gaussian_kernel, _B, _DOUBLES, DOWN=True, LEVELS=False, CHANNELS=3, BLOCK=_B),
         _variant("gaussian_levels", _F.gaussian_kernel, _B, _LAST, DOWN=False, LEVELS=True, CHANNELS=3, BLOCK=_B),
         *(_variant(f"gaussian_filter, grey, {way}", _F.gaussian_kernel, _B, _DOUBLES, DOWN=way == "down", LEVELS=False,
                    CHANNELS=1, BLOCK=_B) for way in ("down", "across"))),
    ),
    Op(
        "motion_taps", _F.motion, filters.plain_motion, _motion, _touched,
        (_variant("motion_taps", _F.motion_kernel, _B, _RAY, CHANNELS=3, BLOCK=_B),
         _variant("motion_taps, grey", _F.motion_kernel, _B, _RAY, CHANNELS=1, BLOCK=_B)),
    ),
    Op(
        "zoom_mean", _F.zoom, blur.plain_zoom, _zoom, _touched,
        (_variant("zoom_mean", _F.zoom_kernel, _B, {"x_ptr": "*fp32", "out_ptr": "*u8"}, BLOCK=_B),),
    ),
    Op(
        "elastic_warp", _F.warp, elastic.plain_warp, _warp, _touched,
        (_variant("elastic_warp", _F.bilinear_kernel, _B, _FLOATS, AFFINE=True, BLOCK=_B),),
    ),
    Op(
        "elastic_displace", _F.displace, elastic.plain_displace, _displace, _touched,
        (_variant("elastic_displace", _F.bilinear_kernel, _B, _FLOATS | _BYTES, AFFINE=False, BLOCK=_B),),
    ),
    Op(
        "glass_shuffle", _F.glass, blur.plain_glass, _glass, _touched,
        (_variant("glass_shuffle", _F.glass_kernel, _B, _SHIFT, BLOCK=_B),),
    ),
    Op(
        "field_normal", _C.field, fields.host_field, _field("normal"), _drawn,
        (_field_variant("normal"),), tolerance=1e-6,
    ),
    *map(_noise_op, ("gaussian_noise", "speckle_noise", "shot_noise", "impulse_noise")),
    Op("field_integer", _C.field, fields.host_field, _field("integer", 8), _drawn, (_field_variant("integer"),)),
    Op("field_impulse", _C.field, fields.host_field, _field("impulse", 2**29), _drawn, (_field_variant("impulse"),)),
    Op("field_poisson", _C.field, fields.host_field, _field("poisson"), _drawn, (_field_variant("poisson"),)),
)  # fmt: skip
