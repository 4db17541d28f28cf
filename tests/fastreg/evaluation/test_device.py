"""Evaluation on a GPU, tested without one: no synchronization between batches, one shape per model, one capture."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from fastreg.benchmarks.gpu_check import evaluation as gpu_evaluation
from fastreg.benchmarks.gpu_check.check import run_check
from fastreg.evaluation import conditions, evaluate
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.cuda_graph import CudaGraphForward
from fastreg.evaluation.pixel_cache import Pixels
from fastreg.metrics import Tally
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_images, tiny_net

aten = torch.ops.aten


class Watch(TorchDispatchMode):
    """Raises where a value is read, where a size depends on values, and where memory of the host is touched."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (aten._local_scalar_dense.default, aten.nonzero.default), f"{func} waits for the device"
        out = func(*args, **(kwargs or {}))
        seen = set()
        tree_map_only(torch.Tensor, lambda t: seen.add(t.device.type), (args, kwargs, out))
        assert seen <= {"meta"}, f"{func} works on {seen}"
        return out


def augment_without_pixels(images, plan, *, dtype, **more):
    assert all(field is None or field.device == images.device for field in plan)
    return images.permute(0, 3, 1, 2).to(dtype)


CONDITIONS = {
    "clean": conditions.clean,
    "occlusion": conditions.occlusion,
    "fgsm": conditions.Attack(epsilon=8 / 255, clip=True),
}


@pytest.mark.parametrize("columns", [None, torch.tensor([5, 0, 3])], ids=["all classes", "some classes"])
@pytest.mark.parametrize("suite", CONDITIONS)
def test_nothing_waits_for_the_device_between_the_batches(suite, columns, monkeypatch):
    """Tensors without memory stand for the GPU's: the kernels' own launches are in tests/kernels/test_launches.py."""
    monkeypatch.setattr("fastreg.evaluation.classifier.digest", lambda model: "")
    for module in ("classifier", "conditions"):
        monkeypatch.setattr(f"fastreg.evaluation.{module}.augment", augment_without_pixels)
    monkeypatch.setattr("fastreg.kernels.attacks.mixed_cross_entropy", F.cross_entropy)
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())
    device = torch.device("meta")
    classifier = Classifier(tiny_net(), mean=MEAN, std=STD, device=device, precision="fp32", columns=columns)
    tally = Tally(device)
    images = torch.empty(6, 32, 32, 3, dtype=torch.uint8, device=device)
    labels = torch.empty(6, dtype=torch.int64, device=device)
    batch = Pixels(images, labels, torch.arange(6))
    with Watch():
        for _ in range(2):
            confidence = tally.update(CONDITIONS[suite](classifier, batch), labels)
    assert (confidence.shape, confidence.is_meta) == ((6,), True)


@pytest.mark.parametrize("forbidden", [lambda x: x + torch.ones(1), lambda x: x.to("cpu"), lambda x: x.clone().item()])
def test_the_forbidden_operations_raise(forbidden):
    with Watch(), pytest.raises((AssertionError, NotImplementedError)):
        forbidden(torch.empty(1, device="meta"))


def test_a_model_is_captured_once_and_replayed(fake_capture):
    calls: list[tuple[int, ...]] = []
    net = tiny_net()
    replayed = CudaGraphForward(net, 8, fake_capture(calls))
    batches = [torch.randn(n, 3, 32, 32) for n in (3, 8, 8, 5, 8)]
    with torch.no_grad():
        results = [replayed(x) for x in batches]
        assert all(torch.equal(result, net(x)) for result, x in zip(results, batches))
    assert calls == [(8, 3, 32, 32)]
    assert not replayed.refused


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda function, x: (lambda: None, function(x)), "a replay differs from a call"),  # whose output never changes
        (
            lambda function, x: (_ for _ in ()).throw(RuntimeError("cannot capture\nmore")),
            "RuntimeError: cannot capture",
        ),
    ],
)
def test_what_cannot_be_captured_is_called(make, why):
    net, replayed = tiny_net(), CudaGraphForward(tiny_net(), 4, make)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(replayed(x), net(x))
    assert why in replayed.refused


def test_captured_and_plain_evaluation_agree_whatever_the_last_batch(monkeypatch, fake_capture):
    """The classifier as it is on a GPU, its graph played by the CPU; 30 images in batches of 8 end with one of 6."""
    net, data = tiny_net(), tiny_images()
    plain = evaluate(net, "clean,fgsm,pgd,occlusion,ood", data, batch_size=8, size=64)
    calls: list[tuple[int, ...]] = []
    honest = Classifier.__init__

    def on_gpu(self, *args, batch_size=0, **more):
        honest(self, *args, batch_size=batch_size, **more)
        self.replayed, self.pad_to = CudaGraphForward(self.module.logits, batch_size, fake_capture(calls)), batch_size

    monkeypatch.setattr(Classifier, "__init__", on_gpu)
    captured = evaluate(net, "clean,fgsm,pgd,occlusion,ood", data, batch_size=8, size=64)
    assert calls == [(8, 3, 64, 64)]
    for suite in ("clean", "fgsm", "pgd", "occlusion", "ood"):
        for condition, row in plain.results(suite).items():
            for key, value in row.items():
                if key not in ("seconds", "bins", "histogram_in", "histogram_out"):
                    assert captured.results(suite)[condition][key] == pytest.approx(value, rel=1e-5), (suite, key)


