"""Every method's training step on the simulated GPU, in every way in which a run can be set up.

Launches, operations and allocations are counted: two steps in a steady state do the same, and keep no memory.
"""

from __future__ import annotations

import contextlib
from collections import Counter
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
# Triton's launches of a micro-batch: one of augment and three of the loss, unless named here
LAUNCHES = {
    "adversarial": 8, "alp": 8, "ood_svhn": 7, "ood_gan": 7, "trivial_augment": 7, "rand_augment": 9,
    "auto_augment_policy": 9, "augmix": 11, "cutmix+shakedrop+adversarial": 8, "mixup+alp": 8, "mixup+ood_svhn": 7,
}  # fmt: skip
COLORS = 3  # the crop and two of the color jitter
# PyTorch's operations of a step of nine blocks in bf16, at most; plain steps have these
OPERATIONS = {
    "mixup": 1, "cutmix": 1, "mixup+cutmix": 1, "gaussian_noise": 1, "shakedrop": 33, "stochastic_depth": 22,
    "adversarial": 106, "alp": 119, "ood_svhn": 25, "ood_gan": 100, "trivial_augment": 4, "rand_augment": 5,
    "auto_augment_policy": 5, "augmix": 48, "cutmix+shakedrop+adversarial": 146, "mixup+alp": 120, "mixup+ood_svhn": 26,
}  # fmt: skip
PLAIN = 133
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


def count(gpu) -> tuple[Counter, int, list]:
    """Operations, allocations and launches until now."""
    return Counter(gpu.operations), gpu.allocations, list(gpu.launches)


def held(gpu) -> int:
    """Storages of the device that are alive."""
    return sum(not m.alive.expired() for key, m in gpu.memory.items() if key not in gpu.pinned)


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
        micros = config.grad_accum_steps
        coming = [[make_batch(number) for _ in range(micros)] for number in range(warm_up + 3)]
        step.expect([batch.keys.numpy() for batches in coming for batch in batches], 0, 0, 16)
        steady, draws = [], []  # the first step copies the draws of all
        for number, batches in enumerate(coming[:-1]):  # the last would end the memory of the draws
            if number == 1 and name == "resumed":
                step.load(step.state())
            gpu.waits.clear()
            gpu.pageable.clear()
            operations, allocations, launches = count(gpu)
            for micro, batch in enumerate(batches):
                losses.append(step.forward_backward(batch, number, micro, 16))
            step.update(number, 8)
            draws += [entry for entry in gpu.pageable if entry.startswith("base.py:ship_batches")]
            losses[-micros:] = [loss.device for loss in losses[-micros:]]
            if number >= warm_up:
                done, allocated, launched = count(gpu)
                steady.append((done - operations, allocated - allocations, launched[len(launches) :], held(gpu)))
    assert steady[0] == steady[1]
    operations, _, launches, _ = steady[0]
    assert len(launches) == micros * (LAUNCHES.get(reg, 4) + (COLORS if name == "colors" else 0))
    if name == "bf16":
        assert sum(operations.values()) <= PLAIN + OPERATIONS.get(reg, 0)
    assert set(gpu.waits) <= ({SCALER} if step.precision == "fp16" else set())
    assert gpu.pageable == draws == []
    assert set(losses) == {DEVICE}
    assert all(p.device == DEVICE for p in step.model.parameters())
