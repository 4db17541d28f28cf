"""The choice of the kernel for a batch, and its one launch."""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels.augmentation import resample, stream
from fastreg.kernels.dispatch import cdiv
from fastreg.kernels.philox import OPERATIONS, signed
from fastreg.kernels.types import Plan


def augment_triton(
    images: Tensor,
    plan: Plan,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
    size: tuple[int, int],
    seed: int,
    indices: Tensor | None,
    step: int,
    normal: Tensor | None,
) -> Tensor:
    """``augment`` on checked arguments on the images' device."""
    B, H, W, _ = images.shape
    h, w = size
    out = torch.empty((B, h, w, 3), dtype=dtype, device=images.device)
    resized = plan.crop is not None or (H, W) != size
    shared = {
        "out": out,
        "flip": plan.flip,
        "noise": plan.noise,
        "partner": plan.partner,
        "lam": plan.lam,
        "box": plan.box,
        "box_fill": plan.box_fill,
        "erase": plan.erase,
        "erase_noise": plan.erase_noise,
        "normal": normal,
        "indices": indices,
        "seed": signed(seed),
        "step": step,
        **{f"s{c}": 1 / (255 * s) for c, s in enumerate(std)},
        **{f"t{c}": -m / s for c, (m, s) in enumerate(zip(mean, std))},
        "B": B,
        **switches(plan, draw=normal is None),
    }
    if not resized and W % 8 == 0 and images.data_ptr() % 16 == 0:
        chunks = chunks_for(H * W * 3, draw=plan.noise is not None or plan.erase_noise is not None)
        grid = (3 * cdiv(H * W * 3, 3 * stream.BLOCK * chunks), B)
        words = images.view(-1).view(torch.int32)
        stream.stream_kernel[grid](words=words, N=H * W * 3, ROW=W * 3, CHUNKS=chunks, **shared)
    else:
        tile = {"ROWS": resample.ROWS, "COLUMNS": resample.COLUMNS, "num_warps": resample.WARPS}
        grid = (cdiv(h, resample.ROWS) * cdiv(w, resample.COLUMNS), B)
        shapes = {"H": H, "W": W, "h": h, "w": w, "CROP": plan.crop is not None, "RESIZE": resized}
        resample.resample_kernel[grid](images=images, crop=plan.crop, **tile, **shapes, **shared)
    return out.permute(0, 3, 1, 2)


def switches(plan: Plan, draw: bool) -> dict[str, bool | int]:
    """Compile-time switches of both kernels. Only whether a field of ``plan`` is None matters."""
    return {
        "FLIP": plan.flip is not None,
        "NOISE": plan.noise is not None,
        "DRAW": draw and (plan.noise is not None or plan.erase_noise is not None),
        "PARTNER": plan.partner is not None and (plan.lam is not None or plan.box is not None),
        "BLEND": plan.lam is not None,
        "BOX": plan.box is not None,
        "FILL": plan.box_fill is not None,
        "ERASE": plan.erase is not None,
        "ERASE_NOISE": plan.erase_noise is not None,
        "OPERATION": OPERATIONS["augment_noise"],
    }


def chunks_for(n: int, draw: bool) -> int:
    """Blocks per program of the stream kernel: enough to amortize the constants and to keep loads in flight, without a
    remainder if possible. With noise, which is limited by arithmetic, two suffice."""
    blocks = cdiv(n, 3 * stream.BLOCK)
    return next((c for c in ((2,) if draw else (7, 6, 5, 4)) if blocks % c == 0), min(blocks, 2 if draw else 4))