def test_a_compiled_model_sees_one_shape(monkeypatch):
    """One graph without gradients and one with them, although the last batch is short."""
    shapes: list[tuple[int, ...]] = []

    def count(module, example):
        shapes.append(next(tuple(x.shape) for x in example if x.ndim == 4 and x.shape[1] == 3 and x.shape[2] > 8))
        return module.forward

    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, **options: whole(net, backend=count, **options))
    net, data = tiny_net(), tiny_images()
    compiled = evaluate(net, "clean,fgsm,pgd,occlusion", data, batch_size=8, compiled=True)
    assert shapes == [(8, 3, 64, 64)] * 2
    plain = evaluate(net, "clean,fgsm,pgd,occlusion", data, batch_size=8)
    assert compiled.summary() == pytest.approx(plain.summary())


@pytest.mark.slow
def test_bf16_agrees_with_fp32():
    """Of 4000 predictions of a model that has learnt; the GPU check compares GPU and CPU alike."""
    net, images, labels = gpu_evaluation.trained()
    given = {"mean": gpu_evaluation.MEAN, "std": gpu_evaluation.STD}
    guesses, errors = [], []
    for precision in ("fp32", "bf16"):
        classifier = Classifier(net, device=torch.device("cpu"), precision=precision, **given)
        guesses.append(classifier.images(images).argmax(1))
        card = evaluate(net, "clean", (images, labels), precision=precision, batch_size=500, **given)
        errors.append(card.summary()["clean_error"])
    assert 0.2 < errors[0] < 5  # it has learnt, and some images are hard
    assert abs(errors[0] - errors[1]) <= 0.05
    assert (guesses[0] != guesses[1]).double().mean() <= 0.001


@pytest.mark.slow
def test_the_gpu_checks_of_evaluation_hold_where_both_sides_are_the_cpu():
    for check in gpu_evaluation.evaluation_checks():
        result = run_check(check, torch.device("cpu"))
        assert result["ok"], result


def test_the_models_own_device_is_the_default_and_it_is_brought_back(monkeypatch):
    from fastreg import distributed
    from fastreg.evaluation import classifier

    net, data, asked = tiny_net(), tiny_images(), []
    honest = distributed.resolve_device
    monkeypatch.setattr(
        distributed, "resolve_device", lambda name: (asked.append(torch.device(name)), honest("cpu"))[1]
    )
    evaluate(net, "clean", data)
    evaluate(net, "clean", data, device="cuda:1")
    assert asked == [torch.device("cpu"), torch.device("cuda:1")]
    assert classifier.device_of(tiny_net().to("meta")) == torch.device("meta")
    places = [(t.data_ptr(), t.device) for t in (*net.parameters(), *net.buffers())]
    with classifier.borrowed(net):
        net.to(torch.float64).to(memory_format=torch.channels_last)  # another memory, as another device's is
    assert places == [(t.data_ptr(), t.device) for t in (*net.parameters(), *net.buffers())]
    assert net[0].weight.dtype == torch.float32


def switches():
    """The TF32 switches: the old ones (None where reading them raises) and the new ones."""

    def read(switch):
        try:
            return switch()
        except RuntimeError:
            return None

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    old = [read(lambda: matmul.allow_tf32), read(lambda: cudnn.allow_tf32), read(torch.get_float32_matmul_precision)]
    return old, [kind.fp32_precision for kind in (matmul, cudnn.conv, cudnn.rnn)]


def reset_switches():
    """PyTorch's defaults."""
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.fp32_precision = "none"


@pytest.mark.parametrize("before", ["default", "training's", "set_float32_matmul_precision", "the new switch for all"])
def test_fp32_is_float32_and_the_switches_are_put_back(before):
    class Seen(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen = tiny_net(), []

        def forward(self, x):
            self.seen.append(switches())
            return self.net(x)

    reset_switches()  # a training in this process leaves its own
    first = switches()
    try:
        if before == "training's":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        elif before == "set_float32_matmul_precision":
            torch.set_float32_matmul_precision("medium")
        elif before == "the new switch for all":
            torch.backends.fp32_precision = "tf32"
        start, net = switches(), Seen()
        card = evaluate(net, "clean,fgsm", tiny_images())
        assert all(seen == ([False, False, "highest"], ["ieee"] * 3) for seen in net.seen)
        assert card.settings["tf32"] is False
        net.seen.clear()
        assert evaluate(net, "clean", tiny_images(), precision="bf16").settings["tf32"] is True
        assert all(seen == ([True, True, "high"], ["tf32"] * 3) for seen in net.seen)
        old, new = switches()
        assert new == start[1]
        assert all(a == b for a, b in zip(old, start[0]) if b is not None)
    finally:
        reset_switches()
    assert switches() == first
