"""Sets that stay in memory, and sizes that change between epochs."""

from __future__ import annotations

import pytest
import torch

from fastreg.errors import InputError
from fastreg.pipelines import make_loader, open_dataset, write_beton


@pytest.mark.parametrize("stored", ["canvases", "files"])
@pytest.mark.parametrize("world", [1, 3])
def test_resident_evaluation_is_the_folder_decoders_and_decodes_once(
    data, folder, tmp_path, monkeypatch, stored, world
):
    source = folder
    if stored == "canvases":
        write_beton("imagenet", data / "imagenet", tmp_path / "val.beton", raw=96)
        source = open_dataset("imagenet", "val", tmp_path / "val.beton")
    reads = []
    read = type(source).read
    monkeypatch.setattr(type(source), "read", lambda self, index: (reads.append(index), read(self, index))[1])
    kw = {"train": False, "batch_size": 16, "world": world, "rank": world - 1}
    with make_loader(source, loader="resident", size=64, **kw) as a, make_loader(source, size=64, **kw) as b:
        for size, resize in ((64, 256 / 224), (48, 256 / 224), (48, 1.0)):
            a.size = b.size = size
            a.resize = b.resize = resize
            wanted = list(b.batches())
            reads.clear()
            for _ in range(2):
                for x, y in zip(a.batches(), wanted, strict=True):
                    assert torch.equal(x.images, y.images)
                    assert torch.equal(x.indices, y.indices)
                    assert x.crop is None
            assert sorted(reads) == sorted(torch.cat([y.indices for y in wanted]).tolist())  # each once, its own share
    with make_loader(source, loader="synthetic", train=False, batch_size=16, size=48) as loader:
        assert next(loader.batches()).images.shape == (16, 48, 48, 3)


def test_a_set_that_does_not_fit_into_memory_is_one_sentence(folder):
    with (
        make_loader(folder, loader="resident", train=False, batch_size=120, size=1 << 20) as loader,
        pytest.raises(InputError, match=r"'resident' needs 395,824\.2 GB of the memory of cpu .* use another `loader`"),
    ):
        next(loader.batches())


@pytest.mark.parametrize("name", ["folder", "dali", "ffcv"])
def test_size_and_resize_change_between_epochs_without_a_new_loader(mixed, name):
    source = open_dataset("imagenet", "val", mixed)
    kw = {"loader": name, "train": False, "batch_size": 30}
    with make_loader(source, size=64, **kw) as loader, make_loader(source, size=32, resize=1.0, **kw) as other:
        next(loader.batches())
        loader.size, loader.resize = 32, 1.0
        assert torch.equal(next(loader.batches()).images, next(other.batches()).images)
