"""ImageNet-P's and CIFAR-10-P's sequences against stored frames of the published code, and the laws of their draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fastreg.kernels import EXTRA_PERTURBATIONS, PERTURBATIONS, draw_perturbation_fields, perturb, perturbation_frames
from fastreg.kernels.dispatch import INTERPRETED
from fastreg.kernels.perturbations import NOISES
from tests.golden.make_perturbations import FRAMES, NOISY, SIZE
from tests.kernels.fake_cuda import Watch, aten, fake, getitem

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "perturbations.npz"
EVERY = (*PERTURBATIONS, *EXTRA_PERTURBATIONS)
SIDES = {"imagenet224": SIZE, "cifar32": 32}
with np.load(GOLDEN) as stored:
    STORED = {key: torch.from_numpy(stored[key]) for key in stored.files}
CASES = [key.removesuffix("/frames") for key in STORED if key.endswith("/frames")]


def some_images(count=3, side=32):
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def test_all_perturbations_are_stored():
    names = {case.split("/")[1] for case in CASES}
    assert names | {"gaussian_noise_2", "gaussian_noise_3"} == set(EVERY)
    assert {case.split("/")[0] for case in CASES} == set(SIDES)


@pytest.mark.parametrize("case", CASES)
def test_published_frames(case):
    """Equal to the bit, all of them: ImageNet's at a smaller side, cut from images that are not square."""
    constants, name = case.split("/")
    frames, n = STORED[f"{case}/frames"], SIDES[constants]
    assert perturbation_frames(name, constants) == int(STORED[f"{case}/count"])
    which, fields = FRAMES, None
    for field in ("normal", "counts"):
        if f"{case}/{field}" in STORED:
            values = STORED[f"{case}/{field}"]
            if name in NOISES:  # stored for frames 1 and 30
                which, full = NOISY, torch.zeros(2, 30, n, n, 3, dtype=values.dtype)
                full[:, 0], full[:, -1] = values.unbind(1)
                values = full
            fields = {field: values}
    made = perturb(STORED[f"{constants}/images"], name, constants=constants, size=n, fields=fields)
    assert torch.equal(made[:, list(which)], frames)
    assert not torch.equal(made[:, 0], made[:, 1])


@pytest.mark.parametrize("name", EVERY)
def test_a_sequence_does_not_depend_on_its_batch(name):
    images, indices = some_images(), torch.tensor([4, 900, 31])
    together = perturb(images, name, seed=3, indices=indices)
    assert (together.dtype, together.shape) == (torch.uint8, (3, perturbation_frames(name, "cifar32"), 32, 32, 3))
    assert torch.equal(perturb(images[1:2], name, seed=3, indices=indices[1:2])[0], together[1])
    given = draw_perturbation_fields(images, name, seed=3, indices=indices)
    assert torch.equal(perturb(images, name, fields=given or None), together)
    assert bool(given) == (not torch.equal(perturb(images, name, seed=4, indices=indices), together))
    assert perturb(images[:0], name, indices=indices[:0]).shape == (0, *together.shape[1:])


@pytest.mark.parametrize("name", ["rotate", "tilt", "translate", "scale", "zoom_blur", "brightness"])
def test_canvases_larger_than_the_images(name):
    whole, square = some_images(2, 48), some_images(1, 40)
    canvas = torch.full((3, 60, 70, 3), 255, dtype=torch.uint8)
    canvas[:2, :48, :48], canvas[2, :40, :40] = whole, square[0]
    options = {"constants": "cifar32", "size": 32}
    made = perturb(canvas, name, extents=[(48, 48), (48, 48), (40, 40)], **options)
    assert torch.equal(made[:2], perturb(whole, name, **options))
    assert torch.equal(made[2:], perturb(square, name, **options))


def test_frames_of_noise_begin_with_the_image_and_differ():
    images = some_images()
    for name in NOISES:
        frames = perturb(images, name, indices=torch.arange(3))
        assert torch.equal(frames[:, 0], images)
        assert len({frames[0, i].numpy().tobytes() for i in range(31)}) == 31


@pytest.mark.parametrize(("name", "photons"), [("shot_noise", 700), ("shot_noise_2", 400), ("shot_noise_3", 200)])
def test_counts_have_the_mean_and_variance_of_photons(name, photons):
    white = torch.full((8, 32, 32, 3), 255, dtype=torch.uint8)
    counts = draw_perturbation_fields(white, name, seed=1, indices=torch.arange(8))["counts"].double()
    error = (photons / counts.numel()) ** 0.5
    assert abs(float(counts.mean()) - photons) < 5 * error
    assert float(counts.var()) == pytest.approx(photons, rel=0.01)  # 737,280 values: 0.0017 is one standard error


def test_levels_of_noise_are_drawn_apart():
    images, given = some_images(), {"seed": 0, "indices": torch.arange(3)}
    first, second = (draw_perturbation_fields(images, f"gaussian_noise{n}", **given)["normal"] for n in ("", "_2"))
    assert abs(float((first * second).mean())) < 5 / first.numel() ** 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "gaussian_nois"}, "did you mean 'gaussian_noise'"),
        ({"constants": "imagenet299"}, "'imagenet299': .* imagenet224"),
        ({"images": some_images(1, 48)}, "none for 48 px"),
        ({"images": some_images()[0]}, r"shape \[32, 32, 3\]"),
        ({"size": 33}, "`size` is 33, but an image has a side of 32"),
        ({"size": 0}, "`size` is 0"),
        ({"extents": [(32, 33)] * 3}, "at most 32 and 32"),
        ({"indices": None}, "`indices` is None: gaussian_noise draws"),
        ({"indices": torch.arange(2)}, "give 3 whole numbers"),
        ({"fields": {"counts": 1}}, "gaussian_noise takes normal"),
        ({"fields": {"normal": torch.zeros(3, 32, 32)}}, r"takes \[3, 30, 32, 32, 3\]"),
        ({"name": "rotate", "fields": {"normal": 1}}, "rotate draws nothing"),
    ],
)
def test_wrong_arguments(change, words):
    given = {"images": some_images(), "name": "gaussian_noise", "indices": torch.arange(3), **change}
    with pytest.raises(ValueError, match=words):
        perturb(given.pop("images"), given.pop("name"), **given)


def test_wrong_types_and_names():
    with pytest.raises(TypeError, match="float32: give a uint8 tensor"):
        perturb(some_images().float(), "rotate")
    with pytest.raises(ValueError, match="`name` is 'fog'"):
        perturbation_frames("fog")
    with pytest.raises(ValueError, match="`name` is 'fog'"):
        draw_perturbation_fields(some_images(), "fog", seed=0, indices=torch.arange(3))


@pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1 replaces the launcher")
@pytest.mark.parametrize("name", [name for name in EVERY if name != "spatter"])  # its water is OpenCV's
def test_the_host_does_not_wait_for_a_gpu(name, launched, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(FakeTensor, "__getitem__", getitem)
    monkeypatch.setattr(FakeTensor, "contiguous", lambda x: aten.clone(x, memory_format=torch.contiguous_format))
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        images = fake(torch.empty((2, 256, 300, 3), dtype=torch.uint8))
        with Watch():
            out = perturb(images, name, size=224, indices=np.arange(2))
    assert out.is_cuda
    assert (out.shape, out.dtype) == ((2, perturbation_frames(name), 224, 224, 3), torch.uint8)
