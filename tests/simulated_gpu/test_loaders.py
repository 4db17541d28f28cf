"""Loaders on the simulated GPU: copies are ordered, buffers are not reused early, and the host does not wait."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg.pipelines import make_loader, open_dataset, write_beton
from fastreg.pipelines.staging import SLOTS, Staging
from tests.simulated_gpu import dali
from tests.simulated_gpu.gpu import DEVICE, GpuError
from tests.support import write_tiny_imagenet

# a pinned buffer is handed out again after SLOTS batches, when its copy has finished long ago
REUSE = "staging.py:buffer: event.synchronize"


@pytest.fixture(scope="module")
def sets(tmp_path_factory, data):
    """A folder of images, stored canvases and small arrays."""
    root = write_tiny_imagenet(tmp_path_factory.mktemp("images"), train=40)
    write_beton("imagenet", root, root / "canvases" / "train.beton", split="train", raw=40)
    return {
        "images": open_dataset("imagenet", "train", root),
        "canvases": open_dataset("imagenet", "train", root / "canvases"),
        "arrays": open_dataset("cifar100", "train", data / "cifar100"),
    }


def consume(loader, epochs: int = 2) -> int:
    """Use each batch as a training step does; the number of batches."""
    count = 0
    for epoch in range(epochs):
        for batch in loader.batches(epoch * loader.steps_per_epoch * loader.global_batch):
            assert {batch.images.device, batch.labels.device} == {DEVICE}
            assert batch.indices.device.type == "cpu"
            assert batch.indices.is_pinned()
            batch.images.float().sum()
            batch.labels.sum()
            count += 1
    return count


@pytest.mark.parametrize("train", [True, False], ids=["train", "evaluate"])
@pytest.mark.parametrize(
    ("name", "form"),
    [
        *(("folder", form) for form in ("images", "canvases", "arrays")),
        *(("resident", form) for form in ("arrays", "canvases")),
        *(("dali", form) for form in ("images", "canvases")),
        ("synthetic", "images"),
    ],
)
def test_a_loader(name, form, train, sets, gpu, monkeypatch):
    if name == "dali":
        dali.install(monkeypatch, gpu)
    honest = Staging.buffer

    def buffer(self, shape):
        memory = honest(self, shape)
        assert gpu.host_may_use(memory), "a buffer is filled while its copy may still run"
        return memory

    monkeypatch.setattr(Staging, "buffer", buffer)
    options = {"train": train, "batch_size": 8, "size": 32, "device": "cuda", "workers": 2}
    with make_loader(sets[form], loader=name, **options) as loader:
        consume(loader, 1)  # fills what stays: the resident set, DALI's queue
        gpu.waits.clear()
        gpu.pageable.clear()
        assert consume(loader) >= 2 * (len(sets[form]) // 8)
    assert set(gpu.waits) <= {REUSE}
    assert gpu.pageable == []


def test_dali_is_told_the_stream_of_the_consumer(sets, gpu, monkeypatch):
    """Otherwise its memory would be freed in the order of its own stream."""
    made = dali.install(monkeypatch, gpu)
    share = dali.Pipeline.share_outputs

    def without_stream(self, cuda_stream=None):
        (out,) = share(self, cuda_stream)
        gpu.memory[out.images.untyped_storage()._cdata].recorded.clear()
        return (out,)

    monkeypatch.setattr(dali.Pipeline, "share_outputs", without_stream)
    options = {"train": True, "batch_size": 8, "size": 32, "device": "cuda"}
    with (
        make_loader(sets["images"], loader="dali", **options) as loader,
        pytest.raises(GpuError, match="record_stream is missing"),
    ):
        consume(loader)
    assert made


def test_a_buffer_waits_for_its_copy_only(gpu):
    staging = Staging(DEVICE)
    labels = np.zeros(4, np.int64)
    seen = []
    for n in range(2 * SLOTS):
        buffer = staging.buffer((4, 8, 8, 3))
        seen.append(buffer.data_ptr())
        batch = staging.batch(buffer, labels, labels, None)
        batch.images.float()  # the consumer's work is later than the copy
        assert not gpu.host_may_use(buffer)
        assert gpu.waits == [REUSE] * max(0, n + 1 - SLOTS)
    assert seen[:SLOTS] == seen[SLOTS:]
    assert not torch.cuda.current_stream().query()  # the host has waited for copies, not for the consumer
