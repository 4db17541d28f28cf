"""Random erasing against torchvision's and timm's: the law of the boxes, and the pixels before images are mixed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chi2_contingency, ks_2samp, kstest

from fastreg import methods
from fastreg.errors import InputError
from fastreg.kernels import BatchAugment, Plan, augment
from fastreg.kernels.augmentation.registry import MEAN, STD
from tests.support import peer

COUNT = 3000
SIZE = (40, 60)  # height, width
LEAST = 1e-3


def drawn(name: str, count: int = COUNT, **parameters: Any) -> Plan:
    indices = torch.arange(count)
    return methods.create(name, size=SIZE, seed=3, **parameters).draw(indices, indices, 0, epoch=1)[0]


def of_torchvision() -> np.ndarray:
    erasing = peer("torchvision.transforms").RandomErasing
    torch.manual_seed(0)
    image = torch.ones(3, *SIZE)
    found = [erasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(COUNT)]
    return np.array([(y, x, y + height, x + width) for y, x, height, width in found])


def of_timm() -> np.ndarray:
    """The boxes that timm's class sets to 0 in images of ones."""
    peer("timm")
    from timm.data.random_erasing import RandomErasing

    random.seed(0)
    erase = RandomErasing(probability=1, mode="const", device="cpu")
    inside = np.stack([(erase(torch.ones(1, *SIZE)) == 0)[0].numpy() for _ in range(COUNT)])
    y, x = inside.any(2), inside.any(1)
    ends = [side.shape[1] - side[:, ::-1].argmax(1) for side in (y, x)]
    return np.stack((y.argmax(1), x.argmax(1), *ends), axis=1)


@pytest.mark.parametrize(
    ("theirs", "parameters"),
    [(of_torchvision, {"area": (0.02, 0.33), "ratio": (0.3, 3.3)}), (of_timm, {"mode": "const"})],
)
def test_boxes_follow_the_law_of_the_others(theirs, parameters):
    boxes = theirs()
    plan = drawn("mixup+cutmix+random_erasing", random_erasing_prob=1.0, **parameters)
    ours = plan.erase.numpy()
    for measure in (
        lambda b: b[:, 2] - b[:, 0],
        lambda b: b[:, 3] - b[:, 1],
        lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]),
        lambda b: (b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1]),
        lambda b: b[:, 0],
        lambda b: b[:, 3],
    ):
        assert ks_2samp(measure(ours), measure(boxes)).pvalue > LEAST
    # jointly: the fifth of the image in which the box's center is, by its height
    cells = [
        np.histogram2d((b[:, 1] + b[:, 3]) / 2, b[:, 2] - b[:, 0], bins=(5, 4), range=((0, 60), (0, 40)))[0]
        for b in (ours, boxes)
    ]
    table = np.stack([cell.ravel() for cell in cells])
    assert chi2_contingency(table[:, table.sum(0) > 10]).pvalue > LEAST


def test_as_many_images_are_erased_as_asked_for():
    plan = drawn("random_erasing", prob=0.25, mode="const")
    erased = int((plan.erase[:, 2] > plan.erase[:, 0]).sum())
    assert binomtest(erased, COUNT, 0.25).pvalue > LEAST


def test_pixel_noise_is_standard_normal_and_of_the_sample():
    plan = drawn("random_erasing", 8, prob=1.0, mode="pixel")
    given: dict[str, Any] = {"mean": MEAN, "std": STD, "dtype": torch.float32, "seed": 3, "step": 1}
    images = torch.full((8, *SIZE, 3), 255, dtype=torch.uint8)
    out = augment(images, plan, **given, indices=torch.arange(8))
    values = [out[i, :, y0:y1, x0:x1].flatten() for i, (y0, x0, y1, x1) in enumerate(plan.erase.tolist())]
    assert kstest(torch.cat(values).numpy(), "norm").pvalue > LEAST
    assert len(torch.cat(values).unique()) > 0.999 * sum(map(len, values))  # no number twice
    again = augment(images[5:6], Plan(*(f if f is None else f[5:6] for f in plan)), **given, indices=torch.tensor([5]))
    assert torch.equal(again[0], out[5])


