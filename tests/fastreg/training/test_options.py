"""The effects of flags: mixing ends, sizes grow, gradients are clipped, half precision scales, traces are made."""

from __future__ import annotations

import ast
import contextlib
import csv
import json
import math
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from fastreg import methods, runs
from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.training import auto_augment_flags, flag_aliases, run_log, setup, train
from fastreg.training import trainer as loop
from fastreg.training.setup import training_switches
from fastreg.training.train_step import TrainStep
from tests.fastreg.training import tiny_runs as tiny
from tests.fastreg.training.tiny_runs import ALONE, STATISTICS, batch, settings
from tests.support import ROOT

pytestmark = pytest.mark.usefixtures("quick")


def make(data: Path, reg: str = "none", **more) -> TrainStep:
    return TrainStep(settings(reg, data, data, color_jitter=0.0, lighting=0.0, **more), 4, *STATISTICS, ALONE)


def seen(quick, config) -> list[tuple[int, int, bool]]:
    """(epoch, size, whether the method draws) of every step of a run."""
    steps = []

    def watch(self, batch, step, micro, size, epoch=0, run=TrainStep.forward_backward):
        steps.append((epoch, size, self.mixing))
        return run(self, batch, step, micro, size, epoch)

    quick.setattr(TrainStep, "forward_backward", watch)
    train(config)
    return steps


def test_the_loop_has_no_branch_on_a_methods_name():
    """Except for ``none``, the default of a run, and for the two modules that list the flags of other packages."""
    flags = {Path(flag_aliases.__file__), Path(auto_augment_flags.__file__)}
    for path in {*Path(ROOT, "fastreg", "training").glob("*.py")} - flags:
        found = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        assert not methods.METHODS.keys() - {"none"} & {value for value in found if isinstance(value, str)}, path


def test_a_divergence_of_softmax_probabilities_refuses_a_sigmoid_per_class(data):
    with pytest.raises(InputError, match="`bce_loss` has a sigmoid per class, and `reg` augmix"):
        make(data, "augmix", bce_loss=True)
    make(data, "augmix", bce_loss=True, reg_args={"jsd": False})


def test_mixing_ends_with_its_epoch_and_then_nothing_is_drawn(quick, data, tmp_path):
    steps = seen(quick, settings("cutmix", tmp_path, data, epochs=3, batch_size=16, mixup_off_epoch=2))
    assert [mixing for _, _, mixing in steps] == [True, True, False]
    cutmix, plain = make(data, "cutmix", reg_args={"prob": 1.0}), make(data)
    assert cutmix.forward_backward(batch(1), 0, 0, 16) != plain.forward_backward(batch(1), 0, 0, 16)
    cutmix.mixing = False
    cutmix.model.load_state_dict(plain.model.state_dict())
    assert cutmix.forward_backward(batch(2), 1, 0, 16) == plain.forward_backward(batch(2), 1, 0, 16)


@pytest.mark.parametrize(("reg", "flips"), [("mixup", True), ("no_crop_flip+mixup", False)])
def test_the_end_of_mixing_leaves_crops_and_flips_as_the_method_has_them(reg, flips, data):
    plan, targets = make(data, reg).method.plain(torch.zeros(64, dtype=torch.int64), torch.arange(64), 3)
    drawn = [field for field, value in plan._asdict().items() if value is not None]
    assert drawn == (["flip"] if flips else [])
    assert (targets.lam == 1).all()


def test_images_grow_between_the_ramps_ends(quick, data, tmp_path):
    more = {"min_size": 32, "size": 64, "eval_size": 32, "size_ramp": (0.25, 0.5), "model_ema_decay": None}
    steps = seen(quick, settings("none", tmp_path, data, epochs=4, batch_size=16, **more))
    assert [size for _, size, _ in steps] == [32, 32, 64, 64]


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("reg", ["none", "alp"])
def test_the_layout_asked_for_is_that_of_all_activations(reg, channels_last, data):
    engine, seen = make(data, reg, channels_last=channels_last), []
    engine.model.layer2.register_forward_hook(lambda module, inputs, output: seen.append(output))
    engine.forward_backward(batch(0), 0, 0, 16)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert seen
    assert all(output.is_contiguous(memory_format=layout) for output in seen)


