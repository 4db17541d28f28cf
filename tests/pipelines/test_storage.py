"""The files of a split, found by usual file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastreg.errors import InputError
from fastreg.pipelines import open_dataset, verify, write_beton
from fastreg.pipelines.storage import find_split
from tests.pipelines.shard_files import write_parquet, write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    for k in range(6):
        path = root / "val" / f"c{k % 2}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 9, 3), 40 * k, np.uint8)).save(path)
    return open_dataset("folder", "val", root)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


LISTINGS = {
    "words in names": (
        ("imagenet-train-0.tar", "imagenet-train-1.tar", "imagenet-val-0.tar", "readme.md"),
        ("imagenet-train-0.tar", "imagenet-train-1.tar"),
        ("imagenet-val-0.tar",),
    ),
    "Hugging Face's": (
        ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet", "data/test-0.parquet"),
        ("train-00000-of-00001.parquet",),
        ("validation-00000-of-00001.parquet",),
    ),
    "test in place of val": (("train.parquet", "test.parquet"), ("train.parquet",), ("test.parquet",)),
    "folders of splits": (
        ("train/00.tar", "train/01.tar", "validation/00.tar"),
        ("00.tar", "01.tar"),
        ("00.tar",),
    ),
    "no words": (("a.tar", "b.tar"), ("a.tar", "b.tar"), ("a.tar", "b.tar")),
    "one split alone": (("train.tar",), ("train.tar",), ()),
    "words inside words": (
        ("trainer-val.tar", "evaluation-train.tar"),
        ("evaluation-train.tar",),
        ("trainer-val.tar",),
    ),
    "tar before parquet": (("train.parquet", "train.tar"), ("train.tar",), ()),
    "hidden and ImageNet's": ((".train.tar", "ILSVRC2012_bbox_train.tar", "train-1.tar"), ("train-1.tar",), ()),
}


@pytest.mark.parametrize(("files", "train", "val"), LISTINGS.values(), ids=LISTINGS)
def test_a_split_is_the_files_that_its_word_names(tmp_path, files, train, val):
    root = touch(tmp_path, *files)
    for split, wanted in (("train", train), ("val", val)):
        assert tuple(shard.name for shard in find_split(root, split).files) == wanted


@pytest.mark.parametrize(
    ("pattern", "count", "first"),
    [
        ("{split}-*.tar", 3, 0),
        ("{split}-{0000..0001}.tar", 2, 0),
        ("val-000[12].tar", 2, 2),
        ("*.tar", 3, 0),
        ("val-0001.tar", 1, 2),
        ("", 3, 0),
    ],
)
def test_patterns(folder, tmp_path, pattern, count, first):
    write_shards(folder, tmp_path, shards=3)
    touch(tmp_path, "train-0000.tar")
    source = open_dataset("folder", "val", f"{tmp_path}/{pattern}")
    assert len(source.shards) == count
    assert [source.read(k) for k in range(2)] == [folder.read(first + k) for k in range(2)]


def test_a_pattern_of_class_folders_or_of_beton_files(folder, tmp_path):
    assert open_dataset("folder", "val", f"{folder.root}/{{split}}").fingerprint == folder.fingerprint
    write_beton("folder", folder.root, tmp_path / "my.val.beton", jpeg_prob=0)
    source = open_dataset("folder", "val", f"{tmp_path}/my.{{split}}.beton")
    assert source.labels.tolist() == folder.labels.tolist()


def test_missing_files_are_named(folder, tmp_path):
    write_shards(folder, tmp_path, shards=2)
    with pytest.raises(InputError, match=r"val-0002\.tar and 1 more of .* does not exist"):
        open_dataset("folder", "val", f"{tmp_path}/val-{{0000..0003}}.tar")
    with pytest.raises(InputError, match="stands for no val data"):
        open_dataset("folder", "val", f"{tmp_path}/{{split}}-x*.tar")
    with pytest.raises(InputError, match="stands for no train data"):
        open_dataset("folder", "train", f"{tmp_path}/*.tar")
    with pytest.raises(InputError, match=r"or as shards whose names contain train and val"):
        open_dataset("folder", "train", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        open_dataset("folder", "train", tmp_path / "none.tar")


def test_shards_without_a_word_are_verified_once(folder, tmp_path):
    (path,) = write_parquet(folder, tmp_path, files=1)
    path.rename(tmp_path / "images.parquet")
    assert verify("folder", tmp_path) == {"checked": 6, "broken": []}
    assert verify(str(tmp_path / "images.parquet")) == {"checked": 6, "broken": []}


def test_a_folder_whose_name_looks_like_a_pattern(folder, tmp_path):
    odd = tmp_path / "data [1]" / "{x}"
    write_shards(folder, odd, shards=2)
    assert len(open_dataset("folder", "val", odd)) == 6
