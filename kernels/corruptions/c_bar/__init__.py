"""The ten corruptions of ImageNet-C-bar, chosen to look unlike those of ImageNet-C.

Severities are those of the published table, ``LEVELS``; the formulas scale with the side of the image.

Source: Mintun, Kirillov and Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption
Robustness" (NeurIPS 2021), and its generation script.
"""

from __future__ import annotations

from fastreg.kernels.corruptions.c_bar import caustic, checkerboard, perlin, sparkles, spectral, waves

# corruption -> the strength of severities 1 to 5
LEVELS: dict[str, tuple[float, ...]] = {
    "blue_noise_sample": (0.8, 1.6, 2.4, 4.0, 5.6),
    "brownish_noise": (1.0, 2.0, 3.0, 4.0, 5.0),
    "caustic_refraction": (2.35, 3.2, 4.9, 6.6, 9.15),
    "checkerboard_cutout": (2.0, 3.0, 4.0, 5.0, 6.0),
    "cocentric_sine_waves": (3.0, 5.0, 8.0, 9.0, 10.0),
    "inverse_sparkles": (1.0, 2.0, 4.0, 9.0, 10.0),
    "perlin_noise": (4.6, 5.2, 5.8, 7.6, 8.8),
    "plasma_noise": (4.75, 7.0, 8.5, 9.25, 10.0),
    "single_frequency_greyscale": (1.0, 1.5, 2.0, 4.5, 5.0),
    "sparkles": (1.0, 2.0, 3.0, 5.0, 6.0),
}
TABLE = {row.name: row for module in (spectral, caustic, checkerboard, waves, sparkles, perlin) for row in module.ROWS}
