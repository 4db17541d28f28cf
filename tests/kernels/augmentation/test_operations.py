"""Plans with operations: the stages one by one with Pillow and torchvision, AugMix's mix in float64, and views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.kernels import AUTO_AUGMENT_OPERATIONS, Plan, augment, auto_augment
from fastreg.kernels.augmentation.operations import fill_levels
from fastreg.kernels.augmentation.reference import draw_normals
from fastreg.kernels.augmentation.registry import MEAN, STD
from tests.support import peer

GIVEN = {"mean": MEAN, "std": STD, "dtype": torch.float32}
B, H, W = 6, 24, 20
MAGNITUDE = {"Rotate": 12.0, "Posterize": 3.0, "Solarize": 100.0, "TranslateX": 4.0, "TranslateY": -3.0}


def example(seed: int = 0) -> torch.Tensor:
    smooth = torch.rand(B, 3, 6, 5, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(smooth, (H, W), mode="bicubic").clamp(0, 1)
    return (255 * images).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def operations(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random operations but timm's SolarizeAdd, and a magnitude for each."""
    chosen = torch.randint(0, 15, shape, generator=torch.Generator().manual_seed(seed))
    names = np.array(AUTO_AUGMENT_OPERATIONS)[chosen.numpy()]
    strengths = np.vectorize(lambda name: MAGNITUDE.get(name, 0.2))(names)
    return chosen, torch.from_numpy(strengths.astype(np.float32))


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    x = pixels.permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def by_torchvision(image: np.ndarray, chosen: list[int], magnitudes: list[float], mode: str) -> np.ndarray:
    module = peer("torchvision.transforms").autoaugment
    out = Image.fromarray(image)
    for operation, m in zip(chosen, magnitudes):
        name = AUTO_AUGMENT_OPERATIONS[operation]
        out = module._apply_op(out, name, m, module.InterpolationMode(mode), [5, 6, 7])
    return np.asarray(out)


@pytest.mark.parametrize(("mode", "code"), [("nearest", None), ("nearest", 0), ("bicubic", 2)])
def test_crop_flip_operations_then_the_rest(mode, code):
    """Crop and resize with Pillow, flip with numpy, torchvision's operations, then noise, blend and fill in numpy."""
    images, (chosen, magnitudes) = example(), operations(B, 2)
    crop = torch.tensor([[2.0, 1.0, 18.0, 15.0]]).repeat(B, 1)
    noise, normal = torch.linspace(0, 0.1, B), torch.randn(B, 16, 12, 3, generator=torch.Generator().manual_seed(1))
    partner, lam = torch.tensor([3, 0, 5, 1, 4, 2]), torch.linspace(0.2, 1, B)
    box = torch.tensor([[2, 3, 7, 9]], dtype=torch.int32).repeat(B, 1)
    flip = torch.arange(B) % 2 == 0
    plan = Plan(
        crop, flip, noise, partner, lam, box, torch.full((B,), 2, dtype=torch.int8), chosen, magnitudes,
        None if code is None else torch.full((B, 2), code, dtype=torch.int8),
    )  # fmt: skip
    out = augment(images, plan, **GIVEN, size=(16, 12), normal=normal, fill=(5, 6, 7))
    pixels = []
    for i in range(B):
        cut = Image.fromarray(images[i].numpy()).crop((1, 2, 16, 20)).resize((12, 16), Image.BILINEAR)
        flipped = np.asarray(cut)[:, ::-1] if flip[i] else np.asarray(cut)
        done = by_torchvision(flipped, chosen[i].tolist(), magnitudes[i].tolist(), mode) / 255
        pixels.append(np.clip(done + float(noise[i]) * normal[i].numpy(), 0, 1))
    x = (np.stack(pixels) - MEAN) / STD
    share = lam.numpy()[:, None, None, None]
    x = share * x + (1 - share) * x[partner.numpy()]
    x[:, 2:7, 3:9] = 0
    np.testing.assert_allclose(out.permute(0, 2, 3, 1).numpy(), x, atol=0.02 if mode == "bicubic" else 1e-5)


def test_a_plan_with_operations_that_change_nothing_is_the_plan_without():
    images, flip = example(), torch.arange(B) % 2 == 0
    plain = augment(images, Plan(flip=flip), **GIVEN)
    for shape in ((B, 0), (B, 3)):
        nothing = Plan(flip=flip, operations=torch.zeros(shape).long(), magnitudes=torch.zeros(shape))
        assert torch.equal(augment(images, nothing, **GIVEN), plain)
    chains = {"operations": torch.zeros(B, 2, 3).long(), "magnitudes": torch.zeros(B, 2, 3)}
    weights = torch.rand(B, 2, generator=torch.Generator().manual_seed(2)) / 2
    assert torch.equal(augment(images, Plan(flip=flip, chain_weights=weights, **chains), **GIVEN), plain)


