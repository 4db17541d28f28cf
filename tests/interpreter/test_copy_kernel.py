"""The copy kernel that the benchmarks measure bandwidth with."""

from __future__ import annotations

import torch

from fastreg.benchmarks.peers.copy_kernel import copy


def test_copies_and_adds():
    a = torch.arange(5000, dtype=torch.int32).remainder(120).to(torch.uint8).view(1, 50, 100, 1)
    assert torch.equal(copy([a], torch.float32)(), a.flatten().float())
    assert torch.equal(copy([a, a], torch.float16)(), 2 * a.flatten().half())
    x = torch.randn(2, 3, 9, 7).contiguous(memory_format=torch.channels_last)
    assert torch.equal(copy([x, x], torch.float32)(), 2 * x.permute(0, 2, 3, 1).flatten())
