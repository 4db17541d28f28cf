"""Timing of calls on a GPU."""

from __future__ import annotations

import torch

from fastreg.benchmarks.timing import buffer_sets, measure


def test_buffers_exceed_the_cache_and_calls_are_captured():
    device = torch.device("cuda")
    l2 = torch.cuda.get_device_properties(device).L2_cache_size
    assert buffer_sets(device, 1 << 20) * (1 << 20) > 3 * l2 or buffer_sets(device, 1 << 20) == 64
    x = torch.randn(1 << 22, device=device)
    timings = measure({"add": lambda i: x + 1, "sync": lambda i: (x + 1).sum().item()}, device, seconds=0.1)
    assert (timings["add"].how, timings["sync"].how) == ("graph", "events")
    assert timings["add"].us < timings["sync"].us
