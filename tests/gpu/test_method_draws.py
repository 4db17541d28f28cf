"""A method's draw for labels on a GPU."""

from __future__ import annotations

import torch

from fastreg import methods


def test_draws_arrive_on_the_device_unchanged():
    labels, indices = torch.arange(100) % 10, torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:100]
    method = methods.create("mixup+cutmix+gaussian_noise", scope="sample")
    for ours, theirs in zip(method.draw(labels.cuda(), indices, 1), method.draw(labels, indices, 1), strict=True):
        fields = [(a, b) for a, b in zip(ours, theirs, strict=True) if b is not None]
        assert fields
        assert all(a.is_cuda and torch.equal(a.cpu(), b) for a, b in fields)
