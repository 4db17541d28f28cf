"""gaussian_noise, shot_noise, impulse_noise, speckle_noise: independent per pixel and channel.

    gaussian_noise  x + sigma N           shot_noise     Poisson(photons x) / photons
    speckle_noise   x + x sigma N         impulse_noise  0 or 1 with probability share, else x

The kernel draws and applies, with no field in memory: a program draws BLOCK Philox elements of one sample, and works on
the four values of each.

Bytes per value: 2 (shot_noise also searches a table in cache). Limit at 4.8 TB/s: 16 million images/s at 224 px; the
limit is arithmetic, 30 to 90 instructions per value. Last measured: not yet measured.

Source: ImageNet-C's generation script; random_noise of scikit-image for impulse_noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.constants import IMAGENET224
from fastreg.kernels.corruptions.cpu import routed
from fastreg.kernels.corruptions.examples import levels, touched, variant
from fastreg.kernels.corruptions.fields import Key, field_reference, photon_table
from fastreg.kernels.corruptions.pixels import on, quantize, triton_level, triton_unit, unit
from fastreg.kernels.corruptions.table import Corruption
from fastreg.kernels.dispatch import tl, triton
from fastreg.kernels.philox import OPERATIONS, signed
from fastreg.kernels.philox_triton import triton_normal, triton_poisson, triton_words
from fastreg.kernels.registry import Op

BLOCK = 256


def gaussian_noise(images: Tensor, sigma: float, fields: dict) -> Tensor:
    return _noisy(images, fields["normal"], sigma, times_image=False)


def speckle_noise(images: Tensor, sigma: float, fields: dict) -> Tensor:
    return _noisy(images, fields["normal"], sigma, times_image=True)


def noisy_reference(images: Tensor, normal: Tensor, sigma: float, times_image: bool) -> Tensor:
    """uint8 images plus ``sigma`` times ``normal``, which ``times_image`` multiplies by the image."""
    x = unit(images)
    # float64, rounded before it is added, as in numpy: the ``alpha`` of ``add_`` rounds once for both
    noise = normal.to(torch.float64, copy=True).mul_(sigma)
    return quantize(x.add_(noise.mul_(x) if times_image else noise))


_noisy = routed(noisy_reference, "noise.noisy", noisy_reference)  # the fused kernel has a launch of its own


def shot_noise(images: Tensor, photons: int, fields: dict) -> Tensor:
    counts = fields["counts"].to(torch.int32, copy=True).clamp_(0, photons)
    return on(photon_levels(photons), images.device).index_select(0, counts.view(-1)).view(images.shape)


def photon_levels(photons: int) -> np.ndarray:
    """uint8 [photons + 1]: the level of each count. Counts of ``photons`` or more are white."""
    return (np.arange(photons + 1) / photons * 255).astype(np.uint8)


def impulse_noise(images: Tensor, share: float, fields: dict) -> Tensor:
    # Bit operations are several times as fast as ``where`` on a CPU.
    replace, salt = (fields[name].to(torch.uint8).neg_() for name in ("replace", "salt"))  # 255 or 0
    return salt.bitwise_xor_(images).bitwise_and_(replace).bitwise_xor_(images)


def draw_gaussian_noise(key: Key, n: int, sigma: float, images) -> dict:
    return {"normal": key.field("normal", "gaussian_noise", n, n, 3)}


def draw_speckle_noise(key: Key, n: int, sigma: float, images) -> dict:
    return {"normal": key.field("normal", "speckle_noise", n, n, 3)}


def draw_shot_noise(key: Key, n: int, photons: int, images: Tensor | None) -> dict:
    """Counts by inversion, one word per value. The rate depends on the pixel, so the images are needed."""
    if images is None:
        raise ValueError("`images` is None: shot_noise counts the photons of each pixel, so give the images.")
    pixels = images.to(key.device).contiguous()
    return {"counts": key.field("poisson", "shot_noise", n, n, 3, span=photons, levels=pixels)}


def draw_impulse_noise(key: Key, n: int, share: float, images) -> dict:
    """A word below an even threshold replaces; its lowest bit, which is independent of that, chooses salt or pepper."""
    code = key.field("impulse", "impulse_noise", n, n, 3, span=impulse_threshold(share))
    return {"replace": (code & 1).view(torch.bool), "salt": (code >> 1).view(torch.bool)}


def impulse_threshold(share: float) -> int:
    return 2 * round(share * 2**31)


@triton.jit
def noise_kernel(
    images_ptr,  # uint8 [B, count]
    out_ptr,
    samples_ptr,  # int32 [B]
    table_ptr,  # uint32 [256, WIDTH] as int32: Poisson thresholds, read by shot_noise only
    levels_ptr,  # uint8 [photons + 1]: counts to levels, read by shot_noise only
    seed,
    step,
    count,
    sigma_ptr,  # float64 [1], read by gaussian_noise and speckle_noise only
    span,  # photons, or impulse_noise's threshold of the word
    OPERATION: tl.constexpr,
    KIND: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, b, c, d = triton_words(seed, element, tl.load(samples_ptr + tl.program_id(1)), step, OPERATION)
    value = element[:, None] * 4 + tl.arange(0, 4)[None, :]
    live = value < count
    value += tl.program_id(1).to(tl.int64) * count
    level = tl.load(images_ptr + value, mask=live, other=0)
    if KIND == "gaussian_noise" or KIND == "speckle_noise":
        a, b = triton_normal(a, b)
        c, d = triton_normal(c, d)
        noise = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK, 4)).to(tl.float64) * tl.load(sigma_ptr)
        x = triton_unit(level)
        if KIND == "speckle_noise":
            noise *= x
        level = triton_level(x + noise)
    else:
        word = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK, 4))
        if KIND == "impulse_noise":
            level = tl.where(word < span.to(tl.uint32), ((word & 1) * 255).to(tl.uint8), level)
        else:
            photons = triton_poisson(word, level.to(tl.int32), table_ptr, WIDTH)
            level = tl.load(levels_ptr + tl.minimum(photons, span))
    tl.store(out_ptr + value, level, mask=live)


def noise_triton(name: str, images: Tensor, parameter: float, key: Key) -> Tensor:
    """uint8 [B, n, n, 3] with the noise ``name`` of strength ``parameter``, drawn from ``key``."""
    count = images[0].numel()
    samples = on(key.samples.astype(np.uint32).view(np.int32), images.device)
    out, table, to_level, sigma, span = torch.empty_like(images), samples, images, samples, 0
    if name == "shot_noise":
        span = int(parameter)
        table = on(photon_table(span).view(np.int32), images.device)
        to_level = on(photon_levels(span), images.device)
    elif name == "impulse_noise":
        span = impulse_threshold(parameter)
    else:
        sigma = on(np.array([parameter], float), images.device)
    grid = (triton.cdiv(-(-count // 4), BLOCK), len(images))
    noise_kernel[grid](
        images, out, samples, table, to_level, signed(key.seed), key.severity, count, sigma, span,
        OPERATION=OPERATIONS[name], KIND=name, WIDTH=table.shape[1] if name == "shot_noise" else 1, BLOCK=BLOCK,
        enable_fp_fusion=False,
    )  # fmt: skip
    return out


_NORMAL = {"normal": ("float", ("n", "n", 3))}
_COUNTS = {"counts": ("count", ("n", "n", 3))}
_FLAGS = {"replace": ("bool", ("n", "n", 3)), "salt": ("bool", ("n", "n", 3))}
ROWS = (
    Corruption("gaussian_noise", gaussian_noise, draw_gaussian_noise, _NORMAL, fused=noise_triton),
    Corruption("shot_noise", shot_noise, draw_shot_noise, _COUNTS, fused=noise_triton),
    Corruption("impulse_noise", impulse_noise, draw_impulse_noise, _FLAGS, fused=noise_triton),
    Corruption("speckle_noise", speckle_noise, draw_speckle_noise, _NORMAL, fused=noise_triton),
)


def noise_reference(name: str, images: Tensor, parameter: float, key: Key) -> Tensor:
    """``noise_triton`` with fields drawn on the host."""
    samples = on(key.samples.astype(np.uint32).view(np.int32), key.device)
    place = (key.seed, samples, images[0].numel(), key.severity, name)
    if name == "shot_noise":
        table = on(photon_table(int(parameter)).view(np.int32), key.device)
        drawn = {"counts": field_reference("poisson", *place, levels=images, table=table)}
    elif name == "impulse_noise":
        code = field_reference("impulse", *place, span=impulse_threshold(parameter))
        drawn = {"replace": (code & 1).bool(), "salt": (code & 2).bool()}
    else:
        drawn = {"normal": field_reference("normal", *place)}
    fields = {field: values.view(images.shape) for field, values in drawn.items()}
    if "normal" in fields:
        return noisy_reference(images, fields["normal"], parameter, name == "speckle_noise")
    return _row(name).apply(images, parameter, fields)


def noise_by_fields(name: str, images: Tensor, parameter: float, key: Key) -> Tensor:
    """``noise_triton`` with fields drawn by the route of the images."""
    row = _row(name)
    assert row.draw is not None
    return row.apply(images, parameter, row.draw(key, images.shape[1], parameter, images))


def _row(name: str) -> Corruption:
    return next(row for row in ROWS if row.name == name)


def _op(name: str, kind: str, **tolerance) -> Op:
    def example(device="cpu", small: bool = True) -> dict[str, Any]:
        images = levels(device, small)
        key = Key(2**63 + 5, np.arange(len(images)) + 2**31, 5, images.device)
        return {"name": name, "images": images, "parameter": IMAGENET224[name][4], "key": key}

    compiled = variant(name, noise_kernel, BLOCK, kind, elements=4 * BLOCK, OPERATION=64, KIND=name, WIDTH=128)
    return Op(name, noise_triton, noise_reference, example, touched, (compiled,), compiled=noise_by_fields, **tolerance)


# Normals agree to 1e-6, so one value in many thousands is truncated to another level.
_RARE = {"rare": 0.001, "rare_tolerance": 1.0}
OPS = (
    _op("gaussian_noise", "stream", **_RARE),
    _op("speckle_noise", "stream", **_RARE),
    _op("shot_noise", "compute"),
    _op("impulse_noise", "stream"),
)
