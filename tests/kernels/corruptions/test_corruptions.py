"""Every corruption, size and severity against its oracle on identical fields, and against the published output."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg.kernels.corruptions import corrupt, defocus, pixelate
from fastreg.kernels.corruptions.constants import CONSTANTS, SIZES
from fastreg.kernels.corruptions.fog import plasma
from fastreg.kernels.corruptions.pixels import quantize
from tests.kernels.corruptions.golden_cases import (
    ALL,
    LIMITS,
    NOT_GOLDEN,
    difference,
    fields_of,
    needs_magick,
    published,
    sample_image,
)
from tests.kernels.corruptions.oracles import ORACLES, oracle, plasma_loops


@pytest.mark.parametrize("name", ALL)
def test_equals_the_oracle(name, capsys):
    needs_magick(name)
    cases = [("coffee", 224), ("rocket", 64), ("flat", 64), ("chelsea", 32), ("retina", 299)]
    worst: dict[int, tuple[int, float]] = {}
    for source, size in cases:
        constants = SIZES[size]
        image = sample_image(source, size)
        images = torch.from_numpy(image)[None]
        for severity in (3, 5) if size == 299 else (1, 2, 3, 4, 5):
            fields = fields_of(name, severity, images)
            ours = corrupt(images, name, severity, fields=fields or None)[0].numpy()
            of_one = {field: values[0].numpy() for field, values in fields.items()}
            theirs = oracle(name)(image, CONSTANTS[constants][name][severity - 1], of_one)
            level, share = difference(ours, theirs)
            most, limit = LIMITS[name]
            assert level <= most, f"{name} {severity} on {source} {size}: {level} levels apart"
            assert share <= limit, f"{name} {severity} on {source} {size}: {share:.3f} % of values differ"
            worst[size] = max(worst.get(size, (0, 0.0)), (level, share))
    with capsys.disabled():
        row = "  ".join(f"{size}: {level} level {share:.4f} %" for size, (level, share) in worst.items())
        print(f"\n{name:18s} {row}  oracle: {ORACLES[name]}", end="")


@pytest.mark.parametrize("name", [name for name in ALL if name not in NOT_GOLDEN])
def test_equals_the_published_output(name):
    seen = 0
    for constants, severity, images, fields, output in published(name):
        ours = corrupt(images, name, severity, fields=fields or None)[0].numpy()
        level, share = difference(ours, output)
        most, limit = LIMITS[name]
        assert level <= most, f"{constants} {severity}: {level} levels apart"
        assert share <= limit, f"{constants} {severity}: {share:.3f} % of values differ"
        seen += 1
    assert seen == 6


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise"])
def test_noise_of_one_value(name):
    """Many results lie on a level's border then, where float32 falls on the wrong side of a third."""
    size = 48
    image = sample_image("coffee", size)
    values = torch.tensor([-6.0, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 6])
    images = torch.from_numpy(image).expand(len(values), -1, -1, -1)
    normal = values.view(-1, 1, 1, 1).expand(images.shape)
    for constants in CONSTANTS:
        for severity, parameter in enumerate(CONSTANTS[constants][name], 1):
            ours = corrupt(images, name, severity, constants=constants, fields={"normal": normal}).numpy()
            theirs = [oracle(name)(image, parameter, {"normal": field}) for field in normal.numpy()]
            assert np.array_equal(ours, np.stack(theirs)), (constants, severity)


@pytest.mark.parametrize(("constants", "size"), [("cifar32", 32), ("imagenet224", 48)])
def test_motion_blur_at_angles_whose_sines_are_simple(constants, size):
    """At multiples of 30 degrees a tap lies half-way between two pixels: in both ranges the last bit decides."""
    needs_magick("motion_blur")
    image = sample_image("coffee", size)
    rng = np.random.default_rng(0)
    angles = np.concatenate((np.arange(-180, 181, 15.0), rng.uniform(-45, 45, 10), rng.uniform(-135, -45, 10)))
    angles = np.concatenate((angles, np.float32(angles)))  # drawn ones are float32
    images = torch.from_numpy(image).expand(len(angles), -1, -1, -1)
    for severity in (1, 2, 3, 4, 5):
        fields = {"angle": torch.from_numpy(angles)}
        ours = corrupt(images, "motion_blur", severity, constants=constants, fields=fields).numpy()
        parameter = CONSTANTS[constants]["motion_blur"][severity - 1]
        for angle, result in zip(angles, ours):
            assert np.array_equal(result, oracle("motion_blur")(image, parameter, {"angle": angle})), angle


