"""The host code around the kernels on a GPU, tested without one: fake tensors on "cuda", recorded launches.

Nothing waits for the device, nothing is copied between host and device, and the number of launches is the documented
one. So a step can be captured into a CUDA graph, which ``benchmarks/gpu_check`` does on a GPU.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from fastreg.kernels import (
    Plan,
    Targets,
    augment,
    auto_augment,
    fgsm_step,
    mixed_binary_cross_entropy,
    mixed_cross_entropy,
    scored_cross_entropy,
)
from fastreg.kernels.attacks import start_in_ball
from fastreg.kernels.augmentation.registry import MEAN, STD
from fastreg.kernels.cross_entropy import _backward, _forward, binary, weighted
from fastreg.kernels.cross_entropy.examples import SIZES
from fastreg.kernels.cross_entropy.registry import OPS
from fastreg.kernels.dispatch import INTERPRETED
from fastreg.kernels.registry import operations
from tests.kernels.cross_entropy.losses import labels
from tests.kernels.fake_cuda import assert_registered, aten, fake

pytestmark = pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1 replaces the launcher")

# launches per call of the registered operations that have a fixed number
LAUNCHES = {op.name: 1 for op in operations() if op.name.startswith("augment")}
LAUNCHES |= {"fgsm_step": 1, "pgd_step": 1, "random_start": 1, "color_jitter": 2}
# two per slot, one or two slots
LAUNCHES |= {"auto_augment_nearest": 2, "auto_augment_bilinear": 4, "auto_augment_bicubic": 2, "auto_augment_any": 4}
AUGMENT = {"mean": MEAN, "std": STD, "dtype": torch.bfloat16}


class Watch(TorchDispatchMode):
    """Raise where an operation waits for the device, or reads host and device memory at once."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not aten._local_scalar_dense.default, "a tensor's value was read"
        assert func is not aten.nonzero.default, "a size was read from the device"
        out = func(*args, **(kwargs or {}))
        seen: set[str] = set()
        tree_map_only(torch.Tensor, lambda t: seen.add(t.device.type), (args, kwargs, out))
        assert seen <= {"cuda"}, f"{func} works on {seen}"
        return out


@pytest.mark.parametrize(
    "forbidden", [aten.nonzero, aten._local_scalar_dense, lambda x: x.to("cpu"), lambda x: x + torch.ones(1)]
)
def test_the_forbidden_operations_raise(forbidden, launched):
    with FakeTensorMode(), Watch(), pytest.raises(AssertionError, match=r"works on|read"):
        forbidden(torch.empty(1, device="cuda:0"))


@pytest.mark.parametrize("name", LAUNCHES)
def test_registered_operations(name, launched):
    op = next(op for op in operations() if op.name == name)
    arguments = op.example("cpu", small=True)
    if "grad" in arguments:
        arguments["grad"] = arguments["images"].clone()  # the small example has another layout, and copies
    with torch.no_grad(), FakeTensorMode():
        arguments = fake(arguments)
        with Watch():
            out = op.triton(**arguments)
    assert out.is_cuda
    assert len(launched) == LAUNCHES[name]


COMPILED = [op.name for op in operations() if op.name in LAUNCHES and op.aot]


@pytest.mark.parametrize("name", COMPILED)
def test_registered_variants_are_launched(name, launched):
    """The registry's variants, whose machine code ``test_aot.py`` reads, against the launches of the large example."""
    op = next(op for op in operations() if op.name == name)
    arguments = op.example("cpu", small=False)
    with torch.no_grad(), FakeTensorMode():
        op.triton(**fake(arguments))
    assert_registered(op.aot, launched)


@pytest.mark.parametrize("size", ["1000", "21848", "21841"])
def test_registered_variants_of_the_loss_are_launched(size, launched):
    B, C = SIZES[size][1]
    op = next(op for op in operations() if op.name == f"mixed_cross_entropy_{size}")
    with torch.no_grad(), FakeTensorMode():
        e = partial(torch.empty, device="cuda:0")
        z, a, lam = e(B, C, dtype=torch.bfloat16), e(B, dtype=torch.int64), e(B)
        _, lse, total, *_ = _forward(z, a, a, lam, None, 0.1, 2, False)
        _backward(e(()), z, lse, total, a, a, lam, None, 0.1, 2)
    assert_registered((*op.aot, *OPS[0].aot), launched)  # every row shares the reduction kernel of the first
    assert len(launched) == 3


