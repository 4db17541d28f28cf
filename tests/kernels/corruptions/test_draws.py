"""The random fields: their distributions, and their dependence on the sample only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from fastreg.kernels.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, TABLE, corrupt, draw_fields
from fastreg.kernels.corruptions.constants import CONSTANTS, FROST_SCALE
from fastreg.kernels.corruptions.gaussian import filter_field, gaussian_matrix
from fastreg.kernels.corruptions.motion import blur_along
from fastreg.kernels.corruptions.snow import flakes_reference
from fastreg.kernels.corruptions.zoom import zoom_grid
from tests.kernels.corruptions.golden_cases import frost_textures, sample_image
from tests.kernels.corruptions.oracles import plasma_loops

DRAWN = [name for name in CORRUPTIONS + EXTRA_CORRUPTIONS if TABLE[name].draw]


def draw(name: str, severity: int, count: int, size: int = 64, **kw) -> dict[str, np.ndarray]:
    drawn = draw_fields(name, severity, seed=5, indices=torch.arange(count), size=size, textures=frost_textures(), **kw)
    return {field: values.numpy() for field, values in drawn.items()}


def uniform(values: np.ndarray, low: float, high: float) -> float:
    return stats.kstest(values.ravel(), stats.uniform(low, high - low).cdf).pvalue


def correlation(maps: np.ndarray, lag: int) -> float:
    """Mean over maps [B,n,n] of the autocorrelation at ``lag`` pixels, rows and columns together."""
    maps = maps - maps.mean((1, 2), keepdims=True)
    across = (maps[:, :, :-lag] * maps[:, :, lag:]).mean((1, 2))
    down = (maps[:, :-lag] * maps[:, lag:]).mean((1, 2))
    return float(((across + down) / 2 / maps.var((1, 2))).mean())


@pytest.mark.parametrize("name", DRAWN)
def test_fields_depend_on_the_sample_only(name):
    """The result of an image is the same alone, in a batch and in another order; seed, index and severity change it."""
    image = torch.from_numpy(sample_image("coffee", 64))
    images, indices = image.expand(5, -1, -1, -1), torch.tensor([4, 900, 31, 2, 77])
    options = {"seed": 3, "textures": frost_textures()}
    together = corrupt(images, name, 3, indices=indices, **options)
    assert together.dtype == torch.uint8
    assert together.shape == images.shape
    order = torch.tensor([2, 0, 4, 1, 3])
    assert torch.equal(corrupt(images, name, 3, indices=indices[order], **options), together[order])
    for k in range(5):
        assert torch.equal(corrupt(images[k : k + 1], name, 3, indices=indices[k : k + 1], **options)[0], together[k])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(corrupt(images, name, 3, indices=indices, **options | {"seed": 4}), together)
    given = draw_fields(name, 3, indices=indices, size=64, images=images, **options)
    assert torch.equal(corrupt(images, name, 3, fields=given), together)


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise", "snow", "spatter"])
def test_normals(name):
    values = draw(name, 2, 12)["normal"].astype(float)
    count = values.size
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-4
    assert abs(values.mean()) < 5 / count**0.5
    assert abs(values.std() - 1) < 5 / (2 * count) ** 0.5
    assert abs(stats.kurtosis(values.ravel())) < 5 * (24 / count) ** 0.5
    for lag in (1, 2, 3):
        assert abs(correlation(values.reshape(12, 64, -1), lag)) < 5 / count**0.5


@pytest.mark.parametrize(("constants", "severity"), [("imagenet224", 1), ("imagenet224", 5), ("cifar32", 1)])
def test_photon_counts(constants, severity):
    photons = CONSTANTS[constants]["shot_noise"][severity - 1]
    for level in (0, 1, 90, 255):
        images = torch.full((4, 64, 64, 3), level, dtype=torch.uint8)
        counts = draw("shot_noise", severity, 4, constants=constants, images=images)["counts"].ravel()
        rate = photons * level / 255
        if level == 0:
            assert not counts.any()
            continue
        assert abs(counts.mean() - rate) < 5 * (rate / counts.size) ** 0.5
        top = int(stats.poisson(rate).ppf(0.9999))
        expected = stats.poisson(rate).pmf(np.arange(top + 1)) * counts.size
        seen = np.bincount(counts, minlength=top + 1)[: top + 1]
        big = expected > 10
        assert (
            stats.chisquare(
                np.append(seen[big], counts.size - seen[big].sum()),
                np.append(expected[big], counts.size - expected[big].sum()),
            ).pvalue
            > 1e-4
        )


def test_impulses():
    for severity in (1, 5):
        share = CONSTANTS["tiny64"]["impulse_noise"][severity - 1]
        fields = draw("impulse_noise", severity, 20)
        replace, salt = fields["replace"], fields["salt"]
        assert abs(replace.mean() - share) < 5 * (share * (1 - share) / replace.size) ** 0.5
        for chosen in (replace, ~replace):
            assert abs(salt[chosen].mean() - 0.5) < 2.5 / chosen.sum() ** 0.5
        neighbors = (replace[..., 0] & replace[..., 1]).mean()  # channels are independent
        assert abs(neighbors - share**2) < 5 * (share**2 / replace[..., 0].size) ** 0.5


def test_glass_shifts():
    fields = draw("glass_blur", 4, 4, constants="imagenet299")  # reach 4, two passes
    for values in fields.values():
        assert values.shape == (4, 2, 64, 64)
        seen = np.bincount(values.ravel() + 4)
        assert len(seen) == 8
        assert stats.chisquare(seen).pvalue > 1e-4
    pairs = (fields["dx"] + 4) * 8 + fields["dy"] + 4
    assert stats.chisquare(np.bincount(pairs.ravel(), minlength=64)).pvalue > 1e-4


def test_angles_and_corners():
    assert uniform(draw("motion_blur", 1, 2000)["angle"], -45, 45) > 1e-4
    assert uniform(draw("snow", 1, 500, size=8, constants="cifar32")["angle"], -135, -45) > 1e-4
    fields = draw("elastic_transform", 3, 300, size=16, constants="cifar32")
    reach = CONSTANTS["cifar32"]["elastic_transform"][2][2]
    assert uniform(fields["corner_shift"], -reach, reach) > 1e-4
    for axis in ("dx", "dy"):
        assert uniform(fields[axis], -1, 1) > 1e-4
    assert abs(np.corrcoef(fields["dx"].ravel(), fields["dy"].ravel())[0, 1]) < 5 / fields["dx"].size ** 0.5


@pytest.mark.parametrize("severity", [2, 3, 5])
def test_displacement(severity):
    """The smoothed field's size follows from the filter's weights: var = alpha^2 / 3 (sum of squares of a row)^2."""
    alpha, sigma, _ = CONSTANTS["cifar32"]["elastic_transform"][severity - 1]
    dx = torch.from_numpy(draw("elastic_transform", severity, 200, size=32)["dx"])
    measured = (filter_field(dx, sigma, "mirror", 3.0) * alpha).square().mean().sqrt().item()
    rows = (gaussian_matrix(32, sigma, "mirror", 3.0) ** 2).sum(1)
    assert measured == pytest.approx(alpha / 3**0.5 * rows.mean(), rel=0.05)


def test_plasma_texture():
    """Autocorrelation and spread of the fog maps beside those of maps made by loops from numpy's generator."""
    rng = np.random.default_rng(0)
    for severity in (1, 5):
        decay = CONSTANTS["cifar32"]["fog"][severity - 1][1]
        ours = draw("fog", severity, 150, size=32)["plasma"].astype(float)
        theirs = np.stack([plasma_loops(rng.uniform(-1, 1, (32, 32)), decay) for _ in range(150)])
        assert ours.min() == 0
        assert ours.max() == 1
        assert ours.mean() == pytest.approx(theirs.mean(), abs=0.05)
        assert ours.std() == pytest.approx(theirs.std(), rel=0.1)
        for lag in (1, 2, 4, 8):
            assert correlation(ours, lag) == pytest.approx(correlation(theirs, lag), abs=0.05)


