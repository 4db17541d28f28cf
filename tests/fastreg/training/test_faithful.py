"""``--faithful`` and each of its settings, against the original code's formulas."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastreg import models
from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.faithful import SETTINGS
from fastreg.kernels import Batch, Plan
from fastreg.pipelines.order import Order
from fastreg.training import Config, make_config, setup, train, trainer
from fastreg.training.color_jitter import draw, make_unclipped_augment
from fastreg.training.config import to_dict
from fastreg.training.run_config import continue_config
from fastreg.training.setup import training_switches
from fastreg.training.train_step import TrainStep
from tests.fastreg.training import tiny_runs
from tests.fastreg.training.tiny_runs import ALONE, STATISTICS


@pytest.mark.parametrize(
    ("dataset", "reg", "world", "shape", "arguments"),
    [
        ("imagenet", "cutmix", 1, (64, 4), {}),
        ("imagenet", "shakedrop", 4, (64, 1), {"shakedrop_gates": "share"}),
        ("cifar100", "mixup+shakedrop", 1, (32, 2), {"shakedrop_gates": "share"}),
        ("cifar10", "ood_svhn", 2, (32, 1), {"ood_svhn_passes": 2}),
        ("cifar100", "ood_gan", 1, (64, 1), {"ood_gan_passes": 2, "ood_gan_joint": True, "ood_gan_weight": 0.1}),
    ],
)
def test_a_faithful_run_has_the_settings_of_the_original_code(dataset, reg, world, shape, arguments):
    config, messages = make_config(dataset, gpu=False, world=world, reg=reg, faithful=True)
    assert config.recipe == "auto" or config.recipe.startswith("paper/")
    assert (config.epochs, config.model) == (300, "resnet50" if dataset == "imagenet" else "pyramidnet200")
    assert {key: getattr(config, key) for key in SETTINGS} == SETTINGS
    assert (config.batch_size, config.grad_accum_steps) == shape
    assert config.loader == ("folder" if dataset == "imagenet" else "auto")
    assert config.reg_args == arguments
    (message,) = [one for one in messages if one.startswith("faithful")]
    assert all(f"{key} {value}" in message for key, value in SETTINGS.items())


def test_given_settings_come_before_the_original_ones():
    own = {"precision": "bf16", "batch_size": 128, "reg_args": {"shakedrop_gates": "batch"}}
    config, _ = make_config("imagenet", gpu=True, faithful=True, reg="shakedrop", **own)
    assert (config.precision, config.batch_size, config.grad_accum_steps, config.lr) == ("bf16", 128, 1, 0.05)
    assert config.reg_args == {"shakedrop_gates": "batch"}
    for own in ({"passes": 1}, {"ood_svhn_passes": 1}):  # with and without the method's name
        out_of_distribution, _ = make_config("cifar10", gpu=False, faithful=True, reg="ood_svhn", reg_args=own)
        assert out_of_distribution.reg_args == own
    with pytest.raises(InputError, match=r"`faithful` trains the paper's recipes.*rn50-16"):
        make_config("imagenet", gpu=True, faithful=True, recipe="fast/imagenet/rn50-16")
    with pytest.raises(InputError, match="`faithful` is for a new run"):
        continue_config("imagenet", to_dict(config), gpu=True, faithful=True)


def test_tf32_is_off(monkeypatch):
    seen = []
    monkeypatch.setattr(setup, "torch_switches", lambda **switches: seen.append(switches["tf32"]))
    for tf32 in (True, False):
        training_switches(Config("cifar100", tf32=tf32), torch.device("cpu"))
    assert seen == [True, False]


def cutmix_colors(pixels, factors, order, lighting):
    """CutMix-PyTorch, utils.py, on one float image [3, h, w] of the 0-1 scale: ColorJitter in ``order``, Lighting."""

    def grayscale(image):
        return (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]).expand_as(image)

    other = {
        "brightness": torch.zeros_like,
        "contrast": lambda image: torch.full_like(image, grayscale(image).mean().item()),
        "saturation": grayscale,
    }
    for name in order:
        # the original: alpha ~ U(-v, v), img.lerp(other, alpha), so the factor of this function is 1 - alpha
        pixels = torch.lerp(pixels, other[name](pixels), 1 - factors[name])
    return pixels + lighting.view(3, 1, 1)


def test_unclipped_colors_are_those_of_cutmix():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 8, 8, 3), dtype=torch.uint8, generator=generator)
    images[0], images[1] = 250, 3  # bright and dark: clipped by the route on bytes
    flip = torch.tensor([True, False] * 3)
    indices = torch.tensor([5, 0, 9, 2, 7, 11])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    augment = make_unclipped_augment(jitter=0.4, lighting=0.1, seed=3)
    seen = augment(
        images, Plan(flip=flip), mean=mean, std=std, dtype=torch.float32, size=8, seed=3, indices=indices, step=2
    )
    drawn = {k: torch.from_numpy(v) for k, v in draw(indices.numpy(), 2, jitter=0.4, lighting=0.1, seed=3).items()}
    orders = list(itertools.permutations(("brightness", "contrast", "saturation")))
    beyond = 0
    for k, order in enumerate(orders):
        pixels = images[k].permute(2, 0, 1).double() / 255
        pixels = pixels.flip(2) if flip[k] else pixels
        own = {name: drawn[name][k].double() for name in order}
        expected = cutmix_colors(pixels, own, order, drawn["lighting"][k].double())
        beyond += ((expected < 0) | (expected > 1)).sum().item()
        expected = (expected - mean.double().view(3, 1, 1)) / std.double().view(3, 1, 1)
        torch.testing.assert_close(seen[k].double(), expected, rtol=0, atol=2e-5)
    assert beyond > 100


def test_a_step_mixes_unclipped_colors():
    """On colors that stay inside [0, 1], a step differs from the step on bytes by their rounding alone."""
    images = torch.randint(100, 130, (4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, torch.arange(4), torch.tensor([4, 0, 9, 2]), None)
    seen = []
    for clip in (True, False):
        config = Config("imagenet", model="resnet18", reg="mixup+cutmix", size=16, batch_size=4, seed=5, device="cpu")
        config.color_jitter, config.lighting, config.color_clip = 0.2, 0.1, clip
        step = TrainStep(config, 10, *STATISTICS, ALONE)
        step.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        step.forward_backward(batch, 7, 0, 16, epoch=2)
    difference = (seen[0] - seen[1]).abs().max().item()
    assert 0.001 < difference <= 0.5 / 255 / 0.25 + 1e-5
    config.reg = "adversarial"
    with pytest.raises(InputError, match=r"`color_clip` off gives pixels outside \[0, 1\], which adversarial"):
        TrainStep(config, 10, *STATISTICS, ALONE)
    config.reg = "gaussian_noise"
    with pytest.raises(InputError, match="`color_clip` off does not fit noise"):
        TrainStep(config, 10, *STATISTICS, ALONE).forward_backward(batch, 7, 0, 16)


@pytest.mark.parametrize(("accumulate", "world"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
def test_a_partial_batch_is_divided_evenly(accumulate, world):
    batch_size = 12 // (accumulate * world)
    n, shares = 41, accumulate * world
    orders = [
        Order(n, batch_size, True, seed=4, accumulate=accumulate, rank=r, world=world, drop_last=False)
        for r in range(world)
    ]
    assert {order.steps_per_epoch for order in orders} == {4}
    whole = orders[0].epoch(1)
    batches = [list(order.batches(order.samples_per_epoch)) for order in orders]
    rows = [[indices for epoch, indices in rank if epoch == 1] for rank in batches]
    assert [len(rank) for rank in rows] == [4 * accumulate] * world
    last = [indices for rank in rows for indices in rank[-accumulate:]]
    assert np.concatenate(last).tolist() == whole[36:].tolist()
    assert max(map(len, last)) - min(map(len, last)) <= 1
    seen = np.sort(np.concatenate([indices for rank in rows for indices in rank]))
    assert seen.tolist() == list(range(n))
    for left in range(shares):  # fewer images than micro-batches are dropped
        assert Order(
            36 + left, batch_size, True, accumulate=accumulate, world=world, drop_last=False
        ).steps_per_epoch == (3)
    assert Order(41, batch_size, True, accumulate=accumulate, world=world).steps_per_epoch == 3


def test_micro_batches_of_a_partial_batch_have_the_mean_of_its_images(monkeypatch):
    def linear(num_classes, **_):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, num_classes))

    monkeypatch.setitem(models.MODELS, "linear", linear)
    config = Config("cifar100", model="linear", stem="cifar", size=16, batch_size=4, grad_accum_steps=2, device="cpu")
    config.reg = "no_crop_flip"
    whole = tiny_runs.batch(1, 7)
    step = TrainStep(config, 4, *STATISTICS, ALONE)
    total = 0.0
    for micro, rows in enumerate((slice(0, 3), slice(3, 7))):
        part = Batch(whole.images[rows], whole.labels[rows], whole.indices[rows], None)
        total += step.forward_backward(part, 0, micro, 16, share=len(part.labels) / 7).item()
    plain = copy.deepcopy(step.model)
    plain.zero_grad()
    pixels = (whole.images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    loss = F.cross_entropy(plain(pixels), whole.labels)
    loss.backward()
    assert total == pytest.approx(loss.item(), rel=1e-6)
    for one, other in zip(step.model.parameters(), plain.parameters()):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.fixture
def data(tmp_path, monkeypatch):
    root = tiny_runs.write_data(tmp_path / "data")
    for patch in tiny_runs.shrunk(monkeypatch, root):
        yield root, patch


def test_a_run_trains_partial_batches_and_takes_the_last_of_tied_epochs(data, tmp_path):
    """16 images in batches of 6: the last batch has 4. All epochs have one error."""
    root, patch = data
    shares = []
    original = TrainStep.forward_backward

    def recorded(self, batch, *arguments, **more):
        shares.append((len(batch.labels), more.get("share")))
        return original(self, batch, *arguments, **more)

    patch.setattr(TrainStep, "forward_backward", recorded)
    patch.setattr(trainer, "validate", lambda *_: {"val_loss": 1.0, "val_top1_error": 50.0})
    own = {"batch_size": 3, "grad_accum_steps": 2, "epochs": 2, "model_ema_decay": None}
    for ties, best in (("first", 0), ("last", 1)):
        shares.clear()
        folder = train(tiny_runs.settings("none", tmp_path / ties, root, drop_last=False, best_of_ties=ties, **own))
        assert shares == 2 * [*4 * [(3, None)], (2, 0.5), (2, 0.5)]
        assert torch.load(folder / "best.pt", weights_only=True)["epoch"] == best
        last = torch.load(folder / "last.pt", weights_only=True)
        assert (last["step"], last["position"], last["best_epoch"]) == (6, 32, best)


@pytest.mark.slow
def test_a_run_with_partial_batches_resumes_at_any_step(data, tmp_path):
    root, patch = data
    own = {"batch_size": 6, "epochs": 2, "recovery_interval": 1, "drop_last": False, "reg": "cutmix"}
    whole = train(tiny_runs.settings(**{"output": tmp_path / "whole", "data": root, **own}))
    wanted = torch.load(whole / "last.pt", weights_only=True)["model"]
    update = TrainStep.update
    for at in (2, 3, 5):
        config = tiny_runs.settings(**{"output": tmp_path / f"cut{at}", "data": root, **own})
        patch.setattr(TrainStep, "update", tiny_runs.stop_at(at))
        with pytest.raises(tiny_runs.Stopped):
            train(config)
        patch.setattr(TrainStep, "update", update)
        folder = train(config, resume="auto")
        found = torch.load(folder / "last.pt", weights_only=True)["model"]
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_gates_of_shares(tmp_path):
    from fastreg import methods

    shared = methods.create("shakedrop", dataset="cifar100", gates="share").fields
    batch = methods.create("shakedrop", dataset="cifar100").fields
    one, two = torch.arange(0, 32), torch.arange(32, 64)
    draws = [torch.stack([f(rows, step)["gate"] for step in range(40)]) for f in (shared, batch) for rows in (one, two)]
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(draws[2], draws[3])
    for gates in draws:  # survival falls linearly from 1 to 0.5
        assert abs(gates.mean().item() - 0.75) < 0.03
    again = shared(torch.arange(0, 64), 3)
    assert torch.equal(again["gate"], shared(one, 3)["gate"])  # keyed by a share's first sample
    with pytest.raises(InputError, match="`gates`"):
        methods.create("shakedrop", gates="image")


def test_a_jointly_trained_gan_resumes_with_the_same_bits(data, tmp_path):
    root, _ = data
    own = {"ood": None, "joint": True, "width": 4, "passes": 2}
    config = tiny_runs.settings("ood_gan", tmp_path, root, reg_args=own, model_ema_decay=None)
    world = World(0, 1, torch.device("cpu"))

    def make():
        return TrainStep(config, 4, *STATISTICS, world)

    step = make()
    tiny_runs.advance(step, range(2))
    saved = copy.deepcopy(step.state())
    expected = tiny_runs.advance(step, range(2, 4))
    other = make()
    other.load(saved)
    assert tiny_runs.advance(other, range(2, 4)) == expected
    for name in ("generator", "critic"):
        one, two = (s.state()["method"][name] for s in (step, other))
        assert all(torch.equal(one[key], two[key]) for key in one)
