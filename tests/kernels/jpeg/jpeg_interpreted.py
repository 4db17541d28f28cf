"""Run by test_jpeg.py in a child process, where TRITON_INTERPRET=1 was set before Triton's import: the kernels against
Pillow. Sizes cover whole blocks, broken ones on either side, and chroma too narrow to smooth; prints one line each."""

from __future__ import annotations

import sys

import numpy as np
import torch

from fastreg.kernels import dispatch, jpeg

# (height, width, quality): 32 x 48 takes the route of whole words, the others that of bytes
CASES = [(32, 48, 85), (37, 41, 25), (6, 3, 50), (1, 2, 100), (9, 70, 1)]


def images(height: int, width: int) -> torch.Tensor:
    """A photograph, noise, and blocks of pure black and white."""
    from skimage import data

    rng = np.random.default_rng(height * width)
    photograph = data.astronaut()[100 : 100 + height, 150 : 150 + width]
    noise = rng.integers(0, 256, photograph.shape, dtype=np.uint8)
    extremes = rng.integers(0, 2, photograph.shape, dtype=np.uint8) * 255
    return torch.from_numpy(np.stack((photograph, noise, extremes)))


def main() -> int:
    assert dispatch.INTERPRETED
    failures = 0
    for height, width, quality in CASES:
        source = images(height, width)
        ours = jpeg._triton(source, quality, blocks=256)  # one program: the interpreter runs them one after another
        apart = int((ours != jpeg._pillow(source, quality)).sum())
        failures += apart > 0
        print(f"{height} x {width} quality {quality}: {apart} of {ours.numel()} values differ", flush=True)
    assert torch.equal(jpeg.jpeg_round_trip(source, quality), ours)  # the public way, several programs
    return failures


if __name__ == "__main__":
    sys.exit(main())