def test_gradients_are_clipped_to_the_norm_asked_for(data):
    moved = {}
    for clip in (None, 1e-3):
        engine = make(data, clip_grad=clip, momentum=0.0, nesterov=False, weight_decay=0.0, lr=0.5)
        before = [p.detach().clone() for p in engine.model.parameters()]
        engine.forward_backward(batch(0), 0, 0, 16)
        engine.update(0, 8)
        moved[clip] = math.sqrt(sum((p - q).square().sum().item() for p, q in zip(engine.model.parameters(), before)))
    assert moved[1e-3] == pytest.approx(0.5 * 1e-3, rel=1e-2)
    assert moved[None] > 10 * moved[1e-3]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_near_float32(precision, data):
    half, full = make(data, precision=precision), make(data, precision="fp32")
    assert half.scaler.is_enabled() == (precision == "fp16")
    for step in range(2):
        losses = [engine.forward_backward(batch(step), step, 0, 16).item() for engine in (half, full)]
        assert losses[0] == pytest.approx(losses[1], rel=0.05)
        assert all(p.grad.dtype == torch.float32 for p in half.model.parameters())
        for engine in (half, full):
            engine.update(step, 8)


def test_a_step_that_overflows_in_fp16_is_left_out_and_the_scale_halved(data):
    engine = make(data, precision="fp16")
    before = [p.detach().clone() for p in engine.model.parameters()]
    scale = engine.scaler.get_scale()
    for step, broken in ((0, True), (1, False)):
        engine.forward_backward(batch(step), step, 0, 16)
        if broken:
            next(engine.model.parameters()).grad[0, 0, 0, 0] = math.inf
        engine.update(step, 8)
        same = all(torch.equal(p, q) for p, q in zip(engine.model.parameters(), before))
        assert same == broken
    assert engine.scaler.get_scale() == scale / 2


def test_a_first_step_that_overflows_leaves_nothing_unwritten_to_fused_sgd(quick, data):
    """SGD is fused, as on a GPU; deterministic algorithms fill uninitialized memory with NaN."""
    sgd = torch.optim.SGD
    quick.setattr(torch.optim, "SGD", lambda groups, **own: sgd(groups, **{**own, "fused": True}))
    engine = make(data, precision="fp16", deterministic=True)
    with training_switches(engine.config, ALONE.device):
        for step in range(3):
            assert math.isfinite(engine.forward_backward(batch(step), step, 0, 16).item())
            if step == 0:
                next(engine.model.parameters()).grad[0, 0, 0, 0] = math.inf
            engine.update(step, 8)
            assert engine.finite()


