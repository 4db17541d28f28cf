"""``auto_augment`` on CPU tensors, against torchvision's ``_apply_op``, Pillow and timm; and its refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.kernels import AUTO_AUGMENT_OPERATIONS, auto_augment
from tests.kernels.auto_augmentation.cases import FILL, magnitudes, number, sample_images
from tests.support import peer


def one(image: np.ndarray, name: str, m: float, **options) -> np.ndarray:
    operation = torch.tensor([[number(name)]])
    return auto_augment(torch.from_numpy(image)[None], operation, torch.tensor([[m]]), **options)[0].numpy()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("name", AUTO_AUGMENT_OPERATIONS[:-1])
def test_equals_torchvision_on_pillow_images(name, interpolation):
    peer("torchvision")
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import _apply_op

    for image in sample_images():
        for m in magnitudes(name):
            strength = float(np.float32(m))
            expected = _apply_op(Image.fromarray(image), name, strength, InterpolationMode(interpolation), list(FILL))
            result = one(image, name, m, interpolation=interpolation, fill=FILL)
            assert np.array_equal(result, np.asarray(expected)), (m, image.shape)


def test_an_operation_may_follow_a_translation_beyond_the_side():
    """Every pixel is then the fill, in an array of its own, which the next operation reads as Pillow."""
    peer("torchvision")
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import _apply_op

    nearest = InterpolationMode("nearest")
    pairs = (("TranslateX", "Color", 0.5), ("TranslateY", "Sharpness", -0.9), ("TranslateX", "Rotate", 30.0))
    for image in sample_images():
        side = float(max(image.shape))
        for first, second, m in pairs:
            expected = _apply_op(Image.fromarray(image), first, side, nearest, list(FILL))
            expected = _apply_op(expected, second, m, nearest, list(FILL))
            operations = torch.tensor([[number(first), number(second)]])
            given = torch.from_numpy(image)[None]
            result = auto_augment(given, operations, torch.tensor([[side, m]]), fill=FILL)[0]
            assert np.array_equal(result, np.asarray(expected)), (first, second, image.shape)


def test_solarize_add_equals_timm():
    peer("timm")
    from timm.data.auto_augment import solarize_add

    for image in sample_images():
        for m in (0, 1, 44, 110, 128, 255):
            expected = np.asarray(solarize_add(Image.fromarray(image), m))
            assert np.array_equal(one(image, "SolarizeAdd", float(m)), expected)


def test_posterize_beyond_pillows_range():
    image = sample_images()[1]
    assert not one(image, "Posterize", 0.0).any()
    assert not one(image, "Posterize", -1.0).any()
    assert np.array_equal(one(image, "Posterize", 9.0), image)


def case(count=5, slots=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 24, 31, 3), dtype=torch.uint8, generator=generator)
    operations = torch.randint(0, len(AUTO_AUGMENT_OPERATIONS), (count, slots), generator=generator)
    return images, operations, 4 * torch.rand((count, slots), generator=generator)


def test_operations_act_in_order_and_each_sample_alone():
    images, operations, strengths = case()
    before = images.clone()
    result = auto_augment(images, operations, strengths, interpolation="bilinear")
    assert torch.equal(images, before)
    for b in range(len(images)):
        image = images[b : b + 1]
        for k in range(operations.shape[1]):
            image = auto_augment(
                image, operations[b : b + 1, k, None], strengths[b : b + 1, k, None], interpolation="bilinear"
            )
        assert torch.equal(result[b], image[0])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64])
def test_interpolation_per_operation(dtype):
    images, operations, strengths = case(6, 1)
    operations[:] = number("Rotate")
    modes = torch.tensor([0, 1, 2, 0, 1, 2])
    result = auto_augment(images, operations, 10 * strengths, interpolation=modes[:, None].to(dtype))
    for mode, name in enumerate(("nearest", "bilinear", "bicubic")):
        whole = auto_augment(images, operations, 10 * strengths, interpolation=name)
        assert torch.equal(result[modes == mode], whole[modes == mode])


def test_empty_calls():
    images, operations, strengths = case()
    same = auto_augment(images, operations[:, :0], strengths[:, :0])
    assert torch.equal(same, images)
    assert same.data_ptr() != images.data_ptr()
    assert auto_augment(images[:0], operations[:0], strengths[:0]).shape == (0, 24, 31, 3)


def test_threads_do_not_change_the_result():
    images, operations, strengths = case(9, 4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = auto_augment(images, operations, strengths, interpolation="bicubic")
        torch.set_num_threads(3)
        several = auto_augment(images, operations, strengths, interpolation="bicubic")
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, several)


def test_strided_arguments():
    images, operations, strengths = case()
    expected = auto_augment(images, operations, strengths)
    images = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not images.is_contiguous()
    operations, strengths = operations.t().contiguous().t(), strengths.t().contiguous().t()
    result = auto_augment(images, operations, strengths)
    assert result.is_contiguous()
    assert torch.equal(result, expected)


REFUSED = [
    ({"images": torch.zeros(2, 8, 8, 3)}, TypeError, "`images` is torch.float32"),
    ({"images": [1]}, TypeError, "`images` is list"),
    ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, ValueError, r"`images` has shape \[2, 3, 8, 8\]"),
    ({"images": torch.zeros(2, 0, 8, 3, dtype=torch.uint8)}, ValueError, r"`images` has shape \[2, 0, 8, 3\]"),
    ({"operations": torch.zeros(2, 1, dtype=torch.int32)}, TypeError, "`operations` is torch.int32"),
    ({"operations": torch.zeros(2, dtype=torch.int64)}, ValueError, r"`operations` has shape \[2\]"),
    ({"operations": torch.zeros(3, 1, dtype=torch.int64)}, ValueError, r"`operations` has shape \[3, 1\]"),
    ({"operations": torch.tensor([[0], [16]])}, ValueError, r"`operations` holds \[16\]"),
    ({"operations": torch.tensor([[-1], [0]])}, ValueError, r"`operations` holds \[-1\]"),
    ({"operations": torch.zeros(2, 1, dtype=torch.int64, device="meta")}, ValueError, "`operations` is on meta"),
    ({"magnitudes": torch.zeros(2, 1).double()}, TypeError, "`magnitudes` is torch.float64"),
    ({"magnitudes": torch.zeros(2, 2)}, ValueError, r"`magnitudes` has shape \[2, 2\]"),
    ({"magnitudes": torch.tensor([[0.0], [torch.inf]])}, ValueError, r"`magnitudes` holds \[inf\]"),
    ({"magnitudes": torch.tensor([[0.0], [torch.nan]])}, ValueError, r"`magnitudes` holds \[nan\]"),
    ({"interpolation": "lanczos"}, ValueError, "`interpolation` is 'lanczos'"),
    ({"interpolation": torch.zeros(2, 1)}, TypeError, "`interpolation` is torch.float32"),
    ({"interpolation": torch.full((2, 1), 3, dtype=torch.int8)}, ValueError, r"`interpolation` holds \[3, 3\]"),
    ({"fill": 0}, TypeError, "`fill` is 0"),
    ({"fill": (0.5, 0, 0)}, TypeError, r"`fill` is \(0.5, 0, 0\)"),
    ({"fill": (0, 0)}, ValueError, r"`fill` is \(0, 0\)"),
    ({"fill": (0, 0, 256)}, ValueError, r"`fill` is \(0, 0, 256\)"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), REFUSED)
def test_refusals(wrong, error, message):
    good = {
        "images": torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        "operations": torch.zeros(2, 1, dtype=torch.int64),
        "magnitudes": torch.zeros(2, 1),
    }
    with pytest.raises(error, match=message):
        auto_augment(**good | wrong)
