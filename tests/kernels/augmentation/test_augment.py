"""``augment`` on the CPU against independent code: Pillow for crops, numpy for the formula, one sample at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.kernels import Plan, augment, philox
from fastreg.kernels.augmentation.reference import crop_and_resize
from fastreg.kernels.augmentation.registry import MEAN, STD, draw_plan

GIVEN = {"mean": MEAN, "std": STD, "dtype": torch.float32}
FIELDS = {
    "nothing": (),
    "mixup": ("flip", "partner", "lam"),
    "cutmix": ("partner", "box"),
    "cutout": ("flip", "box", "box_fill"),
    "noise": ("noise",),
    "all": ("crop", "flip", "noise", "partner", "lam", "box", "box_fill"),
    "erase": ("erase",),
    "erase before CutMix": ("partner", "box", "erase"),
    "erase and all": ("crop", "flip", "noise", "partner", "lam", "box", "box_fill", "erase", "erase_noise"),
}


def example_images(B: int, H: int, W: int) -> torch.Tensor:
    from skimage import data

    image = data.astronaut()
    corners = np.random.default_rng(B).integers(0, 512 - max(H, W), (B, 2))
    return torch.from_numpy(np.stack([image[y : y + H, x : x + W] for y, x in corners]))


def one_sample(images, plan, i, size, normal) -> np.ndarray:
    """Sample i by the definition of Plan, in float64 numpy and Pillow."""
    h, w = size

    def pixels(k):
        x = images[k].numpy()
        top, left, height, width = (0, 0, *x.shape[:2]) if plan.crop is None else plan.crop[k].tolist()
        y0, x0 = int(np.floor(top)), int(np.floor(left))
        y1, x1 = int(np.ceil(top + height)), int(np.ceil(left + width))
        window = Image.fromarray(x).crop((x0, y0, x1, y1))
        box = (left - x0, top - y0, left + width - x0, top + height - y0)
        across = window.resize((w, y1 - y0), Image.BILINEAR, box=(box[0], 0, box[2], y1 - y0))
        x = np.asarray(across.resize((w, h), Image.BILINEAR, box=(0, box[1], w, box[3])), float) / 255
        if plan.flip is not None and plan.flip[k]:
            x = x[:, ::-1]
        if plan.noise is not None:
            x = np.clip(x + float(plan.noise[k]) * normal[k].numpy().astype(float), 0, 1)
        return x

    def normalized(x):
        return (x - np.array(MEAN)) / np.array(STD)

    def erased(k):
        x = normalized(pixels(k))
        if plan.erase is not None:
            y0, x0, y1, x1 = plan.erase[k].clamp(min=0).tolist()
            sigma = 0.0 if plan.erase_noise is None else float(plan.erase_noise[k])
            x[y0:y1, x0:x1] = sigma * normal[k, y0:y1, x0:x1].numpy().astype(float)
        return x

    own = erased(i)
    inside = np.zeros((h, w), bool)
    if plan.box is not None:
        y0, x0, y1, x1 = plan.box[i].tolist()
        inside[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    fill = int(plan.box_fill[i]) if plan.box_fill is not None else 0
    if fill == 1:
        own = np.where(inside[..., None], normalized(np.zeros(3)), own)
    if plan.partner is not None:
        partner = erased(int(plan.partner[i]))
        if plan.lam is not None:
            own = float(plan.lam[i]) * own + (1 - float(plan.lam[i])) * partner
        if fill == 0:
            own[inside] = partner[inside]
    if fill == 2:
        own[inside] = 0
    return own.transpose(2, 0, 1)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(("B", "H", "W", "h", "w"), [(6, 24, 32, 24, 32), (1, 9, 7, 9, 7), (3, 41, 30, 17, 22)])
def test_every_sample_by_the_definition(name, B, H, W, h, w):
    images, plan = example_images(B, H, W), draw_plan(FIELDS[name], B, h, w, (H, W), "cpu")
    normal = torch.randn(B, h, w, 3, generator=torch.Generator().manual_seed(0))
    ours = augment(images, plan, **GIVEN, size=(h, w), normal=normal)
    assert ours.shape == (B, 3, h, w)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    for i in range(B):
        assert np.abs(ours[i].numpy() - one_sample(images, plan, i, (h, w), normal)).max() < 2e-6


@pytest.mark.parametrize("size", [(224, 224), (32, 48), (100, 31), (7, 300)])
def test_crops_are_pillows(size):
    images = example_images(5, 120, 90)
    crop = torch.tensor([[0, 0, 120, 90], [13, 4, 50, 60], [100, 80, 20, 10], [-4, 3, 120, 90], [30, 30, 1, 2.0]])
    ours = crop_and_resize(images, crop, size)
    for i, (top, left, height, width) in enumerate(crop.int().tolist()):
        window = Image.fromarray(images[i].numpy()).crop((left, top, left + width, top + height))
        apart = np.abs(np.asarray(window.resize(size[::-1], Image.BILINEAR), int) - ours[i].numpy())
        # to the bit where Pillow, too, filters horizontally first; from version 13 it may begin with the shrinking side
        assert apart.max() <= (0 if size[0] >= height else 1)


def test_cifar_shift_is_padding_by_four_and_cropping():
    images = example_images(4, 32, 32)
    shift = torch.tensor([[-4, -4], [4, 4], [0, 0], [-2, 3]])
    crop = torch.cat((shift, torch.full((4, 2), 32)), 1).float()
    padded = torch.nn.functional.pad(images.permute(0, 3, 1, 2), (4, 4, 4, 4))
    ours = crop_and_resize(images, crop, (32, 32)).permute(0, 3, 1, 2)
    for i, (y, x) in enumerate((shift + 4).tolist()):
        assert torch.equal(ours[i], padded[i, :, y : y + 32, x : x + 32])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_results_are_the_float_result_rounded(dtype):
    images, plan = example_images(4, 16, 16), draw_plan(FIELDS["mixup"], 4, 16, 16, (16, 16), "cpu")
    full = augment(images, plan, **GIVEN)
    assert torch.equal(augment(images, plan, mean=MEAN, std=STD, dtype=dtype), full.to(dtype))


def test_noise_depends_on_the_sample_only():
    images, indices = example_images(5, 16, 16), torch.tensor([3, 2**31 + 1, 8, 0, 77])
    plan = Plan(noise=torch.full((5,), 0.1))
    whole = augment(images, plan, **GIVEN, seed=4, indices=indices, step=2)
    alone = augment(images[3:4], Plan(noise=plan.noise[3:4]), **GIVEN, seed=4, indices=indices[3:4], step=2)
    assert torch.equal(alone[0], whole[3])
    field = philox.field(philox.normal, 4, indices.numpy(), 16 * 16 * 3, 2, "augment_noise").reshape(5, 16, 16, 3)
    assert torch.equal(whole, augment(images, plan, **GIVEN, normal=torch.from_numpy(field)))
    assert not torch.equal(whole, augment(images, plan, **GIVEN, seed=4, indices=indices, step=3))


def test_noise_without_indices_depends_on_the_position_in_the_batch():
    images, plan = example_images(3, 16, 16), Plan(noise=torch.full((3,), 0.1))
    ours = augment(images, plan, **GIVEN, seed=4, step=2)
    assert torch.equal(ours, augment(images, plan, **GIVEN, seed=4, step=2, indices=torch.arange(3)))


def test_a_partner_keeps_its_erased_box_and_its_noise():
    """Each image is erased before it is mixed, so a pair is the mean of the two images alone."""
    images, indices = example_images(2, 16, 16), torch.tensor([5, 2**40])
    erase = torch.tensor([[2, 3, 9, 11], [0, 0, 4, 16]], dtype=torch.int32)
    single = Plan(erase=erase, erase_noise=torch.tensor([1.0, 0.5]))
    alone = augment(images, single, **GIVEN, indices=indices, seed=1, step=2)
    assert abs(alone[0, :, 2:9, 3:11].std() - 1) < 0.2
    pair = single._replace(partner=torch.tensor([1, 0]), lam=torch.full((2,), 0.5))
    mixed = augment(images, pair, **GIVEN, indices=indices, seed=1, step=2)
    torch.testing.assert_close(mixed, ((alone[0] + alone[1]) / 2).expand(2, -1, -1, -1), rtol=1e-5, atol=1e-6)


def test_numbers_of_other_libraries():
    images, plan = example_images(2, 9, 8), draw_plan(("flip", "box", "box_fill"), 2, 4, 4, (9, 8), "cpu")
    ours = augment(images, plan, **GIVEN, size=(4, 4))
    assert torch.equal(augment(images, plan, **GIVEN, size=np.int64(4)), ours)
    for kind in (torch.tensor, np.array):
        given = {"mean": kind(MEAN), "std": kind(STD), "dtype": torch.float32, "size": [4, 4]}
        assert (augment(images, plan, **given) - ours).abs().max() < 1e-6


def test_no_images_are_no_images():
    images, plan = example_images(2, 16, 12)[:0], draw_plan(Plan._fields, 2, 8, 6, (16, 12), "cpu")
    ours = augment(images, Plan(*(field[:0] for field in plan)), **GIVEN, size=(8, 6))
    assert ours.shape == (0, 3, 8, 6)
    assert ours.dtype == torch.float32


def test_an_empty_box_and_one_outside_change_nothing():
    images = example_images(2, 16, 16)
    box = torch.tensor([[5, 5, 5, 9], [-9, 20, -1, 40]], dtype=torch.int32)
    ours = augment(images, Plan(box=box, box_fill=torch.tensor([1, 2], dtype=torch.int8)), **GIVEN)
    assert torch.equal(ours, augment(images, Plan(), **GIVEN))


BAD = {
    "dtype of images": (lambda x: {"images": x.float()}, TypeError, "give torch.uint8"),
    "layout": (lambda x: {"images": x.permute(0, 2, 1, 3)}, ValueError, "contiguous"),
    "channels": (lambda x: {"images": x[..., :1].contiguous()}, ValueError, r"\[B, H, W, 3\]"),
    "no pixels": (lambda x: {"images": x[:, :0]}, ValueError, "H and W of 1 or more"),
    "device": (lambda x: {"images": x.to("meta")}, ValueError, "give a CPU or CUDA tensor"),
    "output dtype": (lambda x: {"dtype": torch.float64}, TypeError, "float32, torch.float16 or torch.bfloat16"),
    "std": (lambda x: {"std": (1.0, 0.0, 1.0)}, ValueError, "three positive deviations"),
    "size": (lambda x: {"size": 0}, ValueError, "`size` is 0: give 1 or more"),
    "size in pixels": (lambda x: {"size": 4.5}, ValueError, "`size` is 4.5: give one whole number or two"),
    "three sizes": (lambda x: {"size": (4, 4, 3)}, ValueError, "`size` is .*: give one whole number or two"),
    "field a number": (lambda x: {"plan": Plan(noise=0.1)}, TypeError, "`plan.noise` is float: give a tensor"),
    "field's dtype": (lambda x: {"plan": Plan(flip=torch.ones(2))}, TypeError, "plan.flip"),
    "field's shape": (lambda x: {"plan": Plan(flip=torch.ones(3, dtype=torch.bool))}, ValueError, "plan.flip"),
    "lam alone": (lambda x: {"plan": Plan(lam=torch.ones(2))}, ValueError, "plan.partner"),
    "box alone": (lambda x: {"plan": Plan(box=torch.ones(2, 4, dtype=torch.int32))}, ValueError, "plan.box_fill"),
    "fill alone": (lambda x: {"plan": Plan(box_fill=torch.ones(2, dtype=torch.int8))}, ValueError, "plan.box"),
    "nothing to paste": (
        lambda x: {"plan": Plan(box=torch.ones(2, 4, dtype=torch.int32), box_fill=torch.arange(2, dtype=torch.int8))},
        ValueError, "give `plan.partner`, or fill with 1 or 2",
    ),
    "noise without a box": (lambda x: {"plan": Plan(erase_noise=torch.ones(2))}, ValueError, "give `plan.erase`"),
    "negative noise": (
        lambda x: {"plan": Plan(erase=torch.ones(2, 4, dtype=torch.int32), erase_noise=-torch.ones(2))}, ValueError,
        "plan.erase_noise",
    ),
    "lam outside": (
        lambda x: {"plan": Plan(partner=torch.arange(2), lam=torch.tensor([0.5, 1.5]))}, ValueError, "plan.lam",
    ),
    "partner outside": (
        lambda x: {"plan": Plan(partner=torch.tensor([0, 2]), lam=torch.ones(2))}, ValueError, "plan.partner",
    ),
    "lam not a number": (
        lambda x: {"plan": Plan(partner=torch.arange(2), lam=torch.full((2,), torch.nan))}, ValueError, "plan.lam",
    ),
    "indices": (
        lambda x: {"plan": Plan(noise=torch.ones(2)), "indices": torch.ones(2)}, TypeError, "indices",
    ),
    "crop of no size": (lambda x: {"plan": Plan(crop=torch.zeros(2, 4))}, ValueError, "plan.crop.*give positive ones"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    change, error, words = BAD[name]
    images = example_images(2, 8, 8)
    with pytest.raises(error, match=words):
        augment(**({"images": images, "plan": Plan(), **GIVEN} | change(images)))