@pytest.mark.parametrize("C", [10, 1000, 21841])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("score", [False, True])
def test_losses(C, reduction, score, launched):
    """One launch each way for ``none``, one more forward for ``mean``."""
    whole = reduction == "mean"
    with torch.no_grad(), FakeTensorMode():
        logits, targets, eps = fake((torch.empty(6, C, dtype=torch.bfloat16), labels(6, C), torch.rand(6)))
        with Watch():
            loss = scored_cross_entropy if score else mixed_cross_entropy
            loss(logits, targets, eps if score else 0.1, reduction)
            assert len(launched) == 1 + whole
            value, lse, total, *_ = _forward(logits, *targets, None, 0.1, 2 * whole, score)
            launched.clear()
            grad = _backward(torch.empty_like(value), logits, lse, total, *targets, None, 0.1, 2 * whole)
    assert (grad.shape, grad.dtype) == (logits.shape, logits.dtype)
    assert len(launched) == 1


@pytest.mark.parametrize("name", ["1000", "1000_terms", "1000_threshold", "1000_dense", "21841"])
def test_registered_variants_of_the_binary_loss_are_launched(name, launched):
    """One launch each way for "none", one more forward for "mean". No gradient per element is stored for a sum."""
    op = next(op for op in operations() if op.name == f"mixed_binary_cross_entropy_{name}")
    example = op.example("cpu", small=False)
    dense = isinstance(example["targets"], torch.Tensor)
    reduction = 0 if "reduction" in example else 2
    with torch.no_grad(), FakeTensorMode():
        z, targets, weight = fake((example["logits"], example["targets"], example.get("class_weight")))
        a, b, lam, t = (None, None, None, targets) if dense else (*targets, None)
        settings = (a, b, lam, t, weight, 0.1, example.get("target_threshold"), False, reduction)
        with Watch():
            loss, total = binary._forward(z, *settings)
            grad = torch.empty((), device="cuda:0").expand(loss.shape)
            binary._backward(grad, z, total, *settings)
    assert_registered((*op.aot, *OPS[0].aot), launched)  # every row shares the reduction kernel of the first
    assert len(launched) == (2 if reduction == 0 else 3)


