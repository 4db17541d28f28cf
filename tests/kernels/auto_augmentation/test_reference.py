"""The plain torch form, the oracle of the kernels, against Pillow: equal to the bit for every interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fastreg.kernels import AUTO_AUGMENT_OPERATIONS
from fastreg.kernels.auto_augmentation.cpu import auto_augment_cpu
from fastreg.kernels.auto_augmentation.reference import auto_augment_reference
from tests.kernels.auto_augmentation.cases import FILL, every, magnitudes, number, sample_images

COLORS = tuple(name for name in AUTO_AUGMENT_OPERATIONS if not name.startswith(("Shear", "Translate", "Rotate")))
MODES = ("nearest", "bilinear", "bicubic")


@pytest.mark.parametrize("mode", range(3), ids=MODES)
def test_operations_without_a_shear(mode):
    names = (*COLORS, "TranslateX", "TranslateY", "Rotate") if mode == 0 else ("TranslateX", "TranslateY", "Rotate")
    for image in sample_images():
        arguments = (*every(image, names), mode, None, list(FILL))
        ours, pillow = auto_augment_reference(*arguments), auto_augment_cpu(*arguments)
        assert torch.equal(ours, pillow), arguments[1][(ours != pillow).flatten(1).any(1)]


@pytest.mark.parametrize("mode", range(3), ids=MODES)
@pytest.mark.parametrize("name", ["ShearX", "ShearY"])
def test_shears(name, mode):
    """The matrix (1, m, 0, 0, 1, 0); torchvision's m is the same number to 1e-16."""
    for image in sample_images():
        result = auto_augment_reference(*every(image, (name,)), mode, None, list(FILL))
        for m, ours in zip(magnitudes(name), result):
            exact = float(np.float32(m))
            matrix = (1, exact, 0, 0, 1, 0) if name == "ShearX" else (1, 0, 0, exact, 1, 0)
            source = Image.fromarray(image)
            pillow = source.transform(source.size, Image.Transform.AFFINE, matrix, (0, 2, 3)[mode], fillcolor=FILL)
            assert np.array_equal(ours.numpy(), np.asarray(pillow)), (m, image.shape)


def test_the_magnitudes_of_the_published_policies_are_those_of_torchvision():
    """Nearest, on the grids of TrivialAugmentWide, RandAugment and timm."""
    image = sample_images()[0]
    grid = torch.cat([s * torch.linspace(0, top, n) for s in (1, -1) for top in (0.3, 0.99) for n in (11, 31)])
    for name in ("ShearX", "ShearY"):
        operations = torch.full((len(grid), 1), number(name))
        arguments = (torch.from_numpy(image).expand(len(grid), -1, -1, -1), operations, grid[:, None], 0, None, [0] * 3)
        assert torch.equal(auto_augment_reference(*arguments), auto_augment_cpu(*arguments))


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize"])
def test_every_range_of_levels(name):
    """Ranges chosen at random, with all of their levels present."""
    rng = np.random.default_rng(1)
    ends = np.sort(rng.integers(0, 256, (120, 3, 2)), 2)
    levels = np.linspace(ends[..., 0], ends[..., 1], 400, axis=1).round().astype(np.uint8)  # [120, 400, 3]
    levels[60:, rng.random(400) < 0.7] = levels[60:, :1]  # one level prevails
    images = torch.from_numpy(levels.reshape(120, 20, 20, 3))
    result = auto_augment_reference(images, torch.full((120, 1), number(name)), torch.zeros(120, 1), 0, None, [0] * 3)
    apply = {"AutoContrast": ImageOps.autocontrast, "Equalize": ImageOps.equalize}[name]
    for ours, image in zip(result, images):
        assert np.array_equal(ours.numpy(), np.asarray(apply(Image.fromarray(image.numpy()))))


def test_unknown_operations_and_interpolations_change_nothing():
    images = torch.from_numpy(sample_images()[1])[None].repeat(4, 1, 1, 1)
    operations = torch.tensor([[-1], [16], [2**40 + number("Invert")], [number("Rotate")]])
    modes = torch.tensor([[0], [0], [0], [3]])
    result = auto_augment_reference(images, operations, torch.full((4, 1), 30.0), 0, modes, [0] * 3)
    assert torch.equal(result, images)
