"""The kernels' peers, run as the benchmarks set them up. Peers with the same arithmetic give fastreg's results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastreg import methods
from fastreg.benchmarks import images as real_images
from fastreg.benchmarks.peers import normalization_stats
from fastreg.benchmarks.peers.kernels import (
    augment_peers,
    compiled,
    plain_augment,
    plain_binary_loss,
    plain_fgsm,
    plain_loss,
    plain_weighted_loss,
)
from fastreg.kernels import (
    Plan,
    Targets,
    augment,
    fgsm_attack,
    fgsm_step,
    mixed_binary_cross_entropy,
    mixed_cross_entropy,
)
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD
from tests.support import peer

B, SIDE, CLASSES = 6, 24, 1000
PIXELS = torch.randint(0, 256, (B, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(B) * 7
PEERS = [(case, peer) for case, peer, _ in augment_peers(LABELS, torch.float32)]
LAM = torch.tensor([0.3, 1.0, 0.9, 0.0, 0.55, 0.2])
STATS = normalization_stats(torch.device("cpu"))
BOX = (3, 5, 15, 20)  # y0, x0, y1, x1


def ours(**fields: Tensor) -> Tensor:
    return augment(PIXELS, Plan(**fields), mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=torch.float32)


def planes() -> Tensor:
    return PIXELS.permute(0, 3, 1, 2).contiguous()


def normalized() -> Tensor:
    return ours().contiguous()


def boxes(*box: int) -> Tensor:
    return torch.tensor([box], dtype=torch.int32).repeat(B, 1)


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=5e-6, rtol=0)


@pytest.mark.parametrize(("case", "peer"), PEERS)
def test_every_peer_runs_as_it_is_timed(case, peer):
    build = next(b for c, p, b in augment_peers(LABELS, torch.float32) if (c, p) == (case, peer))
    try:
        run = build()
    except ImportError as error:
        pytest.skip(str(error))
    out = run(planes())
    images = out if isinstance(out, Tensor) else out[0]
    assert images.shape == (B, 3, SIDE, SIDE)
    assert images.isfinite().all()
    same_as_plain = torch.allclose(images, normalized(), atol=1e-5)
    assert same_as_plain == (case == "augment normalise")
    if not isinstance(out, Tensor):  # the targets that its API makes
        assert out[1].shape in ((B, CLASSES), (B, 3), (1, B, 3))


def test_normalizing_is_timms():
    peer("timm")
    for case, _, build in augment_peers(LABELS, torch.float32):
        if case == "augment normalise":
            same(build()(planes()), ours())


@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_mixup_is_timms(mode):
    """Images, and the loss with its dense targets."""
    smoothing, lam = 0.1, LAM if mode == "elem" else torch.full((B,), 0.3)
    mixup = peer("timm.data").Mixup(mixup_alpha=1.0, mode=mode, label_smoothing=smoothing, num_classes=CLASSES)
    mixup._params_per_batch = lambda: (0.3, False)
    mixup._params_per_elem = lambda n: (LAM.numpy(), np.zeros(n, bool))
    images, dense = mixup(normalized(), LABELS)
    partner = torch.arange(B).flip(0)
    same(images, ours(partner=partner, lam=lam))
    logits = torch.randn(B, CLASSES, generator=torch.Generator().manual_seed(1)) * 3
    theirs = peer("timm.loss").SoftTargetCrossEntropy()(logits, dense.float())
    same(mixed_cross_entropy(logits, Targets(LABELS, LABELS[partner], lam), smoothing), theirs)


def test_cutmix_is_timms(monkeypatch):
    mixup = peer("timm.data").Mixup(mixup_alpha=0.0, cutmix_alpha=1.0, num_classes=CLASSES)
    y0, x0, y1, x1 = BOX
    box = lambda *_, **__: ((y0, y1, x0, x1), 0.5)  # noqa: E731
    monkeypatch.setattr(peer("timm.data.mixup"), "cutmix_bbox_and_lam", box)
    images, _ = mixup(normalized(), LABELS)
    same(images, ours(partner=torch.arange(B).flip(0), box=boxes(*BOX)))


def test_cutout_is_timms_random_erasing():
    """timm erases after normalization, so its zeros are the mean."""
    erase = peer("timm.data.random_erasing").RandomErasing(probability=1.0, mode="const", device="cpu")
    images = erase(normalized())
    erased = (images == 0).all(1)
    found = [torch.tensor([y.min(), x.min(), y.max() + 1, x.max() + 1]) for y, x in map(torch.where, erased)]
    same(images, ours(box=torch.stack(found).int(), box_fill=torch.full((B,), 2, dtype=torch.int8)))


def test_mixup_and_cutmix_are_torchvisions():
    v2 = peer("torchvision.transforms.v2")
    mixup, cutmix = v2.MixUp(num_classes=CLASSES), v2.CutMix(num_classes=CLASSES)
    y0, x0, y1, x1 = BOX
    mixup.make_params = lambda _: {"lam": 0.3}
    cutmix.make_params = lambda _: {"box": (x0, y0, x1, y1), "lam_adjusted": 0.5}
    partner = torch.arange(B).roll(1)
    images, dense = mixup(normalized(), LABELS)
    same(images, ours(partner=partner, lam=torch.full((B,), 0.3)))
    same(cutmix(normalized(), LABELS)[0], ours(partner=partner, box=boxes(*BOX)))
    logits = torch.randn(B, CLASSES, generator=torch.Generator().manual_seed(1)) * 3
    theirs = F.cross_entropy(logits, dense, label_smoothing=0.1)
    same(mixed_cross_entropy(logits, Targets(LABELS, LABELS[partner], torch.full((B,), 0.3)), 0.1), theirs)


def test_mixup_is_kornias():
    mixup = peer("kornia.augmentation").RandomMixUpV2(data_keys=["input", "class"], p=1.0)
    images, _ = mixup(normalized(), LABELS)
    pairs, lam = mixup._params["mixup_pairs"], mixup._params["mixup_lambdas"]  # its lambda weighs the partner
    same(images, ours(partner=pairs.long(), lam=1 - lam.float()))


def test_label_smoothing_is_timms():
    peer("timm")
    logits = torch.randn(B, CLASSES)
    theirs = peer("timm.loss").LabelSmoothingCrossEntropy(0.1)(logits, LABELS)
    same(mixed_cross_entropy(logits, LABELS, 0.1), theirs)


@pytest.mark.parametrize("steps", [1, 4])
def test_attacks_are_torchattacks(steps):
    attacks = peer("torchattacks")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 22 * 22, 10)).eval()
    images, labels = torch.rand(B, 3, SIDE, SIDE), LABELS % 10
    theirs = (
        attacks.FGSM(model, eps=8 / 255)
        if steps == 1
        else attacks.PGD(model, eps=8 / 255, alpha=2 / 255, steps=steps, random_start=False)
    )(images, labels)
    mine = fgsm_attack(model, images, labels, 8 / 255, steps=steps, step_size=None if steps == 1 else 2 / 255)
    # a gradient within its rounding of zero may take either sign
    assert ((mine - theirs).abs() > 1e-6).float().mean() < 1e-3


def test_the_plain_peers_do_the_same():
    """The rows "torch eager" and "torch.compile" of the tables."""
    fill = torch.tensor([1, 2, 1, 2, 1, 2], dtype=torch.int8)
    mixed = {"flip": LAM > 0.5, "partner": torch.arange(B).roll(2), "lam": LAM}
    for fields in (
        mixed,
        {"partner": mixed["partner"], "box": boxes(*BOX)},
        {"box": boxes(*BOX), "box_fill": fill},
    ):
        same(plain_augment(PIXELS, Plan(**fields), torch.float32, STATS), ours(**fields))
    logits, targets = torch.randn(B, 9), Targets(LABELS % 9, LABELS % 5, LAM)
    same(plain_loss(logits, targets, 0.1), mixed_cross_entropy(logits, targets, 0.1, "none"))
    weight = torch.rand(logits.shape[1])
    same(
        plain_weighted_loss(logits, targets, 0.1, weight),
        mixed_cross_entropy(logits, targets, 0.1, class_weight=weight),
    )
    same(plain_binary_loss(logits, targets, 0.1), mixed_binary_cross_entropy(logits, targets, 0.1))
    x, g = torch.rand(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    same(plain_fgsm(x, g, 0.1), fgsm_step(x, g, 0.1))


@pytest.mark.parametrize("reg", ["none", "mixup", "cutmix", "cutout"])
@pytest.mark.parametrize("scope", ["batch", "sample"])
def test_the_plain_peer_does_the_same_work(reg, scope):
    pixels = real_images.image_batch(6, 32, torch.device("cpu"))
    method = methods.create(reg, size=32, scope=scope)
    plan, targets = method.draw(torch.arange(6), torch.arange(6), 3)
    mine = augment(pixels, plan, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=torch.float32)
    torch.testing.assert_close(plain_augment(pixels, plan, torch.float32, STATS), mine, rtol=0, atol=3e-6)
    logits = torch.randn(6, 10)
    theirs, ours = plain_loss(logits, targets, 0.1), mixed_cross_entropy(logits, targets, 0.1, "none")
    torch.testing.assert_close(theirs, ours, rtol=0, atol=5e-6)


def test_the_plain_peer_occludes_and_attacks_alike():
    pixels = real_images.image_batch(2, 32, torch.device("cpu"))
    box = torch.tensor([[8, 8, 24, 24]], dtype=torch.int32).expand(2, 4).contiguous()
    plan = Plan(box=box, box_fill=torch.ones(2, dtype=torch.int8))
    mine = augment(pixels, plan, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=torch.float32)
    torch.testing.assert_close(plain_augment(pixels, plan, torch.float32, STATS), mine, rtol=0, atol=3e-6)
    x, g = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(plain_fgsm(x, g, 8 / 255), fgsm_step(x, g, 8 / 255), rtol=0, atol=1e-7)


def test_the_compiled_peer_never_falls_back_to_eager_code(monkeypatch):
    """Twelve cases of different shapes, more than torch.compile recompiles one function for."""
    graphs: list[int] = []

    def count(module, example):
        graphs.append(1)
        return module.forward

    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: whole(function, backend=count, **options))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for n in range(1, 13):
            double = compiled(lambda x: 2 * x)
            assert torch.equal(double(torch.ones(n)), torch.full((n,), 2.0))
    assert len(graphs) == 12
