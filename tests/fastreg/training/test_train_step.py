"""A training step in PyTorch: compiled, captured, with its switches, and the time that it adds."""

from __future__ import annotations

import os
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastreg import models
from fastreg.models import create_model, pyramidnet
from fastreg.training import Config, train
from fastreg.training.optimizer import build_optimizer
from fastreg.training.setup import training_switches
from fastreg.training.train_step import TrainStep
from tests.fastreg.training import tiny_runs as tiny
from tests.fastreg.training.tiny_runs import ALONE, STATISTICS, advance, batch


def config(tmp_path, reg: str, **more) -> Config:
    return tiny.settings(reg, tmp_path, tmp_path, **more)


@pytest.mark.slow
def test_compiled_steps_are_one_graph_that_no_later_step_compiles_anew(quick, tmp_path):
    """Requirements of a CUDA graph: no break, and neither rate, plan, branch numbers nor attack is a constant of it."""
    reg = "cutmix+shakedrop+adversarial"
    plain = advance(TrainStep(config(tmp_path, reg), 4, *STATISTICS, ALONE), range(4))
    asked = {}

    def through_dynamo(net, compile=torch.compile, **options):
        asked.update(options)
        return compile(net, backend="aot_eager", fullgraph=True, dynamic=options["dynamic"])

    torch._dynamo.reset()
    quick.setattr(torch, "compile", through_dynamo)
    engine = TrainStep(config(tmp_path, reg, torchcompile="reduce-overhead"), 4, *STATISTICS, ALONE)
    losses = advance(engine, range(2))
    with torch.compiler.set_stance("fail_on_recompile"):
        losses += advance(engine, range(2, 4))
    assert asked == {"mode": "reduce-overhead", "dynamic": False}
    assert losses == pytest.approx(plain, rel=1e-4)


def test_every_size_of_growing_images_has_its_own_program(quick, tmp_path):
    """More programs than dynamo's default limit; a request for a whole graph raises at that limit."""
    quick.setitem(models.MODELS, "tiny", partial(pyramidnet.PyramidNet, 8, 3, False))
    compile = torch.compile
    whole = {"backend": "eager", "fullgraph": True}
    quick.setattr(torch, "compile", lambda net, mode, dynamic: compile(net, dynamic=dynamic, **whole))
    torch._dynamo.reset()
    own = config(tmp_path, "none", torchcompile="default")
    with torch._dynamo.config.patch(recompile_limit=2), training_switches(own, ALONE.device):
        engine = TrainStep(own, 4, *STATISTICS, ALONE)
        for step, size in enumerate((8, 12, 16)):
            engine.forward_backward(batch(step), step, 0, size)
            engine.update(step, 8)


def test_captured_gradients_accumulate_in_memory_of_their_own(quick, tmp_path):
    quick.setattr(torch, "compile", lambda net, **options: net)
    engines = [
        TrainStep(config(tmp_path, "none", torchcompile=mode, grad_accum_steps=2), 4, *STATISTICS, ALONE)
        for mode in (None, "reduce-overhead")
    ]
    places = [p.grad.data_ptr() for p in engines[1].model.parameters()]
    one, two = (advance(engine, range(3)) for engine in engines)
    assert one == two
    assert all(torch.equal(p, q) for p, q in zip(engines[0].model.parameters(), engines[1].model.parameters()))
    assert [p.grad.data_ptr() for p in engines[1].model.parameters()] == places
    assert all(p.grad is None for p in engines[0].model.parameters())


def switches() -> tuple:
    """The process-wide switches of PyTorch that a run sets."""
    backends = torch.backends
    kinds = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        backends.cudnn.benchmark,
        backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        [kind.fp32_precision for kind in kinds],
        torch._dynamo.config.recompile_limit,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_a_run_sets_the_switches_of_the_process_and_puts_them_back(quick, tmp_path, data, deterministic, own):
    """A caller's own values (``own``) and PyTorch's defaults; the steps of a strict run are those of a usual one."""
    quick.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    quick.setattr(torch.backends.cudnn, "benchmark", own)
    if own:
        quick.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    before, seen = switches(), []

    def watch(self, *given, update=TrainStep.update):
        seen.append(switches())
        return update(self, *given)

    quick.setattr(TrainStep, "update", watch)
    quick.setattr(torch, "compile", lambda net, **options: net)
    train(tiny.settings("none", tmp_path, data, deterministic=deterministic, torchcompile="default"))
    workspace = before[-1] or (":4096:8" if deterministic else None)
    recompilations = max(before[-2], 64)  # torch.export raises the limit for good
    during = (deterministic, False, not deterministic, True, "high", ["tf32"] * 3 + ["ieee"], recompilations, workspace)
    assert set(map(str, seen)) == {str(during)}
    assert switches() == before


def test_a_failed_run_puts_the_switches_back(quick, tmp_path, data):
    before = switches()
    quick.setattr(TrainStep, "update", tiny.stop_at(0))
    with pytest.raises(tiny.Stopped):
        train(tiny.settings("none", tmp_path, data, deterministic=True))
    assert switches() == before


def test_a_step_sets_no_switch_and_is_the_same_with_deterministic_algorithms(quick, tmp_path):
    before = switches()
    usual = advance(TrainStep(config(tmp_path, "alp"), 4, *STATISTICS, ALONE), range(2))
    assert switches() == before
    strict = config(tmp_path, "alp", deterministic=True)
    with training_switches(strict, ALONE.device):
        assert advance(TrainStep(strict, 4, *STATISTICS, ALONE), range(2)) == usual
    assert switches() == before


class BytesWritten(TorchDispatchMode):
    """Operations, and the bytes of the tensors that they return, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations += 1
        if not function.is_view:
            self.bytes += sum(leaf.nbytes for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        return result


def test_a_step_adds_little_work_to_a_bare_loop(quick):
    """CutMix on ResNet-18 at 64 px against forward, backward and update alone, on prepared floats.

    The benchmark ``throughput`` times the two; here the operations and the bytes that they write are counted.
    """
    size, ready = 64, batch(0, count=16, side=64)
    own = Config("imagenet", model="resnet18", reg="cutmix", batch_size=16, size=size, lr=1e-3, device="cpu")
    engine = TrainStep(own, 10, *STATISTICS, ALONE)
    model = create_model("resnet18", 10).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(own, model)
    floats = ((ready.images.float() / 255 - 0.5) / 0.25).permute(0, 3, 1, 2)

    def ours(turn: int) -> None:
        engine.forward_backward(ready, turn, 0, size)
        engine.update(turn, 1000)

    def bare(turn: int) -> None:
        F.cross_entropy(model(floats), ready.labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    counts = []
    for step in (ours, bare):
        step(0)  # the first step creates the optimizer's state
        with BytesWritten() as count:
            step(1)
        counts.append(count)
    assert counts[0].operations - counts[1].operations <= 302  # measured; the CPU reference of augment has most of them
    assert counts[0].bytes <= 1.03 * counts[1].bytes
