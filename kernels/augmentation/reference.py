"""``augment`` in plain torch, the oracle of the kernels.

Formula, per pixel and channel, in the order of ``Plan``:

    v = pixel / 255 after crop, resize and flip     w = clip(v + noise * normal, 0, 1)     w = 0 in a black box
    x = (w - mean) / std                            x = erase_noise * normal in an erased box that is not black
    p = x of the partner, without its black box     x = lam * x + (1 - lam) * p
    x = p in a pasted box                           x = 0 in a mean-filled box
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastreg.kernels import philox
from fastreg.kernels.types import Plan

BITS = 22  # precision of Pillow's fixed-point weights for 8-bit images


def augment_reference(
    images: Tensor,
    plan: Plan,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    dtype: torch.dtype,
    size: tuple[int, int],
    normal: Tensor | None,
) -> Tensor:
    """``augment`` on checked arguments. ``normal`` is given where ``plan.noise`` or ``erase_noise`` is."""
    if plan.crop is not None or tuple(images.shape[1:3]) != size:
        images = crop_and_resize(images, plan.crop, size)
    if plan.flip is not None:
        images = torch.where(_per_sample(plan.flip), images.flip(2), images)
    if dtype == torch.uint8:  # bytes on the 0-255 scale, for the stage before plan.operations
        return images.permute(0, 3, 1, 2)
    pixels = images.float().div_(255)
    if plan.noise is not None:
        assert normal is not None
        pixels = (pixels + _per_sample(plan.noise) * normal).clamp_(0, 1)
    # one value per byte of a row: an inner loop of 3 would be several times slower
    mean_, std_ = (torch.tensor(v, device=images.device).repeat(size[1], 1) for v in (mean, std))
    own = pixels.sub_(mean_).div_(std_)
    if plan.erase is not None:
        for i, region in enumerate(_regions(plan.erase)):
            own[region] = 0 if plan.erase_noise is None else plan.erase_noise[i] * normal[region]  # type: ignore[index]
    partner = own[plan.partner] if plan.partner is not None else None
    boxes = _boxes(plan)
    for region, fill in boxes:
        if fill == 1:
            own[region] = (-mean_ / std_)[0]
    if plan.lam is not None:
        assert partner is not None
        own = torch.lerp(partner, own, _per_sample(plan.lam))
    for region, fill in boxes:
        if fill == 2:
            own[region] = 0
        elif fill == 0 and partner is not None:
            own[region] = partner[region]
    return own.to(dtype).permute(0, 3, 1, 2)


def draw_normals(seed: int, indices: Tensor, step: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Draw the standard normals of ``noise`` and ``erase_noise``, of which a pixel takes one, float32 [B, h, w, 3]."""
    n = size[0] * size[1] * 3
    drawn = philox.field(philox.normal, seed, indices.cpu().numpy(), n, step, "augment_noise")
    return torch.from_numpy(drawn).view(-1, *size, 3).to(device)


def crop_and_resize(images: Tensor, crop: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Pillow's ``crop(...).resize(size, BILINEAR)``: uint8 [B, H, W, 3] to uint8 [B, h, w, 3].

    ``crop`` is float32 [B, 4] (top, left, height, width); None is the whole image. As in Pillow, pixels outside the
    image are black, and pixels outside the crop (widened to whole pixels) have no weight. Sums of products of 8-bit
    pixels and 22-bit weights are exact in float64, so the result equals Pillow's integer arithmetic to the bit. The
    horizontal pass is first. Pillow 13 begins with the vertical one for some shapes, which changes a result by one
    level at most.
    """
    B, H, W, _ = images.shape
    if crop is None:
        crop = torch.tensor([0.0, 0.0, H, W], device=images.device).expand(B, 4)
    vertical = _weights(crop[:, 0], crop[:, 2], H, size[0])
    horizontal = _weights(crop[:, 1], crop[:, 3], W, size[1])
    rows = _fixed_point(torch.einsum("bxw,bywc->byxc", horizontal, images.double()))
    return _fixed_point(torch.einsum("byh,bhxc->byxc", vertical, rows)).to(torch.uint8)


def _weights(start: Tensor, length: Tensor, side: int, out: int) -> Tensor:
    """Weight of each input pixel in each output pixel, float64 [B, out, side], in units of 2**-22."""
    start, length = start.double()[:, None], length.double()[:, None]
    scale = length / out
    reach = scale.clamp(min=1)
    center = start + (torch.arange(out, device=start.device) + 0.5) * scale
    first = torch.maximum((center - reach + 0.5).floor(), start.floor())
    last = torch.minimum((center + reach + 0.5).floor(), (start + length).ceil())
    # the sum covers the whole window, also outside the image, where pixels are black
    taps = first[..., None] + torch.arange(int(reach.max().ceil()) * 2 + 1, device=start.device)
    weight = (1 - ((taps + 0.5 - center[..., None]) / reach[..., None]).abs()).clamp(min=0)
    weight = weight * (taps < last[..., None])
    weight = (weight / weight.sum(-1, keepdim=True) * 2**BITS + 0.5).floor()
    weight = weight * ((taps >= 0) & (taps < side))
    dense = torch.zeros(*center.shape, side, dtype=torch.float64, device=start.device)
    return dense.scatter_add_(-1, taps.clamp(0, side - 1).long(), weight)


def _fixed_point(sums: Tensor) -> Tensor:
    return ((sums + 2 ** (BITS - 1)) / 2**BITS).floor().clamp(0, 255)


def _per_sample(field: Tensor) -> Tensor:
    return field.view(-1, 1, 1, 1)


Region = tuple[int, slice, slice]


def _boxes(plan: Plan) -> list[tuple[Region, int]]:
    """The index of each sample's box, and its fill."""
    if plan.box is None:
        return []
    fills = [0] * len(plan.box) if plan.box_fill is None else plan.box_fill.tolist()
    return list(zip(_regions(plan.box), fills))


def _regions(box: Tensor) -> list[Region]:
    """The index of each sample's box. Boxes may leave the image or be empty."""
    corners = box.clamp(min=0).tolist()
    return [(i, slice(y0, y1), slice(x0, x1)) for i, (y0, x0, y1, x1) in enumerate(corners)]