def test_sync_bn_replaces_every_norm_where_there_are_gpus(quick, data):
    quick.setattr(nn.parallel, "DistributedDataParallel", lambda net, **options: net)
    config = settings("none", data, data, sync_bn=True)
    with pytest.raises(InputError, match="`sync_bn` needs GPUs"):
        setup.build_model(config, 4, World(0, 2, torch.device("cpu")), {})
    with torch.device("meta"):
        quick.setattr(nn.Module, "to", lambda self, *args, **more: self)
        model, net = setup.build_model(config, 4, World(0, 2, torch.device("cuda", 0)), {})
        plain, _ = setup.build_model(settings("none", data, data), 4, ALONE, {})
    assert net is model
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == sum(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert list(model.state_dict()) == list(plain.state_dict())


def test_a_profile_is_traced_once_and_lists_the_slowest_operations(data, tmp_path, messages):
    folder = train(settings("none", tmp_path, data, profile=1, recovery_interval=100))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert any("convolution" in str(event.get("name")) for event in events)
    assert any("convolution" in line and "Self CPU" in line for line in messages)
    assert any(f"trace of 1 steps: {folder / 'trace.json'}" in line for line in messages)


@pytest.mark.slow
@pytest.mark.parametrize(("wanted", "traced"), [(4, 4), (6, 5), (100, 5)])
def test_a_profile_continues_over_epochs_and_reports_its_steps(wanted, traced, data, tmp_path, messages):
    """Eight steps in two epochs, three of which are the warm-up."""
    folder = train(settings("none", tmp_path, data, profile=wanted, epochs=2))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    steps = {event["name"] for event in events if str(event.get("name", "")).startswith("ProfilerStep#")}
    behind = {"ProfilerStep#8"} if traced < wanted else set()  # the events after the run's last step
    assert steps == {f"ProfilerStep#{3 + k}" for k in range(traced)} | behind
    end = f"trace of {wanted} steps: " if traced == wanted else f"its {wanted} steps to trace: {traced} traced: "
    assert sum(f"{end}{folder / 'trace.json'}" in line for line in messages) == 1
    messages.clear()
    again = settings("none", tmp_path, data, profile=wanted, epochs=3)
    train(again, resume="auto", allow_changes=True)
    assert any("remove it to trace again" in line for line in messages)


def test_one_process_of_many_traces(quick, data, tmp_path):
    asked = []

    @contextlib.contextmanager
    def watch(steps, folder):
        asked.append(steps)
        yield lambda: None

    quick.setattr(loop, "profiling", watch)
    for rank in range(2):
        folder = tmp_path / f"rank{rank}"
        folder.mkdir()
        tiny.pretend_rank(quick, rank, folder)
        train(settings("none", tmp_path, data, profile=2, batch_size=2, name=folder.name, sched="step"))
    assert asked == [2, 0]


def test_scalars_go_to_tensorboard_on_request(quick, data, tmp_path):
    written = []

    class Scalars:
        def add_scalar(self, key, value, step):
            written.append((key, value, step))

        def close(self):
            written.append("closed")

    with quick.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(InputError, match=r"pip install .*\[tensorboard\]"):
            train(settings("none", tmp_path / "without", data, log_tensorboard=True))
    firsts = []
    quick.setattr(run_log, "open_tensorboard", lambda folder, first: firsts.append(first) or Scalars())
    folder = train(settings("none", tmp_path, data, log_tensorboard=True))
    rows = runs.read_rows(folder / "log.jsonl")
    logged = [("loss", row["loss"], row["step"]) for row in rows if row["kind"] == "step"]
    assert [entry for entry in written if entry[0] == "loss"] == logged
    for key in ("val_top1_error", "ema_val_top1_error", "ema_val_loss"):
        assert (key, rows[-1][key], 4) in written
    longer = settings("none", tmp_path, data, log_tensorboard=True, epochs=2)
    train(longer, resume="auto", allow_changes=True)
    assert firsts == [1, 5]
    assert written.count("closed") == 2
    assert written[-1] == "closed"


def test_scalars_go_to_wandb_on_request(quick, data, tmp_path):
    """Against a module that records the calls of wandb's interface."""
    started, logged = [], []

    class Run:
        def log(self, row, step):
            logged.append((step, row))

        def finish(self):
            logged.append("finished")

    def init(**given):
        started.append(given)
        return Run()

    with quick.context() as patch:
        patch.setitem(sys.modules, "wandb", None)
        with pytest.raises(InputError, match=r"`log_wandb` needs wandb: pip install .*\[wandb\]"):
            train(settings("none", tmp_path / "without", data, log_wandb=True))
        patch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **given: 1 / 0))
        with pytest.raises(InputError, match=r"cannot start a run \(division by zero\): log in with `wandb login`"):
            train(settings("none", tmp_path / "without", data, log_wandb=True))
    assert not (tmp_path / "without").exists()
    quick.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    folder = train(settings("none", tmp_path, data, log_wandb=True))
    rows = runs.read_rows(folder / "log.jsonl")
    assert [step for step, _ in logged[:-1]] == [1, 2, 3, 4]
    assert [row["loss"] for _, row in logged[:-1]] == [row["loss"] for row in rows if row["kind"] == "step"]
    assert logged[-2][1]["ema_val_top1_error"] == rows[-1]["ema_val_top1_error"]
    train(settings("none", tmp_path, data, log_wandb=True, epochs=2), resume="auto", allow_changes=True)
    assert [given["id"] for given in started] == [(folder / "wandb-id").read_text().strip()] * 2
    assert (started[0]["name"], started[0]["config"]["epochs"], started[0]["project"]) == ("run", 1, "fastreg")
    assert logged.count("finished") == 2
    assert logged[-2][0] == 8


def test_the_average_moves_every_few_steps(data):
    """Against the definition: the average after the updates of steps 3 and 6 only."""
    train_step = make(data, model_ema_decay=0.5, model_ema_every=3)
    weight = next(iter(train_step.model.parameters()))
    average = weight.detach().clone()
    for step in range(7):
        train_step.forward_backward(batch(step), step, 0, 16)
        train_step.update(step, 12)
        if step in (2, 5):
            average.lerp_(weight.detach(), 0.5)
    torch.testing.assert_close(next(iter(train_step.ema.parameters())), average)


