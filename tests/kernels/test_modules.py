"""``BatchAugment``, ``MixedCrossEntropy`` and ``MixedBinaryCrossEntropy`` as modules."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from fastreg import methods
from fastreg.kernels import (
    BatchAugment,
    MixedBinaryCrossEntropy,
    MixedCrossEntropy,
    Plan,
    Targets,
    augment,
    mixed_binary_cross_entropy,
    mixed_cross_entropy,
)
from fastreg.kernels.augmentation.registry import MEAN, STD
from tests.kernels.cross_entropy.losses import labels

IMAGES = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)


class Quarter:
    """The smallest method that BatchAugment accepts: a quarter of each image, three quarters of its partner."""

    def draw(self, labels, indices, step, *, size=None):
        partner = torch.arange(len(labels)).roll(1 + step)
        lam = torch.full((len(labels),), 0.25)
        return Plan(partner=partner, lam=lam), Targets(labels, labels[partner], lam)


def test_batch_augment_draws_in_training_and_only_normalizes_in_eval():
    module, y = BatchAugment(Quarter(), MEAN, STD), torch.arange(4)
    x, targets = module(IMAGES, y)
    normalized = augment(IMAGES, Plan(), mean=MEAN, std=STD, dtype=torch.float32)
    assert torch.allclose(x, 0.25 * normalized + 0.75 * normalized.roll(1, 0), atol=1e-5)
    assert targets.b.tolist() == [3, 0, 1, 2]
    second, _ = module(IMAGES, y)
    assert not torch.equal(second, x)
    assert module.state_dict()["step"] == 2
    again = BatchAugment(Quarter(), MEAN, STD)
    again.load_state_dict({"step": torch.tensor(1)})
    assert torch.equal(again(IMAGES, y)[0], second)
    whole, targets = module.eval()(IMAGES, y)
    assert torch.equal(whole, normalized)
    assert targets.lam.tolist() == [1.0] * 4


@pytest.mark.parametrize("size", [None, 64, (64, 48)])
def test_batch_augment_draws_boxes_in_the_output_size(size):
    """Dark images and a bright partner: the bright area equals the label weight, for every size given to create()."""
    images = torch.zeros(2, *((64, 64) if size is None else (96, 96)), 3, dtype=torch.uint8)
    images[1] = 255
    module = BatchAugment(methods.create("cutmix"), (0, 0, 0), (1, 1, 1), size=size)
    areas = []
    for _ in range(8):
        x, targets = module(images, torch.arange(2))
        swapped = targets.b != targets.a
        pasted = (x.mean((1, 2, 3)) - torch.tensor([0.0, 1.0])).abs()
        assert torch.allclose(pasted, (1 - targets.lam) * swapped, atol=1e-5)
        areas += pasted.tolist()
    assert max(areas) > 0.05


def test_batch_augment_refuses_methods_with_a_step_or_fields():
    with pytest.raises(ValueError, match="`method` 'adversarial' changes the training step"):
        BatchAugment(methods.create("adversarial"))
    method = methods.create("shakedrop")
    with pytest.raises(ValueError, match=r"'shakedrop' also draws for the model: pass method._replace\(fields=None\)"):
        BatchAugment(method)
    x, _ = BatchAugment(method._replace(fields=None))(IMAGES, torch.arange(4))
    assert x.shape == (4, 3, 16, 16)


def test_repr_names_the_arguments():
    module = BatchAugment(methods.create("cutmix"), (0.5,) * 3, (0.25,) * 3, size=(8, 6), seed=3)
    module(IMAGES, torch.arange(4))
    assert repr(module) == (
        "BatchAugment(method='cutmix', mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), dtype=torch.float32, size=(8, 6), "
        "seed=3, step=1)"
    )
    assert repr(MixedCrossEntropy(0.2, "sum")) == "MixedCrossEntropy(label_smoothing=0.2, reduction='sum')"
    assert repr(MixedBinaryCrossEntropy(0.2, 0.3, class_weight=torch.ones(5))) == (
        "MixedBinaryCrossEntropy(label_smoothing=0.2, target_threshold=0.3, sum_classes=False, reduction='mean', "
        "class_weight=[5])"
    )


@pytest.mark.parametrize("restored", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy], ids=["pickle", "copy"])
def test_modules_are_picklable_and_copyable(restored):
    module, y = BatchAugment(Quarter(), MEAN, STD), torch.arange(4)
    module(IMAGES, y)
    again = restored(module)
    assert torch.equal(again(IMAGES, y)[0], module(IMAGES, y)[0])
    criterion, z = MixedCrossEntropy(0.2), torch.randn(4, 5)
    assert torch.equal(restored(criterion)(z, y), criterion(z, y))


def test_mixed_cross_entropy():
    z, targets = torch.randn(4, 5), labels(4, 5)
    assert torch.equal(MixedCrossEntropy(0.2, "sum")(z, targets), mixed_cross_entropy(z, targets, 0.2, "sum"))
    weight = torch.rand(5)
    module = MixedCrossEntropy(0.2, "sum", weight)
    assert torch.equal(module(z, targets), mixed_cross_entropy(z, targets, 0.2, "sum", class_weight=weight))
    assert not module.state_dict()
    assert "class_weight=[5]" in repr(module)


def test_mixed_binary_cross_entropy():
    z, targets, weight = torch.randn(4, 5), labels(4, 5), torch.rand(5)
    module = MixedBinaryCrossEntropy(0.2, 0.3, True, "none", weight)
    expected = mixed_binary_cross_entropy(z, targets, 0.2, 0.3, True, "none", class_weight=weight)
    assert torch.equal(module(z, targets), expected)
    assert torch.equal(copy.deepcopy(module)(z, targets), expected)
    assert not module.state_dict()
    assert MixedBinaryCrossEntropy()(z, targets) == mixed_binary_cross_entropy(z, targets)


@pytest.mark.parametrize("name", ["none", "mixup", "cutmix", "mixup+cutmix", "cutout"])
def test_float_labels_are_mixed_as_their_images(name):
    """One-hot labels give the loss of integer labels; the draws are the same."""
    labels_ = torch.tensor([1, 0, 3, 2])
    one_hot = torch.nn.functional.one_hot(labels_, 5).float()
    pairs, dense = (BatchAugment(methods.create(name, scope="sample"), size=16) for _ in range(2))
    z = torch.randn(4, 5)
    for _ in range(3):
        images, targets = pairs(IMAGES, labels_)
        again, mixed = dense(IMAGES, one_hot)
        assert torch.equal(images, again)
        torch.testing.assert_close(mixed.sum(1), torch.ones(4))
        torch.testing.assert_close(MixedCrossEntropy(0.1)(z, mixed), MixedCrossEntropy(0.1)(z, targets))
    several = torch.tensor([[1.0, 1.0, 0.0]] * 4)
    assert torch.equal(dense(IMAGES, several)[1], several)
    assert torch.equal(dense.eval()(IMAGES, one_hot)[1], one_hot)


def test_float_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`labels` has shape \[4\]: give int64 \[B\], or float \[B, C\]"):
        BatchAugment(methods.create("mixup"))(IMAGES, torch.rand(4))


class Collate:
    """Augmentation in the loader; a batch is the label weights."""

    def __init__(self) -> None:
        self.module = BatchAugment(methods.create("mixup", scope="sample"))

    def __call__(self, samples: list[int]) -> torch.Tensor:
        images = torch.zeros(len(samples), 8, 8, 3, dtype=torch.uint8)
        return self.module(images, torch.zeros(len(samples), dtype=torch.int64))[1].lam


@pytest.mark.parametrize("persistent", [True, False])
def test_workers_of_a_data_loader_draw_differently_and_repeatably(persistent):
    """Three epochs of four batches of two: 24 weights, all of them different."""

    def epochs() -> list[list[float]]:
        torch.manual_seed(5)
        loader = DataLoader(range(8), 2, num_workers=2, collate_fn=Collate(), persistent_workers=persistent)
        return [lam.tolist() for _ in range(3) for lam in loader]

    assert pickle.loads(pickle.dumps(Collate())).module.method.name == "mixup"  # as spawned workers receive it
    drawn = epochs()
    assert len({weight for batch in drawn for weight in batch}) == 24
    assert epochs() == drawn


def test_compiled_training_steps_draw_outside_of_their_graphs():
    module, net = BatchAugment(methods.create("cutmix"), size=8), nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    images, labels_ = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8), torch.arange(4)

    def step(images: torch.Tensor, labels_: torch.Tensor) -> torch.Tensor:
        augmented, targets = module(images, labels_)
        return mixed_cross_entropy(net(augmented), targets)

    plain = [step(images, labels_).item() for _ in range(4)]
    module.step.zero_()
    torch._dynamo.reset()
    compiled = torch.compile(step, backend="eager")
    losses = [compiled(images, labels_).item() for _ in range(2)]
    with torch.compiler.set_stance("fail_on_recompile"):
        losses += [compiled(images, labels_).item() for _ in range(2)]
    assert losses == plain
    assert int(module.step) == 4
    augmented, _ = torch.compile(module, backend="eager")(images, labels_)
    assert augmented.shape == (4, 3, 8, 8)


def test_a_compiled_module_in_eval_mode_is_one_graph():
    module = BatchAugment(methods.create("mixup")).eval()
    images, labels_ = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8), torch.arange(4)
    torch._dynamo.reset()
    augmented, _ = torch.compile(module, backend="eager", fullgraph=True)(images, labels_)
    assert torch.equal(augmented, module(images, labels_)[0])
