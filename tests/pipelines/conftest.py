from __future__ import annotations

import pytest
import torch

from fastreg.pipelines import open_dataset, write_beton, write_sample


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with both samples, as $FASTREG_DATA would be."""
    root = tmp_path_factory.mktemp("data")
    for name in ("imagenet", "cifar100"):
        write_sample(name, root / name)
    return root


@pytest.fixture(scope="session")
def folder(data):
    return open_dataset("imagenet", "val", data / "imagenet")


@pytest.fixture(scope="session")
def mixed(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("beton") / "val.beton"
    made = write_beton("imagenet", data / "imagenet", path, max_res=300)
    assert made["images"] == 120
    assert made["skipped"] == 0
    return path
