"""A loader has one valid iterator: the next one invalidates it, and never returns its pixels."""

from __future__ import annotations

import gc

import pytest
import torch

from fastreg.errors import InputError
from fastreg.pipelines import make_loader, open_dataset, write_beton


@pytest.fixture(scope="module")
def sources(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    write_beton("imagenet", data / "imagenet", root / "jpeg.val.beton", max_res=200, jpeg_prob=1)
    write_beton("imagenet", data / "imagenet", root / "canvas.val.beton", raw=48)
    jpeg, canvas = (open_dataset("imagenet", "val", root / f"{name}.val.beton") for name in ("jpeg", "canvas"))
    return {"folder": jpeg, "dali": jpeg, "ffcv": jpeg, "canvas": canvas, "resident": canvas}


@pytest.mark.parametrize("name", ["folder", "dali", "ffcv", "canvas", "resident"])
def test_the_next_iterator_ends_the_one_before(sources, name):
    decoder = "folder" if name == "canvas" else name
    with make_loader(sources[name], loader=decoder, train=True, batch_size=8, size=32, seed=7) as loader:
        truth = [(batch.indices, batch.images.clone()) for batch in loader.batches()]

        def is_batch(k, batch):
            return torch.equal(batch.indices, truth[k][0]) and torch.equal(batch.images, truth[k][1])

        first = loader.batches()
        kept = next(first)
        second = loader.batches(5 * 8)
        assert all(is_batch(k, batch) for k, batch in enumerate(second, 5))
        assert is_batch(0, kept)
        with pytest.raises(InputError, match="one iterator at a time"):
            next(first)
        third = loader.batches()
        next(third)
        del first, second, third
        gc.collect()  # what is dropped in the middle leaves nothing behind
        assert is_batch(9, next(loader.batches(9 * 8)))


@pytest.mark.parametrize("name", ["folder", "dali", "ffcv", "canvas"])
def test_closing_a_loader_ends_its_iterator_with_one_sentence(sources, name):
    decoder = "folder" if name == "canvas" else name
    loader = make_loader(sources[name], loader=decoder, train=True, batch_size=8, size=32)
    batches = loader.batches()
    wanted = next(batches).images.clone()
    loader.close()
    with pytest.raises(InputError, match="no longer valid: the loader was closed"):
        next(batches)
    assert torch.equal(next(loader.batches()).images, wanted)
    loader.close()
