"""Split names, held-out shares, class maps, and validation sets without some classes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastreg.errors import InputError
from fastreg.pipelines import make_loader, open_dataset, write_beton
from fastreg.pipelines.class_map import natural_key
from tests.pipelines.shard_files import write_parquet, write_shards
from tests.support import peer


def write_folders(root: Path, classes: str, images: int) -> Path:
    """``root/<class>/<k>.jpg``, each of another color."""
    for k, name in enumerate(classes.split()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            path = root / name / f"{i}.jpg"
            if not path.exists():
                Image.new("RGB", (12, 10), (20 * k, 5 * i % 256, 90)).save(path)
    return root


def names(source) -> set[str]:
    return {"/".join(source.describe(k).rsplit("/", 2)[-2:]) for k in range(len(source))}


@pytest.fixture
def bare(tmp_path) -> Path:
    return write_folders(tmp_path / "photos", "ant bee cat", 40)


def test_a_held_out_share_is_a_function_of_each_name(bare):
    """Against the definition, written out here."""
    expected = {
        f"{path.parent.name}/{path.name}"
        for path in bare.rglob("*.jpg")
        if int(hashlib.blake2b(f"{path.parent.name}/{path.name}".encode(), digest_size=8).hexdigest(), 16) < 2**64 / 4
    }
    train, val = (open_dataset("folder", split, bare, val_share=0.25) for split in ("train", "val"))
    assert names(val) == expected
    assert len(train) + len(val) == 120
    assert not names(train) & names(val)
    assert (train.split, val.split) == ("train", "val")
    assert train.classes == val.classes == ("ant", "bee", "cat")
    assert train.fingerprint != val.fingerprint


def test_added_images_move_no_image_and_a_larger_share_only_adds(bare):
    before = [names(open_dataset("folder", split, bare, val_share=0.2)) for split in ("train", "val")]
    write_folders(bare, "aardvark ant bee cat", 55)
    after = [names(open_dataset("folder", split, bare, val_share=0.2)) for split in ("train", "val")]
    assert all(then <= now for then, now in zip(before, after))
    assert names(open_dataset("folder", "val", bare, val_share=0.5)) > after[1]


@pytest.mark.parametrize("storage", ["folder", "beton", "tar", "parquet"])
def test_every_storage_can_be_divided_and_read(bare, tmp_path, storage):
    shutil.move(bare, tmp_path / "set" / "train")
    whole = open_dataset("folder", "train", tmp_path / "set")
    where = tmp_path / "set"
    if storage == "beton":
        where = tmp_path / "beton"
        write_beton("folder", tmp_path / "set", where / "train.beton", jpeg_prob=1, quality=0 or None)
    if storage == "tar":
        where = tmp_path / "tar"
        write_shards(whole, where, split="all")
    if storage == "parquet":
        peer("pyarrow")
        where = tmp_path / "parquet"
        write_parquet(whole, where)
    parts = [open_dataset("folder", split, where, val_share=0.25) for split in ("train", "val")]
    assert sum(map(len, parts)) == 120
    assert 10 < len(parts[1]) < 60
    assert {part.form for part in parts} <= {"images", "beton"}
    with make_loader(parts[0], train=True, batch_size=8, size=8, workers=1) as loader:
        batch = next(iter(loader.batches()))
    assert batch.labels.tolist() == parts[0].labels[batch.indices].tolist()
    seen = sorted(bytes(part.read(k)) for part in parts for k in range(len(part)))
    if storage != "beton":
        assert seen == sorted(whole.read(k) for k in range(120))


def test_a_share_is_refused_where_it_makes_no_sense(bare, data):
    with pytest.raises(InputError, match=r"has a validation split .*leave out `val_share`"):
        open_dataset("imagenet", "val", data / "imagenet", val_share=0.1)
    with pytest.raises(InputError, match="cifar100 has one"):
        open_dataset("cifar100", "val", data / "cifar100", val_share=0.1)
    for share in (0, 1, -0.5, float("nan")):
        with pytest.raises(InputError, match="give a share between 0 and 1"):
            open_dataset("folder", "val", bare, val_share=share)
    with pytest.raises(InputError, match=r"leaves none for validation"):
        open_dataset("folder", "val", bare, val_share=1e-9)


def test_splits_have_the_names_that_are_given(tmp_path):
    write_folders(tmp_path / "training2", "ant bee", 3)
    write_folders(tmp_path / "holdout", "bee", 2)
    train = open_dataset("folder", "train", tmp_path, split_name="training2")
    assert (len(train), train.classes, train.split) == (6, ("ant", "bee"), "train")
    assert len(open_dataset("folder", "val", tmp_path, split_name="holdout")) == 2
    with pytest.raises(InputError, match=r"has no split 'training'"):
        open_dataset("folder", "train", tmp_path, split_name="training")
    shards = tmp_path / "shards"
    for split, source in (("part1", train), ("part10", train)):
        write_shards(source, shards, shards=2, split=split)
    assert len(open_dataset("folder", "train", shards, split_name="part1").shards) == 2
    assert len(open_dataset("folder", "val", shards / "{split}-*.tar", split_name="part10")) == 6
    with pytest.raises(InputError, match="has no split 'part2'"):
        open_dataset("folder", "val", shards, split_name="part2")


@pytest.fixture
def numbered(tmp_path) -> Path:
    write_folders(tmp_path / "numbered" / "train", "1 2 10 11", 3)
    return tmp_path / "numbered"


def test_class_orders_are_those_of_timm_and_torchvision(numbered):
    natural = peer("timm.utils.misc").natural_key
    words = ["n2", "n10", "N1", "a", "b12c3", "b2c10", "1", "10", "2"]
    assert sorted(words, key=natural_key) == sorted(words, key=natural)
    by_value = open_dataset("folder", "train", numbered, class_map="timm")
    assert by_value.classes == ("1", "2", "10", "11")
    assert {by_value.describe(k).split("/")[-2] for k in np.flatnonzero(by_value.labels == 1)} == {"2"}
    plain, named = (open_dataset("folder", "train", numbered, class_map=m) for m in (None, "torchvision"))
    assert plain.classes == named.classes == ("1", "10", "11", "2")
    assert (plain.labels == named.labels).all()


@pytest.mark.parametrize(
    ("file", "content", "classes"),
    [
        ("map.txt", "11\n2\n1\n10\n", ("11", "2", "1", "10")),
        ("map.txt", "1 0\n2 0\n10 2\n11 3\n", ("1|2", "1", "10", "11")),
        ("map.json", json.dumps({"1": 1, "2": 0, "10": 1, "11": 2, "eel": 5}), ("2", "1|10", "11", "3", "4", "eel")),
        ("map.json", json.dumps(["eel", "1", "2", "10", "11"]), ("eel", "1", "2", "10", "11")),
    ],
)
def test_a_class_map_file_gives_outputs(numbered, tmp_path, file, content, classes):
    (tmp_path / file).write_text(content)
    source = open_dataset("folder", "train", numbered, class_map=tmp_path / file)
    assert source.classes == classes
    for k in range(len(source)):
        assert source.describe(k).split("/")[-2] in source.classes[source.labels[k]].split("|")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("map.txt", "1\n2\n10\n", "lacks class '11'"),
        ("map.txt", "", "it is empty"),
        ("map.txt", "1\n2\n2\n", "a class twice"),
        ("map.txt", "1 -4\n2 0\n", "1 -4, and outputs are 0 to"),
        ("map.txt", b"\xff\xfe", "not a class map"),
        ("map.json", "{", "not a class map"),
        ("map.json", '["1", "1"]', "list of different names"),
        ("map.json", '{"1": "x"}', "object of name to whole number"),
        ("map.json", '{"1": 4611686018427387904}', "outputs are 0 to"),
        ("map.json", "[" * 100_000, "not a class map"),
        ("none.txt", None, "No such file"),
    ],
)
def test_a_wrong_class_map_is_one_sentence(numbered, tmp_path, file, content, message):
    if content is not None:
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        open_dataset("folder", "train", numbered, class_map=tmp_path / file)
    assert "\n" not in str(caught.value)
