"""Every reader on files with a few bytes changed, fixed seeds: read, or refused in one sentence."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import scipy.io
from PIL import Image

from fastreg.errors import InputError
from fastreg.pipelines import open_dataset, write_beton
from fastreg.pipelines.beton import FIELD, HEADER, SAMPLE
from fastreg.pipelines.cifar_pickle import load_pickle
from fastreg.pipelines.image import ERRORS, header, pixels
from fastreg.pipelines.matlab import parse_mat
from fastreg.pipelines.npy import open_npy


@pytest.fixture(scope="module")
def beton(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("beton") / "val.beton"
    write_beton("imagenet", data / "imagenet", path, raw=16)
    return path


FIRST = HEADER.itemsize + 2 * FIELD.itemsize  # where the rows begin


def table(content: bytes) -> int:
    return int(np.frombuffer(content, HEADER, 1)["allocation"][0])


def spoil(rng: np.random.Generator, content: bytes, among: int | None = None) -> bytes:
    """A byte set, a bit turned, some bytes left out or the end cut off, within the first ``among`` bytes."""
    data = bytearray(content)
    at = int(rng.integers(0, min(among or len(data), len(data))))
    match rng.integers(4):
        case 0:
            data[at] = int(rng.integers(256))
        case 1:
            data[at] ^= 1 << int(rng.integers(8))
        case 2:
            del data[at : at + int(rng.integers(1, 16))]
        case 3:
            del data[at:]
    return bytes(data)


def test_fuzz_pickles(tmp_path):
    path = tmp_path / "train"
    for protocol in (2, 5):
        whole = pickle.dumps({"data": np.arange(24, dtype=np.uint8), "fine_labels": [0, 1], "f": [b"x"] * 3}, protocol)
        rng, refused = np.random.default_rng(1), []
        for _ in range(800):
            path.write_bytes(spoil(rng, whole))
            try:
                content = load_pickle(path)
            except InputError as error:
                refused.append(str(error))
            else:
                arrays = [value for value in content.values() if isinstance(value, np.ndarray)]
                assert all(array.dtype.kind in "biu" for array in arrays)
        assert len(refused) > 160
        assert all("train" in sentence and "\n" not in sentence for sentence in refused)


def test_fuzz_matlab_files():
    buffer = io.BytesIO()
    rows = np.array([(1, "n01", 2.5)], dtype=[("id", "O"), ("wnid", "O"), ("x", "O")])
    scipy.io.savemat(buffer, {"synsets": rows, "few": np.array(["a", 3], dtype=object), "y": np.arange(9)})
    rng, refused = np.random.default_rng(2), []
    for _ in range(3000):
        try:
            parse_mat(spoil(rng, buffer.getvalue()), "x.mat")
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 500
    assert all("x.mat" in sentence for sentence in refused)


def test_fuzz_beton_tables(beton, tmp_path):
    content, path = beton.read_bytes(), tmp_path / "val.beton"
    rng, refused, opened = np.random.default_rng(3), [], 0
    for k in range(300):
        if k % 2:  # the header, the fields and the rows; sometimes the tables at the end
            path.write_bytes(spoil(rng, content, FIRST + 120 * SAMPLE.itemsize))
        else:
            end = table(content) - 4000
            path.write_bytes(content[:end] + spoil(rng, content[end:]))
        try:
            source = open_dataset("folder", "val", path)
        except InputError as error:
            refused.append(str(error))
            continue
        opened += 1
        for index in (0, len(source) - 1):
            try:
                assert len(source.read(index)) > 0
            except (OSError, ValueError) as error:
                refused.append(f"{path.name} {error}")
    assert opened > 10
    assert len(refused) > 50
    assert all("val.beton" in sentence for sentence in refused)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"])
def test_fuzz_images(form):
    rng, refused = np.random.default_rng(4), 0
    image = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).resize((60, 40))
    buffer = io.BytesIO()
    image.save(buffer, form)
    for _ in range(400):
        data = spoil(rng, buffer.getvalue())
        try:
            array = pixels(data, header(data).plain)
        except ERRORS:
            refused += 1
        else:
            assert array.dtype == np.uint8
            assert array.ndim == 3
    assert refused > 10


def test_fuzz_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    whole, rng, refused = (tmp_path / "x.npy").read_bytes(), np.random.default_rng(5), 0
    for _ in range(1000):
        (tmp_path / "x.npy").write_bytes(spoil(rng, whole, 130))
        try:
            array = open_npy(tmp_path / "x.npy")
            assert array.dtype.kind in "biuf"
        except InputError:
            refused += 1
    assert refused > 500
