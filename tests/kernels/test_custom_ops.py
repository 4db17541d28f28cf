"""What torch.compile sees: proper operators, with fake kernels and gradients, and whole graphs around them."""

from __future__ import annotations

import pytest
import torch

from fastreg import methods
from fastreg.kernels import BatchAugment, Plan, Targets, augment, fgsm_step, mixed_cross_entropy, scored_cross_entropy
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


@pytest.mark.parametrize("fields", [(), ("flip", "partner", "lam"), ("crop", "noise", "box", "box_fill")])
def test_augment_operator(fields):
    plan = draw_plan(fields, 4, 8, 12, (16, 16), "cpu")
    arguments = (IMAGES, *plan, list(MEAN), list(STD), torch.float16, 8, 12, 7, torch.arange(4), 2, None)
    torch.library.opcheck(torch.ops.fastreg.augment.default, arguments, test_utils=TESTS)


def test_fgsm_step_operator():
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    for origin, radius in ((None, None), (x, 0.1)):
        torch.library.opcheck(
            torch.ops.fastreg.fgsm_step.default, (x, x - 0.5, 0.1, True, origin, radius), test_utils=TESTS
        )


def test_a_compiled_step_is_one_graph_and_the_same_numbers():
    plan, targets = draw_plan(("flip", "partner", "lam"), 4, 16, 16, (16, 16), "cpu"), labels(4, 5)
    weight = torch.randn(3 * 16 * 16, 5) * 0.01

    def step(images, weight):
        x = augment(images, plan, mean=MEAN, std=STD, dtype=torch.float32)
        logits = x.flatten(1) @ weight
        loss = mixed_cross_entropy(logits, targets, 0.1)
        rows, hit, confidence = scored_cross_entropy(logits, targets)
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


class Half:
    """The least that BatchAugment asks of a method."""

    def draw(self, labels, indices, step, *, size=None):
        partner = torch.arange(len(labels)).roll(1 + step)
        lam = torch.full((len(labels),), 0.25)
        return Plan(partner=partner, lam=lam), Targets(labels, labels[partner], lam)


def test_batch_augment_draws_in_training_and_only_normalises_in_eval():
    module, y = BatchAugment(Half(), MEAN, STD), torch.arange(4)
    x, targets = module(IMAGES, y)
    plain = augment(IMAGES, Plan(), mean=MEAN, std=STD, dtype=torch.float32)
    assert torch.allclose(x, 0.25 * plain + 0.75 * plain.roll(1, 0), atol=1e-5)
    assert targets.b.tolist() == [3, 0, 1, 2]
    second, _ = module(IMAGES, y)
    assert not torch.equal(second, x)
    assert module.state_dict()["step"] == 2
    again = BatchAugment(Half(), MEAN, STD)
    again.load_state_dict({"step": torch.tensor(1)})
    assert torch.equal(again(IMAGES, y)[0], second)
    whole, targets = module.eval()(IMAGES, y)
    assert torch.equal(whole, plain)
    assert targets.lam.tolist() == [1.0] * 4


@pytest.mark.parametrize("size", [None, 64, (64, 48)])
def test_batch_augment_draws_boxes_in_the_pictures_that_come_out(size):
    """Dark pictures and a bright partner: the bright area is what the labels say, whatever size create() was told."""
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


def test_batch_augment_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="'adversarial' changes the training step"):
        BatchAugment(methods.create("adversarial"))
    method = methods.create("shakedrop")
    with pytest.raises(ValueError, match=r"'shakedrop' also draws for the model: pass method._replace\(fields=None\)"):
        BatchAugment(method)
    x, _ = BatchAugment(method._replace(fields=None))(IMAGES, torch.arange(4))
    assert x.shape == (4, 3, 16, 16)


def test_kernels_import_where_triton_is_missing():
    import subprocess
    import sys

    from tests.support import ROOT, environment

    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from fastreg.kernels import augment, Plan, mixed_cross_entropy, fgsm_step\n"
        "x = augment(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), Plan(), mean=(0.5,) * 3, std=(0.5,) * 3,"
        " dtype=torch.float32)\n"
        "print(x.mean().item(), mixed_cross_entropy(torch.zeros(1, 2), torch.tensor([0])).item())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["-1.0", "0.6931471824645996"]