def test_best_and_last_epoch_are_kept_and_reported_and_selected_by_the_average(quick, data, tmp_path, messages):
    """Errors by epoch of the weights and of their average, which is the best in another one."""
    errors = iter([10.0, 40.0, 20.0, 30.0, 5.0, 35.0])
    quick.setattr(loop, "validate", lambda *given: {"val_top1_error": next(errors), "val_loss": 1.0})
    folder = train(settings("none", tmp_path, data, epochs=3))
    result = "best top-1 error of the averaged weights 30.00 % (epoch 2), last 35.00 %"
    assert f"done: {result}, in {folder}" in messages
    printed = [line.partition(", ")[2] for line in messages if line.startswith("epoch ")]
    pairs = ((10, 40), (20, 30), (5, 35))
    assert printed == [f"top-1 error {a}.00 % of the model, {b}.00 % of its averaged weights" for a, b in pairs]
    best, last = (runs.load_checkpoint(folder / f"{name}.pt") for name in ("best", "last"))
    assert (best["epoch"], best["step"], last["epoch"], last["step"]) == (1, 8, 2, 12)
    assert (best["weights"], best["val_top1_error"], best["ema_val_top1_error"]) == ("average", 20, 30)
    assert any(not torch.equal(value, last["ema"][key]) for key, value in best["model"].items())
    with open(folder / "epochs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "4"), ("1", "8"), ("2", "12")]
    assert [float(row["ema_val_top1_error"]) for row in rows] == [40, 30, 35]
    train(settings("none", tmp_path, data, epochs=3), resume="auto")
    assert messages[-1] == f"{folder} is complete: 3 epochs, {result}"


@pytest.mark.parametrize(("reg", "message"), [("ood_gan", "fastreg train gan"), ("ood_svhn", "svhn")])
def test_missing_data_of_a_method_is_an_error_before_there_is_a_folder(reg, message, quick, data, tmp_path):
    quick.chdir(tmp_path)
    quick.delenv("FASTREG_DATA")
    with pytest.raises(InputError, match=message):
        train(settings(reg, tmp_path, data, data_dir=str(data / "cifar100"), reg_args={}))
    assert not list(tmp_path.iterdir())


def test_without_an_average_one_error_is_printed_and_best_has_the_models_weights(data, tmp_path, messages):
    folder = train(settings("none", tmp_path, data, model_ema_decay=None))
    best, last = (runs.load_checkpoint(folder / f"{name}.pt") for name in ("best", "last"))
    assert best["weights"] == "model"
    assert all(value.is_contiguous() for value in best["model"].values())
    assert "ema_val_top1_error" not in best
    assert all(torch.equal(value, last["model"][key]) for key, value in best["model"].items())
    error = f"top-1 error {best['val_top1_error']:.2f} %"
    assert any(line.startswith("epoch 1: loss ") and line.endswith(f", {error}") for line in messages)


def test_the_average_warms_up(data):
    """Against the definition, written out for one weight."""
    train_step = make(data, model_ema_decay=0.5, model_ema_warmup=True)
    weight = next(iter(train_step.model.parameters()))
    average = weight.detach().double().clone()
    for step in range(12):
        train_step.forward_backward(batch(step), step, 0, 16)
        train_step.update(step, 12)
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight.detach().double()
    found = next(iter(train_step.ema.parameters())).double()
    torch.testing.assert_close(found, average, rtol=1e-5, atol=1e-7)
    assert (1 + 7) / (10 + 7) < 0.5 < (1 + 9) / (10 + 9)


@pytest.mark.parametrize(
    ("decay", "warmup", "warned"), [(0.9998, False, True), (0.9998, True, False), (0.7, False, False)]
)
def test_an_average_longer_than_the_run_is_a_warning(decay, warmup, warned, data, tmp_path, messages):
    train(settings("none", tmp_path, data, model_ema_decay=decay, model_ema_warmup=warmup))
    message = "(model_ema_decay 0.9998) spans about 5,000 steps, and the run has 4: turn on model_ema_warmup"
    assert any(message in line for line in messages) == warned
