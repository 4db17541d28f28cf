"""Color jitter without clipping and rounding, as in the original code of the ImageNet recipe, in plain torch.

    out = b c s x + b c (1 - s) g(x) + b (1 - c) mean g + shift

on float pixels of the 0-1 scale, with the letters of ``color_jitter``. Bytes per element: about 60, in torch operations
of one pass each; not yet measured. ``color_jitter`` on bytes needs 3.
"""

from __future__ import annotations

from torch import Tensor

from fastreg.kernels.color.reference import GRAY


def color_jitter_unclipped(
    pixels: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, lighting: Tensor | None = None
) -> Tensor:
    """Change the colors of float pixels, with any values as the result.

    Args:
        pixels: float32 [B, 3, h, w] on the 0-1 scale.
        brightness: float32 [B], factor per image. 1 changes nothing.
        contrast: float32 [B], factor per image. 1 changes nothing.
        saturation: float32 [B], factor per image. 1 changes nothing.
        lighting: float32 [B, 3], shift of red, green and blue on the 0-1 scale. None: no shift.

    Returns:
        float32 [B, 3, h, w].

    Source:
        Yun et al., CutMix (ICCV 2019), CutMix-PyTorch utils.py: ``ColorJitter`` and ``Lighting`` on float pixels.
    """
    b, c, s = (factor.view(-1, 1, 1, 1) for factor in (brightness, contrast, saturation))
    red, green, blue = pixels.unbind(1)
    gray = (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue)[:, None]
    out = pixels * (b * c * s) + gray * (b * c * (1 - s)) + gray.mean((1, 2, 3), keepdim=True) * (b * (1 - c))
    return out if lighting is None else out + lighting[:, :, None, None]
