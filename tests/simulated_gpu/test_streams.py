"""The simulation notices what a GPU would not forgive; asynchronous reading of losses and graph capture under it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastreg import cuda_graphs
from fastreg.distributed import World
from fastreg.training.loss_log import LossBuffer
from tests.simulated_gpu.gpu import DEVICE, GpuError


def test_work_on_another_stream_is_ordered_by_an_event(gpu):
    side = torch.cuda.Stream()
    x = torch.zeros(4, device=DEVICE)
    with torch.cuda.stream(side):
        with pytest.raises(GpuError, match="sum on stream 1 is not ordered after zeros on 0"):
            x.sum()
        side.wait_stream(torch.cuda.current_stream())  # inside the block this is the side stream itself
        with pytest.raises(GpuError, match="is not ordered"):
            x.sum()
        side.wait_stream(torch.cuda.default_stream())
        x.sum()
    with pytest.raises(GpuError, match="add_ on stream 0 overwrites what stream 1 may still read"):
        x.add_(1)
    done = torch.cuda.Event()
    done.record(side)
    torch.cuda.current_stream().wait_event(done)
    x.add_(1)


@pytest.mark.parametrize("recorded", [False, True])
def test_memory_of_another_stream_is_recorded_before_it_is_released(recorded, gpu):
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        x = torch.zeros(4, device=DEVICE)
    torch.cuda.current_stream().wait_stream(side)
    y = x.sum()
    if recorded:
        x.record_stream(torch.cuda.current_stream())
    del x
    if recorded:
        gpu.sweep()
    else:
        with pytest.raises(GpuError, match="record_stream is missing"):
            gpu.sweep()
    assert y.device == DEVICE


def test_host_memory_is_read_after_its_copy(gpu):
    host = torch.empty(4, pin_memory=True)
    host.copy_(torch.zeros(4, device=DEVICE), non_blocking=True)
    with pytest.raises(GpuError, match="tolist of host memory whose copy may still run"):
        host.tolist()
    torch.cuda.current_stream().synchronize()
    host.tolist()
    assert gpu.waits == ["test_streams.py:test_host_memory_is_read_after_its_copy: stream.synchronize"]


@pytest.mark.parametrize(
    "wait",
    [lambda x: x.sum().item(), lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: x.cpu(), lambda x: x.tolist()],
)
def test_waits_are_recorded_and_refused_in_a_capture(wait, gpu):
    x = torch.zeros(4, device=DEVICE)
    gpu.capturing = True
    with pytest.raises(GpuError, match="operation not permitted when stream is capturing"):
        wait(x)


def test_host_and_device_memory_do_not_meet(gpu):
    with pytest.raises(GpuError, match="add works on memory of the host and of the device"):
        torch.zeros(4, device=DEVICE) + torch.ones(4)


def test_losses_are_read_one_interval_later(gpu):
    losses = LossBuffer(2, World(0, 1, DEVICE), Path("last.pt"))
    rows = []
    for step in range(6):
        losses.add(torch.zeros((), device=DEVICE))
        losses.end_step({"step": step})
        if losses.full:
            rows.append([row["step"] for row in losses.flush()])
    assert rows == [[], [0, 1], [2, 3]]
    assert gpu.waits == ["loss_log.py:received: event.synchronize"] * 2  # for copies that ended an interval ago
    assert gpu.pageable == []
    assert [row["step"] for row in losses.flush(wait=True)] == [4, 5]


def test_a_capture_is_ordered_with_the_stream_around_it(gpu):
    x = torch.zeros(4, device=DEVICE)
    replay, out = cuda_graphs.capture(lambda x: x * 2, x)
    assert gpu.current == 0
    assert not gpu.capturing
    x.add_(1)
    replay()
    assert (out + 1).device == DEVICE


def test_a_call_that_waits_cannot_be_captured(gpu, monkeypatch):
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, lambda device, pool: None, raising=False)
    with pytest.raises(GpuError, match="not permitted when stream is capturing: _local_scalar_dense"):
        cuda_graphs.capture(lambda x: x * x.sum().item(), torch.zeros(4, device=DEVICE))
    assert gpu.current == 0
    assert not gpu.capturing
