"""motion_blur, gaussian_blur, brightness, snow and spatter: a parameter that moves from frame to frame.

    motion_blur  a ray that turns        gaussian_blur  sigma grows        brightness  V + shift in HSV
    snow         flakes whose motion blur turns, added to a whitened image
    spatter      drops of water that run down: the liquid is convolved along its columns after each frame

Most are ImageNet-C's kernels, one call for all frames. Bytes per value of a frame: theirs. Last measured: not yet
measured.

Source: ImageNet-P's generation script; ImageMagick's motion blur, gaussian_filter of scipy.ndimage, OpenCV.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastreg.kernels.corruptions.color import change_hsv
from fastreg.kernels.corruptions.fields import Key
from fastreg.kernels.corruptions.gaussian import (
    filter_field,
    gaussian_reference,
    gaussian_triton,
    gaussian_weights,
)
from fastreg.kernels.corruptions.motion import blur_along
from fastreg.kernels.corruptions.pixels import on, quantize, unit
from fastreg.kernels.corruptions.snow import flakes_reference, flakes_triton
from fastreg.kernels.corruptions.spatter import WATER, water
from fastreg.kernels.corruptions.zoom import zoom_grid
from fastreg.kernels.dispatch import use_triton
from fastreg.kernels.perturbations.constants import GaussianBlur, Motion, Snow, Spatter, Sweep
from fastreg.kernels.perturbations.view import View


def motion_blur(view: View, motion: Motion) -> Tensor:
    return _turning(view.squares, motion)


def _turning(images: Tensor, motion: Motion | Snow) -> Tensor:
    """Motion blur of uint8 [B, n, n, C] at every angle: [B, F, n, n, C]."""
    angles = np.array(motion.angles.values())
    repeated = images.repeat_interleave(len(angles), 0)
    blurred = (
        blur_along(repeated, np.tile(angles, len(images)), motion.radius, motion.sigma) if len(images) else repeated
    )
    return blurred.view(len(images), len(angles), *images.shape[1:])


def brightness(view: View, shifts: Sweep) -> Tensor:
    return torch.stack([change_hsv(view.squares, (1.0, 0.0, shift)) for shift in shifts.values()], 1)


def gaussian_blur(view: View, blur: GaussianBlur) -> Tensor:
    x, frames = unit(view.squares), []
    for sigma in blur.sigmas.values():
        weights = on(gaussian_weights(sigma, blur.truncate), view.device)
        frames.append(quantize((gaussian_triton if use_triton(x) else gaussian_reference)(x, weights)))
    return torch.stack(frames, 1)


def draw_normals(key: Key, operation: str, view: View, parameter: Snow | Spatter) -> dict[str, Tensor]:
    return {"normal": key.field("normal", operation, view.size, view.size)}


def snow(view: View, parameter: Snow, fields: dict[str, Tensor]) -> Tensor:
    make = flakes_triton if use_triton(view.images) else flakes_reference
    left, near = (on(values, view.device) for values in zoom_grid(view.size, parameter.zoom))
    law = on(np.array((parameter.std, parameter.mean, parameter.threshold), float), view.device)
    layer = unit(_turning(make(fields["normal"], left, near, law), parameter))
    x, x32 = unit(view.squares), unit(view.squares, torch.float32)
    gray = (x32[..., 0:1] * 0.299 + x32[..., 1:2] * 0.587) + x32[..., 2:3] * 0.114
    white = torch.maximum(x, gray.mul_(1.5).add_(0.5).double())
    whitened = x * parameter.weight + white * (1 - parameter.weight)
    return quantize(whitened[:, None] + layer + layer.flip(2, 3))


def spatter(view: View, parameter: Spatter, fields: dict[str, Tensor]) -> Tensor:
    """Water is OpenCV's, on the host, frame by frame."""
    normal = fields["normal"].double() * parameter.std + parameter.mean
    liquid = filter_field(normal, parameter.sigma, "edge")
    layers = liquid.masked_fill_(liquid < parameter.threshold, 0).cpu().numpy()
    flow, wet = np.array(parameter.flow), np.empty((len(view), parameter.frames, view.size, view.size, 1), np.float32)
    for layer, sequence in zip(layers, wet):
        for frame in sequence:
            frame[..., 0] = water((layer * 255).astype(np.uint8))
            layer = np.apply_along_axis(np.convolve, 0, layer, flow, mode="same")
    drops = on(torch.from_numpy(wet), view.device) * parameter.strength
    return quantize(unit(view.squares, torch.float32)[:, None] + drops * on(WATER, view.device))
