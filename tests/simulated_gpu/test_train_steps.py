"""Every method's training step on the simulated GPU, in every way in which a run can be set up."""

from __future__ import annotations

import contextlib
from functools import partial
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn

from fastreg import methods, models
from fastreg.distributed import World
from fastreg.kernels import Batch
from fastreg.models import pyramidnet
from fastreg.models.wgan import Generator
from fastreg.training.train_step import TrainStep
from tests.fastreg.training import tiny_runs as tiny
from tests.simulated_gpu.gpu import DEVICE

REGS = [*methods.METHODS, "mixup+cutmix", "cutmix+shakedrop+adversarial", "mixup+alp", "mixup+ood_svhn"]
OOD = {"ood_svhn": lambda: torch.zeros(5, 32, 32, 3, dtype=torch.uint8), "ood_gan": lambda: Generator(6, 8)}
SETTINGS = {
    "bf16": {},
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "accumulated": {"grad_accum_steps": 2},
    "averaged": {"model_ema_decay": 0.9},
    "contiguous": {"channels_last": False},
    "adam": {"opt": "adam", "norm_weight_decay": False, "clip_grad": 1.0},
    "sample": {"scope": "sample", "ls": 0.0},
    "compiled": {"torchcompile": "reduce-overhead", "grad_accum_steps": 2},
    "two ranks": {"grad_accum_steps": 2},
    "colors": {"color_jitter": 0.4, "lighting": 0.1},
    "resumed": {"precision": "fp16", "model_ema_decay": 0.9},
}
# the one wait that PyTorch itself makes in a step: GradScaler reads whether a gradient overflowed
SCALER = "train_step.py:update: _local_scalar_dense"
KINDS = ["none", "mixup", "cutmix", "alp", "shakedrop", "gaussian_noise", "cutout", "mixup+cutmix", "augmix"]
KINDS += ["mixup+cutmix", "rand_augment", "mixup+ood_svhn"]
SOME = {("adversarial", "bf16"), ("mixup+cutmix", "bf16"), *zip(KINDS, SETTINGS, strict=True)}
EVERY = [
    pytest.param(reg, name, id=f"{reg}-{name}", marks=() if (reg, name) in SOME else pytest.mark.slow)
    for reg in REGS
    for name in SETTINGS
]


def make_batch(step: int) -> Batch:
    images = torch.zeros(4, 40, 40, 3, dtype=torch.uint8, device=DEVICE)
    labels = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    return Batch(images, labels, (torch.arange(4) + 4 * step).pin_memory(), torch.zeros(4, 4, device=DEVICE))


def all_reduced(state, bucket):
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


@contextlib.contextmanager
def ranks(patch, size: int):
    """A world of ``size`` ranks, whose collective operations return their input."""
    if size == 1:
        yield World(0, 1, DEVICE)
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    ddp = nn.parallel.DistributedDataParallel
    honest = ddp.__init__

    def init(self, *given, **options):
        honest(self, *given, **options)
        self.register_comm_hook(None, all_reduced)  # the fake group's own future has no value
        self.logger = mock.Mock()  # its timer reads CUDA events in C++

    patch.setattr(ddp, "__init__", init)
    # compares the values of parameters between ranks
    patch.setattr(nn.parallel.distributed, "_verify_param_shape_across_processes", lambda *given, **options: None)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        yield World(0, size, DEVICE)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(("reg", "name"), EVERY)
def test_a_step(reg, name, gpu, quick, data, tmp_path):
    quick.setitem(models.MODELS, "tiny", partial(pyramidnet.PyramidNet, 8, 12, False))
    quick.setattr(torch, "compile", lambda net, **options: net)
    images = next((make() for key, make in OOD.items() if key in reg), None)
    own = {} if images is None else {"ood": images}
    more = {"color_jitter": 0.0, "lighting": 0.0, "model_ema_decay": None, "precision": "auto", **SETTINGS[name]}
    config = tiny.settings(reg, tmp_path, data, reg_args=own, device="cuda", **more)
    with ranks(quick, 2 if name == "two ranks" else 1) as world:
        step = TrainStep(config, 4, *tiny.STATISTICS, world)
        losses = []
        warm_up = 2 if world.size > 1 else 1  # DDP orders its buckets after the first step, others move data
        for number in range(warm_up + 1):
            if number == 1 and name == "resumed":
                step.load(step.state())
            gpu.waits.clear()
            gpu.pageable.clear()
            for micro in range(config.grad_accum_steps):
                losses.append(step.forward_backward(make_batch(number), number, micro, 16))
            step.update(number, 8)
    assert set(gpu.waits) <= ({SCALER} if step.precision == "fp16" else set())
    assert gpu.pageable == []
    assert all(loss.device == DEVICE for loss in losses)
    assert all(p.device == DEVICE for p in step.model.parameters())