@pytest.mark.parametrize("scope", ["batch", "sample"])
@pytest.mark.parametrize("name", ["mixup+random_erasing", "cutmix+random_erasing", "mixup+cutmix+random_erasing"])
def test_images_are_erased_as_by_torchvision_and_then_mixed(name, scope):
    functional = peer("torchvision.transforms").functional
    labels = indices = torch.arange(12)
    images = torch.randint(0, 256, (12, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    method = methods.create(name, size=SIZE, scope=scope, prob=1.0, mode="const")
    for step in range(3):
        plan, targets = method.draw(labels, indices, step)
        assert plan.erase is not None
        x = images.permute(0, 3, 1, 2).float() / 255
        x = torch.where(plan.flip[:, None, None, None], x.flip(3), x)
        x = functional.normalize(x, MEAN, STD)
        for image, (y0, x0, y1, x1) in zip(x, plan.erase.tolist()):
            functional.erase(image, y0, x0, y1 - y0, x1 - x0, torch.zeros(1), inplace=True)
        other = x[plan.partner]
        if plan.lam is not None:
            x = torch.lerp(other, x, plan.lam[:, None, None, None])
        for image, pasted, (y0, x0, y1, x1) in zip(x, other, [] if plan.box is None else plan.box.tolist()):
            image[:, y0:y1, x0:x1] = pasted[:, y0:y1, x0:x1]
        out = augment(images, plan, mean=MEAN, std=STD, dtype=torch.float32)
        torch.testing.assert_close(out, x, rtol=1e-5, atol=1e-6)
        mixed = BatchAugment(method._replace(draw=lambda *a, plan=plan, targets=targets, **k: (plan, targets)))
        assert torch.equal(mixed(images, labels)[0], augment(images, plan, mean=MEAN, std=STD, dtype=torch.float32))


def test_without_a_mode_boxes_stay_where_they_were():
    """Alone and beside Mixup: the box of the plan, as in version 0.1. Beside CutMix, which has the box: before it."""
    labels = indices = torch.arange(6)
    for name in ("random_erasing", "mixup+random_erasing", "gaussian_noise+random_erasing"):
        plan = methods.create(name).draw(labels, indices, 0)[0]
        assert (plan.erase, plan.erase_noise) == (None, None)
        assert (plan.box_fill == 2).all()
    alone = methods.create("random_erasing").draw(labels, indices, 0)[0]
    joined = methods.create("cutmix+random_erasing").draw(labels, indices, 0)[0]
    assert torch.equal(joined.erase, alone.box)
    assert (joined.box_fill == 0).all()


def test_alone_erasing_before_or_after_is_the_same():
    labels = indices = torch.arange(6)
    images = torch.randint(0, 256, (6, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    area, out = (0.1, 0.3), []
    for mode in (None, "const"):
        plan = methods.create("random_erasing", size=SIZE, prob=1.0, area=area, mode=mode).draw(labels, indices, 0)[0]
        out.append(augment(images, plan, mean=MEAN, std=STD, dtype=torch.float32))
    assert torch.equal(*out)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mode": "rand"}, "unknown `mode` 'rand'"),
        ({"area": 0.2}, "`area` is 0.2: give two numbers"),
        ({"area": (0.3, 0.2)}, "`area` is 0.2: give a number at least 0.3"),
        ({"ratio": (0, 1)}, "`ratio` is 0: give a number greater than 0"),
        ({"ratio": (1, float("inf"))}, "`ratio` is inf: give a number at least 1 and at most 100"),
    ],
)
def test_bad_values_are_named(parameters, message):
    with pytest.raises(InputError, match=message):
        methods.create("random_erasing", **parameters)