@pytest.mark.parametrize("C", [10, 1000, 21841])
@pytest.mark.parametrize("sum_classes", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("dense", [False, True])
def test_binary_losses(C, sum_classes, reduction, dense, launched):
    whole = reduction == "mean"
    with torch.no_grad(), FakeTensorMode():
        z, targets, t = fake((torch.empty(6, C, dtype=torch.bfloat16), labels(6, C), torch.rand(6, C)))
        with Watch():
            mixed_binary_cross_entropy(z, t if dense else targets, 0.1, 0.2, sum_classes, reduction)
            assert len(launched) == 1 + whole
            settings = (*((None, None, None, t) if dense else (*targets, None)), None, 0.1, 0.2, sum_classes, 2 * whole)
            value, total = binary._forward(z, *settings)
            launched.clear()
            grad = binary._backward(torch.empty_like(value), z, total, *settings)
    assert value.shape == (() if whole else (6,) if sum_classes else (6, C))
    assert (grad.shape, grad.dtype) == (z.shape, z.dtype)
    assert len(launched) == 1


@pytest.mark.parametrize("name", ["1000", "1000_dense", "21848_dense", "21841"])
def test_registered_variants_of_the_weighted_loss_are_launched(name, launched):
    op = next(op for op in operations() if op.name == f"weighted_cross_entropy_{name}")
    example = op.example("cpu", small=False)
    dense = isinstance(example["targets"], torch.Tensor)
    with torch.no_grad(), FakeTensorMode():
        z, targets, weight = fake((example["logits"], example["targets"], example.get("class_weight")))
        settings = (*((None, None, None, targets) if dense else (*targets, None)), weight, None, 0.1, 2)
        with Watch():
            _, rows, total = weighted._forward(z, *settings)
            weighted._backward(torch.empty((), device="cuda:0"), z, rows, total, *settings)
    assert_registered((*op.aot, *OPS[0].aot), launched)  # every row shares the reduction kernel of the first
    assert len(launched) == 3


@pytest.mark.parametrize("C", [10, 1000, 21841])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("kind", ["pair", "hard", "dense"])
def test_weighted_losses(C, reduction, kind, launched):
    """As many launches as without weights."""
    whole = reduction == "mean"
    with torch.no_grad(), FakeTensorMode():
        z, pair, t = fake((torch.empty(6, C, dtype=torch.bfloat16), labels(6, C), torch.rand(6, C)))
        eps, weight = fake((torch.rand(6), torch.rand(C)))
        targets = {"pair": pair, "hard": pair.a, "dense": t}[kind]
        with Watch():
            mixed_cross_entropy(z, targets, eps, reduction, class_weight=None if kind == "dense" else weight)
            assert len(launched) == 1 + whole
            given = {"pair": (*pair, None), "hard": (pair.a, None, None, None), "dense": (None, None, None, t)}[kind]
            settings = (*given, weight, None, 0.0, 2 * whole)
            value, rows, total = weighted._forward(z, *settings)
            launched.clear()
            grad = weighted._backward(torch.empty_like(value), z, rows, total, *settings)
    assert value.shape == (() if whole else (6,))
    assert (grad.shape, grad.dtype) == (z.shape, z.dtype)
    assert len(launched) == 1


def test_labels_on_a_gpu_are_checked_on_request_only(launched):
    with torch.no_grad(), FakeTensorMode():
        z, y = fake((torch.empty(4, 5), torch.arange(4)))
        with Watch():
            mixed_cross_entropy(z, y)
        with pytest.raises(DataDependentOutputException):
            mixed_cross_entropy(z, y, check_labels=True)
        with Watch():
            mixed_binary_cross_entropy(z, y)
        with pytest.raises(DataDependentOutputException):
            mixed_binary_cross_entropy(z, y, check_labels=True)


@pytest.mark.parametrize("B", [1, 7, 256])
@pytest.mark.parametrize("K", [0, 1, 3])
def test_auto_augment(B, K, launched):
    """Two launches per slot for any batch size and any draw, which the host never reads."""
    with torch.no_grad(), FakeTensorMode():
        images, operations, magnitudes = fake(
            (torch.empty(B, 224, 224, 3, dtype=torch.uint8), torch.empty(B, K, dtype=torch.int64), torch.empty(B, K))
        )
        with Watch():
            out = auto_augment(images, operations, magnitudes, interpolation="bilinear")
    assert (out.shape, out.dtype, out.device) == (images.shape, torch.uint8, images.device)
    assert len(launched) == 2 * K


def test_tensors_on_the_host_are_copied_but_not_captured(launched, monkeypatch):
    capturing = False
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    with torch.no_grad(), FakeTensorMode():
        images, pixels = fake((torch.empty(4, 8, 8, 3, dtype=torch.uint8), torch.empty(4, 3, 5, 5)))
        plan = Plan(flip=torch.zeros(4, dtype=torch.bool))
        noise = Plan(noise=fake(torch.ones(4)))
        calls = (
            ("plan.flip", lambda: augment(images, plan, **AUGMENT)),
            ("indices", lambda: augment(images, noise, indices=torch.arange(4), **AUGMENT)),
            ("indices", lambda: start_in_ball(pixels, 0.1, 0, torch.arange(4))),
        )
        for name, call in calls:
            capturing = False
            call()
            capturing = True
            with pytest.raises(
                ValueError, match=f"`{name}` is on cpu: move it to cuda:0 before a CUDA graph is captured"
            ):
                call()


def test_another_gpu_than_the_current_one_is_named(launched):
    words = r"A tensor is on cuda:1, but kernels run on the current GPU, 0: call torch.cuda.set_device\(1\)"
    with torch.no_grad(), FakeTensorMode():
        x, pixels, z, y = fake(
            (torch.empty(2, 8, 8, 3, dtype=torch.uint8), torch.empty(2, 3, 4, 4), torch.empty(2, 5), torch.arange(2)),
            "cuda:1",
        )
        slots = fake((torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1)), "cuda:1")
        for call in (
            lambda: augment(x, Plan(), **AUGMENT),
            lambda: auto_augment(x, *slots),
            lambda: fgsm_step(pixels, pixels, 0.1),
            lambda: mixed_cross_entropy(z, Targets(y, y, torch.ones(2, device="cuda:1"))),
        ):
            with pytest.raises(ValueError, match=words):
                call()
    assert not launched
