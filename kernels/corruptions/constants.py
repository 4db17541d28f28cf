"""Severity constants of the four published corruption sets.

Sources (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
and its generation scripts): ``imagenet224`` is ImageNet-C, ``imagenet299`` its Inception variant, ``tiny64`` is
Tiny-ImageNet-C and ImageNet-64-C, ``cifar32`` is CIFAR-10-C and CIFAR-100-C. Five entries per corruption, severity 1
first. Lengths are in pixels, noise levels and color shifts on the 0-1 scale.
"""

from __future__ import annotations

from fastreg.kernels.corruptions.arguments import not_known

CORRUPTION_CATEGORIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CORRUPTIONS = tuple(name for names in CORRUPTION_CATEGORIES.values() for name in names)
SEVERITIES = (1, 2, 3, 4, 5)

SIZES = {224: "imagenet224", 299: "imagenet299", 64: "tiny64", 32: "cifar32"}  # what "auto" picks
FROST_SCALE = {"imagenet224": 1.0, "imagenet299": 1.0, "tiny64": 0.3, "cifar32": 0.2}  # of the textures

# The generation script scales elastic_transform by 244, not 224; the 299 px script by 360, the 64 px script by 64.
_ELASTIC_IMAGENET = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
_ELASTIC_TINY = ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02))


def _times(side: int, rows: tuple) -> tuple:
    return tuple(tuple(side * value for value in row) for row in rows)


IMAGENET224: dict[str, tuple] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # sigma
    "shot_noise": (60, 25, 12, 5, 3),  # photons at full white
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),  # share of values replaced
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),  # sigma
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),  # disc radius, sigma of its soft edge
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),  # sigma, reach, passes
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),  # radius, sigma
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),  # arange(1, end, step)
    "gaussian_blur": (1, 2, 3, 4, 6),  # sigma
    "snow": (  # mean, std, zoom, threshold, blur radius, blur sigma, weight of the image
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),  # weight of the image, of the frost
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),  # amount, decay of the plasma per level
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to V
    "spatter": (  # mean, std, sigma, threshold, strength, mud (1) or water (0)
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor about the mean
    "elastic_transform": _times(244, _ELASTIC_IMAGENET),  # alpha, sigma, reach of the affine corners
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # side of the small image over side
    "jpeg_compression": (25, 18, 15, 10, 7),  # quality
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),  # factor of S, addition to S
}

IMAGENET299 = IMAGENET224 | {
    "gaussian_noise": (0.09, 0.13, 0.19, 0.27, 0.40),
    "shot_noise": (50, 20, 10, 5, 3),
    "impulse_noise": (0.04, 0.07, 0.10, 0.18, 0.28),
    "speckle_noise": (0.16, 0.21, 0.36, 0.46, 0.61),
    "defocus_blur": ((4, 0.1), (5, 0.5), (7, 0.5), (10, 0.5), (12, 0.5)),
    "glass_blur": ((0.8, 1, 3), (1, 3, 1), (1.1, 2, 4), (1.2, 4, 2), (1.6, 5, 2)),
    "motion_blur": ((12, 4), (17, 6), (17, 9), (17, 13), (22, 16)),
    "gaussian_blur": (1.5, 2.5, 3.5, 4.5, 6.5),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.8), (2.5, 1.6), (3, 1.5)),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.9, 0),
        (0.65, 0.3, 3.5, 0.68, 0.9, 0),
        (0.65, 0.3, 3, 0.68, 0.8, 0),
        (0.65, 0.3, 1.2, 0.65, 1.8, 1),
        (0.67, 0.4, 1.2, 0.65, 1.8, 1),
    ),
    "elastic_transform": _times(360, _ELASTIC_IMAGENET),
    "pixelate": (0.5, 0.4, 0.3, 0.25, 0.2),
    "jpeg_compression": (23, 16, 13, 8, 5),
}

CIFAR32: dict[str, tuple] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}

TINY64 = CIFAR32 | {
    "gaussian_noise": (0.04, 0.08, 0.12, 0.15, 0.18),
    "shot_noise": (250, 100, 50, 30, 15),
    "impulse_noise": (0.01, 0.02, 0.05, 0.08, 0.14),
    "speckle_noise": (0.15, 0.2, 0.25, 0.3, 0.35),
    "defocus_blur": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
    "glass_blur": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    "motion_blur": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
    "gaussian_blur": (0.5, 0.75, 1, 1.25, 1.5),
    "snow": tuple((*row[:6], b) for row, b in zip(CIFAR32["snow"], (0.8, 0.8, 0.7, 0.65, 0.6))),
    "frost": ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
    "fog": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.6, 0),
        (0.65, 0.1, 0.8, 0.7, 0.6, 0),
        (0.65, 0.3, 1, 0.69, 0.6, 0),
        (0.65, 0.1, 0.7, 0.68, 0.6, 1),
        (0.65, 0.1, 0.5, 0.67, 0.6, 1),
    ),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "elastic_transform": _times(64, _ELASTIC_TINY),
    "pixelate": (0.9, 0.8, 0.7, 0.6, 0.5),
    "jpeg_compression": (65, 58, 50, 40, 25),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
}

CONSTANTS = {"imagenet224": IMAGENET224, "imagenet299": IMAGENET299, "tiny64": TINY64, "cifar32": CIFAR32}


def resolve(constants: str, size: int) -> str:
    """The set of constants for images of side ``size``.

    Args:
        constants: A key of ``CONSTANTS``, or "auto" for the set of that size.
        size: Side of the images, pixels.

    Returns:
        A key of ``CONSTANTS``.

    Raises:
        ValueError: The name is unknown, or "auto" has no set for this size.
    """
    if constants == "auto":
        if size in SIZES:
            return SIZES[size]
        sets = ", ".join(f"{name!r} (made for {side} px)" for side, name in SIZES.items())
        raise ValueError(
            f"`constants` is 'auto', but no published constants fit images of {size} px: give one of {sets}."
        )
    if not isinstance(constants, str) or constants not in CONSTANTS:
        raise ValueError(not_known("constants", constants, ("auto", *CONSTANTS)))
    return constants