def test_snow_texture():
    """The layer of flakes beside one made from numpy's normals: share of white, and autocorrelation."""
    mean, std, zoom, threshold, radius, sigma, _ = CONSTANTS["cifar32"]["snow"][3]
    rng = np.random.default_rng(1)
    ours = draw("snow", 4, 200, size=32)
    theirs = {"normal": rng.normal(size=(200, 32, 32)), "angle": rng.uniform(-135, -45, 200)}
    layers = []
    for fields in (ours, theirs):
        law = torch.tensor((std, mean, threshold), dtype=torch.float64)
        layer = flakes_reference(torch.from_numpy(fields["normal"]), *map(torch.from_numpy, zoom_grid(32, zoom)), law)
        layers.append(blur_along(layer, torch.from_numpy(fields["angle"]), radius, sigma)[..., 0].numpy() / 255)
    assert layers[0].mean() == pytest.approx(layers[1].mean(), rel=0.05)
    for lag in (1, 2, 4):
        assert correlation(layers[0], lag) == pytest.approx(correlation(layers[1], lag), abs=0.03)


def test_frost_crops():
    """Each texture a fifth of the time, corners over the whole range with the last row and column left out."""
    sides = ((20, 30), (12, 40), (12, 40), (25, 16), (40, 18))
    textures = []
    for number, (rows, columns) in enumerate(sides):  # a pixel holds its texture, row and column
        texture = np.zeros((rows, columns, 3), np.uint8)
        texture[..., 0] = number
        texture[..., 1] = np.arange(rows)[:, None]
        texture[..., 2] = np.arange(columns)
        textures.append(texture)
    indices = torch.arange(8000)
    drawn = draw_fields("frost", 1, seed=1, indices=indices, size=8, constants="imagenet224", textures=textures)[
        "texture"
    ].numpy()
    assert stats.chisquare(np.bincount(drawn[:, 0, 0, 0])).pvalue > 1e-4
    for number, (rows, columns) in enumerate(sides):
        mine = drawn[drawn[:, 0, 0, 0] == number]
        for axis, length in ((1, rows), (2, columns)):
            seen = np.bincount(mine[:, 0, 0, axis], minlength=length - 8)
            assert len(seen) == length - 8
            assert stats.chisquare(seen).pvalue > 1e-4
        assert (mine[:, 3, 5, 1:] - mine[:, 0, 0, 1:] == (3, 5)).all()


def test_frost_textures_that_change_in_place_are_joined_again():
    textures = [texture.copy() for texture in frost_textures()]
    images, options = torch.zeros(2, 64, 64, 3, dtype=torch.uint8), {"indices": torch.arange(2), "textures": textures}
    before = corrupt(images, "frost", 3, **options)
    for texture in textures:
        texture[:] = texture[::-1]
    turned = corrupt(images, "frost", 3, **options)
    assert not torch.equal(before, turned)
    assert torch.equal(turned, corrupt(images, "frost", 3, **options | {"textures": [t.copy() for t in textures]}))


def test_frost_textures_are_scaled():
    import cv2

    for constants, size in (("cifar32", 32), ("tiny64", 64)):
        fields = draw("frost", 1, 40, size=size, constants=constants)["texture"]
        scaled = [cv2.resize(p, None, fx=FROST_SCALE[constants], fy=FROST_SCALE[constants]) for p in frost_textures()]
        for crop in fields:
            windows = (np.lib.stride_tricks.sliding_window_view(p[..., 0], size, axis=1)[:, :, :] for p in scaled)
            assert any((w == crop[0, :, 0]).all(-1).any() for w in windows)
