from __future__ import annotations

import pytest
import torch

from fastreg.pipelines import write_sample


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
