"""What the engine asks of torch: compiled and captured steps, deterministic algorithms, and little time of its own."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from fastreg import models
from fastreg.models import create_model, pyramidnet
from fastreg.training import Config
from fastreg.training.setup import build_optimizer
from fastreg.training.train_step import TrainStep
from tests.fastreg.training import tiny_runs as tiny
from tests.fastreg.training.tiny_runs import ALONE, STATISTICS, advance, batch


@pytest.fixture
def quick(monkeypatch, tmp_path):
    yield from tiny.shrunk(monkeypatch, tmp_path)


def config(tmp_path, reg: str, **more) -> Config:
    return tiny.settings(reg, tmp_path, tmp_path, **more)


def test_compiled_steps_are_one_graph_that_no_later_step_compiles_anew(quick, tmp_path):
    """What a CUDA graph needs: no break, and neither rate, plan, branch numbers nor attack is a constant of it."""
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


def test_every_size_of_growing_pictures_has_its_own_program(quick, tmp_path):
    """More than dynamo would compile by itself; with a whole graph asked for, it raises where it gives up."""
    quick.setitem(models.MODELS, "tiny", partial(pyramidnet.PyramidNet, 8, 3, False))
    compile = torch.compile
    whole = {"backend": "eager", "fullgraph": True}
    quick.setattr(torch, "compile", lambda net, mode, dynamic: compile(net, dynamic=dynamic, **whole))
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=2):
        engine = TrainStep(config(tmp_path, "none", torchcompile="default"), 4, *STATISTICS, ALONE)
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


def test_deterministic_is_asked_of_torch_and_given_back(quick, tmp_path):
    quick.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        engine = TrainStep(config(tmp_path, "alp", deterministic=True), 4, *STATISTICS, ALONE)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        strict = advance(engine, range(2))
        usual = advance(TrainStep(config(tmp_path, "alp"), 4, *STATISTICS, ALONE), range(2))
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
        assert strict == usual
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_a_step_costs_at_most_three_percent_more_than_a_bare_loop(quick):
    """CutMix on ResNet-18 at 64 px against forward, backward and update alone, on floats that lie ready.

    CPU time of one thread, turn about; the least of each, since whatever else the machine does only adds. On a busy
    machine more turns come before the verdict.
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

    spent: dict = {ours: [], bare: []}
    for turn in range(40):
        for step, seconds in spent.items():
            start = time.process_time()
            step(turn)
            seconds.append(time.process_time() - start)
        ratio = min(spent[ours]) / min(spent[bare])
        if turn >= 8 and ratio <= 1.03:
            break
    assert ratio <= 1.03
