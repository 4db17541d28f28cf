"""Fixtures of the evaluation tests: the tiny classifier and its data, sets on disk, messages, a stand-in for graphs."""

import logging
import pickle

import numpy as np
import pytest

from fastreg.evaluation.corrupt_dataset import corrupt_dataset
from fastreg.log import log
from fastreg.pipelines import open_dataset
from tests.fastreg.evaluation.tiny_classifier import tiny_images, tiny_net
from tests.support import write_tiny_imagenet


@pytest.fixture(scope="module")
def net():
    return tiny_net()


@pytest.fixture(scope="module")
def data():
    return tiny_images()


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory):
    return open_dataset("imagenet", "val", write_tiny_imagenet(tmp_path_factory.mktemp("imagenet"), side=80))


@pytest.fixture(scope="session")
def corrupted_folder(imagenet, tmp_path_factory):
    """Two corruptions of ``imagenet`` in ImageNet-C's layout. Tests do not change it."""
    out = tmp_path_factory.mktemp("written") / "c"
    corrupt_dataset(imagenet, out, corruptions="shot_noise,brightness", size=64)
    return out


@pytest.fixture(scope="session")
def cifar(tmp_path_factory):
    """A cifar-100-python folder of twenty test images, in its published pickle layout."""
    root = tmp_path_factory.mktemp("cifar")
    base = root / "cifar-100-python"
    base.mkdir()
    rng = np.random.default_rng(0)
    names = [f"class{i:02}" for i in range(100)]
    for split, n in (("train", 100), ("test", 20)):
        rows = {
            b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
            b"fine_labels": [int(i) for i in rng.integers(0, 100, n)],
            b"coarse_labels": [0] * n,
            b"filenames": [b"x.png"] * n,
        }
        (base / split).write_bytes(pickle.dumps(rows, protocol=2))
    meta = {b"fine_label_names": [n.encode() for n in names], b"coarse_label_names": [b"all"]}
    (base / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root


@pytest.fixture
def messages():
    """The messages of fastreg's logger, as a list that grows."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record):
            found.append(record.getMessage())

    listener = Listener()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(listener)
    yield found
    log.removeHandler(listener)
    log.setLevel(level)


@pytest.fixture
def fake_capture():
    """``fake_capture(calls)`` captures as a CUDA graph does: the program runs on the memory of its first input and
    writes to that of its first output; ``calls`` gets the shape of each capture."""

    def recording(calls):
        def make(function, x):
            output = function(x)
            calls.append(tuple(x.shape))
            return lambda: output.copy_(function(x)), output

        return make

    return recording