def test_chains_are_mixed_in_float_and_rounded_once():
    images, (chosen, magnitudes) = example(), operations(B, 3, 2, seed=4)
    weights = torch.rand(B, 3, generator=torch.Generator().manual_seed(3)) / 3
    plan = Plan(operations=chosen, magnitudes=magnitudes, chain_weights=weights)
    out = augment(images, plan, mean=(0.0,) * 3, std=(1 / 255,) * 3, dtype=torch.float32).permute(0, 2, 3, 1)
    chains = [auto_augment(images, chosen[:, i], magnitudes[:, i]).double() for i in range(3)]
    w = weights.double()[:, :, None, None, None]
    mixed = (1 - w.sum(1)) * images.double() + sum(w[:, i] * chain for i, chain in enumerate(chains))
    assert (out - mixed).abs().max() < 0.5 + 1e-3
    assert (out.double() - mixed).mean().abs() < 0.02  # rounded, not truncated
    assert (out - out.round()).abs().max() < 1e-3


@pytest.mark.parametrize("weighted", [True, False])
def test_views_are_the_image_and_then_each_view(weighted):
    """Against one call per view: other fields are shared, partners are of the same view, noise differs."""
    width = 3 if weighted else 1
    images, (chosen, magnitudes) = example(), operations(B, 2, width, 2, seed=5)
    weights = torch.rand(B, 2, width, generator=torch.Generator().manual_seed(6)) / width
    crop = torch.tensor([[2.0, 1.0, 18.0, 15.0]]).repeat(B, 1)
    shared = {
        "crop": crop,
        "flip": torch.arange(B) % 2 == 0,
        "noise": torch.full((B,), 0.1),
        "partner": torch.tensor([3, 0, 5, 1, 4, 2]),
        "lam": torch.linspace(0, 1, B),
    }
    mixed = {"chain_weights": weights} if weighted else {}
    plan = Plan(**shared, operations=chosen, magnitudes=magnitudes, **mixed)
    keys = torch.arange(B) * 7
    out = augment(images, plan, **GIVEN, size=(16, 12), seed=1, indices=keys, step=2)
    assert out.shape == (3 * B, 3, 16, 12)
    for view in range(3):
        own = Plan(**shared)
        if view:
            own = own._replace(operations=chosen[:, view - 1], magnitudes=magnitudes[:, view - 1])
            own = own._replace(chain_weights=weights[:, view - 1]) if weighted else own
        normal = draw_normals(1, keys + (view << 50), 2, (16, 12), images.device)
        alone = augment(images, own, **GIVEN, size=(16, 12), normal=normal)
        torch.testing.assert_close(out[view * B : (view + 1) * B], alone)


def test_the_fill_is_black_or_the_mean():
    assert fill_levels("black", MEAN) == (0, 0, 0)
    assert fill_levels("mean", (0.485, 0.456, 1.2)) == (124, 116, 255)  # timm: min(255, round(255 x))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"magnitudes": torch.zeros(B, 1)}, ValueError, "`plan.magnitudes` belongs to operations"),
        ({"operations": torch.zeros(B, 1).long()}, ValueError, "`plan.operations` need magnitudes"),
        ({"operations": [1], "magnitudes": [0.0]}, ValueError, "`plan.operations` is list: give int64"),
        (
            {"operations": torch.zeros(B).long(), "magnitudes": torch.zeros(B)},
            ValueError,
            r"`plan.operations` is \[6\]: give int64 \[B, K\]",
        ),
        (
            {"operations": torch.zeros(B, 1), "magnitudes": torch.zeros(B, 1)},
            TypeError,
            "`plan.operations` is torch.float32: give a tensor torch.int64",
        ),
        (
            {"operations": torch.zeros(2, 1).long(), "magnitudes": torch.zeros(2, 1)},
            ValueError,
            r"`plan.operations` has shape \[2, 1\]",
        ),
        (
            {"operations": torch.zeros(B, 2, 1).long(), "magnitudes": torch.zeros(B, 2, 1)},
            ValueError,
            "`plan.operations` has 2 chains per image: give `plan.chain_weights`",
        ),
        (
            {"operations": torch.full((B, 1), 16), "magnitudes": torch.zeros(B, 1)},
            ValueError,
            "`operations` holds .*16",
        ),
        (
            {
                "operations": torch.zeros(B, 1).long(),
                "magnitudes": torch.zeros(B, 1),
                "chain_weights": torch.zeros(B, 1),
            },
            ValueError,
            "`plan.chain_weights` mixes chains",
        ),
        (
            {
                "operations": torch.zeros(B, 2, 1).long(),
                "magnitudes": torch.zeros(B, 2, 1),
                "chain_weights": torch.full((B, 2), 1.5),
            },
            ValueError,
            r"`plan.chain_weights` holds \[1.5",
        ),
    ],
)
def test_fields_that_do_not_combine_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        augment(example(), Plan(**fields), **GIVEN)
