"""The registry's rows of the corruptions that work pixel by pixel, of fog, snow and pixelate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastreg.kernels.corruptions import color as colour
from fastreg.kernels.corruptions import digital, digital_kernels, filters, pixel_kernels, plasma, weather
from fastreg.kernels.corruptions import weather_kernels as W
from fastreg.kernels.corruptions.registry import _levels, _touched, _uniform
from fastreg.kernels.registry import Op, Variant

_P, _D = pixel_kernels, digital_kernels


def _flat(device, small: bool) -> torch.Tensor:
    """Noise, the second image a quarter of the levels, so that equal channels and flat areas are among it."""
    images = _levels(device, small)
    images[1::2] = images[1::2] // 85 * 85
    return images


def _numbers(device, *values: float) -> torch.Tensor:
    return filters.on(np.array(values, float), torch.device(device))


def _unit(dtype: torch.dtype):
    def example(device="cpu", small: bool = True) -> dict[str, Any]:
        return {"images": _levels(device, small), "dtype": dtype}

    return example


def _plain_unit(images, dtype):
    """The correctly rounded quotient on every device: a table."""
    table = torch.from_numpy(np.arange(256) / np.array(255, str(dtype).removeprefix("torch."))).to(dtype)
    return table.to(images.device)[images.long()]


def _quantise(device="cpu", small: bool = True) -> dict[str, Any]:
    return {"x": _plain_unit(_levels(device, small), torch.float64) * 1.25 - 0.1}


def _plain_quantise(x):
    return (x.clamp(0, 1) * 255).to(torch.uint8)


def _hsv(device="cpu", small: bool = True) -> dict[str, Any]:
    return {"images": _flat(device, small), "change": _numbers(device, 2.0, 0.05, -0.2)}


def _plain_hsv(images, change):
    return colour.plain_hsv(images.cpu(), tuple(change.tolist())).to(images.device)


def _contrast(device="cpu", small: bool = True) -> dict[str, Any]:
    return {"images": _flat(device, small), "factor": _numbers(device, 0.3)}


def _plain_contrast(images, factor):
    return colour.plain_contrast(images.cpu(), factor.item()).to(images.device)


def _frost(device="cpu", small: bool = True) -> dict[str, Any]:
    images = _levels(device, small)
    n = images.shape[1]
    pixels = _levels(device, small).flip(0, 1).reshape(-1, 3)
    first = torch.arange(len(images), device=device) * n
    return {
        "images": images,
        "pixels": pixels,
        "first": first,
        "stride": first * 0 + n,
        "weights": _numbers(device, 0.6, 0.75),
    }


def _plain_frost(images, pixels, first, stride, weights):
    line = torch.arange(images.shape[1], device=images.device)
    texture = pixels[first[:, None, None] + line[:, None] * stride[:, None, None] + line]
    return weather.plain_frost(images, tuple(weights.tolist()), texture)


def _plasma(device="cpu", small: bool = True) -> dict[str, Any]:
    side, n = (32, 19) if small else (256, 224)
    uniform = _uniform(device, small, 2 if small else 256, side, side)
    return {"uniform": uniform, "scales": filters.on(plasma.amplitudes(side, 1.4), torch.device(device)), "n": n}


def _fog(device="cpu", small: bool = True) -> dict[str, Any]:
    images = _flat(device, small) // 2
    return {"images": images, "plasma": _uniform(device, small, *images.shape[:3]), "amount": _numbers(device, 2.5)}


def _plain_fog(images, plasma, amount):
    return weather.plain_fog(images.cpu(), plasma.cpu(), amount.cpu()).to(images.device)


def _flakes(device="cpu", small: bool = True) -> dict[str, Any]:
    images = _levels(device, small)
    left, weight = (filters.on(values, images.device) for values in filters.zoom_grid(images.shape[1], 2.5))
    normal = _uniform(device, small, *images.shape[:3]) * 4 - 2
    return {"normal": normal, "left": left, "weight": weight, "law": _numbers(device, 0.3, 0.55, 0.6)}


def _snow(device="cpu", small: bool = True) -> dict[str, Any]:
    images = _flat(device, small)
    return {"images": images, "layer": images[..., :1].flip(1).contiguous(), "weight": 0.55}


def _plain_snow(images, layer, weight):
    return weather.plain_snow(images.cpu(), layer.cpu(), weight).to(images.device)


def _pixelate(device="cpu", small: bool = True) -> dict[str, Any]:
    images = _levels(device, small)
    n = images.shape[1]
    first, count = (taps[digital.box_taps(int(n * 0.3), n)[0]] for taps in digital.box_taps(n, int(n * 0.3)))
    most = int(count.max())
    return {
        "images": images,
        "first": filters.on(first, images.device),
        "count": filters.on(count, images.device),
        "most": most,
    }


def _plain_pixelate(images, first, count, most):
    return digital.pillow_pixelate(images.cpu(), int(images.shape[1] * 0.3)).to(images.device)


_POINTERS = {
    **dict.fromkeys(("images_ptr", "out_ptr", "pixels_ptr", "layer_ptr", "brightest_ptr"), "*u8"),
    **dict.fromkeys(("change_ptr", "factor_ptr", "weights_ptr", "amount_ptr", "law_ptr", "weight_ptr"), "*fp64"),
    **dict.fromkeys(("scale_ptr", "low_ptr", "high_ptr", "height_ptr", "x_ptr"), "*fp64"),
    **dict.fromkeys(("uniform_ptr", "plasma_ptr", "normal_ptr"), "*fp32"),
    **dict.fromkeys(("sums_ptr", "left_ptr", "first_ptr", "count_ptr"), "*i32"),
    **dict.fromkeys(("count", "pixels", "parts", "n", "side", "step"), "i32"),
    **dict.fromkeys(("weight", "white"), "fp32"),
    "stride_ptr": "*i64",
}


def _variant(label: str, kernel, block: int, kind: str = "compute", types: dict | None = None, **constants) -> Variant:
    divisible = ("count", "pixels", "n", "side", *constants.pop("divisible", ()))
    signature, constants = _POINTERS | (types or {}), {"BLOCK": block, **constants}
    return Variant(label, kernel, signature, constants, block, divisible=divisible, kind=kind, fusion=False)


_LONG, _DOUBLE = {"first_ptr": "*i64"}, {"out_ptr": "*fp64"}
OPS = (
    Op(
        "unit_double", _P.unit, _plain_unit, _unit(torch.float64), lambda a: 9 * a["images"].numel(),
        (_variant("unit_double", _P.unit_kernel, _P.BLOCK, "stream", _DOUBLE),),
    ),
    Op(
        "unit_float", _P.unit, _plain_unit, _unit(torch.float32), lambda a: 5 * a["images"].numel(),
        (_variant("unit_float", _P.unit_kernel, _P.BLOCK, "stream", {"out_ptr": "*fp32"}),),
    ),
    Op(
        "quantise", _P.quantise, _plain_quantise, _quantise, lambda a: 9 * a["x"].numel(),
        (_variant("quantise", _P.quantise_kernel, _P.BLOCK, "stream"),
         _variant("quantise_float", _P.quantise_kernel, _P.BLOCK, "stream", {"x_ptr": "*fp32"})),
    ),
    Op("hsv", _P.hsv, _plain_hsv, _hsv, _touched, (_variant("hsv", _P.hsv_kernel, _P.PIXELS),)),
    Op(
        "contrast", _P.contrast, _plain_contrast, _contrast, lambda a: 3 * a["images"].numel(),
        (_variant("channel_sums", _P.sum_kernel, _P.PIXELS),
         _variant("contrast", _P.contrast_kernel, _P.PIXELS, PARTS=128)),
    ),
    Op(
        "frost", _P.frost, _plain_frost, _frost, lambda a: 3 * a["images"].numel(),
        (_variant("frost", _P.frost_kernel, _P.BLOCK, "gather", _LONG),),
    ),
    Op(
        "plasma", W.plasma, plasma.plain_plasma, _plasma, lambda a: 18 * a["uniform"].numel(),
        (_variant("plasma", W.plasma_kernel, W.CELLS, "gather"),
         _variant("plasma, large cells", W.plasma_kernel, W.CELLS, "gather", divisible=("step",)),
         _variant("stretch", W.stretch_kernel, W.BLOCK, "gather", {"out_ptr": "*fp32"})),
    ),
    Op("fog", W.fog, _plain_fog, _fog, _touched, (_variant("fog", W.fog_kernel, W.BLOCK, "gather"),)),
    Op(
        "snow_flakes", W.flakes, weather.plain_flakes, _flakes, _touched,
        (_variant("snow_flakes", W.flakes_kernel, W.BLOCK, "gather"),),
    ),
    Op("snow", W.snow, _plain_snow, _snow, _touched, (_variant("snow", W.snow_kernel, W.BLOCK),)),
    Op(
        "pixelate", _D.pixelate, _plain_pixelate, _pixelate, _touched,
        (_variant("pixelate", _D.pixelate_kernel, _D.BLOCK, "gather", MOST=4),),
    ),
)  # fmt: skip
