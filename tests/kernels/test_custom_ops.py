"""The custom operators that torch.compile sees: schemas, fake kernels, gradients, and one graph around them."""

from __future__ import annotations

import pytest
import torch

from fastreg.kernels import (
    augment,
    auto_augment,
    fgsm_step,
    mixed_binary_cross_entropy,
    mixed_cross_entropy,
    scored_cross_entropy,
)
from fastreg.kernels.augmentation.registry import MEAN, STD, draw_plan
from tests.kernels.cross_entropy.losses import labels

TESTS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
IMAGES = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)
GIVEN = {"mean": MEAN, "std": STD, "dtype": torch.float16}


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("score", [False, True])
def test_cross_entropy_operator(reduction, score):
    z = torch.randn(6, 5, requires_grad=True)
    eps = torch.rand(6) if score else None
    arguments = (z, *labels(6, 5), eps, 0.1, reduction, score)
    torch.library.opcheck(torch.ops.fastreg.cross_entropy.default, arguments, test_utils=TESTS)


def test_cross_entropy_backward_operator():
    z, lse = torch.randn(6, 5), torch.rand(6)
    arguments = (torch.ones(()), z, lse, torch.ones(()), *labels(6, 5), None, 0.1, 2)
    torch.library.opcheck(torch.ops.fastreg.cross_entropy_backward.default, arguments, test_utils=TESTS)


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("sum_classes", [False, True])
@pytest.mark.parametrize("kind", ["hard", "pair", "dense"])
def test_binary_cross_entropy_operator(reduction, sum_classes, kind):
    z, (a, b, lam), dense = torch.randn(6, 5, requires_grad=True), labels(6, 5), torch.rand(6, 5)
    targets = {"hard": (a, None, None, None), "pair": (a, b, lam, None), "dense": (None, None, None, dense)}[kind]
    weight, threshold = (torch.rand(5), 0.3) if kind == "pair" else (None, None)
    arguments = (z, *targets, weight, 0.1, threshold, sum_classes, reduction)
    torch.library.opcheck(torch.ops.fastreg.binary_cross_entropy.default, arguments, test_utils=TESTS)
    shape = () if reduction else (6,) if sum_classes else (6, 5)
    arguments = (torch.rand(shape), z.detach(), torch.ones(()), *arguments[1:])
    torch.library.opcheck(torch.ops.fastreg.binary_cross_entropy_backward.default, arguments, test_utils=TESTS)


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("kind", ["hard", "pair", "dense"])
def test_weighted_cross_entropy_operator(reduction, kind):
    z, (a, b, lam), dense = torch.randn(6, 5, requires_grad=True), labels(6, 5), torch.rand(6, 5)
    targets = {"hard": (a, None, None, None), "pair": (a, b, lam, None), "dense": (None, None, None, dense)}[kind]
    weight, eps = (torch.rand(5), torch.rand(6)) if kind == "pair" else (None, None)
    arguments = (z, *targets, weight, eps, 0.1, reduction)
    torch.library.opcheck(torch.ops.fastreg.weighted_cross_entropy.default, arguments, test_utils=TESTS)
    grad = torch.rand(() if reduction else (6,))
    arguments = (grad, z.detach(), torch.rand(2, 6), torch.ones(()), *arguments[1:])
    torch.library.opcheck(torch.ops.fastreg.weighted_cross_entropy_backward.default, arguments, test_utils=TESTS)


@pytest.mark.parametrize("fields", [(), ("flip", "partner", "lam"), ("crop", "noise", "box", "box_fill")])
def test_augment_operator(fields):
    plan = draw_plan(fields, 4, 8, 12, (16, 16), "cpu")
    arguments = (IMAGES, *plan[:7], list(MEAN), list(STD), torch.float16, 8, 12, 7, torch.arange(4), 2, None)
    torch.library.opcheck(torch.ops.fastreg.augment.default, arguments, test_utils=TESTS)


@pytest.mark.parametrize("modes", [None, torch.ones(4, 2, dtype=torch.int8)])
def test_auto_augment_operator(modes):
    arguments = (IMAGES, torch.tensor([[1, 13]] * 4), torch.full((4, 2), 0.3), 2, modes, [0, 7, 255])
    torch.library.opcheck(torch.ops.fastreg.auto_augment.default, arguments, test_utils=TESTS)


def test_fgsm_step_operator():
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    for origin, radius in ((None, None), (x, 0.1)):
        torch.library.opcheck(
            torch.ops.fastreg.fgsm_step.default, (x, x - 0.5, 0.1, True, origin, radius), test_utils=TESTS
        )


def test_a_compiled_step_is_one_graph_and_the_same_numbers():
    plan, targets = draw_plan(("flip", "partner", "lam"), 4, 16, 16, (16, 16), "cpu"), labels(4, 5)
    weight, classes = torch.randn(3 * 16 * 16, 5) * 0.01, torch.rand(5)

    operations, strengths = torch.tensor([[5, 12], [13, 6], [0, 1], [9, 15]]), torch.full((4, 2), 0.7)

    def step(images, weight):
        images = auto_augment(images, operations, strengths, interpolation="bilinear")
        x = augment(images, plan, mean=MEAN, std=STD, dtype=torch.float32)
        logits = x.flatten(1) @ weight
        loss = mixed_cross_entropy(logits, targets, 0.1)
        rows, hit, confidence = scored_cross_entropy(logits, targets)
        loss = loss + mixed_cross_entropy(logits, targets, class_weight=classes)
        loss = loss + mixed_cross_entropy(logits, logits.detach().softmax(1), 0.1)
        loss = loss + mixed_binary_cross_entropy(logits, targets, 0.1, 0.2)
        loss = (
            loss
            + mixed_binary_cross_entropy(
                logits, logits.detach().sigmoid(), reduction="none", class_weight=classes
            ).mean()
        )
        return loss + rows.mean(), hit, confidence, fgsm_step(x.clamp(0, 1), x, 0.1)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    results, gradients = [], []
    for run in (step, compiled):
        w = weight.clone().requires_grad_()
        results.append(run(IMAGES, w))
        results[-1][0].backward()
        gradients.append(w.grad)
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(*gradients)
