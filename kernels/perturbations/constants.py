"""The strengths of ImageNet-P's and CIFAR-10-P's perturbations, by size of the published images.

``imagenet224`` is ImageNet-P, ``tiny64`` Tiny ImageNet-P, ``cifar32`` CIFAR-10-P and CIFAR-100-P. Angles are in
degrees, shifts in pixels, noise on the [0, 1] scale.

Source: Hendrycks and Dietterich (ICLR 2019), the generation scripts of ImageNet-P/create_p.
"""

from __future__ import annotations

from typing import Any, NamedTuple

PERTURBATIONS = (
    "gaussian_noise",
    "shot_noise",
    "motion_blur",
    "zoom_blur",
    "snow",
    "brightness",
    "translate",
    "rotate",
    "tilt",
    "scale",
)
EXTRA_PERTURBATIONS = (
    "gaussian_noise_2",
    "gaussian_noise_3",
    "shot_noise_2",
    "shot_noise_3",
    "speckle_noise",
    "speckle_noise_2",
    "speckle_noise_3",
    "gaussian_blur",
    "spatter",
    "shear",
)
NOISE_FRAMES = 31  # the clean image, then 30 independent draws


class Sweep(NamedTuple):
    """``frames`` values of a parameter: ``(i + first) * step`` of frame i, plus ``start``, over ``divisor``.

    The order of operations is that of the published expressions, so that the values are equal to the bit.
    """

    frames: int
    first: int = 0
    step: float = 1.0
    start: float = 0.0
    divisor: float = 1.0

    def values(self) -> list[float]:
        return [((i + self.first) * self.step + self.start) / self.divisor for i in range(self.frames)]


class Motion(NamedTuple):
    radius: float
    sigma: float
    angles: Sweep


class Snow(NamedTuple):
    """Of the layer: mean and standard deviation of the normals, zoom; of its motion blur: the rest."""

    mean: float
    std: float
    zoom: float
    radius: float
    sigma: float
    angles: Sweep = Sweep(31, 0, 4, -150)
    threshold: float = 0.5
    weight: float = 0.85  # of the image beside its whitened version


class Spatter(NamedTuple):
    """Of the liquid: mean, standard deviation and smoothing of the normals, threshold; ``flow`` moves it downwards."""

    mean: float
    std: float
    sigma: float
    threshold: float
    flow: tuple[float, ...]
    frames: int = 31
    strength: float = 0.6


class GaussianBlur(NamedTuple):
    sigmas: Sweep
    truncate: float


_TURN = Sweep(31, -15)
_ZOOMS = Sweep(31, 0, 0.004, 1)  # frame 0 is the image itself

CONSTANTS: dict[str, dict[str, Any]] = {
    "imagenet224": {
        "gaussian_noise": (0.03, 0.05, 0.08),
        "shot_noise": (300, 120, 60),
        "speckle_noise": (0.05, 0.10, 0.15),
        "motion_blur": Motion(10, 3, Sweep(31, -30, 4)),
        "zoom_blur": _ZOOMS,
        "snow": Snow(0.05, 0.3, 3, 14, 4),
        "brightness": Sweep(31, -15, 2, 0, 100),
        "translate": Sweep(41, -20),
        "rotate": _TURN,
        "tilt": _TURN,
        "scale": Sweep(31, 0, 2.5, 40, 100),
        "gaussian_blur": GaussianBlur(Sweep(31, 0, 0.035, 0.25), 6),
        "spatter": Spatter(0.65, 0.27, 3.7, 0.69, (0.05, 0.1, 0.15, 0.7)),
        "shear": _TURN,
    },
    "tiny64": {
        "gaussian_noise": (0.025, 0.05, 0.075),
        "shot_noise": (500, 250, 125),
        "speckle_noise": (0.05, 0.10, 0.15),
        "motion_blur": Motion(14, 3, Sweep(31, -30, 5)),
        "zoom_blur": _ZOOMS,
        "snow": Snow(0.05, 0.28, 2, 10, 2.5),
        "brightness": Sweep(31, -15, 2, 0, 100),
        "translate": Sweep(31, -15),
        "rotate": _TURN,
        "tilt": _TURN,
        "scale": Sweep(31, 0, 2.5, 40, 100),
        "gaussian_blur": GaussianBlur(Sweep(31, 0, 0.014, 0.35), 7),
        "spatter": Spatter(0.6, 0.25, 1.75, 0.7, (0.2, 0.8)),
        "shear": _TURN,
    },
    "cifar32": {
        "gaussian_noise": (0.02, 0.04, 0.06),
        "shot_noise": (700, 400, 200),
        "speckle_noise": (0.05, 0.07, 0.10),
        "motion_blur": Motion(6, 1.8, Sweep(21, -20, 9)),
        "zoom_blur": _ZOOMS,
        "snow": Snow(0.05, 0.3, 2, 10, 2),
        "brightness": Sweep(31, -15, 1.5, 0, 100),
        "translate": Sweep(16, -7),
        "rotate": _TURN,
        "tilt": Sweep(31, -15, 0.75),
        "scale": Sweep(31, 0, 2, 70, 100),
        "gaussian_blur": GaussianBlur(Sweep(31, 0, 0.015, 0.3), 7),
        "spatter": Spatter(0.6, 0.265, 1.75, 0.7, (0.2, 0.8)),
        "shear": _TURN,
    },
}
SIZES = {224: "imagenet224", 64: "tiny64", 32: "cifar32"}


def family_and_level(name: str) -> tuple[str, int]:
    """``("gaussian_noise", 2)`` of "gaussian_noise_2"; level 1 of a name without a number."""
    stem, _, level = name.rpartition("_")
    return (stem, int(level)) if level.isdigit() else (name, 1)