@pytest.mark.parametrize("decay", [2, 1.4])
def test_plasma_equals_loops(decay):
    uniform = np.random.default_rng(3).uniform(0, 1, (16, 16))
    ours = plasma(torch.from_numpy(uniform)[None], decay, 16)[0].numpy()
    exact = plasma_loops(2 * uniform - 1, decay)  # of which ours is the nearest float32
    np.testing.assert_allclose(ours.astype(np.float64), exact, rtol=2**-24, atol=1e-12)


@pytest.mark.filterwarnings("ignore:invalid value")  # the oracle's, as the published code's
@pytest.mark.parametrize("severity", [1, 2, 3])
def test_spatter_without_a_drop_is_black(severity):
    images = torch.from_numpy(sample_image("coffee", 32))[None]
    field = torch.full((1, 32, 32), -6.0)
    ours = corrupt(images, "spatter", severity, fields={"normal": field})[0].numpy()
    parameter = CONSTANTS["cifar32"]["spatter"][severity - 1]
    assert (ours == oracle("spatter")(images[0].numpy(), parameter, {"normal": field[0].numpy()})).all()
    assert not ours.any()


def test_glass_follows_the_longest_chain():
    """Every pixel copies its right neighbor, written just before: one value runs along the whole row."""
    size, reach = 64, 2
    images = torch.from_numpy(sample_image("rocket", size))[None]
    shape = (1, 1, size, size)
    fields = {"dx": torch.full(shape, reach - 1), "dy": torch.zeros(shape, dtype=torch.int64)}
    ours = corrupt(images, "glass_blur", 4, fields=fields)[0].numpy()
    theirs = oracle("glass_blur")(
        images[0].numpy(), CONSTANTS["tiny64"]["glass_blur"][3], {k: v[0].numpy() for k, v in fields.items()}
    )
    assert (ours == theirs).all()


@pytest.mark.parametrize("nearest", [True, False])
def test_pixelate_at_every_scale(nearest, monkeypatch):
    """Whether OpenCV repeats the pixels or numpy, which does where OpenCV's nearest pixel is another one."""
    if nearest:
        assert pixelate._is_nearest(89, 224)
    else:
        monkeypatch.setattr(pixelate, "_is_nearest", lambda small, side: False)
    for size in (32, 45, 77, 224, 299):
        images = torch.from_numpy(sample_image("coffee", size))[None]
        for scale in {scale for constants in CONSTANTS.values() for scale in constants["pixelate"]}:
            assert (
                pixelate.pixelate(images, scale, {})[0].numpy() == oracle("pixelate")(images[0].numpy(), scale, {})
            ).all()


@pytest.mark.parametrize("size", [32, 45, 77, 224])
def test_defocus_by_fourier_equals_opencv(size):
    """What CUDA tensors run where the CPU calls OpenCV, run on the CPU here."""
    for source in ("coffee", "flat"):
        images = torch.from_numpy(sample_image(source, size))[None]
        for parameter in {p for constants in CONSTANTS.values() for p in constants["defocus_blur"]}:
            kernel = defocus.disc(*parameter)
            ours = defocus.correlate(images, kernel)
            theirs = defocus.correlate_reference(images, kernel)
            assert (ours - theirs).abs().max() < 1e-14
            level, share = difference(quantize(ours).numpy(), quantize(theirs).numpy())
            assert level <= 1
            assert share <= LIMITS["defocus_blur"][1]
