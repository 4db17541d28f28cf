"""Launches of a training step beside its model: as many for a deep model as for a shallow one."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastreg import models
from fastreg.kernels import Batch
from fastreg.models import pyramidnet
from fastreg.training import color_jitter
from fastreg.training.train_step import TrainStep
from tests.fastreg.training import tiny_runs as tiny


class Operations(TorchDispatchMode):
    """Counts PyTorch's operations by name: on a GPU each is a launch, or a few for foreach operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.floats = 0  # elements of the largest floating-point result

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count[func.overloadpacket.__name__] += 1
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
            self.floats = max(self.floats, result.numel())
        return result


def made(data, tmp_path, depth: int, **more) -> TrainStep:
    """A step of a model with ``depth`` blocks that has run once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", partial(pyramidnet.PyramidNet, depth, 12, False))
        step = TrainStep(tiny.settings("none", tmp_path, data, **more), 4, *tiny.STATISTICS, tiny.ALONE)
    tiny.advance(step, range(1))
    return step


@pytest.mark.usefixtures("quick")
def test_the_average_takes_one_operation_for_each_kind_of_tensor(data, tmp_path):
    counts = []
    for depth in (8, 20):
        steps = [made(data, tmp_path, depth, model_ema_decay=decay) for decay in (0.9, None)]
        seen = []
        for step in steps:
            with Operations() as operations:
                step.update(1, 8)
            seen.append(operations.count)
        counts.append(seen[0] - seen[1])
    assert counts[0] == counts[1] == Counter({"_foreach_lerp_": 1, "_foreach_copy_": 1})


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("micro", [0, 1])
def test_accumulation_takes_as_many_operations_for_any_depth(data, tmp_path, micro):
    counts = []
    for depth in (8, 20):
        step = made(data, tmp_path, depth, grad_accum_steps=2)
        with Operations() as operations:
            step.batchnorm.start(micro)
            step.batchnorm.end(micro)
        counts.append(operations.count)
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) == (3 if micro == 0 else 5)


def test_color_jitter_on_stored_images_adds_one_cast_and_no_float32_tensor_of_the_batch(monkeypatch):
    """``augment`` and the jitter itself are one and two kernels on a GPU, and are replaced here."""
    cropped = torch.randint(0, 256, (8, 16, 16, 3), generator=torch.Generator().manual_seed(0))

    def augment(images, plan, *, mean, std, dtype, size):
        assert dtype == torch.float16
        assert (mean, std, size) == ((0.0,) * 3, (1 / 255,) * 3, 16)
        return launched

    launched = cropped.half().permute(0, 3, 1, 2)
    images = torch.zeros(8, 40, 40, 3, dtype=torch.uint8)
    batch = Batch(images, torch.arange(8), torch.arange(8), torch.zeros(8, 4))
    monkeypatch.setattr(color_jitter, "augment", augment)
    monkeypatch.setattr(color_jitter, "color_jitter", lambda images, **factors: images)
    with Operations() as operations:
        jittered = color_jitter.make_color_jitter(jitter=0.4, lighting=0.1, seed=0)(batch, 0, 16)
    assert jittered.images.dtype == torch.uint8
    assert jittered.images.is_contiguous()
    assert torch.equal(jittered.images, cropped.byte())
    assert operations.count["_to_copy"] == 1
    assert operations.floats <= 3 * 8  # a few factors per image
