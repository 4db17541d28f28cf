"""Peers of ``auto_augment``, run as the benchmark sets them up, and the rows that it makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers.auto_augment import LAWS, auto_augment_peers
from fastreg.benchmarks.record import OURS
from fastreg.benchmarks.suites import kernels

CPU = torch.device("cpu")
SETS = [torch.randint(0, 256, (3, 24, 24, 3), dtype=torch.uint8) for _ in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("peer", auto_augment_peers(LAWS[0], CPU))
def test_every_peer_changes_the_images_of_its_buffer_set(law, peer):
    try:
        call = auto_augment_peers(law, CPU)[peer](SETS)
    except ImportError as error:
        pytest.skip(str(error))
    for _ in range(5):  # a draw may leave all three images as they are
        for i, images in enumerate(SETS):
            out = call(i)
            out = np.stack([np.asarray(x) for x in out[0]]) if peer == "DALI" else out.permute(0, 2, 3, 1).numpy()
            assert out.shape == images.shape
            scale = 255 if peer == "kornia loop" else 1
            if not np.allclose(out * scale, images.numpy(), atol=0.5):
                return
    pytest.fail("no image changed")


def test_rows_have_the_bytes_of_every_slot(monkeypatch):
    monkeypatch.setattr(kernels, "auto_augment_peers", lambda law, device: {})
    options = BenchmarkOptions(CPU, scope="quick")
    for law, slots in zip(LAWS, (1, 2)):
        (row,) = kernels._auto_augment(options, law, 2, 16)
        assert (row.name, row.variant, row.images) == (f"auto_augment {law}", OURS, 2)
        assert row.bytes == slots * 2 * (2 * 16 * 16 * 3)
