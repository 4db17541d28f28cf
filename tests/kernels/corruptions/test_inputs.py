"""Bad input gives one sentence that names the argument; unpublished sizes, empty batches, strides, chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg.kernels import corruptions
from fastreg.kernels.corruptions import CORRUPTION_CATEGORIES, CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt, draw_fields
from fastreg.kernels.corruptions.constants import CONSTANTS
from fastreg.kernels.jpeg import jpeg_round_trip
from tests.kernels.corruptions.golden_cases import (
    LIMITS,
    difference,
    fields_of,
    frost_textures,
    needs_magick,
    sample_image,
)
from tests.kernels.corruptions.oracles import oracle

ALL = CORRUPTIONS + EXTRA_CORRUPTIONS
IMAGES = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
INDICES = torch.arange(2)
FIELD = {"normal": torch.zeros(2, 32, 32, 3)}
PLANE, BYTES = torch.zeros(2, 32, 32), torch.ones(2, 32, 32, 3, dtype=torch.int64)
PHOTO = np.zeros((600, 900, 3), np.uint8)
SHIFT = dict.fromkeys(("dx", "dy"), torch.zeros(2, 1, 32, 32, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "words"),
    [
        ((IMAGES, "gausian_noise", 1), {}, ValueError, "did you mean 'gaussian_noise'"),
        ((IMAGES, "FOG", 1), {}, ValueError, "did you mean 'fog'"),
        ((IMAGES, "Gaussian Noise", 1), {}, ValueError, "did you mean 'gaussian_noise'"),
        ((IMAGES, ["fog"], 1), {}, ValueError, "`name` is ['fog']: did you mean 'fog'? Known are gaussian_noise"),
        ((IMAGES, None, 1), {}, ValueError, "`name` is None: give one of gaussian_noise"),
        ((IMAGES, "contrast", 0), {}, ValueError, "`severity` is 0: give a whole number from 1 to 5"),
        ((IMAGES, "contrast", 3.0), {}, ValueError, "`severity` is 3.0: give a whole number from 1 to 5"),
        (
            (IMAGES, "contrast", torch.arange(4)),
            {},
            ValueError,
            "`severity` is Tensor: give a whole number from 1 to 5",
        ),
        ((IMAGES, "contrast", None), {}, ValueError, "`severity` is None: give a whole number from 1 to 5"),
        ((IMAGES, "fog", 1), {"indices": INDICES, "seed": None}, ValueError, "`seed` is None: give a whole number."),
        ((IMAGES, "fog", 1), {"indices": INDICES, "seed": 1.5}, ValueError, "`seed` is 1.5: give a whole number."),
        (
            (IMAGES, "fog", 1),
            {"indices": INDICES[:, None]},
            ValueError,
            "`indices` has shape [2, 1]: give 2 whole numbers, one per image",
        ),
        ((IMAGES, "contrast", 6), {}, ValueError, "`severity` is"),
        ((IMAGES, "contrast", True), {}, ValueError, "`severity` is"),
        ((IMAGES, "contrast", 2.5), {}, ValueError, "`severity` is"),
        (
            (IMAGES.float(), "contrast", 1),
            {},
            TypeError,
            "`images` is torch.float32: give a uint8 tensor [B, n, n, 3] of levels from 0 to 255",
        ),
        ((IMAGES.numpy(), "contrast", 1), {}, TypeError, "`images` is ndarray: give a uint8 tensor"),
        ((IMAGES.permute(0, 3, 1, 2), "contrast", 1), {}, ValueError, "permute"),
        ((IMAGES[0], "contrast", 1), {}, ValueError, "channels last"),
        ((IMAGES[:, :30], "contrast", 1), {}, ValueError, "`images` are 30 x 32 pixels: give square images"),
        ((IMAGES[:, :30, :30], "contrast", 1), {}, ValueError, "no published constants fit images of 30 px"),
        ((IMAGES[:, :30, :30], "contrast", 1), {}, ValueError, "`constants` is 'auto'"),
        ((IMAGES, "contrast", 1), {"constants": "cifar"}, ValueError, "did you mean 'cifar32'"),
        ((IMAGES, "contrast", 1), {"constants": None}, ValueError, "`constants` is None: give one of auto, "),
        ((IMAGES, "contrast", 1), {"constants": "?"}, ValueError, "`constants` is '?': give one of auto, "),
        (
            (IMAGES, "gaussian_noise", 1),
            {},
            ValueError,
            "`indices` is None: gaussian_noise draws random numbers, so give `indices` or `fields`",
        ),
        (
            (IMAGES, "gaussian_noise", 1),
            {"indices": torch.arange(3)},
            ValueError,
            "`indices` has shape [3]: give 2 whole numbers",
        ),
        (
            (IMAGES, "gaussian_noise", 1),
            {"indices": torch.rand(2)},
            ValueError,
            "`indices` holds float32 values: give 2 whole numbers",
        ),
        (
            (IMAGES, "gaussian_noise", 1),
            {"fields": {}},
            ValueError,
            "`fields` holds none: gaussian_noise takes the fields normal",
        ),
        (
            (IMAGES, "gaussian_noise", 1),
            {"fields": {"norm": 0}},
            ValueError,
            "`fields` holds norm: gaussian_noise takes the fields normal",
        ),
        (
            (IMAGES, "speckle_noise", 1),
            {"fields": {"normal": FIELD["normal"][:1]}},
            ValueError,
            "`fields['normal']` has shape [1, 32, 32, 3]",
        ),
        (
            (IMAGES, "speckle_noise", 1),
            {"fields": {"normal": IMAGES}},
            ValueError,
            "is torch.uint8: speckle_noise takes float values",
        ),
        ((IMAGES, "contrast", 1), {"fields": FIELD}, ValueError, "draws nothing"),
        ((IMAGES, "contrast", 1), {"fields": [1, 2]}, TypeError, "`fields` is list: give a dict of names and values"),
        (
            (IMAGES, "fog", 1),
            {"fields": {"plasma": None}},
            TypeError,
            "`fields['plasma']` is NoneType: give a tensor or an array",
        ),
        (
            (IMAGES, "fog", 1),
            {"fields": {"plasma": "x"}},
            TypeError,
            "`fields['plasma']` is str: give a tensor or an array",
        ),
        (
            (IMAGES, "fog", 1),
            {"fields": {"plasma": PLANE / 0}},
            ValueError,
            "`fields['plasma']` holds other values: fog takes finite numbers",
        ),
        (
            (IMAGES, "motion_blur", 1),
            {"fields": {"angle": PLANE[:, 0, 0] / 0}},
            ValueError,
            "`fields['angle']` holds other values: motion_blur takes finite",
        ),
        (
            (IMAGES, "shot_noise", 1),
            {"fields": {"counts": -BYTES}},
            ValueError,
            "`fields['counts']` holds other values: shot_noise takes whole numbers",
        ),
        (
            (IMAGES, "shot_noise", 1),
            {"fields": {"counts": BYTES / 2}},
            ValueError,
            "`fields['counts']` holds other values: shot_noise takes whole numbers",
        ),
        (
            (IMAGES, "shot_noise", 1),
            {"fields": {"counts": BYTES << 31}},
            ValueError,
            "`fields['counts']` holds other values: shot_noise takes whole numbers",
        ),
        (
            (IMAGES, "glass_blur", 1),
            {"fields": SHIFT | {"dx": SHIFT["dx"] + 1}},
            ValueError,
            "`fields['dx']` holds other values: glass_blur takes whole",
        ),
        ((IMAGES, "glass_blur", 1), {"fields": SHIFT | {"dy": SHIFT["dy"] - 2}}, ValueError, "numbers from -1 to 0"),
        ((IMAGES, "frost", 1), {"indices": INDICES}, ValueError, "frost needs its five textures"),
        ((IMAGES, "frost", 1), {"indices": INDICES, "textures": []}, ValueError, "`textures` is empty"),
        (
            (IMAGES, "frost", 1),
            {"indices": INDICES, "textures": 5},
            TypeError,
            "`textures` is int: give the five frost textures, uint8 arrays",
        ),
        (
            (IMAGES, "frost", 1),
            {"indices": INDICES, "textures": "frost"},
            TypeError,
            "`textures` is str: give the five frost textures",
        ),
        (
            (IMAGES, "frost", 1),
            {"indices": INDICES, "textures": [PHOTO] * 3},
            ValueError,
            "`textures` holds 3 textures",
        ),
        (
            (IMAGES, "frost", 1),
            {"indices": INDICES, "textures": [np.zeros((160, 300, 3), np.uint8)]},
            ValueError,
            "frost texture 1 in `textures` is 32 x 60 (scaled by 0.2), not larger than the image of 32 px",
        ),
        (
            (IMAGES, "frost", 1),
            {"indices": INDICES, "textures": [np.zeros((600, 900))]},
            ValueError,
            "frost texture 1 in `textures` is float64 [600, 900]: give uint8 RGB",
        ),
    ],
)
def test_bad_input(arguments, keywords, error, words):
    with pytest.raises(error) as caught:
        corrupt(*arguments, **keywords)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_input_of_draw_fields():
    with pytest.raises(ValueError, match="`images` is None: shot_noise counts the photons"):
        draw_fields("shot_noise", 1, seed=0, indices=INDICES, size=32)
    assert draw_fields("shot_noise", 1, seed=0, indices=INDICES, size=32, images=IMAGES)["counts"].shape == IMAGES.shape
    with pytest.raises(ValueError, match=r"`images` is torch\.uint8"):
        draw_fields("shot_noise", 1, seed=0, indices=INDICES, size=32, images=IMAGES[:1])
    with pytest.raises(ValueError, match="no published constants"):
        draw_fields("fog", 1, seed=0, indices=INDICES, size=33)
    assert draw_fields("contrast", 1, seed=0, indices=INDICES, size=32) == {}
    for images in (IMAGES.float(), IMAGES.numpy() / 255):
        with pytest.raises(ValueError, match=r"`images` is torch.float.*: give uint8 \[2, 32, 32, 3\]"):
            draw_fields("shot_noise", 1, seed=0, indices=INDICES, size=32, images=images)
    for size in (0, -3, 32.5, True, None):
        with pytest.raises(ValueError, match=f"`size` is {size}: give a whole number of 1 or more"):
            draw_fields("fog", 1, seed=0, indices=INDICES, size=size, constants="cifar32")
    with pytest.raises(TypeError, match="`textures` is"):
        draw_fields("frost", 1, seed=0, indices=INDICES, size=32, textures=5)


@pytest.mark.parametrize("name", ALL)
def test_draw_fields_takes_arrays_slices_and_empty_batches(name, monkeypatch):
    images = np.stack([sample_image(p, 32) for p in ("coffee", "rocket", "chelsea")])
    given = {"seed": 3, "size": 32, "textures": frost_textures()}
    whole = draw_fields(name, 2, indices=[7, 5, 9], images=torch.from_numpy(images), **given)
    monkeypatch.setattr(corruptions, "MAX_IMAGES", 2)
    drawn = draw_fields(name, 2, indices=np.array([7, 5, 9], np.uint16), images=images, **given)
    none = draw_fields(name, 2, indices=[], images=images[:0], **given)
    assert whole.keys() == drawn.keys() == none.keys()
    for field, values in whole.items():
        assert torch.equal(values, drawn[field])
        assert none[field].shape == (0, *values.shape[1:])
        assert none[field].dtype == values.dtype
    ours = corrupt(torch.from_numpy(images), name, 2, fields=drawn or None)
    assert torch.equal(ours, corrupt(torch.from_numpy(images), name, 2, fields=whole or None))


def test_the_suite():
    assert len(CORRUPTIONS) == 15
    assert tuple(name for names in CORRUPTION_CATEGORIES.values() for name in names) == CORRUPTIONS
    assert set(corruptions.TABLE) == set(ALL)
    for constants in CONSTANTS.values():
        assert set(constants) == set(ALL)
        assert all(len(severities) == 5 for severities in constants.values())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("size", "constants", "severity"), [(37, "imagenet224", 5), (50, "cifar32", 3)])
def test_other_sizes_equal_the_oracle(name, size, constants, severity):
    needs_magick(name)
    image = sample_image("coffee", size)
    images = torch.from_numpy(image)[None]
    fields = fields_of(name, severity, images, constants=constants)
    ours = corrupt(images, name, severity, fields=fields or None, constants=constants)[0].numpy()
    of_one = {field: values[0].numpy() for field, values in fields.items()}
    theirs = oracle(name)(image, CONSTANTS[constants][name][severity - 1], of_one)
    level, share = difference(ours, theirs)
    assert level <= LIMITS[name][0]
    assert share <= LIMITS[name][1]


@pytest.mark.parametrize("name", ALL)
def test_shapes_strides_and_chunks(name, monkeypatch):
    """The input stays as it was; strides, chunks and an empty batch make no difference; jpeg=True is one more step."""
    images = torch.from_numpy(np.stack([sample_image(p, 32) for p in ("coffee", "rocket", "chelsea")]))
    before = images.clone()
    options = {"indices": torch.arange(3), "textures": frost_textures()}
    whole = corrupt(images, name, 5, **options)
    assert torch.equal(images, before)
    assert whole.is_contiguous()
    strided = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(corrupt(strided, name, 5, **options), whole)
    monkeypatch.setitem(corruptions.CHUNK, "cpu", 2 * 32 * 32 * 3)
    assert torch.equal(corrupt(images, name, 5, **options), whole)
    assert torch.equal(corrupt(images, name, 5, jpeg=True, **options), jpeg_round_trip(whole, 85))
    assert corrupt(images[:0], name, 5, **options | {"indices": torch.arange(0)}).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("name", [name for name in ALL if corruptions.TABLE[name].draw])
@pytest.mark.parametrize("types", [{}, {torch.float32: torch.float64, torch.int16: torch.int32}])
def test_fields_stay_as_they_were(name, types):
    images = torch.from_numpy(np.stack([sample_image(p, 32) for p in ("coffee", "rocket")]))
    for severity in (1, 5):
        drawn = fields_of(name, severity, images, constants="imagenet224")
        given = {field: values.to(types.get(values.dtype, values.dtype), copy=True) for field, values in drawn.items()}
        before = {field: values.clone() for field, values in given.items()}
        corrupt(images, name, severity, fields=given, constants="imagenet224")
        assert all(torch.equal(values, before[field]) for field, values in given.items())


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("shot_noise", (torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.float64)),
        ("glass_blur", (torch.int8, torch.int32, torch.int64)),
        ("motion_blur", (torch.int8, torch.int64, torch.float64, torch.bfloat16)),
        ("snow", (torch.float64,)),
    ],
)
def test_fields_of_other_types_are_the_same_numbers(name, types):
    images = torch.from_numpy(sample_image("coffee", 32))[None]
    drawn = fields_of(name, 5, images)
    drawn |= {"angle": drawn["angle"].round()} if "angle" in drawn else {}
    whole = corrupt(images, name, 5, fields=drawn)
    for dtype in types:
        given = {field: values.to(dtype) for field, values in drawn.items()}
        assert torch.equal(corrupt(images, name, 5, fields=given), whole)


def test_shifts_of_pixels_that_do_not_move_are_not_checked():
    images = torch.from_numpy(sample_image("coffee", 32))[None]
    drawn = fields_of("glass_blur", 4, images, constants="imagenet224")
    given = {field: values.clone() for field, values in drawn.items()}
    for values in given.values():
        values[..., :4, :] = values[..., 30:, :] = values[..., :4] = values[..., 30:] = 99
    ours, theirs = (corrupt(images, "glass_blur", 4, constants="imagenet224", fields=f) for f in (given, drawn))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ALL)
def test_tiny_images(name):
    for size in (1, 2, 3, 5, 8):
        images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
        for constants in ("cifar32", "imagenet224"):
            for severity in (1, 5):
                options = {"indices": torch.arange(2), "textures": frost_textures(), "constants": constants}
                assert corrupt(images, name, severity, **options).shape == images.shape
